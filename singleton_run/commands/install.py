"""`install DIRECTORY`: copies the executable that needs no Python, for images that can't be changed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from singleton_run.call.output import quoted, refuse, show
from singleton_run.errors import UNUSABLE, Failure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from singleton_run.call.fast_parser import Value

_NAME = "singleton-run"
_MODE = 0o755
_OURSELVES = "/proc/self/exe"
_CHUNK = 1 << 20


def run(given: Mapping[str, Value], _environ: Mapping[str, str]) -> NoReturn:
    """Copy the executable into the directory, and say where it is."""
    try:
        path = install(str(given["directory"]))
    except Failure as failure:
        refuse(str(failure), failure.status)
    show(f"installed: {quoted(path)}\n")


def install(directory: str) -> str:
    """Copy the running executable to `directory`, as singleton-run. Returns the copy's path.

    At any moment that name has the file from before or the whole copy, even after a crash of the machine.
    Raises Failure if the copy can't be written, or if singleton-run isn't that executable.
    """
    if "_singleton_run" not in sys.builtin_module_names:
        raise Failure(
            UNUSABLE,
            "only the executable that needs no Python can be installed so, and this singleton-run needs a "
            f"Python: take singleton-run-linux-{os.uname().machine} of the same release",
        )
    path = os.path.join(directory, _NAME)
    part = os.path.join(directory, f".{_NAME}.{os.urandom(8).hex()}")
    try:
        try:
            _copy(part)
            os.rename(part, path)
        except OSError:
            _remove(part)
            raise
        _sync(directory)
    except OSError as error:
        what = "mount /proc" if error.filename == _OURSELVES else "name another directory"
        raise Failure(UNUSABLE, f"{path} can't be written ({error.strerror}): {what}") from None
    return path


def _copy(to: str) -> None:
    """Copy the running executable to a new file, and return when it is on the disk. Raises OSError."""
    ours = os.open(_OURSELVES, os.O_RDONLY)
    copy = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    while os.sendfile(copy, ours, None, _CHUNK):
        pass
    os.fchmod(copy, _MODE)  # whatever the umask
    os.fsync(copy)
    os.close(copy)
    os.close(ours)


def _remove(part: str) -> None:
    try:
        os.unlink(part)
    except OSError:
        pass


def _sync(directory: str) -> None:
    """Write the directory's entries to the disk. Raises OSError."""
    names = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(names)
    os.close(names)
