"""The front's children: our own helpers, and what the death of a guard or a keeper leaves to us.

The kernel gives an orphan to the nearest child subreaper above it. So a command whose guard died becomes a
child of the front's, beside its helpers, and may have ended before anybody knew its process id.
"""

from __future__ import annotations

import select

from singleton_run.system import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.front.lock_handles import LockHandle
    from singleton_run.report.log import Log
    from singleton_run.system.shared_page import Page

_DEATH_MILLISECONDS = 1000
"""How long after the end of its pipes a killed guard may take to be gone."""


class Children:
    """Who of the front's children has ended. `command` is the command's process id, 0 before the start.

    `is_guard` is true once the front has taken the guard's place: then each child that isn't a helper is the
    command's. `keeper_ended` is set when the keeper was waited for.
    """

    def __init__(self, page: Page, lock: LockHandle, log: Log) -> None:
        self._page = page
        self._lock = lock
        self._log = log
        self.command = 0
        self.is_guard = False
        self.keeper_ended = False
        self._ended: list[tuple[int, int]] = []
        self._before_the_start: set[int] = set()

    def start_ordered(self) -> None:
        """The command is about to be started: whichever child there is now is not the command."""
        self._before_the_start = set(processes.children())

    def reap(self) -> bool:
        """Wait for every child that has ended; true if none is left, by the kernel's word."""
        command = self.command or self._page.command
        ended, none_left = processes.reap_turn(self._page)
        for process, status in ended:
            if process == self._lock.process:
                self.keeper_ended = True
                self._lock.process = 0
            elif process == self._log.process:
                self._log.gone()
            elif process == command or self.is_guard or (not command and self._is_new(process)):
                self._ended.append((process, status))
        return none_left

    def take_ended(self) -> list[tuple[int, int]]:
        """The command's processes that were waited for since: process id, and status or minus signal."""
        ended, self._ended = self._ended, []
        return ended

    def of_the_command(self) -> list[int]:
        """The children there are, without our helpers."""
        own = (self._lock.process, self._log.process)
        return [process for process in processes.children() if process not in own]

    def command_after_all(self) -> int:
        """The command's process id after its guard has died, 0 if its end was not seen here."""
        if self._page.command:
            return self._page.command
        self.reap()
        return self.command if any(process == self.command for process, _ in self._ended) else 0

    def nothing_was_started(self) -> bool:
        """Whether a guard that has told of no start had started nothing; if it had, `command` is known now.

        Once the guard is dead, its only child is ours: as a process, or as the status of one that has ended.
        As long as it isn't, nothing is known.
        """
        if self.command or self._page.command:
            return False
        if not processes.exited(self._page.guard, _DEATH_MILLISECONDS):
            return False
        self.reap()
        ended = {process for process, _ in self._ended}
        helpers = {self._page.guard, self._lock.process, self._log.process}
        self.command = min((ended | set(processes.children())) - helpers - self._before_the_start, default=0)
        if self.command not in ended:
            self._page.command = self.command
        return not self.command

    def _is_new(self, process: int) -> bool:
        """Whether a child has come since the start was begun: the command, if its guard is dead."""
        return self._page.started and process != self._page.guard and process not in self._before_the_start


def kill_all() -> None:
    """Kill every descendant: no guard is left to do it after we exit."""
    while not processes.reap()[1]:
        for process in processes.children():
            processes.send(process, 9)
        select.poll().poll(10)
