"""The front's watch on the guard: it wakes and then kills a guard that hangs, and replaces one that died.

Before the command's start another guard takes the place. Later the front does, and adopts the command.
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
_WAKES_EVERY = 10.0
_TAKE_OVER_PAUSE = 0.1
_NONE, _ALIVE, _KILLED = "none", "alive", "killed"


class GuardWatch:
    """Watches whether the guard lives, reads its orders, and says how the command ended.

    Times are by the boot clock. `take_over_at` is when the keeper is killed, so that the front can take the
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
        self._owes_the_rest = False
        self._wake_at = FOREVER
        self._unsent_signals: list[int] = []

    @property
    def is_alive(self) -> bool:
        """Whether there is a guard that we have not killed."""
        return self._state == _ALIVE

    @property
    def is_watched(self) -> bool:
        """Whether there is a guard whose death is an event: the front has not taken its place."""
        return self._state != _NONE and not self.is_being_replaced

    def count_crash(self) -> str:
        """Count a guard that died before the start. The reason to try no other, '' if there is none yet."""
        self._crashes += 1
        if self._crashes <= MOST_CRASHES:
            return ""
        return f"the command is not started: its guard died {self._crashes} times before"

    def signal(self, number: int) -> None:
        """Send the command a signal. Between the guard's death and the adoption it is kept for later."""
        if self.is_being_replaced:
            self._unsent_signals.append(number)
        else:
            self._effects.tell_guard(GuardOrders.signal(number))

    def kill(self) -> None:
        """SIGKILL the guard, unless that was done before."""
        if self._state == _ALIVE:
            self._state = _KILLED
            self._wake_at = FOREVER
            self._effects.kill_guard()

    def owes_the_end(self, now: float) -> None:
        """The command has ended, as we have seen by ourselves: the guard has to say how."""
        if self._state == _ALIVE:
            self._owes_the_end = True
            self._answers_by = now + _ANSWERS_IN

    def said_the_end(self) -> None:
        """The guard has said how the command ended. It goes on until no process of the command is left.

        It gets no more orders, so it is woken now and then: one that was stopped goes on, and one that
        doesn't read is noticed.
        """
        self._owes_the_end = False
        self._answers_by = FOREVER
        self._owes_the_rest = True

    def is_to_be_replaced(self, now: float | None) -> None:
        """The guard died after the start. `now` is None if no keeper is there.

        The kernel gave the command to the nearest child subreaper above it. This is the keeper, if the keeper
        has forked the guard. When the keeper ends, the command comes to us: so the keeper is killed after a
        pause. The pause is there because a person or program that killed the guard may be about to kill us
        too: then the keeper is needed.
        """
        self.is_being_replaced = True
        if now is not None:
            self.take_over_at = now + _TAKE_OVER_PAUSE

    def was_replaced(self, *, by_another: bool = False) -> None:
        """The front has taken the guard's place, or another guard is about to."""
        self.is_being_replaced = False
        self.take_over_at = self._answers_by = self._wake_at = FOREVER
        self._state = _ALIVE if by_another else _NONE

    def send_unsent(self, *, kill: bool) -> None:
        """Give the adopted command the signals that came while it had no guard."""
        while self._unsent_signals:
            self._effects.tell_guard(GuardOrders.signal(self._unsent_signals.pop(0)))
        if kill:
            self._effects.tell_guard(GuardOrders.kill())

    def next_look(self) -> float:
        """When `look` has to be called next, by the boot clock."""
        return min(self.take_over_at, self._answers_by, self._wake_at)

    def look(self, now: float) -> None:
        """Wake a guard that does not answer. Kill it if it still doesn't."""
        if self._owes_the_rest and self._state == _ALIVE:
            if now >= self._wake_at:
                self._effects.tell_guard(GuardOrders.wake())
            if now >= self._wake_at or self._wake_at == FOREVER:
                self._wake_at = now + _WAKES_EVERY
        if self._state == _ALIVE and self._answers_by == FOREVER and not self._effects.guard_has_read_all():
            self._answers_by = now + _ANSWERS_IN
        if now < self._answers_by:
            return
        if not self._owes_the_end and self._effects.guard_has_read_all():
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
