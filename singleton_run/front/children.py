"""The front's children: its helpers (keeper, guard, writer, reporter), and what a dead guard has left behind.

At first the processes of a turn form a chain: front → keeper → guard → command. (A keeper or a guard that was
forked later is a child of the front's, and under a lock of the kernel's there is no keeper.) When a process
ends, the kernel gives its children to the nearest ancestor that is a child subreaper (prctl(2),
PR_SET_CHILD_SUBREAPER). Front, keeper and guard all are. So when the guard is killed, the command and its
descendants go to the keeper; when the keeper ends too, they come to the front. This is called adoption here.

After an adoption four things are harder than before:

1. **Which child is the command?** A guard writes the command's process id into the shared page after the
   start. If the guard was killed between these two, nobody knows the id. Then the command is the child that
   was not there before the start, and that is no helper: `nothing_was_started`. A guard that waited for the
   lock starts the command before we hear of the lock: we remember our children when we fork the guard.

2. **Was anything started at all?** The guard sets `start_begun` in the page just before the start. If it is
   false, nothing ran, and another guard may start the command. If it is true, we look at our children once
   the guard is dead: no new child, living or ended, means that nothing was started.

3. **A status that came too early.** The command may have ended before we knew that its guard is dead. `reap`
   keeps such a status until `take_ended` asks for it.

4. **No proof while helpers live.** The kernel says ECHILD only if there is no child at all. The helpers have
   to end first: `TurnEffects.retire_helpers`.
"""

from __future__ import annotations

import select

from singleton_run.system import pipes, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.front.guard_link import GuardLink
    from singleton_run.front.lock_handle import LockHandle
    from singleton_run.report.log import Log
    from singleton_run.system.shared_page import Page

_DEATH_MILLISECONDS = 1000
"""How long a killed guard may live after the end of its pipes."""


class Children:
    """Reaps the front's children, and tells helpers and the command's processes apart.

    `command` is the command's process id, 0 while it is unknown. `is_guard` says that the front has taken the
    guard's place: each child that isn't a helper is then the command's. `keeper_ended` is set when the
    keeper was waited for; the caller clears it.
    """

    def __init__(self, page: Page, lock: LockHandle, link: GuardLink, log: Log) -> None:
        self._page = page
        self._link = link
        self._lock = lock
        self._log = log
        self.command = 0
        self.is_guard = False
        self.keeper_ended = False
        self._ended: list[tuple[int, int]] = []

    def reap(self) -> bool:
        """Wait for every child that has ended. True if the kernel says that no child is left (ECHILD)."""
        command = self.command or self._page.command
        ended, none_left = processes.reap_turn(self._page)
        for process, status in ended:
            if process == self._lock.process:
                self.keeper_ended = True
                self._lock.process = 0
            elif process == self._log.process:
                self._log.gone(status)
            elif pipes.reporter is not None and process in pipes.reporter.helpers():
                pipes.reporter.helper_ended(process)
            elif process == command or self.is_guard or (not command and self._is_new(process)):
                self._ended.append((process, status))
        return none_left

    def take_ended(self) -> list[tuple[int, int]]:
        """The command's processes that were reaped since the last call, as (process id, status).

        A negative status is minus the number of the signal that ended the process.
        """
        ended, self._ended = self._ended, []
        return ended

    def of_the_command(self) -> list[int]:
        """The process ids of the children that aren't helpers, ended ones included."""
        own = self._helpers()
        return [process for process in processes.children() if process not in own]

    def command_after_all(self) -> int:
        """The command's process id after an adoption.

        0 if the command had ended and its guard had reaped it: then only that guard knew the status.
        """
        if self._page.command:
            return self._page.command
        self.reap()
        return self.command if any(process == self.command for process, _ in self._ended) else 0

    def nothing_was_started(self) -> bool:
        """Whether a guard that died without telling of a start had started nothing.

        If it had started the command, `command` is set. The answer is False as well if the guard doesn't die
        within a second: only a dead guard can start nothing more.
        """
        if self.command or self._page.command:
            return False
        if not processes.exited(self._page.guard, _DEATH_MILLISECONDS):
            return False
        self.reap()
        ended = {process for process, _ in self._ended}
        helpers = {self._page.guard, *self._helpers()}
        self.command = min(
            (ended | set(processes.children())) - helpers - self._link.children_before, default=0
        )
        if self.command not in ended:
            self._page.command = self.command
        return not self.command

    def _helpers(self) -> set[int]:
        """The process ids of keeper, writer, reporter and its helpers, 0 for each that isn't there."""
        reporters = set() if pipes.reporter is None else pipes.reporter.helpers()
        return {self._lock.process, self._log.process, *reporters}

    def _is_new(self, process: int) -> bool:
        """Whether this child came after the start was begun: then it is the command of a dead guard."""
        return (
            self._page.start_begun
            and process != self._page.guard
            and process not in self._link.children_before
        )


def kill_all() -> None:
    """Kill every descendant, and return when none is left: no guard does it after we exit."""
    while not processes.reap()[1]:
        for process in processes.children():
            processes.send(process, 9)
        select.poll().poll(10)
