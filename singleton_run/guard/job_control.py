"""Job control: the front stops and goes on with the command, so that the shell above us can follow.

A shell learns by waitpid(2) that its child has stopped, takes the terminal back and prints "Stopped". Its
child is the front. The command is the guard's child, in the front's process group. Three things follow:

1. **Stop and continue.** When the command stops (Ctrl-Z, SIGSTOP from anybody), the guard sees it by
   waitid(2) and stops the front too, by SIGSTOP: the shell sees its child stop. `fg` sends SIGCONT to the
   process group; the command and the front are both in it. If only the command is continued, the guard
   continues the front.

2. **Nobody to continue us.** POSIX calls a process group *orphaned* if no member has a parent in the same
   session and in another group: no shell could continue it. The kernel doesn't stop a member of such a group
   by SIGTSTP, SIGTTIN or SIGTTOU. The guard is in a group of its own, and so it looks to the kernel like such
   a shell: the command does stop. Then the guard does what the kernel would have done: it continues the
   command after a SIGTSTP, and hangs it up (SIGHUP, SIGCONT) once if it wanted a terminal that it can't have.

3. **A shell that ends.** When the shell above a stopped job ends, the kernel sends SIGHUP and SIGCONT to the
   group that becomes orphaned. The guard's presence prevents this as well, so the guard watches that shell
   while we are stopped, and sends both.

A command may also make a group of its own and put it into the foreground, as a shell does. The shell above
us doesn't know that group and gives the terminal to the front's. `go_on` passes the terminal on to it.
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
    """The process id of the shell that could continue `process`; 0 if there is none.

    It is the nearest ancestor that is in the same session and in another process group.
    """
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
    """The foreground process group of our terminal. With `group`, make that the foreground group first."""
    terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if group:
            os.tcsetpgrp(terminal, group)
        return os.tcgetpgrp(terminal)
    finally:
        os.close(terminal)


class Jobs:
    """Makes the process `front` stop and go on with the command. Only the command's parent can use it.

    While both are stopped, `poll` also waits for the end of the shell above us, if a `poll` is given.
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
        """Look whether the command has stopped, gone on or ended, and whether the shell has ended."""
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
        """Give the terminal back to the command's own group. Call it before the command is continued.

        The shell above us has given the terminal to the front's group: it doesn't know the command's.
        """
        try:
            if self._lender and _terminal() == os.getpgid(self._front):
                _terminal(self._lender)
        except OSError:
            return
        self._lender = 0

    def _foreground_of_its_own(self) -> int:
        """The command's process group if it has the terminal and isn't the front's, else 0."""
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
        """Hang the command up if the shell has ended while both were stopped (rule 3)."""
        if self._shell >= 0 and self._page.command and processes.readable(self._shell, 0):
            self._hang_up(-os.getpgid(self._page.command))

    def _watch(self, shell: int) -> None:
        if self._poll is not None:
            try:
                self._shell = libc.pidfd_open(shell)
            except OSError:  # the shell has ended, or no descriptor is left
                return
            self._poll.register(self._shell, select.POLLIN)

    def _take_back(self, number: int) -> None:
        """Undo a stop by the terminal where no shell could continue the command (rule 2).

        A command in the background that wants the terminal is hung up once: it would only stop again.
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
