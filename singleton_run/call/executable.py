"""Finds the program of a command, before anything is contacted."""

from __future__ import annotations

import posix as os
import stat

from singleton_run.errors import NOT_EXECUTABLE, NOT_FOUND, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_USUAL = "/bin:/usr/bin"


def find(command: str, environ: Mapping[str, str]) -> str:
    """The path of the executable that execvp would run for `command` with this environment.

    A command with a slash is its own path. Raises Failure: NOT_FOUND, or NOT_EXECUTABLE if the file exists
    and can't be run.
    """
    if "/" in command:
        problem = _problem(command)
        if problem is None:
            return command
        raise Failure(*problem)
    denied = None
    for directory in environ.get("PATH", _USUAL).split(":") if command else ():
        # An empty entry is the current directory.
        path = f"{directory or '.'}/{command}"
        problem = _problem(path)
        if problem is None:
            return path
        if problem[0] == NOT_EXECUTABLE and denied is None:
            denied = problem
    if denied is not None:
        raise Failure(*denied)
    if command and _problem("./" + command) is None:
        raise Failure(
            NOT_FOUND, f"{command!r} is not found on PATH: for the one in this directory write ./{command}"
        )
    raise Failure(NOT_FOUND, f"{command!r} is not found on PATH: check its spelling, or give its path")


def _problem(path: str) -> tuple[int, str] | None:
    """Why `path` can't be executed, as an exit status and a sentence; None if it can."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return NOT_FOUND, f"{path!r} is not found: check the path"
    except OSError as error:
        return NOT_EXECUTABLE, f"{path!r} can't be executed: {error.strerror}"
    if stat.S_ISDIR(mode):
        return NOT_EXECUTABLE, f"{path!r} is a directory: name a program in it"
    if stat.S_ISREG(mode) and os.access(path, os.X_OK):
        return None
    why = "chmod +x may be missing"
    if stat.S_ISREG(mode) and mode & 0o111:
        why = "its file system may be mounted noexec, or its mode leaves this user out"
    return NOT_EXECUTABLE, f"{path!r} is not executable: {why}"
