"""A small HTTP server on the reporter's loop: GET and HEAD of a few paths, one answer a connection.

It waits for nobody. A request has to come whole within TIME_LIMIT seconds and in LONGEST bytes; whoever
doesn't read the answer within that time is left. At most MOST connections are open, others wait in the
kernel's queue.
"""

from __future__ import annotations

import select

from singleton_run.system import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Callable, Mapping

    from singleton_run.reporter.loop import Loop

    Respond = Callable[["Answer"], None]
    Routes = Mapping[str, Callable[[str, Respond], None]]
else:
    try:
        import _socket
    except ImportError:
        import socket as _socket

TIME_LIMIT, LONGEST, MOST = 5.0, 8192, 100
TEXT, JSON = "text/plain; charset=utf-8", "application/json"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
}
_REASONS[503] = "Service Unavailable"


class Answer:
    """An answer: its status, type and body."""

    def __init__(self, status: int, body: str | bytes, kind: str = TEXT) -> None:
        self.status = status
        self.kind = kind
        self.body = body if isinstance(body, bytes) else body.encode(errors="replace")

    def whole(self, *, head: bool) -> bytes:
        """The bytes to send; without the body for a HEAD."""
        lines = (
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}",
            f"Content-Type: {self.kind}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "Connection: close",
        )
        return "\r\n".join((*lines, "", "")).encode() + (b"" if head else self.body)


class Server:
    """Serves `routes`: each path has a function that gets the query and a function to answer with."""

    def __init__(self, loop: Loop, listener: int, routes: Routes) -> None:
        self._loop = loop
        self._listener = _socket.socket(fileno=listener)
        self.routes = routes
        self.connections: set[_Connection] = set()
        self._listens = False
        self._closed = False
        self.listen()

    def listen(self) -> None:
        """Take connections, unless there are too many."""
        wanted = not self._closed and len(self.connections) < MOST
        if wanted and not self._listens:
            self._loop.watch(self._listener.fileno(), select.EPOLLIN, lambda _: self._accept())
        elif self._listens and not wanted:
            self._loop.forget(self._listener.fileno())
        self._listens = wanted

    def _accept(self) -> None:
        try:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - its C part
        except OSError:  # it has gone away meanwhile, or no descriptor is left
            return
        made = _socket.socket(fileno=descriptor)
        made.setblocking(False)
        self.connections.add(_Connection(self._loop, made, self))
        self.listen()

    def close(self) -> None:
        """Listen no more, and drop every connection."""
        if self._closed:
            return
        self._closed = True
        self.listen()
        for connection in list(self.connections):
            connection.close()
        self._listener.close()


class _Connection:
    """One connection, from its first byte to its last."""

    def __init__(self, loop: Loop, made: _socket.socket, server: Server) -> None:
        self._loop = loop
        self._socket = made
        self._server = server
        self._heard = b""
        self._unsent = b""
        self._head = False
        self._closed = False
        self._limit = loop.at(calls.now() + TIME_LIMIT, self.close)
        loop.watch(made.fileno(), select.EPOLLIN, lambda _: self._hear())

    def close(self) -> None:
        """End it, whatever its state is."""
        if self._closed:
            return
        self._closed = True
        self._loop.cancel(self._limit)
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._server.connections.discard(self)
        self._server.listen()

    def _hear(self) -> None:
        try:
            data = self._socket.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._heard += data
        if len(self._heard) > LONGEST:
            self._answer(Answer(400, "the request is too long\n"))
        elif b"\r\n\r\n" in self._heard or b"\n\n" in self._heard:
            self._loop.forget(self._socket.fileno())
            self._request()
        elif not data:
            self.close()

    def _request(self) -> None:
        words = self._heard.partition(b"\n")[0].decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            self._answer(Answer(400, "this is no request of HTTP\n"))
            return
        method, target, _ = words
        self._head = method == "HEAD"
        path, _, query = target.partition("?")
        route = self._server.routes.get(path)
        if method not in ("GET", "HEAD"):
            self._answer(Answer(405, "only GET and HEAD are known\n"))
        elif route is None:
            self._answer(Answer(404, f"known are {', '.join(self._server.routes)}\n"))
        else:
            try:
                route(query, self._answer)
            except Exception as error:  # noqa: BLE001 - one bad answer must not end the others
                self._answer(Answer(500, f"{type(error).__name__}\n"))

    def _answer(self, answer: Answer) -> None:
        if self._closed:
            return
        self._unsent = answer.whole(head=self._head)
        self._send()

    def _send(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            self._loop.watch(self._socket.fileno(), select.EPOLLOUT, lambda _: self._send())
            return
        except OSError:
            pass
        self.close()
