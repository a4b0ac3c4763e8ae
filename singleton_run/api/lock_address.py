"""A lock's address as others see it: without its passwords, and as a digest that names the lock."""

from __future__ import annotations

from singleton_run.names import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

HELD = "SINGLETON_HELD"
"""The variable that lists the locks held around a command, each by its `lock_id`."""
_SECRETS = ("password", "passwd", "secret", "token", "scram_client_key", "scram_server_key")
_OF_PATHS = ("file",)
_UNCLEAR = (
    "it can be read in two ways: write each @ but the one before the host as %40, and in a user or a "
    "password / as %2F and ? as %3F"
)


def nested(environ: Mapping[str, str], lock: str, name: str) -> bool:
    """Whether we run under this very lock, and would wait for ourselves."""
    held = environ.get(HELD, "").split()
    return bool(held) and lock_id(lock, name) in held


def parts(url: str) -> tuple[str, str, str, str, str]:
    """A lock's URL as scheme, login (`USER` or `USER:PASSWORD`), hosts, path with its slash, and query.

    A bare name is a scheme alone. Raises ValueError, with nothing of the URL in its text, for what is
    none, and where an @ leaves open what belongs to the password and what to the host.
    """
    scheme, mark, rest = url.partition("://")
    end = min(at if (at := rest.find(letter)) >= 0 else len(rest) for letter in "/?")
    login, _, hosts = rest[:end].rpartition("@")
    path, _, query = rest[end:].partition("?")
    if end or scheme not in _OF_PATHS:
        if "@" in login or "@" in rest[end:]:
            raise ValueError(_UNCLEAR)
        if not {*hosts, *login.partition(":")[0]}.isdisjoint(" =") or _assigned(path) >= 0:
            raise ValueError("it is no URL: the form is BACKEND://USER:PASSWORD@HOST:PORT/PATH")
    return (scheme, login, hosts, path, query) if mark else (url, "", "", "", "")


def redact(url: str) -> str:
    """The text with every password of a URL in it as `***`: in the user's part, or `?password=`.

    What follows a password in the query is hidden too. Of a URL that can't be read only the scheme is
    left, and of what is no URL nothing that looks like a password.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        return _without_assigned(url)
    scheme = "***" if ":" in scheme else _without_assigned(scheme)  # a password may have :// in it
    try:
        _, login, hosts, path, query = parts(url)
    except ValueError:
        return f"{scheme}://…"
    name, colon, _ = login.partition(":")
    user = f"{name}{':***' if colon else ''}@" if "@" in rest[: len(login) + 1] else ""
    return f"{scheme}://{user}{hosts}{path}" + ("?" if "?" in rest else "") + _shown(query)


def lock_id(lock: str, name: str) -> str:
    """A digest of a lock's address, without user and password, and its name."""
    try:
        scheme, _, hosts, path, query = parts(lock)
    except ValueError:
        return digest([lock.partition("://")[0], name])
    plain = [item for item in query.split("&") if not _secret(item)]
    return digest([scheme, hosts + path, *plain, name])


def _shown(query: str) -> str:
    """A query up to its first password. What follows may be the rest of one with an unescaped `&`."""
    items = query.split("&")
    for number, item in enumerate(items):
        if _secret(item):
            name = item.partition("=")[0]
            return "&".join([*items[:number], f"{'' if '%' in name else name}=***"])
    return query


def _secret(item: str) -> bool:
    """Whether `item` of a query is a password or the like: `sslpassword=…`, and what hides its name."""
    name = item.partition("=")[0].lower()
    return name.endswith(_SECRETS) or "%" in name


def _without_assigned(text: str) -> str:
    """What is no URL, without what looks like a password: `host=h password=…`, `user:…@host`."""
    at = _assigned(text)
    if at >= 0:
        text = f"{text[:at]}=***"
    return "***" if ":" in text[: text.rfind("@") + 1] else text


def _assigned(text: str) -> int:
    """Where the first word `password` or the like, with a `=` behind it, ends in `text`; -1 without one."""
    end = 0
    for name in text.split("=")[:-1]:
        word = name.rstrip()
        if word.lower().endswith(_SECRETS):
            return end + len(word)
        end += len(name) + 1
    return -1
