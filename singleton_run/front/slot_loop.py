"""Turn after turn: for the slots of a schedule, and for the attempts of --once.

Between two turns only the front is there, without a connection. It waits for the next slot, for a signal, or
until somebody sets the wall clock.
"""

from __future__ import annotations

import gc
import posix as os
import select
import time

from singleton_run.errors import DENIED, UNAVAILABLE, Failure
from singleton_run.front import start
from singleton_run.front.decisions import stops_us
from singleton_run.guard.job_control import shell_of
from singleton_run.report.log import Log
from singleton_run.schedule import slot_rules
from singleton_run.schedule.slot_rules import Plan
from singleton_run.system import calls, pipes, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Mapping
    from typing import Any

    from singleton_run.call.settings import Settings
    from singleton_run.front.decisions import Turn
    from singleton_run.front.process import Front
    from singleton_run.supervisor.place import Place
    from singleton_run.system.calls import Signals
else:
    import _signal

_REMEMBERED = ("since", "waits_since", "reached_server", "attempt", "result", "second_look")


def run(
    settings: Settings,
    path: str,
    signals: Signals,
    mask: set[int],
    place: Place | None = None,
    memory: Mapping[str, Any] | None = None,
) -> int:
    """Make the turns that `settings` asks for. The exit status, or minus the signal that has to end us.

    A schedule in a loop ends only by a signal, or by an error before the first answer of the server. `place`
    is what the process of a crontab's line has around its turns: it also ends at end-of-file of
    `place.leave`, when no command runs. `memory` is what `rest` remembered over a rest that goes on.
    """
    return _TurnLoop(settings, path, signals, mask, place).run(memory)


class _TurnLoop:
    """The state that lasts from one turn to the next.

    `since` is when the call began and `waits_since` when the current wait did, both by the boot clock.
    `reached_server` says that a turn has had an answer about the lock. `stopped_by` is the signal that ended
    a pause, 0 for none. `failures` counts the turns in a row that could not get at the lock. `attempt` is the
    number of the next run, `result` the last one's status; `second_look` is as in `Plan`.
    """

    def __init__(
        self, settings: Settings, path: str, signals: Signals, mask: set[int], place: Place | None
    ) -> None:
        self.settings = settings
        self.path = path
        self.signals = signals
        self.mask = mask
        self.place = place
        self.since = calls.now()
        self.waits_since = self.since
        self.reached_server = False
        self.stopped_by = 0
        self.failures = 0
        self.attempt = 1
        self.result = 0
        self.second_look = False
        self.log = Log(settings, looked_at=True)

    def run(self, memory: Mapping[str, Any] | None = None) -> int:
        """Make turn after turn; see the function `run`. With a `memory` a long rest has just ended."""
        if memory is not None and not self._rest(self._remember(memory), memory["clock"]):
            return self._end(self._stopped())
        while True:
            try:
                front = self._front()
                front.begin()
            except Failure as failure:
                if not self._goes_on(failure.status):
                    raise
                self.log.say("warning", "trouble", text=str(failure))
                if not self._rest(self._after_failure(None)):
                    return self._end(self._stopped())
                continue
            status = front.run()
            turn = front.turn
            ran = turn.grant is not None
            if ran or not turn.rest_reason or turn.rest_reason == "succeeded":
                self.result = status
            self._tell(turn)
            if turn.stop_requested:
                return self._end(status if ran or not self.settings.loop else 0)
            again_at = self._again_at(turn)
            if again_at is None:
                return self._end(self.result)
            self.reached_server = self.reached_server or ran or bool(turn.rest_reason)
            if ran or turn.rest_reason == "later":
                self.waits_since = again_at
            self.attempt += ran
            self.second_look = turn.rest_reason == "held"
            del front, turn
            gc.collect()
            if not self._rest(again_at):
                return self._end(self._stopped())

    def _stopped(self) -> int:
        """The exit status after a signal between two turns.

        0 in a loop. Otherwise the last command's status, or that of the signal if no command has run.
        """
        if self.settings.loop:
            return 0
        if self.attempt > 1:
            return self.result
        return -self.stopped_by if self.stopped_by == _signal.SIGINT else 128 + self.stopped_by

    def _front(self) -> Front:
        plan = self._plan(second_look=self.second_look) if self.settings.scheduled else None
        return start.front(
            self.settings,
            self.path,
            self.signals,
            self.mask,
            self.log,
            plan,
            attempt=self.attempt,
            keeps_open=self.settings.loop or self.settings.retries > 0,
            since=self.waits_since,
            goes_on=self._goes_on,
            place=self.place,
        )

    def _plan(self, *, second_look: bool) -> Callable[[], Plan]:
        def plan() -> Plan:
            since = time.time() - (calls.now() - self.since)
            return Plan(self.settings, since, slot_rules.chance, second_look=second_look)

        return plan

    def _again_at(self, turn: Turn) -> float | None:
        """When to make the next turn, by the boot clock. None if this was the last turn."""
        settings = self.settings
        now = calls.now()
        if turn.rest_reason == "not started":
            return self._after_failure(None)
        if turn.grant is None and not turn.rest_reason:
            return self._after_failure(turn.again_at) if self._goes_on(turn.ending.status) else None
        self.failures = 0
        if turn.rest_reason:
            return turn.again_at
        if settings.loop:
            return now
        if turn.ending.outcome == "succeeded" or self.attempt > settings.retries:
            return None
        if settings.once is None:
            return now
        if turn.ending.outcome == "interrupted" and not settings.retry_interrupted:
            return None
        return now + settings.retry_delay * settings.retry_backoff ** (self.attempt - 1)

    def _goes_on(self, status: object) -> bool:
        """Whether we try again after a turn that gave up with `status`.

        In a loop always, except after an error before the first answer (an unreachable server is no such
        error). In a single slot after a server's refusal, until --wait ends.
        """
        settings = self.settings
        if settings.loop:
            return self.reached_server or status == UNAVAILABLE
        waits = settings.scheduled and settings.wait is not None
        return bool(waits and status == DENIED and calls.now() < self.waits_since + (settings.wait or 0.0))

    def _after_failure(self, slot_at: float | None) -> float:
        """When to try again, by the boot clock: the pauses grow, but end when the next slot starts."""
        self.failures += 1
        now = calls.now()
        at = now + slot_rules.pause(self.failures, self.settings, slot_rules.chance())
        if slot_at is None or not now < slot_at < at:
            return at
        self.failures = 0
        return slot_at

    def _tell(self, turn: Turn) -> None:
        if turn.ending.replaced:
            return
        if turn.grant is not None and turn.ending.outcome == "interrupted" and self.settings.scheduled:
            slot = ((turn.grant.record or {}).get("slot") or {}).get("slot")
            self.log.say("wait", "slot interrupted", slot=slot)
            return
        if turn.rest_reason in ("held", "not started", "mended") or not turn.rest_reason:
            return
        if turn.rest_reason == "later":
            self.log.say("info", "rest", slot=turn.slot)
        elif turn.rest_reason == "paused" and turn.wait.holder:
            self.log.say("warning", "slot paused", **turn.wait.holder)
        elif turn.rest_reason == "done" and self.settings.once is not None:
            self.log.say("info", "once done", key=self.settings.once)
        else:
            self.log.say("wait", "slot over", slot=turn.slot, text=turn.rest_reason)

    def _rest(self, until: float, clock_before: int | None = None) -> bool:
        """Wait until `until` (boot clock) or a change of the wall clock. False if we are asked to stop.

        `clock_before` is the descriptor that has watched the wall clock so far.
        """
        self.log.close()
        leave = -1
        if self.place is not None:
            self.place.rest()
            leave = self.place.leave
        timer = calls.Timer()
        timer.set(until)
        clock = calls.ClockSet(clock_before)
        poll = select.poll()
        for descriptor in (self.signals.descriptor, timer.descriptor, clock.descriptor, leave):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        try:
            while calls.now() < until:
                ready = {descriptor for descriptor, _ in poll.poll(0)}
                if not ready:
                    self._rest_small(until, clock.descriptor)
                    ready = {descriptor for descriptor, _ in poll.poll()}
                if clock.descriptor in ready:
                    return True
                if leave in ready or not self._hear():
                    return False
            return self._hear() and not (leave >= 0 and processes.readable(leave, 0))
        finally:
            os.close(timer.descriptor)
            os.close(clock.descriptor)

    def _rest_small(self, until: float, clock: int) -> None:
        """Rest as a small program, which can't wait for children. Returns if that is nothing for us."""
        alone = self.place is None and pipes.reporter is None and pipes.tracer is None
        if self.settings.loop and alone and not self.failures and processes.reap()[1]:
            from singleton_run.front import rest

            memory = self._memory(until)
            rest.small(self.settings.name, until, self.signals.descriptor, clock, memory)

    def _memory(self, until: float) -> dict[str, Any]:
        """What is to be remembered over a rest as a small program."""
        numbers = {field: getattr(self, field) for field in _REMEMBERED}
        own = {"until": until, "path": self.path, "mask": sorted(self.mask), "log": self.log.memory()}
        return {**own, **numbers}

    def _remember(self, memory: Mapping[str, Any]) -> float:
        """Go on with what was remembered. Until when we rest (boot clock)."""
        for field in _REMEMBERED:
            setattr(self, field, memory[field])
        self.log.remember(memory["log"])
        return float(memory["until"])

    def _hear(self) -> bool:
        """Read signals and reap children. False if a signal asks us to stop."""
        for number, _, _ in self.signals.read():
            if number == _signal.SIGCHLD:
                for process, status in processes.reap()[0]:
                    if process == self.log.process:
                        self.log.gone(status)
                    elif pipes.reporter is not None:
                        pipes.reporter.helper_ended(process)
            elif stops_us(number, self.settings.rewrite):
                self.stopped_by = number
                return False
            elif number == _signal.SIGTSTP and shell_of(os.getpid()):
                os.kill(os.getpid(), _signal.SIGSTOP)
        return True

    def _end(self, status: int) -> int:
        self.log.close(at_end=True)
        if pipes.reporter is not None:
            pipes.reporter.end()
        return status
