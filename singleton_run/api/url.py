"""The parts of a URL, without the 10 ms of importing urllib.parse."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

_HEX = frozenset("0123456789abcdefABCDEF")
_NOT_IN_HOSTS = frozenset(map(chr, range(33))) | frozenset("/?#@[]\\\x7f")


def unquoted(text: str) -> str:
    """`text` with every %XX decoded. Raises ValueError, with no part of `text`, for any other %."""
    first, *rest = text.split("%")
    if not all(len(part) >= 2 and _HEX.issuperset(part[:2]) for part in rest):
        raise ValueError("% must be followed by two hexadecimal digits: write % itself as %25")
    try:
        data = first.encode()
        for part in rest:
            data += bytes.fromhex(part[:2]) + part[2:].encode()
        return data.decode()
    except UnicodeError:
        # The error's own text has a part of `text`, which may be a password.
        raise ValueError("something is not UTF-8") from None


def options(query: str, known: Collection[str]) -> dict[str, str]:
    """The words of a URL's query, with decoded values. Raises ValueError for a word that isn't `known`."""
    found = {}
    for item in query.split("&") if query else []:
        word, _, value = item.partition("=")
        if word not in known:
            raise ValueError(f"{word!r} is not an option: there are {', '.join(known)}")
        found[word] = unquoted(value)
    return found


def host_and_port(text: str, default: int) -> tuple[str, int]:
    """Host and port of `host` (with the `default` port), `host:port` or `[::1]:port`.

    Raises ValueError with nothing in its text that could be a password: USER:PASSWORD may stand there.
    """
    if "@" in text:
        raise ValueError("a user or a password stands where only HOST:PORT can")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, number = rest[:1], rest[1:]
        wrong = not bracket or colon not in ("", ":")
    else:
        host, colon, number = text.partition(":")
        wrong = False
    host = _ascii(host)
    if wrong or not host or (colon and not number) or not set(host).isdisjoint(_NOT_IN_HOSTS):
        raise ValueError("a server is not given as host and port, as in db1.example:2379")
    if not number:
        return host, default
    if not 0 < whole_number(number) < 65536:
        raise ValueError(f"the port of {host!r} is not a number from 1 to 65535")
    return host, int(number)


def authority(host: str, port: int | str) -> str:
    """`host:port` as a URL has it (RFC 3986), with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def whole_number(text: str) -> int:
    """The number in up to ten ASCII digits, -1 for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1


def _ascii(host: str) -> str:
    """A host's name as the DNS writes it; empty for a name that it can't have."""
    try:
        # The codec `idna` costs 10 ms to import.
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return ""
