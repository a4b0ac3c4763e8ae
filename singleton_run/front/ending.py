"""How the command ends: why it is stopped or killed, and with which exit status we end."""

from __future__ import annotations

from singleton_run.errors import LOST, TIMED_OUT
from singleton_run.lease_times import FOREVER
from singleton_run.system.messages import GuardOrders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.call.settings import Settings
    from singleton_run.front.effects import Effects
    from singleton_run.front.guard_watch import GuardWatch


class Ending:
    """The end of the command, and the turn's exit status. Times are by the boot clock.

    `status` is the exit status, `raised` the signal that ended the command (0 for none). `imposed` is the
    status that replaces the command's own (0 for none). `lost` says that another may have the lock already.
    `stopped` and `killed` say that the command was stopped or killed because of the lease, or because the
    lock is taken away. `asked_to_stop` says that a signal asked the command to stop. `grace` is how long a
    command has to end after --timeout, in seconds, before it is killed. `replaced` says that the command was
    stopped because the next slot is due.
    """

    def __init__(self, effects: Effects, guard: GuardWatch, settings: Settings, grace: float) -> None:
        self._effects = effects
        self._guard = guard
        self._settings = settings
        self._grace = grace
        self.status = 0
        self.raised = 0
        self.imposed = 0
        self.lost = False
        self.stopped = False
        self.killed = False
        self.command_ended = False
        self.asked_to_stop = False
        self._revoked = False
        self.timeout_at = FOREVER
        self.kill_at = FOREVER
        self.next_slot_at = FOREVER
        self.replaced = False
        self._following = (FOREVER, 0.0)
        self._pause: tuple[Mapping[str, Any] | None, float] = (None, 0.0)

    @property
    def outcome(self) -> str:
        """How the run ended, as a word of the record: succeeded, failed, interrupted or lost."""
        if self.imposed == LOST:
            return "lost"
        if self.status == 0:
            return "succeeded"
        return "interrupted" if self.asked_to_stop else "failed"

    def is_followed(self, at: float, slot: float) -> None:
        """The next slot (Unix seconds) is due `at` that time: --overlap says what it does to the command."""
        self._following = (at, slot)

    def suspended(self, pause: Mapping[str, Any] | None, until: float | None) -> None:
        """A pause (None: none) is in force until then (None: unknown): no slot stops the command."""
        self._pause = pause, FOREVER if until is None else until

    def started(self, at: float) -> None:
        """The command runs since `at` (boot clock)."""
        if self._settings.timeout is not None:
            self.timeout_at = at + self._settings.timeout
        self.next_slot_at = self._following[0]

    def ended(self, status: int) -> None:
        """The command has ended: its exit status, or minus the signal that ended it."""
        self.status = status if status >= 0 else 128 - status
        self.raised = max(0, -status)
        self.command_ended = True
        self.timeout_at = FOREVER

    def nothing_left(self) -> None:
        """No process of the command is left, or it never ran: make the status final."""
        if self.imposed:
            self.status = self.imposed
            self.raised = 0

    def impose(self, status: int) -> None:
        """Replace the command's status by this one, unless another has replaced it before."""
        if self.imposed == 0:
            self.imposed = status

    def fail(self, status: int, text: str) -> None:
        """The command could not be started."""
        self.impose(status)
        self._effects.say("error", "not started", text=text)

    def signalled(self, number: int, now: float) -> None:
        """A signal asks the command to stop. With --kill-after it is killed that long afterwards."""
        self.asked_to_stop = True
        self.status = self.status or 128 + number
        if self._settings.kill_after is not None:
            self.kill_at = min(self.kill_at, now + self._settings.kill_after)

    def revoked(self, by: str, now: float) -> None:
        """`by` takes the lock away: stop the command, and kill it after its grace. It is said once."""
        if self._revoked:
            return
        self._revoked = True
        self.stopped = True
        self.impose(LOST)
        self._effects.say("error", "revoked", by=by)
        self.timeout_at = FOREVER
        self.kill_at = min(self.kill_at, now + self._grace)
        self._guard.signal(self._settings.stop_signal)

    def lock_lost(self, text: str) -> None:
        """The lock is lost, and another command may be running already: kill at once."""
        self.lost = True
        self.impose(LOST)
        self._effects.say("error", "lost", text=text)
        self.kill()

    def not_renewed(self) -> None:
        """The lease ends soon and was not renewed: say that the command is stopped for it."""
        self.stopped = True
        self.impose(LOST)
        self._effects.say("error", "not renewed")

    def stop(self) -> None:
        """Stop the command because of the lease, by the signal of --stop-signal."""
        self.not_renewed()
        self._guard.signal(self._settings.stop_signal)

    def kill(self) -> None:
        """Kill the command, unless that was done before."""
        if not self.killed:
            self.killed = True
            self.stopped = True
            self._effects.tell_guard(GuardOrders.kill())

    def next_look(self) -> float:
        """When `look` has to be called next, by the boot clock."""
        return min(self.timeout_at, self.kill_at, self.next_slot_at)

    def look(self, now: float) -> None:
        """Enforce --timeout, --overlap and --kill-after."""
        if now >= self.timeout_at:
            self.timeout_at = FOREVER
            self.impose(TIMED_OUT)
            self._effects.say("warning", "timeout")
            self.kill_at = min(self.kill_at, now + self._grace)
            self._guard.signal(self._settings.stop_signal)
        if now >= self.next_slot_at:
            self.next_slot_at = FOREVER
            self._overlapped(now, self._following[1])
        if now >= self.kill_at:
            self.kill_at = FOREVER
            self.kill()

    def _overlapped(self, now: float, slot: float) -> None:
        """The next slot is due and the command, or what it left behind, still runs."""
        if self._settings.overlap != "replace":
            self._effects.say("warning", "overlapped", number=slot)
            return
        told, until = self._pause
        pause = told if now < until else self._effects.pause()
        if pause is not None:
            self._effects.say("warning", "not replaced", number=slot, **pause)
            self._follow(slot)
            return
        self.kill_at = min(self.kill_at, now + self._grace)
        if not (self.stopped or self.asked_to_stop):
            self.replaced = self.asked_to_stop = not self.command_ended
            self._effects.say("warning", "replaced", number=slot)
            self._guard.signal(self._settings.stop_signal)

    def _follow(self, slot: float) -> None:
        """A pause has kept `slot` from stopping the command: the one after it may."""
        from singleton_run.schedule.slot_rules import Plan

        following, later = Plan(self._settings, 0.0, float).after(slot)
        self.is_followed(self._following[0] + later, following)
        self.next_slot_at = self._following[0]
