"""The front's watch on the keeper: one that hangs is killed, one that died is replaced, never two at once."""

from __future__ import annotations

from singleton_run import lease_times
from singleton_run.lease_times import FOREVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from singleton_run.front.effects import Effects

MOST_CRASHES = 5
_FORK_AGAIN = 0.5
_MOST_BACK_OFF = 2.0
_NONE, _ALIVE, _KILLED = "none", "alive", "killed"


class KeeperWatch:
    """Whether the keeper lives and answers. Times are readings of the boot clock, `ttl` is in seconds."""

    def __init__(self, effects: Effects, ttl: float) -> None:
        self._effects = effects
        self._ttl = ttl
        self._state = _NONE
        self.crashes = 0
        self.fork_at = FOREVER
        self._last_end = 0.0
        self._settles_since: float | None = None
        self.trouble = ""

    @property
    def is_alive(self) -> bool:
        """Whether there is one, and it wasn't killed."""
        return self._state == _ALIVE

    @property
    def is_gone(self) -> bool:
        """Whether there is none: the last was waited for."""
        return self._state == _NONE

    def fork(self, grant: dict[str, Any] | None, *, settles: bool) -> None:
        """Have a keeper: it takes the lock or resumes `grant`, and one that `settles` gives it back."""
        self._state = _ALIVE
        self._effects.keep(grant)
        if settles:
            self._settles_since = None
            self._effects.settle()

    def fork_again(self, grant: dict[str, Any] | None, now: float, *, settles: bool) -> None:
        """Have another if one is due; tried again later where the machine refuses the fork."""
        if now < self.fork_at:
            return
        self.fork_at = FOREVER
        try:
            self.fork(grant, settles=settles)
        except OSError as error:
            self._state = _NONE
            self.is_in_trouble(f"another keeper can't be had ({error.strerror})")
            self.fork_at = now + _FORK_AGAIN

    def is_in_trouble(self, text: str) -> None:
        """The keeper could not do what it wanted, and goes on trying."""
        if text != self.trouble:
            self.trouble = text
            self._effects.say("warning", "trouble", text=text)

    def has_the_lock(self) -> None:
        """The lock was granted: earlier crashes and troubles count no more."""
        self.trouble = ""
        self.crashes = 0

    def is_not_needed(self) -> None:
        """The kernel holds the lock from now on: the keeper has ended, or is about to."""
        self._state = _NONE

    def kill(self) -> None:
        """SIGKILL it, unless that was done."""
        if self._state == _ALIVE:
            self._state = _KILLED
            self._effects.kill_keeper()

    def was_retired(self) -> None:
        """It was killed on purpose, for a proof; `died` follows."""
        self._state = _KILLED

    def died(self) -> bool:
        """It has ended and was waited for; whether we had killed it."""
        expected = self._state == _KILLED
        self._state = _NONE
        return expected

    def count_crash(self, now: float, *, expected: bool, holds: bool) -> None:
        """Count its death, and have another after a pause. A renewal in between starts the count anew."""
        end = self._effects.lease()[0]
        if holds and end != self._last_end:
            self._last_end = end
            self.crashes = 0
        self.crashes += 1
        if not expected and self.crashes == 1:
            self._effects.say("warning", "keeper died")
        self.fork_at = now + lease_times.back_off(self.crashes, _MOST_BACK_OFF)

    def look_at_lease(self, now: float) -> None:
        """Kill a keeper that has reported no renewal for too long."""
        if now >= self.hangs_at():
            self._hangs()

    def hangs_at(self) -> float:
        """When it counts as hanging while the command runs."""
        if self._state != _ALIVE:
            return FOREVER
        end, reported = self._effects.lease()
        return lease_times.hangs_at(end, self._ttl, reported)

    def look_settling(self, now: float) -> None:
        """Kill a keeper that does not give the lock back."""
        if self._settles_since is None:
            self._settles_since = now
        if now >= self.settles_by():
            self._hangs()

    def settles_by(self) -> float:
        """When it counts as hanging while it settles; at once if nobody has looked yet."""
        if self._state != _ALIVE:
            return FOREVER
        if self._settles_since is None:
            return 0.0
        return lease_times.answers_by(max(self._settles_since, self._effects.lease()[1]), self._ttl)

    def _hangs(self) -> None:
        self._effects.say("warning", "keeper hangs")
        self.kill()
