"""What the command is told of its lock, and what of ours it never sees.

Our options' variables are taken out, or a nested call would take the outer one's name. Passwords in
a lock's address are left out of everything that is shown or handed on.
"""

from __future__ import annotations

import time

from singleton_run.call.options import OPTIONS
from singleton_run.names import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from singleton_run.call.settings import Settings

_HELD = "SINGLETON_HELD"
_STALE = ("SINGLETON_SLOT", "SINGLETON_ATTEMPT")
_SECRETS = ("password", "passwd", "secret", "token")


def for_command(
    environ: Mapping[str, str], settings: Settings, *, token: int, holder: str, turn_id: str
) -> dict[str, str]:
    """The command's environment: `environ`, without our options, with what is known of this turn.

    SINGLETON_HELD lists the locks that are held around the command, so that a nested call sees when
    it would wait for itself (`nested`).
    """
    ours = {variable for option in OPTIONS for variable in option.variables}
    ours.update(_STALE)
    result = {name: value for name, value in environ.items() if name not in ours}
    held = [*result.get(_HELD, "").split(), _lock_id(settings.lock, settings.name)]
    result["SINGLETON_NAME"] = settings.name
    result["SINGLETON_TOKEN"] = str(token)
    result["SINGLETON_HOLDER"] = holder
    result["SINGLETON_ID"] = turn_id
    result[_HELD] = " ".join(dict.fromkeys(held))
    return result


def of_slot(told: Sequence[object]) -> dict[str, str]:
    """The variables for a slot's time (Unix seconds, None without) and attempt; none for nothing told."""
    if not told:
        return {}
    slot, attempt = told
    variables = {"SINGLETON_ATTEMPT": str(attempt)}
    if isinstance(slot, int | float):
        variables["SINGLETON_SLOT"] = rfc3339(slot)
    return variables


def rfc3339(seconds: float) -> str:
    """Unix seconds as RFC 3339 has them, in UTC, with milliseconds where there are any."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    fraction = f".{thousandths:03}" if thousandths else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + fraction + "Z"


def nested(environ: Mapping[str, str], lock: str, name: str) -> bool:
    """Whether we run under this very lock, and would wait for ourselves."""
    held = environ.get(_HELD, "").split()
    return bool(held) and _lock_id(lock, name) in held


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


def _lock_id(lock: str, name: str) -> str:
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
