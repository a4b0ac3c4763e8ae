"""A lock's address: taken apart, without its passwords for people, and as a digest that names the lock."""

from __future__ import annotations

from singleton_run.api.registry import BUILT_IN, KERNEL_HELD, OF_PATHS
from singleton_run.errors import UNUSABLE, Refused
from singleton_run.names import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

HELD = "SINGLETON_HELD"
"""The variable that lists the locks held around a command, each by its `lock_id`."""
_SECRETS = ("password", "passwd", "secret", "token", "scram_client_key", "scram_server_key")
_LIKE_SECRETS = ("pas", "pw", "secret", "token", "key", "cred", "auth")
"""What the name of a password may have in it, also if it is mistyped."""
_UNCLEAR = (
    "it can be read in two ways: write each @ but the one before the host as %40, and in a user or a "
    "password / as %2F and ? as %3F"
)


def refuse(why: str) -> NoReturn:
    """Raise Refused (78) for a `--lock` that can't be used. `why` must not contain a password."""
    raise Refused(f"--lock: {why}", UNUSABLE)


def nested(environ: Mapping[str, str], url: str, name: str) -> bool:
    """Whether we already run under this very lock, so that we would wait for ourselves."""
    held = environ.get(HELD, "").split()
    return bool(held) and lock_id(url, name) in held


def waits_for_itself(name: str) -> str:
    """Why such a call is refused."""
    itself = f"this call runs under the lock {name!r} already and would wait for itself forever"
    return f"{itself}: give it another --name"


def parts(url: str) -> tuple[str, str, str, str, str]:
    """A lock's URL as scheme, login (`USER` or `USER:PASSWORD`), hosts, path with its slash, and query.

    A bare name is a scheme alone. Raises ValueError, with no part of `url` in its text, for a text that is no
    URL, and where it is unclear which @ ends the password.
    """
    scheme, separator, rest = url.partition("://")
    end = min(at if (at := rest.find(letter)) >= 0 else len(rest) for letter in "/?")
    login, _, hosts = rest[:end].rpartition("@")
    path, _, query = rest[end:].partition("?")
    if end or scheme not in OF_PATHS:
        if "@" in login or "@" in rest[end:]:
            raise ValueError(_UNCLEAR)
        if not {*hosts, *login.partition(":")[0]}.isdisjoint(" =") or _assigned(path) >= 0:
            raise ValueError("it is no URL: the form is BACKEND://USER:PASSWORD@HOST:PORT/PATH")
    return (scheme, login, hosts, path, query) if separator else (url, "", "", "", "")


def _has_a_port_or_none(place: str) -> bool:
    """Whether the port of `HOST`, `HOST:PORT` or `[ADDRESS]:PORT` is digits. Else it may be a password."""
    _, colon, port = place.rpartition("]")[2].partition(":")
    is_open = place.startswith("[") and "]" not in place  # an address of IPv6 without its end
    return is_open or not colon or not port or (port.isascii() and port.isdigit())


def redact(url: str) -> str:
    """`url` with every password as `***`: in the user's part, and in the query (`?password=`).

    The rest of a query after a password is hidden too. Of a URL that can't be read only the scheme is left,
    and a text that is no URL loses everything that looks like a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return _without_assigned(url)
    if not all(letter.isalnum() or letter in "+-." for letter in scheme):
        # It is no scheme, and a password has :// in it: `//USER://PASSWORD@HOST`, `password='://WORD'`.
        return f"{'***' if ':' in scheme else _without_assigned(scheme)}://…"
    try:
        _, login, hosts, path, query = parts(url)
    except ValueError:
        return f"{scheme}://…"
    if not all(map(_has_a_port_or_none, hosts.split(","))):  # the @ after a password may be missing
        return f"{scheme}://…"
    name, colon, _ = login.partition(":")
    if scheme not in BUILT_IN and scheme not in KERNEL_HELD:  # it may be USER, and a password begin with //
        name = "***" if name else ""
    user = f"{name}{':***' if colon else ''}@" if "@" in rest[: len(login) + 1] else ""
    path, fragment, _ = path.partition("#")  # no backend has one: it may be the rest of a password
    shown = f"{scheme}://{user}{hosts}{path}" + ("#…" if fragment else "")
    return shown + ("?" if "?" in rest else "") + _shown(query.partition("#")[0])


def lock_id(url: str, name: str) -> str:
    """A digest of a lock's address, without user and password, and its name."""
    try:
        scheme, _, hosts, path, query = parts(url)
    except ValueError:
        return digest([url.partition("://")[0], name])
    plain = [item for item in query.split("&") if not _secret(item)]
    return digest([scheme, hosts + path, *plain, name])


def _shown(query: str) -> str:
    """A query up to its first password. The rest may belong to a password with an unescaped `&`."""
    items = query.split("&")
    for number, item in enumerate(items):
        word = item.partition("=")[0].lower()
        if _secret(item) or any(part in word for part in _LIKE_SECRETS):
            name = item.partition("=")[0]
            return "&".join([*items[:number], f"{'' if '%' in name else name}=***"])
    return query


def _secret(item: str) -> bool:
    """Whether an `item` of a query is a secret: `sslpassword=…`, or one with an encoded name."""
    name = item.partition("=")[0].lower()
    return name.endswith(_SECRETS) or "%" in name


def _without_assigned(text: str) -> str:
    """A text that is no URL, without what looks like a password: `host=h password=…`, `user:…@host`."""
    at = _assigned(text)
    if at >= 0:
        text = f"{text[:at]}=***"
    return "***" if ":" in text[: text.rfind("@") + 1] else text


def _assigned(text: str) -> int:
    """The end of the first word in `text` that names a secret and is followed by `=`; -1 without one."""
    end = 0
    for name in text.split("=")[:-1]:
        word = name.rstrip()
        if word.lower().endswith(_SECRETS):
            return end + len(word)
        end += len(name) + 1
    return -1
