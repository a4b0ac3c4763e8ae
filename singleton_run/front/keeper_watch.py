"""The front's watch on the keeper: it kills a keeper that hangs, and replaces one that has ended.

There are never two keepers at once: the next is forked only after the last was waited for.
"""

from __future__ import annotations

from singleton_run import lease_times
from singleton_run.lease_times import FOREVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.api.contract import Grant
    from singleton_run.front.effects import Effects

MOST_CRASHES = 5
_FORK_AGAIN = 0.5
_MOST_BACK_OFF = 2.0
_NONE, _ALIVE, _KILLED = "none", "alive", "killed"


class KeeperWatch:
    """Watches whether the keeper lives and works. Times are by the boot clock, `ttl` is in seconds.

    `crashes` counts the deaths in a row, `fork_at` is when the next keeper is due, `trouble` is what the
    keeper has failed at, '' if it hasn't.
    """

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
        """Whether there is a keeper that we have not killed."""
        return self._state == _ALIVE

    @property
    def is_gone(self) -> bool:
        """Whether there is no keeper: the last one was waited for."""
        return self._state == _NONE

    def fork(self, grant: Grant | None, *, settles: bool) -> None:
        """Fork a keeper that acquires the lock or resumes `grant`; with `settles` it then gives it back."""
        self._state = _ALIVE
        self._effects.acquire(grant)
        if settles:
            self._settles_since = None
            self._effects.settle()

    def fork_again(self, grant: Grant | None, now: float, *, settles: bool) -> None:
        """Fork another keeper if one is due. If the kernel refuses the fork, try again later."""
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
        """The keeper has failed at something, and tries again: tell the user once."""
        if text != self.trouble:
            self.trouble = text
            self._effects.say("warning", "trouble", text=text)

    def has_the_lock(self) -> None:
        """The lock was granted: forget earlier crashes and failures."""
        self.trouble = ""
        self.crashes = 0

    def is_not_needed(self) -> None:
        """The kernel holds the lock from now on, and no keeper is needed."""
        self._state = _NONE

    def kill(self) -> None:
        """SIGKILL the keeper, unless that was done before."""
        if self._state == _ALIVE:
            self._state = _KILLED
            self._effects.kill_keeper()

    def was_retired(self) -> None:
        """The keeper was killed on purpose, so that the kernel can prove something; `died` follows."""
        self._state = _KILLED

    def died(self) -> bool:
        """The keeper has ended and was waited for. True if we had killed it."""
        expected = self._state == _KILLED
        self._state = _NONE
        return expected

    def count_crash(self, now: float, *, expected: bool, holds: bool) -> None:
        """Count the death, and plan the next fork. The count starts anew after a successful renewal."""
        end = self._effects.lease()[0]
        if holds and end != self._last_end:
            self._last_end = end
            self.crashes = 0
        self.crashes += 1
        if not expected and self.crashes == 1:
            self._effects.say("warning", "keeper died")
        self.fork_at = now + lease_times.back_off(self.crashes, _MOST_BACK_OFF)

    def look_at_lease(self, now: float) -> None:
        """Kill the keeper if it has not reported an attempt to renew for too long."""
        if now >= self.hangs_at():
            self._hangs()

    def hangs_at(self) -> float:
        """When the keeper counts as hanging while the command runs, by the boot clock."""
        if self._state != _ALIVE:
            return FOREVER
        end, reported = self._effects.lease()
        return lease_times.hangs_at(end, self._ttl, reported)

    def look_settling(self, now: float) -> None:
        """Kill the keeper if it hangs while it has to give the lock back."""
        if self._settles_since is None:
            self._settles_since = now
        if now >= self.settles_by():
            self._hangs()

    def settles_by(self) -> float:
        """When the keeper counts as hanging while it settles; 0.0 (at once) before the first look."""
        if self._state != _ALIVE:
            return FOREVER
        if self._settles_since is None:
            return 0.0
        return lease_times.answers_by(max(self._settles_since, self._effects.lease()[1]), self._ttl)

    def _hangs(self) -> None:
        self._effects.say("warning", "keeper hangs")
        self.kill()
