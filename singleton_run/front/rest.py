"""How a replica rests for long: as a small program in its own process, which takes a third of the memory.

Python gives back next to nothing of what it has loaded. So the front executes a program that only waits for
the same descriptors (`sleeper`, or a few lines of C in the executable that needs no Python), with the same
process id, signals and open files. That program executes singleton-run again, with the same arguments, and
with what has to be remembered in a variable.
"""

from __future__ import annotations

import os
import sys

from singleton_run import __version__
from singleton_run.call.options import RESTED
from singleton_run.guard.command_environment import changed, given
from singleton_run.system import beside, calls, fastjson, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHORTEST = 30.0
"""A rest of fewer seconds isn't worth two starts of a program."""
_AWAKE = 1.0
"""So long before the end of the rest we are to be there again, in seconds."""
_SLEEPER = os.path.join(os.path.dirname(globals().get("__file__", "")), "sleeper.py")
_IS_FROZEN = "__file__" not in globals()
_OURSELVES = "/proc/self/exe"


def remembered(text: str) -> tuple[str, set[int], dict[str, Any] | None]:
    """What the value of RESTED says: the command's path, the signals that were blocked at our start, and all.

    The last is None if another version has written it: then we go on as if we began now.
    """
    os.unsetenv(RESTED)
    memory = fastjson.loads(text)
    os.set_inheritable(memory["clock"], False)
    return memory["path"], set(memory["mask"]), memory if memory["version"] == __version__ else None


def small(name: str, until: float, signals: int, clock: int, memory: dict[str, Any]) -> None:
    """Wait as a small program for both descriptors, or until a second before `until` (boot clock).

    It doesn't return: singleton-run begins anew, and reads `memory` by `remembered`, with the new number of
    `clock`. `memory` has at least a `path` and a `mask`. It returns, and has done nothing, where that isn't
    worth it or can't be done. We may have no child: nobody would reap it.
    """
    if not SHORTEST <= until - calls.now() < calls.FOREVER or not _can_be_started_again():
        return
    timer = calls.Timer()
    timer.set(until - _AWAKE)
    kept: list[int] = []
    try:
        for descriptor in (timer.descriptor, signals, clock):
            kept.append(os.dup(descriptor))  # noqa: PERF401 - of those before one that fails all are closed
        told = {"version": __version__, "clock": kept[-1], **memory}
        entries = changed(given(), {RESTED: fastjson.dumps(told)})
        program, arguments = _program(name, ",".join(map(str, kept)))
        execute = libc.to_exec(program, arguments, entries)
        for descriptor in kept:
            os.set_inheritable(descriptor, True)
        execute()
    except OSError:  # then we rest as we are
        for descriptor in (*kept, timer.descriptor):
            os.close(descriptor)


def _program(name: str, descriptors: str) -> tuple[str, list[str]]:
    title = f"singleton-run: front of {name}"
    if _IS_FROZEN:
        return _OURSELVES, [title, "--rest", descriptors, *sys.orig_argv]
    start = [sys.executable, "-I", "-S", _SLEEPER, descriptors, title]
    return sys.executable, [*start, sys.executable, *sys.orig_argv]


def _can_be_started_again() -> bool:
    """Whether our arguments start singleton-run again, and not a program that called it."""
    if _IS_FROZEN:
        return os.path.exists(_OURSELVES)
    folder, script = os.path.split(sys.argv[0])
    is_ours = script in ("singleton-run", beside.NAME) or folder == os.path.dirname(os.path.dirname(_SLEEPER))
    is_given = sys.orig_argv[1 - len(sys.argv) :] == sys.argv[1:]
    finds_itself = bool(sys.executable) and "PYTHONHOME" not in os.environ and os.path.exists(_SLEEPER)
    return is_ours and is_given and finds_itself
