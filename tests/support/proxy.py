"""A TCP proxy on 127.0.0.1 that can be cut, made deaf in either direction, or slowed down."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from email.utils import formatdate, parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_DATE = re.compile(rb"(?<=\r\nDate: )[^\r]{29}")
UP, DOWN = "to the server", "to the client"


class Proxy:
    """Hands on what comes to `port` to another port, and back.

    `shift` is by how many seconds the `Date` of HTTP answers is moved. `seen` is every byte that clients
    sent, in the order in which it came, whether handed on or not.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.seen = bytearray()
        self.accepted = 0
        self._flows = {UP: threading.Event(), DOWN: threading.Event()}
        for flow in self._flows.values():
            flow.set()
        self.shift = 0.0
        self._delay = 0.0
        self._trickles = False
        self._word = b""
        self._at_word: tuple[str, ...] = ()
        self._cutting = threading.Event()
        self._closing = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        """How many were handed on to the server, and not cut since."""
        return len(self._pairs)

    def cut(self) -> None:
        """Break every connection with a reset, and each new one, until `mend`."""
        self._cutting.set()
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _reset(*pair)

    def deafen(self, *directions: str) -> None:
        """Hand on nothing in these directions until `mend`; connections are still taken."""
        for direction in directions:
            self._flows[direction].clear()

    def deafen_at(self, word: bytes, *directions: str) -> None:
        """The same from the moment on at which a client sends this; what it sends with it is handed on."""
        self._word = word
        self._at_word = directions

    def slow(self, seconds: float) -> None:
        """Hand on each piece that much later, in both directions."""
        self._delay = seconds

    def trickle(self) -> None:
        """Hand on one byte a second, in each direction of each connection."""
        self._trickles = True

    def mend(self) -> None:
        """Be a proxy like any other; what was held back is handed on."""
        self._cutting.clear()
        self._word = b""
        self._delay = 0.0
        self._trickles = False
        for flow in self._flows.values():
            flow.set()

    def close(self) -> None:
        """Break everything, for good."""
        self._closing.set()
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for flow in self._flows.values():
            flow.set()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._cutting.is_set():
                self.accepted += 1
                _reset(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                if all(flow.is_set() for flow in self._flows.values()):
                    _reset(client)
                else:  # a machine that is gone doesn't say so
                    self._pairs.append((client, client))
                continue
            self._pairs.append((client, server))
            self.accepted += 1  # only now: whoever sees it may cut, and must cut this one too
            if self._cutting.is_set():  # since it was asked for above
                _reset(client, server)
            threading.Thread(target=self._pump, args=(client, server, UP), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, DOWN), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if direction == UP:
                    self.seen += data
                    if self._word and self._word in data:
                        self.deafen(*self._at_word)
                if direction == DOWN and self.shift:
                    data = _DATE.sub(self._move, data)
                self._closing.wait(self._delay)
                self._flows[direction].wait()
                self._send(sink, data)
            self._flows[direction].wait()
            sink.shutdown(socket.SHUT_WR)

    def _send(self, sink: socket.socket, data: bytes) -> None:
        while self._trickles and data and not self._closing.is_set():
            sink.sendall(data[:1])
            data = data[1:]
            self._closing.wait(1.0)
        sink.sendall(data)

    def _move(self, date: re.Match[bytes]) -> bytes:
        moment = parsedate_to_datetime(date[0].decode()).timestamp() + self.shift
        return formatdate(moment, usegmt=True).encode()


def _reset(*ends: socket.socket) -> None:
    """Close connections with a reset, as a machine does that knows nothing of them."""
    for end in ends:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextlib.contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """A proxy for a port, closed at the end."""
    between = Proxy(target)
    try:
        yield between
    finally:
        between.close()
