"""What the front decides during one turn: wait, start, watch the lease, settle, exit.

Each method is an event: a message came, a process died, time has passed. It calls its decision on `Effects`.
This module has no clock, no descriptor and no process, so the tests can drive the same decisions through
millions of histories.
"""

from __future__ import annotations

import errno

from singleton_run import lease_times
from singleton_run.api.lock_address import waits_for_itself
from singleton_run.errors import HELD, LOST, NOT_EXECUTABLE, NOT_FOUND, SCARCE, UNAVAILABLE, UNUSABLE
from singleton_run.front import keeper_watch
from singleton_run.front.ending import Ending
from singleton_run.front.guard_watch import GuardWatch
from singleton_run.front.keeper_watch import KeeperWatch
from singleton_run.front.waiting import Wait
from singleton_run.lease_times import FOREVER
from singleton_run.names import digest
from singleton_run.system.messages import GuardOrders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    from singleton_run.api.contract import Grant
    from singleton_run.call.settings import Settings
    from singleton_run.front.effects import Effects

WAITING, STARTING, RUNNING, SETTLING, OVER = "waiting", "starting", "running", "settling", "over"
STOPPING = frozenset({1, 2, 3, 15})
KILL, TERM = 9, 15


def stops_us(number: int, rewrite: Mapping[int, int]) -> bool:
    """Whether this signal ends us while no command runs. `number` is the signal as it was sent.

    A signal that is rewritten to 0 is ignored. Any other rewriting only changes the command's signal.
    """
    return number in STOPPING and rewrite.get(number) != 0


class Turn:
    """One turn: wait for the lock, run the command, give the lock back.

    `leased` is false for a lock that the kernel frees when front and guard have ended. `now` is the boot
    clock's reading. `kill_grace` is how long the command has between stop signal and SIGKILL, in seconds.
    `slack` is how long after the end of the wait a keeper may still answer, in seconds; by default one
    request and a second. `around` has the digests of the holders around us, and the token of the one around
    us that has a lock of this name: to wait for one never ends.

    When `phase` is OVER, these say how the turn went. `ending.status` is the exit status. `conflict` says
    that another kept the lock. `stop_requested` says that a signal asked us to stop. `rest_reason` says why
    there was nothing to start, and is '' if there was something; `again_at` is the boot clock's reading at
    which to try again (None for never), and `slot` the slot that is due then, in Unix seconds.
    """

    def __init__(
        self,
        settings: Settings,
        effects: Effects,
        *,
        leased: bool,
        now: float,
        kill_grace: float,
        slack: float | None = None,
        around: Collection[str] = (),
    ) -> None:
        self.effects = effects
        self.leased = leased
        self.ttl = settings.ttl
        self.rewrite = settings.rewrite
        self._around = around
        self._name = settings.name
        if slack is None:
            slack = lease_times.request_limit(self.ttl) + 1.0 if leased else 0.0
        self.wait = Wait(settings.wait, now, slack)
        self.keeper = KeeperWatch(effects, self.ttl)
        self.guard = GuardWatch(effects)
        self.ending = Ending(effects, self.guard, settings, kill_grace)
        self.phase = WAITING
        self.grant: Grant | None = None
        self.conflict = False
        self.stop_requested = False
        self.again_at: float | None = None
        self.rest_reason = ""
        self.slot = 0.0

    def begin(self) -> None:
        """Ask for the lock."""
        self.keeper.fork(None, settles=False)

    # What the keeper says.

    def held(
        self,
        holder: str,
        host: str,
        since: float | None,
        pause: Mapping[str, Any] | None = None,
        token: int | None = None,
    ) -> None:
        """Another has the lock, since `since` (Unix seconds): we wait. `pause` is in force, None without.

        `token` is the fencing token of a holder whose name may not have been written yet.
        """
        self.keeper.trouble = ""
        self.wait.holder = {"holder": holder, "host": host, "since": since, **(pause or {})}
        self.wait.is_for_ourselves = bool(self._around) and (
            digest([holder]) in self._around or str(token) in self._around
        )
        if self.wait.is_wanted and not self.wait.is_for_ourselves:
            self.effects.say("wait", "held", **self.wait.holder)

    def paused(self, pause: Mapping[str, Any], slot: float | None = None) -> None:
        """A pause keeps us from starting, though the lock is ours: we wait, or skip the slot of that time."""
        self.keeper.trouble = ""
        before, self.wait.holder = self.wait.holder, {**pause}
        if slot is not None:
            self.wait.holder["slot"] = slot
        elif self.wait.is_wanted and self.wait.holder != before:
            self.effects.say("wait", "paused", **self.wait.holder)

    def trouble_came(self, text: str) -> None:
        """The keeper has failed at something, and tries again."""
        self.keeper.is_in_trouble(text)

    def granted(self, grant: Grant, now: float) -> None:
        """The lock is ours: start the command."""
        if self.phase != WAITING or self.wait.is_left:
            return
        self.grant = grant
        self.keeper.has_the_lock()
        if not self.leased:
            self.keeper.is_not_needed()
        self.phase = STARTING
        self.effects.tell_guard(GuardOrders.start(grant.token))
        self.effects.say("info", "acquired", token=grant.token)  # the command doesn't wait for this
        for number in self.wait.deferred_signals:
            self.signal(number, now)

    def gave_up(self, status: int, text: str, again_at: float | None = None) -> None:
        """The keeper stops trying to get the lock. `again_at` is when to try again (boot clock)."""
        if self.phase == WAITING and self.wait.is_left and self.ending.raised == 0:
            self.phase = OVER  # the user was told the reason before the keeper was asked to leave
        elif self.phase == WAITING:
            self.again_at = again_at
            self._end(status if self.ending.raised == 0 else 128 + self.ending.raised, text)

    def rested(self, until: float | None, slot: float, why: str) -> None:
        """There is nothing to start before `until` (boot clock), when `slot` is due; None is never."""
        if self.phase == WAITING and not self.wait.is_left:
            self.again_at = until
            self.rest_reason = why or "later"
            self.slot = slot
        if self.phase == WAITING:
            self.phase = OVER

    def settled(self, text: str) -> None:
        """The keeper has given the lock back, or given up waiting. `text` says what failed, or is ''."""
        if text:
            self.effects.say("warning", "unsettled", text=text)
        if self.phase == SETTLING or (self.phase == WAITING and self.wait.is_left):
            self.phase = OVER

    def revoked(self, by: str, now: float) -> None:
        """`by` takes the lock away: the keeper gives it back when the command is gone."""
        if self.phase in (STARTING, RUNNING):
            self.ending.revoked(by, now)

    def lost_lock(self, text: str) -> None:
        """The grant is not ours any more: another command may be running already."""
        if self.phase in (STARTING, RUNNING):
            self.ending.lock_lost(text)
        elif self.phase == SETTLING:
            self.phase = OVER

    def keeper_died(self, now: float) -> None:
        """The keeper has ended and was waited for, and all its messages were received."""
        expected = self.keeper.died()
        if self.guard.is_being_replaced:
            self._adopt()
        if self.phase == OVER or self.ending.lost:
            return
        if self.phase == WAITING and self.wait.is_left:
            self.phase = OVER
            return
        if self.phase == WAITING and self.keeper.crashes >= keeper_watch.MOST_CRASHES:
            self._end(UNAVAILABLE, f"the keeper of the lock died {self.keeper.crashes + 1} times")
            return
        self.keeper.count_crash(now, expected=expected, holds=self.phase != WAITING)
        self.look(now)

    def keeper_retired(self) -> None:
        """The keeper was killed on purpose, so that the kernel can prove something; `keeper_died` follows."""
        self.keeper.was_retired()

    # What the guard says, and what is seen of it.

    def guard_started(self, process: int, at: float) -> None:
        """The command runs since `at` (boot clock)."""
        if self.phase == STARTING:
            self.phase = RUNNING
            self.ending.started(at)
            self.effects.running()
            self.effects.say("info", "started", pid=process)

    def guard_failed(self, number: int, text: str) -> None:
        """The command could not be started, by this errno."""
        of_machine = UNUSABLE if number in SCARCE else NOT_EXECUTABLE
        self.ending.fail(NOT_FOUND if number == errno.ENOENT else of_machine, text)
        self._gone()

    def guard_late(self) -> None:
        """The guard has not started the command, because the lease was too old."""
        self.ending.impose(LOST)
        self.effects.say("error", "too late")
        self._gone()

    def guard_expired(self) -> None:
        """The guard has seen the lease's end before us, and kills the command."""
        if not self.ending.stopped:
            self.ending.not_renewed()

    def guard_ended(self, status: int) -> None:
        """The command has ended: its exit status, or minus the signal that ended it."""
        self.ending.ended(status)
        self.guard.said_the_end()

    def command_ended(self, now: float) -> None:
        """We see by ourselves that the command has ended. The guard has to say how, or it hangs.

        --timeout doesn't count from here on: guard and front may have been stopped until after it.
        """
        if self.phase == RUNNING and not self.ending.command_ended:
            self.ending.timeout_at = FOREVER
            self.guard.owes_the_end(now)

    def guard_gone(self, *, proved: bool) -> None:
        """No process of the command is left. `proved` says that the kernel says so."""
        if not proved:
            self.effects.say("warning", "leftovers ignored")
        if self.phase in (STARTING, RUNNING):
            self._gone()

    def guard_died(self, now: float) -> None:
        """The guard has ended. Before the start another guard takes its place; later the front does."""
        if self.phase == WAITING and not self.wait.is_left:
            self._guard_died_waiting(now)
        elif self.phase == STARTING and self.grant is not None and not self.effects.start_begun():
            self._start_with_another_guard(self.grant.token)
        elif self.phase in (STARTING, RUNNING) and self.guard.is_watched:
            self.effects.say("warning", "guard died")
            if not self.ending.command_ended:  # the lease's end may be the reason for the guard's death
                self.look_at_lease(now)
            self.guard.is_to_be_replaced(None if self.keeper.is_gone else now)
            if self.keeper.is_gone:
                self._adopt()

    def _guard_died_waiting(self, now: float) -> None:
        """The guard died while we wait. A guard ends by itself if it gets the lock after the wait's end."""
        if self.wait.deferred_signals:
            self.ending.raised = self.wait.deferred_signals[0]
            self.ending.status = 128 + self.ending.raised
            self.phase = OVER
        elif not self.leased and now >= self.wait.until:
            self._end(HELD, "")
        elif trouble := self.guard.count_crash():
            self._end_waiting(UNUSABLE, trouble, now)
        else:
            self.wait.guard_decides = False
            self.effects.new_guard()

    def _start_with_another_guard(self, token: int) -> None:
        """Nothing ran: let another guard start the command, unless it is to stop."""
        if self.ending.stopped or self.ending.asked_to_stop:
            self._gone()
        elif trouble := self.guard.count_crash():
            self.ending.fail(UNUSABLE, trouble)
            self._gone()
        else:
            self.effects.new_guard()
            self.effects.tell_guard(GuardOrders.start(token))

    def _adopt(self) -> None:
        """Take the guard's place, or fork another guard if the dead one had started nothing."""
        self.guard.was_replaced()
        status_before = self.ending.status
        if not self.ending.command_ended:  # the status is lost if the guard has reaped the command
            self.ending.status = 128 + KILL
        if self.effects.adopt():
            if self.phase == STARTING:  # the command has ended, and its guard has told nothing
                self.phase = RUNNING
            self.guard.send_unsent(kill=self.ending.killed)
            return
        self.ending.status = status_before
        self.guard.was_replaced(by_another=True)
        self.phase = STARTING
        if self.grant is None:
            self._gone()
        else:
            self._start_with_another_guard(self.grant.token)
            if self.phase == STARTING:
                self.guard.send_unsent(kill=False)

    # What the user does.

    def signal(self, number: int, now: float, *, heard: bool = False) -> None:
        """We were sent a signal. `heard` says that the command has got it too, from the terminal."""
        stops = stops_us(number, self.rewrite)
        self.stop_requested = self.stop_requested or stops
        if self.phase == WAITING:
            if stops:
                self._leave(number, now)
        elif self.phase in (STARTING, RUNNING):
            to = number if heard else self.rewrite.get(number, number)
            if to == 0:
                return
            if number in STOPPING:
                self.ending.signalled(number, now)
            if not heard:
                self.guard.signal(to)

    @property
    def can_leave(self) -> bool:
        """Whether we wait, and nothing has decided yet how the wait ends."""
        return self.phase == WAITING and not self.wait.is_decided

    def leave(self, now: float) -> None:
        """Give up waiting, while `can_leave`: there are to be no more starts."""
        self.stop_requested = True
        self._leave(TERM, now)

    # What time does.

    def look(self, now: float) -> None:
        """Time has passed: do what is due at `now` (boot clock)."""
        if self.phase == OVER:
            return
        self.keeper.fork_again(self.grant, now, settles=self.phase == SETTLING)
        if self.phase == WAITING:
            self._look_waiting(now)
        elif self.phase in (STARTING, RUNNING):
            self._look_running(now)
        elif self.phase == SETTLING and self.leased:
            self._look_settling(now)

    def next_look(self) -> float:
        """When `look` has to be called next, by the boot clock."""
        if self.phase == OVER:
            return FOREVER
        due = self.keeper.fork_at
        if self.phase == WAITING:
            return min(due, self.wait.next_look())
        if self.phase == SETTLING:
            return min(due, self.effects.lease()[0], self.keeper.settles_by()) if self.leased else due
        due = min(due, self.ending.next_look(), self.guard.next_look())
        return min(due, self._lease_due()) if self.leased else due

    def _lease_due(self) -> float:
        end = self.effects.lease()[0]
        due = self.keeper.hangs_at()
        if not self.ending.stopped:
            due = min(due, lease_times.stop_at(end, self.ttl))
        if not self.ending.killed:
            return min(due, lease_times.kill_at(end, self.ttl))
        return min(due, lease_times.enforce_at(end, self.ttl)) if self.guard.is_alive else due

    def _look_waiting(self, now: float) -> None:
        if now >= self.wait.leave_by:
            self.phase = OVER
        elif self.wait.is_over(now):
            if not self.effects.withdraw():
                self.wait.guard_decides = True
                return
            if self.wait.is_for_ourselves:
                self._end_waiting(UNUSABLE, waits_for_itself(self._name), now)
                return
            trouble = self.keeper.trouble
            if self.leased and not self.wait.holder:  # nobody said that it is held
                trouble = trouble or "the server gave no answer in time"
            self._end_waiting(UNAVAILABLE if trouble else HELD, trouble, now)

    def _look_settling(self, now: float) -> None:
        if now >= self.effects.lease()[0]:
            self.effects.say("warning", "not released")
            self.phase = OVER
        else:
            self.keeper.look_settling(now)

    def _look_running(self, now: float) -> None:
        if now >= self.guard.take_over_at:
            self.guard.take_over_at = FOREVER
            self.keeper.kill()
        self.ending.look(now)
        self.guard.look(now)
        self.look_at_lease(now)

    def look_at_lease(self, now: float) -> None:
        """Stop and kill what the lease's end demands.

        This comes before any signal is passed on: a SIGCONT must not let a command run on past its lease.
        """
        if not self.leased or self.phase not in (STARTING, RUNNING):
            return
        end = self.effects.lease()[0]
        if now >= lease_times.stop_at(end, self.ttl) and not self.ending.stopped:
            self.ending.stop()
        if now >= lease_times.kill_at(end, self.ttl):
            self.ending.kill()
        if now >= lease_times.enforce_at(end, self.ttl):
            self.guard.kill()
        self.keeper.look_at_lease(now)

    # How it is over.

    def _leave(self, number: int, now: float) -> None:
        """Stop waiting because of a signal, unless a guard has the lock already."""
        if self.wait.guard_decides or not self.effects.withdraw():
            self.wait.defer(number)
            return
        if self.wait.is_left or not self.keeper.is_alive:
            self.phase = OVER
        self.wait.leave(now, in_trouble=bool(self.keeper.trouble))
        self.ending.raised = number
        self.ending.status = 128 + number
        self.effects.leave()

    def _gone(self) -> None:
        """Give the lock back: nothing of the command is left, or it never ran."""
        self.ending.nothing_left()
        self.phase = SETTLING
        if self.ending.lost:
            self.phase = OVER
        elif self.keeper.is_alive or not self.leased:
            self.effects.settle()

    def _end(self, status: int, text: str) -> None:
        """End the turn: we did not get the lock."""
        self.ending.status = status
        self.conflict = status == HELD
        self.phase = OVER
        if self.ending.raised == 0:
            holder = self.wait.holder if self.conflict else {}
            self.effects.say("final", "gave up", status=status, text=text, **holder)

    def _end_waiting(self, status: int, text: str, now: float) -> None:
        self._end(status, text)
        if self.keeper.is_alive:  # the server may grant the lock at this moment: the keeper gives it back
            self.phase = WAITING
            self.wait.leave(now, in_trouble=bool(self.keeper.trouble))
            self.effects.leave()
