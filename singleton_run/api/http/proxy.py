"""HTTPS_PROXY and NO_PROXY: the proxy on the way to a host. Loaded only where one is named."""

from __future__ import annotations

from singleton_run.api.http.connection import Connection
from singleton_run.api.http.wire import Broken
from singleton_run.api.url import host_and_port, unquoted, whole_number
from singleton_run.errors import UNUSABLE, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Mapping

    from singleton_run.api.deadline import Deadline
    from singleton_run.api.http.wire import Wire
else:
    try:
        import _socket
    except ImportError:
        import socket as _socket


class Proxy:
    """An HTTP proxy that makes tunnels. `authorization` is its Proxy-Authorization, empty for none."""

    __slots__ = ("authorization", "host", "port")

    def __init__(self, host: str, port: int, authorization: str) -> None:
        self.host = host
        self.port = port
        self.authorization = authorization

    def tunnel(self, wire: Wire, target: str, deadline: Deadline) -> None:
        """Ask for a tunnel to `target` (host:port). Raises Broken, Timeout, Interrupted."""
        login = f"Proxy-Authorization: {self.authorization}\r\n" if self.authorization else ""
        request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n"
        answer = Connection(wire).start(request.encode("latin-1"), deadline)
        if answer.status != 200:
            raise Broken(f"the proxy {self.host}:{self.port} answers {answer.status}")


def choose(host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for https to this host, None to go there directly. Raises Refused (78) for a bad address."""
    text = environ.get("HTTPS_PROXY") or environ.get("https_proxy", "")
    exempt = environ.get("NO_PROXY") or environ.get("no_proxy", "")
    if not text or _is_exempt(host, port, exempt):
        return None
    return parsed(text, "HTTPS_PROXY")


def parsed(text: str, said_by: str) -> Proxy:
    """The proxy at an address, which the setting `said_by` has. Raises Refused (78) for a bad address."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    login, _, place = rest.partition("/")[0].rpartition("@")
    try:
        if scheme == "http" and rest.count("@") == bool(login):
            return Proxy(*host_and_port(place, 80), _basic(login))
    except ValueError:
        pass
    raise Refused(
        f"{said_by} must be like http://proxy.example:3128, and in a user or a password @ must be "
        "written %40 and / %2F",
        UNUSABLE,
    )


def _basic(login: str) -> str:
    if not login:
        return ""
    from binascii import b2a_base64

    return "Basic " + b2a_base64(unquoted(login).encode(), newline=False).decode()


def _is_exempt(host: str, port: int, exempt: str) -> bool:
    """Whether NO_PROXY covers a host: names with their subdomains, addresses, networks, ports, `*`."""
    host = host.lower().rstrip(".")
    number = _number(host)
    if host == "localhost" or (number is not None and _is_loopback(number)):
        return True
    return any(_covers(entry.strip().lower(), host, port, number) for entry in exempt.split(","))


def _is_loopback(number: tuple[int, int]) -> bool:
    width, value = number
    return value >> 24 == 127 if width == 32 else value == 1


def _covers(entry: str, host: str, port: int, number: tuple[int, int] | None) -> bool:
    if entry == "*":
        return True
    network, slash, bits = entry.partition("/")
    if slash:
        base = _number(network)
        if base is None or number is None or base[0] != number[0] or whole_number(bits) < 0:
            return False
        shift = max(0, base[0] - int(bits))
        return base[1] >> shift == number[1] >> shift
    name, colon, ending = entry.rpartition(":")
    if colon and whole_number(ending) >= 0 and _number(entry) is None:
        if int(ending) != port:
            return False
        entry = name
    address = _number(entry.strip("[]"))
    if address is not None or number is not None:
        return address == number
    if not entry:
        return False
    if entry[0] == "." or entry.startswith("*."):
        return host.endswith(entry.lstrip("*"))
    return host == entry or host.endswith("." + entry)


def _number(text: str) -> tuple[int, int] | None:
    """An IP address as its width in bits and its value; None for a name."""
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            data = _socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return len(data) * 8, int.from_bytes(data, "big")
    return None
