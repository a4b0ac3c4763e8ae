"""A connection as a wire: bytes to and from a peer, by a socket that never blocks."""

from __future__ import annotations

import errno
import posix as os

from singleton_run.api.deadline import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from typing import Protocol

    from singleton_run.api.deadline import Deadline
    from singleton_run.api.resolve import Address

    class Wire(Protocol):
        """Bytes to and from a peer."""

        def send(self, data: bytes, deadline: Deadline) -> None:
            """Send all of `data`. Raises Broken, Timeout, Interrupted."""

        def receive(self, deadline: Deadline) -> bytes:
            """At least one byte, as soon as there is one; empty at the end. Raises the same."""

        def close(self) -> None:
            """Close it. Never raises."""
else:
    try:
        import _socket
    except ImportError:
        import socket as _socket

UNIX = int(_socket.AF_UNIX)
"""The family of an address that is the path of a Unix socket."""
_PIECE = 16384
_KEEPALIVE = ((_socket.TCP_KEEPIDLE, 15), (_socket.TCP_KEEPINTVL, 5), (_socket.TCP_KEEPCNT, 3))


class Broken(Exception):
    """The connection can't be made, or can't be used any more; the text says why."""


class Untrusted(Broken):
    """TLS failed for good: another attempt would end in the same way."""


def connecting(address: Address) -> _socket.socket:
    """A socket that doesn't block, and has begun to connect: it can be written when that is over.

    Then `check_connected`. Raises Broken.
    """
    family, target = address
    try:
        sock = _socket.socket(family, _socket.SOCK_STREAM)
    except OSError as error:  # another address may be of a family that this machine has
        raise Broken(_reason(error)) from None
    try:
        sock.setblocking(False)
        if family != _socket.AF_UNIX:
            _tune(sock)
        number = sock.connect_ex(target if isinstance(target, str) else tuple(target))
    except OSError as error:
        sock.close()
        raise Broken(_reason(error)) from None
    except BaseException:
        sock.close()
        raise
    if number not in (0, errno.EINPROGRESS):
        sock.close()
        raise Broken(os.strerror(number).lower())
    return sock


def check_connected(sock: _socket.socket) -> None:
    """Raise Broken if the connection couldn't be made."""
    number = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
    if number:
        raise Broken(os.strerror(number).lower())


def _tune(sock: _socket.socket) -> None:
    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    # The kernel notices a path that died in silence: a NAT that forgot it, a lost machine.
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(_socket.IPPROTO_TCP, option, value)


class Socket:
    """A connection by TCP, or by a Unix socket. See `Wire`.

    The constructor connects to `address`. Raises Broken, Timeout, Interrupted.
    """

    def __init__(self, address: Address, deadline: Deadline) -> None:
        self._socket = connecting(address)
        # Memory of this size for each read would come from the kernel, and go back to it.
        self._buffer = memoryview(bytearray(_PIECE))
        try:
            deadline.wait(self._socket.fileno(), WRITE)
            check_connected(self._socket)
        except BaseException:
            self._socket.close()
            raise

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Send all of `data`."""
        while data:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                deadline.wait(self._socket.fileno(), WRITE)
            except OSError as error:
                raise Broken(_reason(error)) from None

    def receive(self, deadline: Deadline) -> bytes:
        """The bytes that have come; empty at the end."""
        while True:
            try:
                return bytes(self._buffer[: self._socket.recv_into(self._buffer)])
            except BlockingIOError:
                deadline.wait(self._socket.fileno(), READ)
            except OSError as error:
                raise Broken(_reason(error)) from None

    def close(self) -> None:
        """Close it."""
        try:
            self._socket.close()
        except OSError:
            return


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
