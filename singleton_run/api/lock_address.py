"""A lock's address as others see it: without its passwords, and as a digest that names the lock."""

from __future__ import annotations

from singleton_run.names import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

HELD = "SINGLETON_HELD"
"""The variable that lists the locks held around a command, each by its `lock_id`."""
_SECRETS = ("password", "passwd", "secret", "token")


def nested(environ: Mapping[str, str], lock: str, name: str) -> bool:
    """Whether we run under this very lock, and would wait for ourselves."""
    held = environ.get(HELD, "").split()
    return bool(held) and lock_id(lock, name) in held


def redact(url: str) -> str:
    """The text with every password of a URL in it as `***`: in the user's part, or `?password=`.

    In doubt (a password with an unescaped slash, say) more is hidden rather than less.
    """
    start, user, rest = _split(url)
    if user is not None:
        name, colon, _ = user.partition(":")
        start += name + (":***@" if colon else "@")
    address, mark, query = rest.partition("?")
    shown = [f"{item.partition('=')[0]}=***" if _secret(item) else item for item in query.split("&")]
    return start + address + mark + "&".join(shown)


def lock_id(lock: str, name: str) -> str:
    """A digest of a lock's address, without user and password, and its name."""
    start, _, rest = _split(lock)
    address, _, query = rest.partition("?")
    plain = [item for item in query.split("&") if not _secret(item)]
    return digest([start, address, *plain, name])


def _split(url: str) -> tuple[str, str | None, str]:
    """A URL as `scheme://`, the user's part or None, and what follows the `@`."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, rest = "", url
    end = _user_end(rest)
    return scheme + mark, rest[:end] if end >= 0 else None, rest[end + 1 :]


def _user_end(rest: str) -> int:
    """Where the `@` after user and password is, in a URL without its scheme; -1 without one."""
    end = rest.find("?")
    at = rest.rfind("@", 0, end if end >= 0 else None)
    if at >= 0 and rest[0] == "/":
        return -1
    if at >= 0:
        # After a password an @ in what looks like a query may still be the password's.
        return rest.rfind("@") if ":" in rest[:at] else at
    host, colon, port = rest[: end if end >= 0 else None].partition("/")[0].rpartition(":")
    at = rest.rfind("@")
    if colon and not (host and port.isdigit() and "=" in rest[end : max(at, end)]):
        # No port and query, so it is a password, with a question mark in it that should have been %3F.
        return at
    return -1


def _secret(item: str) -> bool:
    """Whether `item` of a query is a password or the like: `sslpassword=…`."""
    return item.partition("=")[0].lower().endswith(_SECRETS)
