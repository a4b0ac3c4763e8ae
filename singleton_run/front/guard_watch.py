"""The front's watch on the guard: one that hangs is woken, then killed; one that died is replaced.

Before the command's start another guard takes its place. Later the front does: it adopts the command.
"""

from __future__ import annotations

from singleton_run.lease_times import FOREVER
from singleton_run.system.messages import GuardOrders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.front.effects import Effects

MOST_CRASHES = 5
_ANSWERS_IN = 1.0
_DIES_IN = 5.0
_TAKE_OVER_PAUSE = 0.1
_NONE, _ALIVE, _KILLED = "none", "alive", "killed"


class GuardWatch:
    """Whether the guard lives, reads its orders, and says how the command ended.

    Times are readings of the boot clock. `take_over_at` is when the keeper has to go, so that we can take the
    place of a dead guard.
    """

    def __init__(self, effects: Effects) -> None:
        self._effects = effects
        self._state = _ALIVE
        self._crashes = 0
        self.is_being_replaced = False
        self.take_over_at = FOREVER
        self._owes_the_end = False
        self._answers_by = FOREVER
        self._was_woken = False
        self._unsent_signals: list[int] = []

    @property
    def is_alive(self) -> bool:
        """Whether there is one, and it wasn't killed."""
        return self._state == _ALIVE

    @property
    def is_watched(self) -> bool:
        """Whether its death would be news: the front has not taken its place, and is not about to."""
        return self._state != _NONE and not self.is_being_replaced

    def count_crash(self) -> str:
        """Count a guard that died before the start; after some of them, why no other is tried, else ''."""
        self._crashes += 1
        if self._crashes <= MOST_CRASHES:
            return ""
        return f"the command is not started: its guard died {self._crashes} times before"

    def signal(self, number: int) -> None:
        """Have the command signalled; between its guard's death and its adoption by us, later."""
        if self.is_being_replaced:
            self._unsent_signals.append(number)
        else:
            self._effects.tell_guard(GuardOrders.signal(number))

    def kill(self) -> None:
        """SIGKILL it, unless that was done."""
        if self._state == _ALIVE:
            self._state = _KILLED
            self._effects.kill_guard()

    def owes_the_end(self, now: float) -> None:
        """The command has ended, by our own sight: the guard should say how."""
        if self._state == _ALIVE:
            self._owes_the_end = True
            self._answers_by = now + _ANSWERS_IN

    def said_the_end(self) -> None:
        """It has said how the command ended."""
        self._owes_the_end = False
        self._answers_by = FOREVER

    def is_to_be_replaced(self, now: float | None) -> None:
        """It died after the start. With `now`, the keeper has to go first, after a pause.

        The command fell to the nearest child subreaper above it: the keeper, if that forked the guard. The
        keeper's death hands the command to us. The pause is there because a person or program that killed
        the guard may be about to kill us too, and then the keeper is needed.
        """
        self.is_being_replaced = True
        if now is not None:
            self.take_over_at = now + _TAKE_OVER_PAUSE

    def was_replaced(self, *, by_another: bool = False) -> None:
        """The front has taken its place, or another guard is to be forked."""
        self.is_being_replaced = False
        self.take_over_at = self._answers_by = FOREVER
        self._state = _ALIVE if by_another else _NONE

    def send_unsent(self, *, kill: bool) -> None:
        """Give the adopted command what came while nobody was above it."""
        for number in self._unsent_signals:
            self._effects.tell_guard(GuardOrders.signal(number))
        if kill:
            self._effects.tell_guard(GuardOrders.kill())

    def next_look(self) -> float:
        """When something is due."""
        return min(self.take_over_at, self._answers_by)

    def look(self, now: float) -> None:
        """Wake a guard that does not answer; kill it if that was no help."""
        if self._state == _ALIVE and self._answers_by == FOREVER and not self._effects.guard_heard():
            self._answers_by = now + _ANSWERS_IN
        if now < self._answers_by:
            return
        if not self._owes_the_end and self._effects.guard_heard():
            self._answers_by = FOREVER
            self._was_woken = False
        elif self._state == _KILLED:
            self._answers_by = FOREVER
            self._effects.say("error", "guard frozen")
        elif self._was_woken:
            self._answers_by = now + _DIES_IN
            self.kill()
        else:
            self._was_woken = True
            self._answers_by = now + _ANSWERS_IN
            self._effects.say("warning", "guard hangs")
            self._effects.tell_guard(GuardOrders.wake())
