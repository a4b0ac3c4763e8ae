"""Which directory a `--lock file…` means."""

from __future__ import annotations

import posix as os

from singleton_run.errors import UNUSABLE, Refused

ASK = "name one with --lock file:///DIRECTORY"
"""What to do about a directory that can't be used, for the end of a sentence."""

_ROOT_DIRECTORY = "/var/lib/singleton-run"
# The one user id that a user namespace shows for everybody who isn't mapped into it.
_NOT_MAPPED = 65534
_EVERYBODY = [0, 0, 2**32 - 1]


def directory_of(url: str) -> str:
    """The absolute path that `url` names, without a slash at its end. Raises Refused (78)."""
    given = url.partition("://")[2]
    if not given:
        return default_directory()
    if not given.startswith("/"):
        raise Refused("file://…: a directory must be absolute, as in file:///var/lib/locks", UNUSABLE)
    # With a slash behind a symbolic link, O_NOFOLLOW would follow the link.
    return _unquoted(given).rstrip("/") or "/"


def default_directory() -> str:
    """The directory for locks of this user: it depends on the user alone, not on environment or session.

    In a user namespace that shares the machine's files it is that of the user outside. Raises Refused (78)
    for a user without an entry in the password database.
    """
    user = _user_outside() if is_hidden(os.stat("/").st_uid) else os.geteuid()
    if user == 0:
        return _ROOT_DIRECTORY
    import pwd

    try:
        home = pwd.getpwuid(user).pw_dir
    except KeyError:
        raise Refused(
            f"user {user} has no entry in the password database, so no directory for locks: {ASK}",
            UNUSABLE,
        ) from None
    return home.rstrip("/") + "/.local/state/singleton-run"


def is_hidden(owner: int) -> bool:
    """Whether `owner` is the id shown for all users outside of our user namespace, root among them."""
    return owner == _NOT_MAPPED and _mapping() != _EVERYBODY


def _user_outside() -> int:
    """Our user id outside of our user namespace."""
    own, words = os.geteuid(), _mapping()
    for inside, outside, count in zip(words[::3], words[1::3], words[2::3], strict=True):
        if inside <= own < inside + count:
            return outside + own - inside
    return own


def _mapping() -> list[int]:
    """Our user namespace's map (user_namespaces(7)): first id inside, first id outside, count, and so on."""
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return _EVERYBODY


def _unquoted(text: str) -> str:
    if "%" not in text:
        return text
    from singleton_run.api.url import unquoted

    try:
        return unquoted(text)
    except ValueError as error:
        raise Refused(f"file://{text}: {error}", UNUSABLE) from None
