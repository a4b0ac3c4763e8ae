"""The addresses of hosts. A name is looked up in a thread, because the system's lookup has no time limit."""

from __future__ import annotations

from singleton_run.api.background import Background

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Sequence
    from typing import Any

    from singleton_run.api.deadline import Deadline

    # Family and the argument for `connect`: for AF_INET and AF_INET6 a tuple, for AF_UNIX the path.
    Address = tuple[int, tuple[Any, ...] | str]
    HostPort = tuple[str, int]
else:
    try:
        import _socket
    except ImportError:
        import socket as _socket


def addresses(host: str, port: int, flags: int) -> list[Address]:
    """The system's answer for a host, which may take any time. Raises OSError, UnicodeError."""
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


class AddressBook:
    """The addresses of hosts. A name is looked up once, and its addresses serve on."""

    def __init__(self) -> None:
        self._known: dict[HostPort, list[Address]] = {}
        self._lookups: dict[HostPort, Lookup] = {}

    def find(self, place: HostPort, deadline: Deadline) -> list[Address]:
        """The addresses of a host, in the order in which to try them; the caller may reorder the list.

        Raises LookupError where the name can't be resolved, Timeout, Interrupted.
        """
        known = self._known.get(place) or literal(*place)
        lookup = self._lookups.get(place)
        if not known:
            lookup = self._look_up(place)
            lookup.wait(deadline)
        if lookup is not None and lookup.done:
            del self._lookups[place]
            lookup.close()
            known = lookup.addresses or known
        if not known:
            raise LookupError(f"the name can't be resolved ({lookup.error if lookup else 'it is empty'})")
        self._known[place] = known
        return known

    def refresh(self, place: HostPort) -> None:
        """Look a name up again, in the background: none of its addresses answered, so they may have changed.

        Until the lookup is done `find` gives the addresses known so far.
        """
        if not literal(*place):
            self._look_up(place)

    def known(self) -> list[Any]:
        """All addresses, for `recall` in a fresh process; survives JSON."""
        return [[*place, found] for place, found in self._known.items()]

    def recall(self, known: Sequence[Any]) -> None:
        """Take what `known` gave, except for hosts that were looked up here."""
        for host, port, found in known:
            self._known.setdefault((host, port), [(family, tuple(address)) for family, address in found])

    def _look_up(self, place: HostPort) -> Lookup:
        if place not in self._lookups:
            self._lookups[place] = Lookup(*place)
        return self._lookups[place]
