"""The addresses of a host, looked up in a thread if need be, for the lookup itself knows no time limit."""

from __future__ import annotations

import _thread
import os

from singleton_run.api.deadline import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from typing import Any

    from singleton_run.api.deadline import Deadline

    # Family (AF_INET or AF_INET6) and what `connect` takes.
    Address = tuple[int, tuple[Any, ...]]
else:
    try:
        import _socket
    except ImportError:
        import socket as _socket


def addresses(host: str, port: int, flags: int) -> list[Address]:
    """What the system knows of a host, which may take any time. Raises OSError, UnicodeError."""
    # As bytes: a str goes through the codec `idna`, whose import costs 10 ms.
    name = host.encode("ascii" if host.isascii() else "idna")
    found = _socket.getaddrinfo(name, port, 0, _socket.SOCK_STREAM, 0, flags)
    return [(int(family), address) for family, _, _, _, address in found]


def literal(host: str, port: int) -> list[Address]:
    """The address, if `host` is one; empty if it is a name."""
    try:
        return addresses(host, port, _socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []


class Lookup:
    """A lookup under way. It is never stopped; a thread that hangs ends with the process."""

    def __init__(self, host: str, port: int) -> None:
        self.addresses: list[Address] = []
        self.error = ""
        self.done = False
        self._read, self._write = os.pipe()
        _thread.start_new_thread(self._run, (host, port))

    def _run(self, host: str, port: int) -> None:
        try:
            self.addresses = addresses(host, port, 0)
        except (OSError, UnicodeError) as error:
            self.error = getattr(error, "strerror", None) or str(error)
        self.done = True
        os.close(self._write)

    def wait(self, deadline: Deadline) -> None:
        """Wait until it is done. Raises Timeout, Interrupted."""
        if not self.done:
            deadline.wait(self._read, READ)

    def close(self) -> None:
        """Forget it, once it is done."""
        os.close(self._read)
