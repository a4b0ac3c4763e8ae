"""`install DIRECTORY`: puts one file there that runs this singleton-run.

The executable that needs no Python copies itself, for images that can't be changed. The Python package writes
a script that starts faster than pip's: by `python -IS` it leaves out what nobody needs on the way to the
command (`late_site`). Python reads both from the script's first line, so no shell is between, which would
change the environment.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import singleton_run
from singleton_run import late_site
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
_LONGEST_LINE = 255
"""Bytes of a script's first line that the kernel reads (execve(2))."""
_SCRIPT = """
import _signal
import sys

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # Ctrl-C while we start is no traceback

places = {places!a}
sys.path.append(places[0])
try:
    from singleton_run import late_site
    from singleton_run.__main__ import main
except ImportError as error:
    if sys.stderr:
        print(f"singleton-run: {{error}} in {{places[0]!a}}: install it again", file=sys.stderr)
    raise SystemExit({unusable}) from None
late_site.expect(*places)
raise SystemExit(main())
"""


def run(given: Mapping[str, Value], _environ: Mapping[str, str]) -> NoReturn:
    """Put the file into the directory, and say where it is."""
    try:
        path = install(str(given["directory"]))
    except Failure as failure:
        refuse(str(failure), failure.status)
    show(f"installed: {quoted(path)}\n")


def install(directory: str) -> str:
    """Put a file into `directory`, as singleton-run, that runs this one. Returns its path.

    At any moment that name has the file from before or the whole new one, even after a crash of the machine.
    Raises Failure if it can't be written, or if no script can name this Python.
    """
    script = b"" if "_singleton_run" in sys.builtin_module_names else _script()
    path = os.path.join(directory, _NAME)
    part = os.path.join(directory, f".{_NAME}.{os.urandom(8).hex()}")
    try:
        try:
            _write(part, script)
            os.rename(part, path)
        except OSError:
            _remove(part)
            raise
        _sync(directory)
    except OSError as error:
        what = "mount /proc" if error.filename == _OURSELVES else "name another directory"
        raise Failure(UNUSABLE, f"{path} can't be written ({error.strerror}): {what}") from None
    return path


def _script() -> bytes:
    """The script for this Python and this package. Raises Failure."""
    first = b"#!" + os.fsencode(sys.executable) + b" -IS"
    words = first.decode(errors="replace").split()
    if len(first) > _LONGEST_LINE or len(words) != 2 or "\ufffd" in words[0] or words[0] == "#!":
        raise Failure(
            UNUSABLE,
            f"the kernel finds no Python {quoted(sys.executable)} from a script: its path may have "
            f"{_LONGEST_LINE - 6} bytes and no blank, so call `python -m singleton_run`",
        )
    return first + _SCRIPT.format(places=_places(), unusable=UNUSABLE).encode()


def _places() -> tuple[str, ...]:
    """The folder that has this package, and the user's own if this Python uses it."""
    if late_site.places:
        return late_site.places
    import site

    ours = os.path.abspath(os.path.dirname(os.path.dirname(singleton_run.__file__)))
    users = site.getusersitepackages() if site.ENABLE_USER_SITE else ours
    return tuple(dict.fromkeys((ours, users)))


def _write(to: str, script: bytes) -> None:
    """Write a new file, the script or the running executable, and return when it is on the disk.

    Raises OSError.
    """
    copy = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    if script:
        with open(copy, "wb", closefd=False) as file:
            file.write(script)
    else:
        ours = os.open(_OURSELVES, os.O_RDONLY)
        while os.sendfile(copy, ours, None, _CHUNK):
            pass
        os.close(ours)
    os.fchmod(copy, _MODE)  # whatever the umask
    os.fsync(copy)
    os.close(copy)


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
