"""The few things about URLs that are needed, without the 10 ms of urllib.parse."""

from __future__ import annotations

_HEX = frozenset("0123456789abcdefABCDEF")


def unquoted(text: str) -> str:
    """`text` with every %XX as what it means. Raises ValueError for another %."""
    first, *rest = text.split("%")
    data = first.encode()
    for part in rest:
        if len(part) < 2 or not _HEX.issuperset(part[:2]):
            raise ValueError("% must be followed by two hexadecimal digits")
        data += bytes.fromhex(part[:2]) + part[2:].encode()
    return data.decode()


def host_and_port(text: str, default: int) -> tuple[str, int]:
    """`host`, `host:port`, `[::1]:port` in its two parts. Raises ValueError."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, number = rest[:1], rest[1:]
        wrong = not bracket or colon not in ("", ":")
    else:
        host, colon, number = text.partition(":")
        wrong = False
    if wrong or not host or (colon and not number) or not set(host).isdisjoint(" /?#@[]\r\n\t\\"):
        raise ValueError(f"{text!r} is not a host and port, as in db1.example:2379")
    if not number:
        return host, default
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    return host, int(number)
