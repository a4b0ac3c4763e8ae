"""The addresses of a host. A name is looked up in a thread, because the system's lookup has no time limit."""

from __future__ import annotations

from singleton_run.api.background import Background

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from typing import Any

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


class Lookup(Background):
    """A lookup under way. Once `done`, it has `addresses`, or an `error` that says why there are none."""

    def __init__(self, host: str, port: int) -> None:
        self.addresses: list[Address] = []
        self.error = ""
        super().__init__(lambda: self._look_up(host, port))

    def _look_up(self, host: str, port: int) -> None:
        try:
            self.addresses = addresses(host, port, 0)
        except (OSError, UnicodeError) as error:
            self.error = getattr(error, "strerror", None) or str(error)
