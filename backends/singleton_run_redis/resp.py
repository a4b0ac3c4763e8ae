"""Redis' protocol, RESP3: commands as bytes, and the values in the bytes that come back."""

from __future__ import annotations

from singleton_run.api.http.wire import Broken
from singleton_run_redis.errors import server_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Command = Sequence[str]

_STRANGE = "what answers there doesn't speak Redis' protocol"
_LONGEST_LINE = 65536
_DEEPEST = 16


class NotYet(Exception):
    """The bytes that have come are not yet a whole value."""


class Push:
    """What the server sent without being asked: `words`, such as message, channel, text."""

    __slots__ = ("words",)

    def __init__(self, words: list[Any]) -> None:
        self.words = words


def packed(commands: Sequence[Command]) -> bytes:
    """Commands as the server reads them."""
    pieces = []
    for command in commands:
        pieces.append(b"*%d\r\n" % len(command))
        for word in command:
            data = word.encode(errors="surrogateescape")
            pieces.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(pieces)


class Reader:
    """Takes values out of the bytes that have come.

    Texts are bytes, a map is a dict, and an error of the server's is a ServerError.
    """

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    def feed(self, data: bytes) -> None:
        """Take bytes that have come."""
        self._data += data

    def next(self) -> Any:
        """The next value. Raises NotYet, and Broken for bytes that can't be read."""
        self._at = 0
        value = self._value(_DEEPEST)
        self._data = self._data[self._at :]
        return value

    def _value(self, depth: int) -> Any:
        line = self._line()
        kind, text = line[:1], line[1:]
        if kind == b"+":
            return text
        if kind in {b"$", b"=", b"!"}:
            return self._text(kind, _number(text))
        if kind in {b":", b"("}:
            return _number(text)
        if kind in {b"*", b"~"}:
            return self._items(_number(text), depth)
        if kind == b">":
            return Push(self._items(_number(text), depth) or [])
        if kind == b"%":
            items = self._items(2 * _number(text), depth) or []
            return dict(zip(map(_hashable, items[::2]), items[1::2], strict=True))
        return self._rare(kind, text, depth)

    def _rare(self, kind: bytes, text: bytes, depth: int) -> Any:
        if kind == b"-":
            return server_error(text.decode(errors="replace"))
        if kind == b"_":
            return None
        if kind == b"#":
            return text == b"t"
        if kind == b",":
            return text
        if kind == b"|":  # attributes of the value that follows: none that we know
            self._items(2 * _number(text), depth)
            return self._value(depth)
        raise Broken(_STRANGE)

    def _line(self) -> bytes:
        end = self._data.find(b"\r\n", self._at)
        if end < 0:
            first = self._data[self._at : self._at + 1]
            if first not in b"+-:$*_#,(!=%~>|" or len(self._data) - self._at > _LONGEST_LINE:
                raise Broken(_STRANGE)
            raise NotYet
        line, self._at = self._data[self._at : end], end + 2
        return line

    def _text(self, kind: bytes, size: int) -> Any:
        if size < 0:
            return None
        end = self._at + size
        if len(self._data) < end + 2:
            raise NotYet
        text, self._at = self._data[self._at : end], end + 2
        if kind == b"!":
            return server_error(text.decode(errors="replace"))
        return text[4:] if kind == b"=" else text  # `txt:` comes before a verbatim text

    def _items(self, count: int, depth: int) -> list[Any] | None:
        if not depth:
            raise Broken(_STRANGE)
        return None if count < 0 else [self._value(depth - 1) for _ in range(count)]


def read_from(reader: Reader, receive: Callable[[], bytes]) -> Any:
    """The next value, with as many bytes as it takes. Raises Broken, and what `receive` raises."""
    while True:
        try:
            return reader.next()
        except NotYet:
            data = receive()
        if not data:
            raise Broken("the server closed the connection")
        reader.feed(data)


def _number(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise Broken(_STRANGE) from None


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (bytes, int)) else str(value)
