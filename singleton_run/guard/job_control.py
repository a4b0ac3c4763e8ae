"""Job control: what the shell above us would see of the command, it sees of the front.

At a terminal the command is in the front's process group, but it is the guard's child. So the guard
has the front stopped and continued with the command, and the shell notices, whatever it was that
stopped it. Where there is no such shell, the kernel would not stop a process that the terminal tells
to; with the guard above the command it does, and that is taken back.
"""

from __future__ import annotations

import os
import select

from singleton_run.system import libc, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from singleton_run.system.shared_page import Page
else:
    import _signal

_CHANGES = os.WSTOPPED | os.WCONTINUED | os.WNOHANG


def shell_of(process: int) -> int:
    """Who could continue `process`: an ancestor in its session and in another group; 0 for nobody."""
    try:
        session, group = os.getsid(process), os.getpgid(process)
        above = processes.parent(process)
        while above and os.getsid(above) == session:
            if os.getpgid(above) != group:
                return above
            above = processes.parent(above)
    except ProcessLookupError:
        pass
    return 0


def _terminal(group: int = 0) -> int:
    """The process group that has our terminal, after it was given to `group` if that isn't 0."""
    terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if group:
            os.tcsetpgrp(terminal, group)
        return os.tcgetpgrp(terminal)
    finally:
        os.close(terminal)


class Jobs:
    """Has `front` do as the command does, for the command's parent.

    While they are stopped the shell is watched by `poll`, if that is given.
    """

    def __init__(self, page: Page, front: int, poll: select.poll | None) -> None:
        self._page = page
        self._front = front
        self._poll = poll
        self._shell = -1
        self._stopped = False
        self._hung_up = False
        self._lender = 0

    def follow(self) -> None:
        """See whether the command was stopped or continued, or has ended, and whether the shell has."""
        try:
            self._look_at_shell()
            while self._page.command:
                change = os.waitid(os.P_PID, self._page.command, _CHANGES)
                if change is None:
                    return
                if change.si_code == os.CLD_CONTINUED:
                    self._tell_front(stop=False)
                elif shell := shell_of(self._front):
                    self._lender = self._foreground_of_its_own()
                    self._tell_front(stop=True)
                    self._watch(shell)
                else:
                    self._take_back(change.si_status)
        except OSError:  # the command or the terminal has gone meanwhile
            return
        if self._stopped:
            self._tell_front(stop=False)

    def go_on(self) -> None:
        """The command is about to be continued: a shell that had the terminal gets it back before.

        It has a group of its own, to which the shell above us can't give it.
        """
        try:
            if self._lender and _terminal() == os.getpgid(self._front):
                _terminal(self._lender)
        except OSError:
            return
        self._lender = 0

    def _foreground_of_its_own(self) -> int:
        """The command's group, if that isn't the front's and has the terminal; else 0."""
        group = os.getpgid(self._page.command)
        return group if group != os.getpgid(self._front) and group == _terminal() else 0

    def _tell_front(self, *, stop: bool) -> None:
        self._stopped = stop
        if self._shell >= 0 and self._poll is not None:
            self._poll.unregister(self._shell)
            os.close(self._shell)
            self._shell = -1
        processes.send(self._front, int(_signal.SIGSTOP if stop else _signal.SIGCONT))

    def _look_at_shell(self) -> None:
        """If it has ended while they are stopped, do as the kernel would: hang up."""
        if self._shell >= 0 and self._page.command and processes.readable(self._shell, 0):
            self._hang_up(-os.getpgid(self._page.command))

    def _watch(self, shell: int) -> None:
        if self._poll is not None:
            try:
                self._shell = libc.pidfd_open(shell)
            except OSError:  # it has ended, or can't be watched
                return
            self._poll.register(self._shell, select.POLLIN)

    def _take_back(self, number: int) -> None:
        """Nobody is there to continue what a terminal has stopped: do as the kernel would.

        One in the background that wanted the terminal is told once that there is none for it.
        """
        group = -os.getpgid(self._page.command)
        if number == _signal.SIGTSTP:
            processes.send(group, int(_signal.SIGCONT))
        elif number in (_signal.SIGTTIN, _signal.SIGTTOU) and not self._hung_up:
            self._hung_up = True
            self._hang_up(group)

    def _hang_up(self, group: int) -> None:
        for number in (_signal.SIGHUP, _signal.SIGCONT):
            processes.send(group, int(number))
