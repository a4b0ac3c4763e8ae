"""The front in the place of a guard that has died: it is the command's parent now, and decides as that did.

Imported only then.
"""

from __future__ import annotations

from singleton_run.system import calls, processes
from singleton_run.system.processes import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from singleton_run.front.process import Front
    from singleton_run.guard.decisions import Tell
else:
    import _signal


class AdoptedGuard:
    """The guard's decisions, carried out by the front. Receives `messages.GuardOrders`."""

    def __init__(self, front: Front, tell: Tell) -> None:
        self.decisions = front.task.guard(_Below(front), tell)
        self._jobs = front.task.jobs()

    def children(self) -> None:
        """Some child has ended, was stopped or goes on."""
        self.decisions.children(calls.now())
        if self._jobs is not None:
            self._jobs.follow()

    def start(self, token: int, slot: float | None, attempt: int | None) -> None:
        """The command was started by the guard that has died."""

    def signal(self, number: int) -> None:
        """Pass a signal on to the command."""
        if number == _signal.SIGCONT and self._jobs is not None:
            self._jobs.go_on()
        self.decisions.signal(number)

    def kill(self) -> None:
        """Kill everything."""
        self.decisions.kill(calls.now())

    def wake(self) -> None:
        """We are awake."""

    def unknown(self, name: str) -> None:
        """Our own orders are known."""


class _Below(Tree):
    """The command below the front, beside the front's own helpers."""

    def __init__(self, front: Front) -> None:
        super().__init__(front.task.command, front.page, [])
        self._front = front

    def reap(self) -> list[tuple[int, int]]:
        """Every child of the command's that has ended since."""
        self._none_left = self._front.reap()
        ended, self._front.reaped = self._front.reaped, []
        return ended

    def children(self) -> list[int]:
        """The children there are, without our own."""
        own = {self._front.lock.process, self._front.log.process}
        return [process for process in processes.children() if process not in own]

    def empty(self) -> bool:
        """Whether there is no child: asked of the kernel once our own helpers are gone."""
        if not self._none_left and not self.children() and self._front.retire():
            self._none_left = self._front.reap()
        return self._none_left
