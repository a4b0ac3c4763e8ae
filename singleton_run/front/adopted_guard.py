"""The front in the place of a dead guard: it is the command's parent now, and takes the guard's decisions.

This module is imported only when a guard has died.
"""

from __future__ import annotations

from singleton_run.system import calls
from singleton_run.system.processes import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from singleton_run.front.turn_effects import TurnEffects
    from singleton_run.guard.decisions import Tell
else:
    import _signal


class AdoptedGuard:
    """The guard's decisions, carried out by the front. Receives `messages.GuardOrders`."""

    def __init__(self, effects: TurnEffects, tell: Tell) -> None:
        self.decisions = effects.task.guard(_Below(effects), tell)
        self._jobs = effects.task.jobs()

    def children(self) -> None:
        """A child has ended, stopped or continued."""
        self.decisions.children(calls.now())
        if self._jobs is not None:
            self._jobs.follow()

    def start(self, token: int, slot: float | None, attempt: int | None) -> None:
        """Ignore the order: the dead guard has started the command."""

    def signal(self, number: int) -> None:
        """Pass a signal on to the command."""
        if number == _signal.SIGCONT and self._jobs is not None:
            self._jobs.go_on()
        self.decisions.signal(number)

    def kill(self) -> None:
        """Kill everything."""
        self.decisions.kill(calls.now())

    def wake(self) -> None:
        """Ignore the order: the front is awake."""

    def unknown(self, name: str) -> None:
        """Ignore it: the front knows its own orders."""


class _Below(Tree):
    """The guard's `Tree` as the front has it: the command's processes are children beside the helpers."""

    def __init__(self, effects: TurnEffects) -> None:
        super().__init__(effects.task.command, effects.page, [])
        self._effects = effects

    def reap(self) -> list[tuple[int, int]]:
        """The command's processes that have ended since the last call: (process id, status)."""
        self._none_left = self._effects.children.reap()
        return self._effects.children.take_ended()

    def children(self) -> list[int]:
        """The process ids of the children that aren't helpers."""
        return self._effects.children.of_the_command()

    def empty(self) -> bool:
        """Whether nothing of the command is left, by the kernel's word.

        When no other child can be seen, the helpers are ended first, because the kernel counts them too.
        """
        if not self._none_left and not self.children() and self._effects.retire_helpers():
            self._none_left = self._effects.children.reap()
        return self._none_left
