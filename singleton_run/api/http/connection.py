"""One HTTP/1.1 connection: a request, its answer, the next one; or an answer read line by line.

After Timeout or Interrupted a stream of lines can be read on. A connection that still owes an answer is of no
more use: close it.
"""

from __future__ import annotations

from singleton_run.api.http.wire import Broken, Untrusted
from singleton_run.api.url import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run.api.deadline import Deadline
    from singleton_run.api.http.wire import Wire

_LONGEST_HEAD = 1 << 16
_LONGEST_BODY = 1 << 26
_LONGEST_LINE = 1 << 23
_MOST_INTERIM = 100
_HEX = frozenset(b"0123456789abcdefABCDEF")
_NOT_HTTP = "an answer that isn't HTTP/1.1"
_BODILESS = (204, 304)


class Answer:
    """An answer: its status, its headers by their names in lower case, its body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.body = b""


class Connection:
    """HTTP on a wire, which is `secure` if TLS was agreed on.

    `reusable` says whether another request may follow, once the answer was read.
    """

    def __init__(self, wire: Wire, *, secure: bool = False) -> None:
        self._wire = wire
        self._buffer = b""
        self._line = b""
        self._chunked = False
        self._closed = "it closed the connection before it said anything"
        if not secure:
            self._closed += ": is TLS spoken there?"
        self.reusable = True

    def exchange(self, request: bytes, deadline: Deadline) -> Answer:
        """Send a request and read the whole answer. Raises Broken, Timeout, Interrupted."""
        answer = self.start(request, deadline)
        self.read_body(answer, deadline)
        return answer

    def start(self, request: bytes, deadline: Deadline) -> Answer:
        """Send a request and read the head of the answer; `line` or `read_body` read the body."""
        try:
            self._wire.send(request, deadline)
        except Broken as broken:
            # The server may have answered before it hung up. If it hasn't, reading fails too.
            if isinstance(broken, Untrusted):
                raise
        answer = self._head(deadline)
        for _ in range(_MOST_INTERIM):
            if answer.status >= 200:
                break
            answer = self._head(deadline)
        else:
            raise Broken("an answer that never comes")
        self._chunked = answer.headers.get("transfer-encoding", "").lower() == "chunked"
        return answer

    def line(self, deadline: Deadline) -> bytes | None:
        """The next line of the body, without its newline, as soon as it has come; None at the end."""
        while b"\n" not in self._line:
            piece = self._chunk(deadline) if self._chunked else self._take_piece(deadline)
            if not piece:
                return None
            self._line += piece
            if len(self._line) > _LONGEST_LINE:
                raise Broken("a line without end")
        line, _, self._line = self._line.partition(b"\n")
        return line

    def read_body(self, answer: Answer, deadline: Deadline) -> None:
        """Put the whole body into an answer that `start` gave. Raises Broken, Timeout, Interrupted."""
        answer.body = self._body(answer, deadline)

    def close(self) -> None:
        """Close the wire. Never raises."""
        self._wire.close()

    def _head(self, deadline: Deadline) -> Answer:
        end = self._find(b"\r\n\r\n", 0, deadline)
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        self._buffer = self._buffer[end + 4 :]
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or len(rest) < 3 or whole_number(rest[:3]) < 0:
            raise Broken("what answers doesn't speak HTTP/1.1")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if version == "HTTP/1.0" or headers.get("connection", "").lower() == "close":
            self.reusable = False
        return Answer(int(rest[:3]), headers)

    def _body(self, answer: Answer, deadline: Deadline) -> bytes:
        if answer.status in _BODILESS:
            return b""
        length = answer.headers.get("content-length", "")
        if not self._chunked and length:
            size = whole_number(length)
            if size < 0:
                raise Broken(_NOT_HTTP)
            self._fill(size, deadline)
            body, self._buffer = self._buffer[:size], self._buffer[size:]
            return body
        if not self._chunked:
            self.reusable = False
        pieces: list[bytes] = []
        size = 0
        while size <= _LONGEST_BODY:
            pieces.append(self._chunk(deadline) if self._chunked else self._take_piece(deadline))
            size += len(pieces[-1])
            if not pieces[-1]:
                return b"".join(pieces)
        raise Broken("an answer without end")

    def _chunk(self, deadline: Deadline) -> bytes:
        """The next chunk, empty for the last. Nothing is taken off the buffer before all of it has come."""
        end = self._find(b"\r\n", 0, deadline)
        digits = self._buffer[:end].partition(b";")[0].strip()
        if not 0 < len(digits) <= 8 or not _HEX.issuperset(digits):
            raise Broken(_NOT_HTTP)
        size = int(digits, 16)
        if size == 0:
            self._buffer = self._buffer[self._find(b"\r\n\r\n", end, deadline) + 4 :]
            return b""
        start = end + 2
        self._fill(start + size + 2, deadline)
        chunk, self._buffer = self._buffer[start : start + size], self._buffer[start + size + 2 :]
        return chunk

    def _take_piece(self, deadline: Deadline) -> bytes:
        piece, self._buffer = self._buffer, b""
        return piece or self._wire.receive(deadline)

    def _find(self, delimiter: bytes, start: int, deadline: Deadline) -> int:
        while (end := self._buffer.find(delimiter, start)) < 0:
            if len(self._buffer) > _LONGEST_HEAD:
                raise Broken("an answer whose head has no end")
            self._more(deadline)
        return end

    def _fill(self, size: int, deadline: Deadline) -> None:
        if size > _LONGEST_BODY:
            raise Broken(f"an answer of {size} bytes")
        pieces = [self._buffer]
        missing = size - len(self._buffer)
        try:
            while missing > 0:
                pieces.append(self._receive(deadline))
                missing -= len(pieces[-1])
        finally:
            self._buffer = b"".join(pieces)

    def _more(self, deadline: Deadline) -> None:
        self._buffer += self._receive(deadline)

    def _receive(self, deadline: Deadline) -> bytes:
        data = self._wire.receive(deadline)
        if not data:
            raise Broken(self._closed)
        self._closed = "the server closed the connection"
        return data
