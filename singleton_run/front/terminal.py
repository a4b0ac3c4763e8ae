"""The terminal that front and command may share: whose signals are whose, and how Ctrl-Z works.

At a terminal the command stays in the front's process group, or in a foreground group of the same session,
so the kernel sends Ctrl-C and Ctrl-Z to the command as well. The front must not pass those on: the command
would get them twice, and a SIGTSTP that arrives after the shell's SIGCONT would stop it again. A signal that
only the front got (from kill(1), from an engine) has to be passed on.
"""

from __future__ import annotations

import os

from singleton_run.system import calls, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal


class Terminal:
    """Whether there is one, and what it does to us and to the command."""

    def __init__(self) -> None:
        self.is_shared = _has_terminal()

    def has_sent_it_to_all(self, number: int, code: int, sender: int) -> bool:
        """Whether the command has got this signal too: from the kernel, or because it stops its own group."""
        if not self.is_shared:
            return False
        return code == calls.FROM_KERNEL or (number == _signal.SIGTSTP and _is_below_us_in_our_group(sender))

    def stop(self) -> None:
        """Stop as any process does at a terminal. While the command runs, it is the one that decides."""
        from singleton_run.guard.job_control import shell_of

        if self.is_shared and shell_of(os.getpid()):
            os.kill(os.getpid(), _signal.SIGSTOP)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _is_below_us_in_our_group(process: int) -> bool:
    """Whether `process` is a descendant of ours that stops our whole group, as an editor does."""
    try:
        is_below = process != 0 and os.getpgid(process) == os.getpgrp()
    except ProcessLookupError:
        return False
    while is_below and process not in (0, os.getpid()):
        process = processes.parent(process)
    return is_below and process != 0
