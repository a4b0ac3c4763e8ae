"""Which files a call names, and their text."""

from __future__ import annotations

import os

from singleton_run.crontab.reading import Faults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LEGAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def texts(paths: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The files, each with its path and its text, and the paths that were passed over in directories.

    A directory stands for its files in the order of their names. As with /etc/cron.d, only names of ASCII
    letters, digits, `_` and `-` count: an editor or a package manager leaves files with other names there.
    Bytes that are no UTF-8 come back by `os.fsencode`. Raises Faults if a file can't be read.
    """
    files: list[tuple[str, str]] = []
    passed_over: list[str] = []
    faults: list[str] = []
    for path in paths:
        try:
            for file in _files(path, passed_over):
                with open(file, encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
                    files.append((file, stream.read()))
        except OSError as error:
            faults.append(f"{error.filename or path}: the file can't be read: {error.strerror}")
    if faults:
        raise Faults(faults)
    return files, passed_over


def _files(path: str, passed_over: list[str]) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for name in sorted(os.listdir(path)):
        file = os.path.join(path, name)
        if os.path.isdir(file):
            continue
        if name and _LEGAL.issuperset(name):
            yield file
        elif name[0] != ".":
            passed_over.append(file)


def refuses_user(name: str) -> str:
    """A sentence if we can't run a command as the user of this name, else ''."""
    import pwd

    try:
        user = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return f"there is no user {name!r} here: with --system a user stands before the command"
    if os.geteuid() in (0, user.pw_uid):
        return ""
    return f"only root can run a command as {name!r}: take the line out, or start us as root"
