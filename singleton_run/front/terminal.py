"""The terminal that front and command may share: who has got a signal already, and how Ctrl-Z works.

At a terminal the shell makes a process group of the front, and puts that group into the foreground. The
kernel sends what a user types (Ctrl-C, Ctrl-Z) to every process of the foreground group. The command
stays in the front's process group, as it would below a plain shell script. So the kernel signals the command
too, and the front must not pass such a signal on:

- The command would get it twice. Many programs take a second Ctrl-C for "end at once, without cleaning up".
- A second SIGTSTP could arrive after the shell's SIGCONT (`fg`), and would stop the command again.

A signal that only the front has got (from kill(1), a container engine, systemd) has to be passed on. The two
cases differ in the signal's si_code: the kernel's is `calls.FROM_KERNEL`, a process's is not.

There is a third case. Some programs, such as editors, stop themselves by kill(0, SIGTSTP), which signals
their whole process group: the front gets that signal from a process, and the command has it already. The
sender is then a descendant of ours in our own process group.

How the front stops and continues with the command is in `guard.job_control`.
"""

from __future__ import annotations

import posix as os

from singleton_run.system import calls, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal


class Terminal:
    """The terminal of front and command. `is_shared` is false if the front has no controlling terminal."""

    def __init__(self) -> None:
        self.is_shared = _has_terminal()

    def has_sent_it_to_all(self, number: int, code: int, sender: int) -> bool:
        """Whether the command has got the signal `number` too, so that it must not be passed on.

        `code` is the signal's si_code, `sender` the process id of its sender (sigaction(2)).
        """
        if not self.is_shared:
            return False
        return code == calls.FROM_KERNEL or (number == _signal.SIGTSTP and _is_below_us_in_our_group(sender))

    def can_stop(self) -> bool:
        """Whether the front may stop by SIGTSTP, which is blocked and has no effect of its own.

        Nobody could continue it if no shell is above it (an orphaned process group): POSIX says then that it
        doesn't stop. While a command runs the front stops with the command, and not by itself.
        """
        from singleton_run.guard.job_control import shell_of

        return self.is_shared and shell_of(os.getpid()) != 0


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _is_below_us_in_our_group(process: int) -> bool:
    """Whether `process` is a descendant of ours in our process group: it has signalled the whole group."""
    try:
        is_below = process != 0 and os.getpgid(process) == os.getpgrp()
    except ProcessLookupError:
        return False
    while is_below and process not in (0, os.getpid()):
        process = processes.parent(process)
    return is_below and process != 0
