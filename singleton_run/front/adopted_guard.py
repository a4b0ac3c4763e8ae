"""The front in the place of a guard that has died: it is the command's parent now, and decides as that did.

Imported only then.
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

    def __init__(self, effects: TurnEffects) -> None:
        super().__init__(effects.task.command, effects.page, [])
        self._effects = effects

    def reap(self) -> list[tuple[int, int]]:
        """Every child of the command's that has ended since."""
        self._none_left = self._effects.children.reap()
        return self._effects.children.take_ended()

    def children(self) -> list[int]:
        """The children there are, without our own."""
        return self._effects.children.of_the_command()

    def empty(self) -> bool:
        """Whether there is no child: asked of the kernel once our own helpers are gone."""
        if not self._none_left and not self.children() and self._effects.retire_helpers():
            self._none_left = self._effects.children.reap()
        return self._none_left
