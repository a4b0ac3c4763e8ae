"""What the front decides during one turn: wait, start, watch the lease, settle, exit.

Each method is an event (something was said, something died, it is later now) and calls what it
decides on `Hands`. No clock, no descriptor and no process is in here, so the tests can drive the
same decisions through millions of histories.
"""

from __future__ import annotations

import errno

from singleton_run import lease_times
from singleton_run.errors import (
    HELD,
    LOST,
    NOT_EXECUTABLE,
    NOT_FOUND,
    SCARCE,
    TIMED_OUT,
    UNAVAILABLE,
    UNUSABLE,
)
from singleton_run.system.messages import GuardOrders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    from singleton_run.call.settings import Settings
    from singleton_run.system.messages import Message

    class Hands(Protocol):
        """What the front can do. Nothing here waits."""

        def keep(self, grant: dict[str, Any] | None) -> None:
            """Fork a keeper: to take the lock, or to resume `grant`. Raises OSError where none can be had."""

        def kill_keeper(self) -> None:
            """SIGKILL the keeper; its death is an event, once it was waited for."""

        def settle(self) -> None:
            """Order the keeper to give the lock back, with the record of the run."""

        def leave(self) -> None:
            """Order the keeper to give up waiting."""

        def withdraw(self) -> bool:
            """Take from a guard that waits the right to start; False if it has the lock, and will say so."""

        def tell_guard(self, message: Message) -> None:
            """Send the guard an order, and SIGCONT."""

        def new_guard(self) -> None:
            """Fork a guard in the place of one that died before the start."""

        def kill_guard(self) -> None:
            """SIGKILL the guard; its death is an event."""

        def adopt(self) -> bool:
            """Take the decisions of a dead guard here: its children are ours now.

            False, and nothing is taken, if it died before it had started anything.
            """

        def lease(self) -> tuple[float, float]:
            """The lease's end and the keeper's last report, from the shared page."""

        def guard_heard(self) -> bool:
            """Whether the guard has read every order, by the shared page."""

        def begun(self) -> bool:
            """Whether a guard has begun to start the command: false proves that nothing ran."""

        def say(self, level: str, event: str, **facts: object) -> None:
            """Tell the user, without waiting."""


FOREVER = float("inf")
WAITING, STARTING, RUNNING, SETTLING, OVER = "waiting", "starting", "running", "settling", "over"
STOPPING = frozenset({1, 2, 3, 15})
KILL = 9
CRASHES = 5
GUARD_ANSWERS_IN = 1.0
GUARD_DIES_IN = 5.0
LEAVE_LIMIT = 2.0
LEAVE_LIMIT_IN_TROUBLE = 0.5
TAKE_OVER_PAUSE = 0.1
KEEP_AGAIN = 0.5
NONE, ALIVE, KILLED = "none", "alive", "killed"


def stops_us(number: int, rewrite: Mapping[int, int]) -> bool:
    """Whether a signal, as it was sent, ends us where no command runs: one that is rewritten to 0 is ignored.

    Any other rewriting is about what the command gets.
    """
    return number in STOPPING and rewrite.get(number) != 0


class Turn:
    """One trip through the lock. `status` is the exit status once `phase` is OVER.

    `leased` is false for a lock that the kernel frees by itself when front and guard have gone. `slack`
    is how long after the end of the wait, in seconds, a keeper may still answer: a request, if not given.
    `raised` is the signal to die of, 0 for none. `conflict` says that another kept the lock. `rests` says
    why there was nothing to do, '' if there was; then `rest` is the boot-clock reading until which.
    `last` says that we were asked to stop.
    """

    def __init__(
        self,
        settings: Settings,
        hands: Hands,
        *,
        leased: bool,
        now: float,
        kill_grace: float,
        slack: float | None = None,
    ) -> None:
        self.hands = hands
        self.leased = leased
        self.ttl = settings.ttl
        self.stop_signal = settings.stop_signal
        self.timeout = settings.timeout
        self.rewrite = settings.rewrite
        self.grace = kill_grace
        self.kill_after = settings.kill_after
        self.phase = WAITING
        self.status = 0
        self.raised = 0
        self.wait_until = FOREVER if settings.wait is None else now + settings.wait
        self.waits = settings.wait != 0
        self.slack = (
            (lease_times.request_limit(self.ttl) + 1.0 if leased else 0.0) if slack is None else slack
        )
        self.held_by: dict[str, Any] = {}
        self.leave_by = FOREVER
        self.grant: dict[str, Any] | None = None
        self.keeper = NONE
        self.keeper_crashes = 0
        self.guard_crashes = 0
        self.keep_again_at = FOREVER
        self.last_end = 0.0
        self.guard = ALIVE
        self.adopting = False
        self.settles_since: float | None = None
        self.take_over_at = FOREVER
        self.unheard: list[int] = []
        self.claimed = False
        self.came_too_soon: list[int] = []
        self.ended = False
        self.awaits_end = False
        self.asked_to_stop = False
        self.conflict = False
        self.last = False
        self.rest: float | None = None
        self.rests = ""
        self.slot = 0.0
        self.why = 0
        self.lost = False
        self.stopped = False
        self.killed = False
        self.timeout_at = FOREVER
        self.kill_command_at = FOREVER
        self.guard_answers_by = FOREVER
        self.guard_was_woken = False
        self.trouble = ""

    def begin(self) -> None:
        """Ask for the lock."""
        self._keep()

    def held(self, holder: str, host: str, since: float | None) -> None:
        """Another has the lock; we wait."""
        self.trouble = ""
        self.held_by = {"holder": holder, "host": host, "since": since}
        if self.waits:
            self.hands.say("wait", "held", **self.held_by)

    def trouble_came(self, text: str, now: float) -> None:
        """The keeper could not do what it wanted, and goes on trying."""
        if text != self.trouble:
            self.trouble = text
            self.hands.say("warning", "trouble", text=text)

    def granted(self, grant: dict[str, Any], now: float) -> None:
        """The lock is ours: start the command."""
        if self.phase != WAITING or self.leave_by != FOREVER:
            return
        self.grant = grant
        if not self.leased:
            self.keeper = NONE
        self.trouble = ""
        self.keeper_crashes = 0
        self.phase = STARTING
        self.hands.say("info", "acquired", token=grant["token"])
        self.hands.tell_guard(GuardOrders.start(grant["token"]))
        for number in self.came_too_soon:
            self.signal(number, now)

    def gave_up(self, status: int, text: str, again_at: float | None = None) -> None:
        """The keeper will not get the lock; `again_at` is when it may be asked for again."""
        if self.phase == WAITING and self.leave_by != FOREVER and self.raised == 0:
            self.phase = OVER  # why was said when it was asked to leave
        elif self.phase == WAITING:
            self.rest = again_at
            self._end(status if self.raised == 0 else 128 + self.raised, text)

    def rested(self, until: float | None, slot: float, why: str) -> None:
        """There is nothing to start before `until` (boot clock), when `slot` is due; None: nothing at all."""
        if self.phase == WAITING and self.leave_by == FOREVER:
            self.rest = until
            self.rests = why or "later"
            self.slot = slot
        if self.phase == WAITING:
            self.phase = OVER

    def settled(self, text: str) -> None:
        """The keeper has released, or left."""
        if text:
            self.hands.say("warning", "unsettled", text=text)
        if self.phase == SETTLING or (self.phase == WAITING and self.leave_by != FOREVER):
            self.phase = OVER

    def lost_lock(self, text: str, now: float) -> None:
        """The grant is not ours any more: another may be running already."""
        if self.phase in (STARTING, RUNNING):
            self.lost = True
            self._stop_for(LOST)
            self.hands.say("error", "lost", text=text)
            self._kill()
        elif self.phase == SETTLING:
            self.phase = OVER

    def keeper_died(self, now: float) -> None:
        """The keeper has ended, was waited for, and all that it said was heard."""
        expected = self.keeper == KILLED
        self.keeper = NONE
        if self.adopting:
            self._adopt()
        if self.phase == OVER or self.lost:
            return
        if self.phase == WAITING and self.leave_by != FOREVER:
            self.phase = OVER
            return
        end = self.hands.lease()[0]
        if end != self.last_end and self.phase != WAITING:
            self.last_end = end
            self.keeper_crashes = 0
        self.keeper_crashes += 1
        if self.phase == WAITING and self.keeper_crashes > CRASHES:
            self._end(UNAVAILABLE, f"the keeper of the lock died {self.keeper_crashes} times")
            return
        if not expected and self.keeper_crashes == 1:
            self.hands.say("warning", "keeper died")
        self.keep_again_at = now + lease_times.back_off(self.keeper_crashes, 2.0)
        self.look(now)

    def keeper_retired(self) -> None:
        """The keeper was killed on purpose, for a proof; `keeper_died` follows."""
        self.keeper = KILLED

    def guard_started(self, process: int, began: float) -> None:
        """The command runs, from that reading of the boot clock on."""
        if self.phase == STARTING:
            self.phase = RUNNING
            if self.timeout is not None:
                self.timeout_at = began + self.timeout
            self.hands.say("info", "started", pid=process)

    def guard_failed(self, number: int, text: str) -> None:
        """The command could not be started, by this errno."""
        of_machine = UNUSABLE if number in SCARCE else NOT_EXECUTABLE
        self._stop_for(NOT_FOUND if number == errno.ENOENT else of_machine)
        self.hands.say("error", "not started", text=text)
        self._gone()

    def guard_late(self) -> None:
        """The lease was too old to start with."""
        self._stop_for(LOST)
        self.hands.say("error", "late")
        self._gone()

    def guard_expired(self) -> None:
        """The guard has seen the lease's end first, and kills."""
        if not self.stopped:
            self._not_renewed()

    def _not_renewed(self) -> None:
        self.stopped = True
        self._stop_for(LOST)
        self.hands.say("error", "not renewed")

    def guard_ended(self, status: int) -> None:
        """The command has ended: its exit status, or minus the signal that ended it."""
        self.status = status if status >= 0 else 128 - status
        self.raised = max(0, -status)
        self.ended = True
        self.awaits_end = False
        self.timeout_at = FOREVER
        self.guard_answers_by = FOREVER

    def command_ended(self, now: float) -> None:
        """The front sees that the command has ended; the guard should say how, and does unless it hangs.

        From now on --timeout has nothing to stop: guard and front may have been stopped until after it.
        """
        if self.phase == RUNNING and not self.ended:
            self.timeout_at = FOREVER
        if self.phase == RUNNING and not self.ended and self.guard == ALIVE:
            self.awaits_end = True
            self.guard_answers_by = now + GUARD_ANSWERS_IN

    def guard_gone(self, *, proved: bool) -> None:
        """Nothing of the turn's processes is left, by the kernel's word if `proved`."""
        if not proved:
            self.hands.say("warning", "leftovers ignored")
        if self.phase in (STARTING, RUNNING):
            self._gone()

    def guard_died(self, now: float) -> None:
        """The guard has ended. Before the start another takes its place; later the front does.

        The command falls to the nearest child subreaper above it: the keeper, if that forked the
        guard. So the keeper goes too, the command comes to us, and another keeper resumes. After
        a pause: whoever killed the guard may be about to kill us, and then the keeper is needed.
        """
        if self.phase == WAITING and self.leave_by == FOREVER:
            self._guard_died_waiting(now)
        elif self.phase == STARTING and self.grant is not None and not self.hands.begun():
            if self.stopped or self.asked_to_stop:
                self._gone()
            else:
                self._start_with_another_guard(self.grant["token"])
        elif self.phase in (STARTING, RUNNING) and self.guard != NONE and not self.adopting:
            self.hands.say("warning", "guard died")
            self.phase = RUNNING
            if not self.ended:  # what killed it may have been the end of the lease
                self.look_at_lease(now)
            self.adopting = True
            if self.keeper == NONE:
                self._adopt()
            else:
                self.take_over_at = now + TAKE_OVER_PAUSE

    def _guard_died_waiting(self, now: float) -> None:
        """One that waits for a lock of the kernel's ends by itself if it gets it after the wait is over."""
        if self.came_too_soon:
            self.raised = self.came_too_soon[0]
            self.status = 128 + self.raised
            self.phase = OVER
        elif not self.leased and now >= self.wait_until:
            self._end(HELD, "")
        elif self._is_no_guard_to_be_had():
            self._end_waiting(UNUSABLE, self._guards_died(), now)
        else:
            self.claimed = False
            self.hands.new_guard()

    def _start_with_another_guard(self, token: int) -> None:
        if self._is_no_guard_to_be_had():
            self._stop_for(UNUSABLE)
            self.hands.say("error", "not started", text=self._guards_died())
            self._gone()
        else:
            self.hands.new_guard()
            self.hands.tell_guard(GuardOrders.start(token))

    def _is_no_guard_to_be_had(self) -> bool:
        """Count a guard that died before the start: after some of them another would do the same."""
        self.guard_crashes += 1
        return self.guard_crashes > CRASHES

    def _guards_died(self) -> str:
        return f"the command is not started: its guard died {self.guard_crashes} times before"

    def signal(self, number: int, now: float, *, heard: bool = False) -> None:
        """The user sent us a signal; `heard` if the terminal has sent it to the command as well."""
        stops = stops_us(number, self.rewrite)
        self.last = self.last or stops
        if self.phase == WAITING:
            if stops:
                self._leave(number, now)
        elif self.phase in (STARTING, RUNNING):
            to = number if heard else self.rewrite.get(number, number)
            if to == 0:
                return
            if number in STOPPING:
                self.asked_to_stop = True
                self.status = self.status or 128 + number
                if self.kill_after is not None:
                    self.kill_command_at = min(self.kill_command_at, now + self.kill_after)
            if not heard:
                self._pass_on(to)

    @property
    def outcome(self) -> str:
        """How the run ended, in the record's words."""
        if self.why == LOST:
            return "lost"
        if self.status == 0:
            return "succeeded"
        return "interrupted" if self.asked_to_stop else "failed"

    def look(self, now: float) -> None:
        """It is later now: enforce what is due."""
        if self.phase == OVER:
            return
        if now >= self.keep_again_at:
            self.keep_again_at = FOREVER
            self._keep_again(now)
        if self.phase == WAITING:
            self._look_waiting(now)
        elif self.phase in (STARTING, RUNNING):
            self._look_running(now)
        elif self.phase == SETTLING and self.leased:
            self._look_settling(now)

    def next_look(self) -> float:
        """When `look` has something to do next, a reading of the boot clock."""
        if self.phase == OVER:
            return FOREVER
        if self.phase == WAITING:
            return min(
                self.keep_again_at, self.leave_by, FOREVER if self._is_decided() else self._waits_until()
            )
        due = self.keep_again_at
        if self.phase == SETTLING:
            return min(due, self.hands.lease()[0], self._settles_by()) if self.leased else due
        due = min(due, self.timeout_at, self.kill_command_at, self.take_over_at, self.guard_answers_by)
        return min(due, self._lease_due()) if self.leased else due

    def _lease_due(self) -> float:
        end, reported = self.hands.lease()
        due = FOREVER if self.keeper != ALIVE else lease_times.hangs_at(end, self.ttl, reported)
        if not self.stopped:
            due = min(due, lease_times.stop_at(end, self.ttl))
        if not self.killed:
            return min(due, lease_times.kill_at(end, self.ttl))
        return min(due, lease_times.enforce_at(end, self.ttl)) if self.guard == ALIVE else due

    def _look_waiting(self, now: float) -> None:
        if now >= self.leave_by:
            self.phase = OVER
        elif not self._is_decided() and now >= self._waits_until():
            if not self.hands.withdraw():
                self.claimed = True
                return
            if self.leased and not self.held_by and not self.trouble:
                self.trouble = "the lock's server has not answered in time"
            self._end_waiting(UNAVAILABLE if self.trouble else HELD, self.trouble, now)

    def _waits_until(self) -> float:
        return self.wait_until + self.slack

    def _is_decided(self) -> bool:
        """Whether the wait is over: we have left, or a guard has the lock and is about to say so."""
        return self.claimed or self.leave_by != FOREVER

    def _look_settling(self, now: float) -> None:
        if self.settles_since is None:
            self.settles_since = now
        if now >= self.hands.lease()[0]:
            self.hands.say("warning", "not released")
            self.phase = OVER
        elif now >= self._settles_by():
            self.hands.say("warning", "keeper hangs")
            self._kill_keeper()

    def _settles_by(self) -> float:
        """When the keeper that settles counts as hanging; at once if nobody has looked yet."""
        if self.keeper != ALIVE:
            return FOREVER
        if self.settles_since is None:
            return 0.0
        return lease_times.answers_by(max(self.settles_since, self.hands.lease()[1]), self.ttl)

    def _look_running(self, now: float) -> None:
        if now >= self.take_over_at:
            self.take_over_at = FOREVER
            self._kill_keeper()
        if now >= self.timeout_at:
            self.timeout_at = FOREVER
            self._stop_for(TIMED_OUT)
            self.hands.say("warning", "timeout")
            self.kill_command_at = min(self.kill_command_at, now + self.grace)
            self._pass_on(self.stop_signal)
        if now >= self.kill_command_at:
            self.kill_command_at = FOREVER
            self._kill()
        if self.guard == ALIVE and self.guard_answers_by == FOREVER and not self.hands.guard_heard():
            self.guard_answers_by = now + GUARD_ANSWERS_IN
        if now >= self.guard_answers_by:
            self._look_at_guard(now)
        self.look_at_lease(now)

    def _look_at_guard(self, now: float) -> None:
        """SIGCONT comes with any order; if that is no help, the front takes the guard's place."""
        if not self.awaits_end and self.hands.guard_heard():
            self.guard_answers_by = FOREVER
            self.guard_was_woken = False
        elif self.guard == KILLED:
            self.guard_answers_by = FOREVER
            self.hands.say("error", "guard frozen")
        elif self.guard_was_woken:
            self.guard_answers_by = now + GUARD_DIES_IN
            self._kill_guard()
        else:
            self.guard_was_woken = True
            self.guard_answers_by = now + GUARD_ANSWERS_IN
            self.hands.say("warning", "guard hangs")
            self.hands.tell_guard(GuardOrders.wake())

    def _kill_guard(self) -> None:
        if self.guard == ALIVE:
            self.guard = KILLED
            self.hands.kill_guard()

    def look_at_lease(self, now: float) -> None:
        """Enforce what is due by the lease's end, before any signal is passed on: SIGCONT, after a stop."""
        if not self.leased or self.phase not in (STARTING, RUNNING):
            return
        end, reported = self.hands.lease()
        if now >= lease_times.stop_at(end, self.ttl) and not self.stopped:
            self._not_renewed()
            self._pass_on(self.stop_signal)
        if now >= lease_times.kill_at(end, self.ttl) and not self.killed:
            self._kill()
        if now >= lease_times.enforce_at(end, self.ttl):
            self._kill_guard()
        if self.keeper == ALIVE and now >= lease_times.hangs_at(end, self.ttl, reported):
            self.hands.say("warning", "keeper hangs")
            self._kill_keeper()

    def _keep(self) -> None:
        self.keeper = ALIVE
        self.hands.keep(self.grant)
        if self.phase == SETTLING:
            self.settles_since = None
            self.hands.settle()

    def _keep_again(self, now: float) -> None:
        try:
            self._keep()
        except OSError as error:
            self.keeper = NONE
            self.trouble_came(f"another keeper can't be had ({error.strerror})", now)
            self.keep_again_at = now + KEEP_AGAIN

    def _kill_keeper(self) -> None:
        if self.keeper == ALIVE:
            self.keeper = KILLED
            self.hands.kill_keeper()

    def _adopt(self) -> None:
        self.adopting = False
        self.take_over_at = FOREVER
        self.guard_answers_by = FOREVER
        before = self.status
        self.guard = NONE
        if not self.ended:
            self.status = 128 + KILL
        if not self.hands.adopt():
            self.status = before
            self._start_again()
            return
        for number in self.unheard:
            self.hands.tell_guard(GuardOrders.signal(number))
        if self.killed:
            self.hands.tell_guard(GuardOrders.kill())

    def _start_again(self) -> None:
        """A guard died just before it would have started the command: nothing ran."""
        self.guard = ALIVE
        self.phase = STARTING
        if self.stopped or self.asked_to_stop or self.grant is None:
            self._gone()
        else:
            self._start_with_another_guard(self.grant["token"])

    def _pass_on(self, number: int) -> None:
        """Have the command signalled; between its guard's death and its adoption by us, later."""
        if self.adopting:
            self.unheard.append(number)
        else:
            self.hands.tell_guard(GuardOrders.signal(number))

    def _leave_limit(self) -> float:
        return LEAVE_LIMIT_IN_TROUBLE if self.trouble else LEAVE_LIMIT

    def _leave(self, number: int, now: float) -> None:
        if self.claimed or not self.hands.withdraw():
            self.claimed = True
            self.came_too_soon.append(number)
            return
        if self.leave_by != FOREVER or self.keeper != ALIVE:
            self.phase = OVER
        self.leave_by = now + self._leave_limit()
        self.raised = number
        self.status = 128 + number
        self.hands.leave()

    def _stop_for(self, status: int) -> None:
        if self.why == 0:
            self.why = status

    def _kill(self) -> None:
        if not self.killed:
            self.killed = True
            self.stopped = True
            self.hands.tell_guard(GuardOrders.kill())

    def _gone(self) -> None:
        if self.why:
            self.status = self.why
            self.raised = 0
        self.phase = SETTLING
        if self.lost:
            self.phase = OVER
        elif self.keeper == ALIVE or not self.leased:
            self.hands.settle()

    def _end(self, status: int, text: str) -> None:
        self.status = status
        self.conflict = status == HELD
        self.phase = OVER
        if self.raised == 0:
            who = self.held_by if self.conflict else {}
            self.hands.say("final", "gave up", status=status, text=text, **who)

    def _end_waiting(self, status: int, text: str, now: float) -> None:
        self._end(status, text)
        if self.keeper == ALIVE:  # it may be given the lock at this moment, and has to give it back
            self.phase = WAITING
            self.leave_by = now + self._leave_limit()
            self.hands.leave()
