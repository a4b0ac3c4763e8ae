"""A test run takes nothing from whoever started it, and leaves no process behind: a plugin of pytest.

The process that was started forks two more and only waits:

    started      the process that its caller knows; ends as the tests ended
    └─ reaper       every process that a test leaves comes to it
       └─ pytest       runs the tests, and has what xdist starts below it

Started and reaper are both child subreapers (prctl(2)): all that the tests start stays below them, in
whatever session and however it forks. When any one of the three is killed, or the tests have ended,
another one kills what is left. The reaper is in a process group of its own, so that it outlives a SIGKILL
to the caller's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from tests.support.harness import below, send_if_there

if TYPE_CHECKING:
    import pytest

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# Python ignores these itself, and gives them their default back in what `subprocess` starts.
_PYTHONS = {signal.SIGPIPE, signal.SIGXFSZ}
# Seconds. Whatever can't be killed in that time belongs to another user, or the kernel holds it.
_LONGEST_END = 30.0


def pytest_configure(config: pytest.Config) -> None:
    """Forget the caller; and fork, unless this is a worker of xdist: it is below such processes already."""
    forget_caller()
    if not hasattr(config, "workerinput"):
        _become_grandchild()


def forget_caller() -> None:
    """Undo what a caller hands on to the tests: ignored and blocked signals, umask, words to Python and make.

    An ignored signal stays without effect on pytest itself, so `nohup` keeps its meaning: a handler that
    does nothing is gone in every program that is started, where an ignored signal stays ignored.
    """
    for number in signal.valid_signals() - _PYTHONS:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    for name in ("PYTHONDONTWRITEBYTECODE", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        os.environ.pop(name, None)
    sys.dont_write_bytecode = False


def _become_grandchild() -> None:
    """Returns in the grandchild only. The other two end in here."""
    started, group = os.getpid(), os.getpgrp()
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, signal.SIGTERM))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if reaper := os.fork():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # at a terminal pytest gets it too
        _wait(reaper)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.setpgid(0, 0)
    if tests := os.fork():
        _wait(tests, parent=started)
    os.setpgid(0, group)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _wait(child: int, *, parent: int = 0) -> NoReturn:
    """End as the child does, or when the parent has died; before that, all below this process ends."""
    status = _bury().get(child)
    while status is None and parent in (0, os.getppid()):
        signal.sigwait((signal.SIGCHLD, signal.SIGTERM))
        status = _bury().get(child)
    _end_all()
    os._exit(1 if status is None else status)


def _bury() -> dict[int, int]:
    """Wait for every child that has ended: the exit statuses as a shell has them, by process."""
    ended: dict[int, int] = {}
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if process == 0:
            return ended
        code = os.waitstatus_to_exitcode(status)
        ended[process] = code if code >= 0 else 128 - code


def _end_all() -> None:
    """SIGKILL everything below this process, again and again until nothing is there."""
    end = time.monotonic() + _LONGEST_END
    while (found := below(os.getpid())) and time.monotonic() < end:
        for process in found:
            send_if_there(signal.SIGKILL, process)
        time.sleep(0.01)
        _bury()


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) == -1:
        raise OSError(ctypes.get_errno(), "prctl")
