"""The way to the reporter: forks it, and sends it events through a pipe that never blocks.

Nothing here waits for the reporter, but `end` in a place where it would be killed with us. An event that
doesn't fit into the pipe is dropped and counted. A reporter that ends is replaced.
"""

from __future__ import annotations

import os
import select
import time
from binascii import b2a_base64

from singleton_run.api.lock_address import HELD, redact
from singleton_run.reporter import vitals
from singleton_run.reporter.preparing import prepare, stop_listening
from singleton_run.reporter.translation import translated
from singleton_run.reporter.vitals import Vitals
from singleton_run.system import calls, fastjson, pipes, processes
from singleton_run.system.forked import forked
from singleton_run.system.processes import reap_one

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from singleton_run.call.settings import Settings
    from singleton_run.front.turn_effects import TurnEffects
    from singleton_run.keeper.operations import Operation, Result

END = "end"
"""The event after which the front ends: a keeper may still have the pipe."""
OUTPUT = "output"
"""What the command has printed, in parts, for the reporter alone."""
_PART = 2400
"""Bytes of output in one message: with the rest of it they fit into PIPE_BUF, in base 64."""
LAST_WORDS = 5.0
"""Where the reporter would be killed with us: how long we wait at our end for what it has to deliver."""
_RETIRE_MILLISECONDS = 1000
_LOAD_AFTER_MILLISECONDS = 100
"""A command that is over before that has the processors for itself: the reporter loads nothing before."""
_YOUTH = 10.0
_MOST_DEATHS = 5
_KILL, _CONTINUE = 9, 18
_PHASES = {
    "waiting": vitals.WAITING,
    "acquired": vitals.HOLDING,
    "lost": vitals.LOST,
    "released": vitals.RESTING,
    "resting": vitals.RESTING,
    "gave up": vitals.RESTING,
}
_STATES = ("waiting", "paused", "acquired", "started", "resting")
"""What another reporter has to be told again."""


class Channel:
    """The front's end of the way to the reporter. `process` is the reporter's process id, 0 without one.

    Every process that is forked from the front has it too, until it calls `leave`. A line of a crontab has
    its `vitals` from the parent, and tells the parent's reporter too, by the pipe `shared`; with `has_own`
    false it has no reporter of its own.
    """

    def __init__(
        self,
        settings: Settings,
        listener: int,
        vitals: Vitals | None = None,
        shared: int = -1,
        *,
        has_own: bool = True,
    ) -> None:
        self.settings = settings
        self.listener = listener
        self.vitals = vitals or Vitals()
        self.shared = shared
        self.has_own = has_own
        self.process = 0
        self.front = os.getpid()
        self.pipe = -1
        self._outputs: set[int] = set()
        self._forked_at = -_YOUTH
        self._deaths = 0
        self._effects: TurnEffects | None = None
        self._states: dict[str, dict[str, Any]] = {}
        self._told_over = False
        self._waits_since = 0.0
        self._released = True

    def begin(self) -> None:
        """Fork the reporter. Where the machine refuses that, it is tried again later."""
        if not self.has_own:
            return
        try:
            self._fork()
        except OSError:
            self.process = 0

    def _fork(self) -> None:
        self._forked_at = calls.now()
        read, write = pipes.pipe()
        try:
            self.process = forked(lambda: self._be_reporter(read))
        except OSError:
            os.close(read)
            os.close(write)
            raise
        os.close(read)
        self.pipe = write
        for facts in self._states.values():
            self._write({**facts, "again": True})

    def _be_reporter(self, read: int) -> None:
        pipes.tracer = pipes.reporter = None
        calls.set_title(f"singleton-run: reporter for {self.settings.name}")
        calls.keep_only([read] if self.listener < 0 else [read, self.listener])
        calls.close_standard(0, 1)
        os.setsid()
        processes.exited(self.front, _LOAD_AFTER_MILLISECONDS)
        from singleton_run.reporter import process

        process.run(self.settings, self.vitals, read, self.front, self.listener)

    # What the front tells.

    def begin_turn(self, effects: TurnEffects) -> None:
        """A turn begins."""
        self._effects = effects
        self._told_over = False
        self._waits_since = 0.0
        self._released = True
        self.vitals.leased = effects.task.leased
        self.vitals.end = 0.0

    def told(self, event: str, facts: dict[str, Any]) -> None:
        """The user is told of `event`, a word of `sentences`: so are others, if it is one of theirs."""
        if event == "not released":
            self._released = False
        address = self.settings.lock_address
        if facts.get("text"):  # a library's error may contain the lock's address, and with it a password
            facts = {**facts, "text": facts["text"].replace(address, redact(address))}
        for name, fields in translated(event, facts):
            self.post(name, **fields)

    def run_over(self) -> None:
        """The command is gone, or could not be started. It is told once a turn."""
        if self._effects is None or self._told_over or self._effects.turn.grant is None:
            return
        self._told_over = True
        ending, page = self._effects.turn.ending, self._effects.page
        outcome = ending.outcome
        seconds = max(0.0, calls.now() - page.started_at) if page.started_at else None
        event = "failed" if outcome == "lost" else outcome
        self.post(event, status=ending.status, seconds=seconds, outcome=outcome)

    def turn_over(self) -> None:
        """The turn is over, and the lock given back if it could be."""
        effects = self._effects
        if effects is None:
            return
        self.run_over()
        if effects.turn.grant is not None and not effects.turn.ending.lost and self._released:
            self.post("released", seconds=max(0.0, time.time() - self.vitals.since))
        if self.vitals.phase in (vitals.HOLDING, vitals.LOST):
            self.vitals.phase = vitals.RESTING
        self.vitals.keeper = 0
        self._effects = None

    def post(self, event: str, **facts: Any) -> None:
        """Tell the reporter of `event`, one of `report.events`. It never waits."""
        facts.update(event=event, name=self.settings.name, at=time.time())
        self._add(event, facts)
        if event in _PHASES:
            self.vitals.phase = _PHASES[event]
            self.vitals.reached = True
        if event in _STATES:
            self._states[event] = facts
        if event in ("waiting", "resting", "acquired"):
            for other in set(_STATES) - {event}:
                self._states.pop(other, None)
        if self.has_own and not self.process and calls.now() >= self._forked_at + _YOUTH:
            self.begin()
            if event in _STATES:
                self._write(facts, shared_only=True)
                return
        self._write(facts)
        if event == "started" and facts["late"] is not None and facts["late"] > self._latest():
            self.post("late", slot=facts["slot"], seconds=facts["late"])

    def _latest(self) -> float:
        from singleton_run.report.events import LATE

        return LATE + self.settings.jitter

    def _add(self, event: str, facts: dict[str, Any]) -> None:
        """Add what the turn knows to the fields of an event."""
        effects = self._effects
        if event == "waiting":
            self._waits_since = self._waits_since or facts["at"]
        if effects is None or effects.turn.grant is None:
            return
        if event == "acquired":
            waited = facts["at"] - self._waits_since if self._waits_since else 0.0
            facts.update(waited=max(0.0, waited), since=facts["at"])
            self.vitals.since = facts["at"]
        if event in ("started", "succeeded", "failed", "interrupted"):
            self.vitals.running = event == "started"
            slot, attempt = effects.of_slot()
            facts.update(slot=slot, attempt=attempt, run=effects.task.turn_id)
            facts["late"] = max(0.0, facts["at"] - slot) if slot and attempt == 1 else None
        if event in ("acquired", "started", "succeeded", "failed", "interrupted", "released"):
            facts.update(token=effects.turn.grant.token, holder=effects.task.holder)

    def _write(self, facts: dict[str, Any], *, shared_only: bool = False) -> None:
        """A line for the pipes. At most PIPE_BUF bytes are written whole or not at all (pipe(7))."""
        line = fastjson.dumps(facts).encode() + b"\n"
        if len(line) > select.PIPE_BUF:
            facts = {fact: value[:300] if isinstance(value, str) else value for fact, value in facts.items()}
            line = fastjson.dumps(facts).encode() + b"\n"
        own = self.has_own and not shared_only
        if not all([*([_sent(self.pipe, line)] if own else []), self.shared < 0 or _sent(self.shared, line)]):
            self.vitals.dropped += 1

    # What a keeper tells.

    def become_keeper(self) -> None:
        """This process is the keeper: it tells of renewals."""
        self.vitals.keeper = os.getpid()

    def lease(self, end: float, reported: float) -> None:
        """The lease's end and the keeper's last report, by the boot clock."""
        self.vitals.end, self.vitals.reported = end, reported

    def operation(self, operation: Operation, result: Result) -> None:
        """The keeper has done an operation."""
        if operation.name != "renew":
            return
        how = "ok" if result.error is None else "lost" if type(result.error).__name__ == "Lost" else "failed"
        # A grant that came late is renewed before its lease was ever reported.
        remaining = max(0.0, self.vitals.end - result.began) if self.vitals.end else None
        facts = {"event": "renewed", "name": self.settings.name, "at": time.time(), "result": how}
        self._write({**facts, "seconds": result.now - result.began, "remaining": remaining})

    # How it ends.

    def leave(self) -> None:
        """Close what a process that tells nothing has of it: the guard."""
        for descriptor in (self.pipe, self.listener, self.shared):
            if descriptor >= 0:
                os.close(descriptor)
        self.pipe = self.listener = self.shared = -1
        pipes.reporter = None

    def helpers(self) -> set[int]:
        """The front's children that help with this: the reporter, and those that pass on output."""
        return {self.process, *self._outputs}

    def helper_ended(self, process: int) -> None:
        """A child of the front's has ended and was waited for."""
        self._outputs.discard(process)
        if process == self.process:
            self.gone()

    def output_begun(self, process: int) -> None:
        """That process passes on what the command prints (see `guard.output`)."""
        self._outputs.add(process)

    def output_ended(self, process: int) -> None:
        """That process has ended and was waited for."""
        self._outputs.discard(process)

    def output(self, run: str, data: bytes) -> None:
        """A run's command has printed its last: `data` is the end of it. Told by who has passed it on."""
        parts = [data[start : start + _PART] for start in range(0, len(data), _PART)] or [b""]
        for number, part in enumerate(parts, 1):
            told = {"event": OUTPUT, "name": self.settings.name, "at": time.time(), "run": run}
            self._write({**told, "data": b2a_base64(part).decode(), "more": number < len(parts)})

    def gone(self) -> None:
        """The reporter has ended and was waited for. Another takes its place.

        After some that died in their youth, only the next event brings another one.
        """
        self.process = 0
        if self.pipe >= 0:
            os.close(self.pipe)
        self.pipe = -1
        self._deaths = 0 if calls.now() >= self._forked_at + _YOUTH else self._deaths + 1
        if self._deaths <= _MOST_DEATHS:
            self.begin()

    def retire(self) -> None:
        """End the reporter: the kernel is asked for children. Another one is forked at the next event.

        Those that pass on output end by themselves, for nobody is left who prints; one that can't be rid of
        it is ended.
        """
        for process in self._outputs:
            _end(process)
        self._outputs.clear()
        if not self.process:
            return
        self._close()
        _end(self.process)
        self.process = 0
        self._forked_at = -_YOUTH

    def end(self) -> None:
        """We end. The reporter delivers what it has, and then ends too.

        As process 1, below systemd or another singleton-run, it would be killed with us: then we wait for it.
        """
        self._close()
        if self.listener >= 0:
            stop_listening(self.listener, str(self.settings.metrics_addr))
        self.listener = -1
        dies_with_us = self.front == 1 or os.environ.get(HELD) or os.environ.get("INVOCATION_ID")
        if self.process and dies_with_us:
            settings = self.settings
            seconds = max(LAST_WORDS, settings.on_timeout) if settings.on else LAST_WORDS
            reap_one(self.process, int(seconds * 1000))
        self.process = 0
        pipes.reporter = None

    def _close(self) -> None:
        if self.pipe >= 0:
            _sent(self.pipe, end_of(self.settings.name))
            os.close(self.pipe)
        self.pipe = -1
        if self.process:
            processes.send(self.process, _CONTINUE)


def _end(process: int) -> None:
    """Wait for a child to end, and end it if it doesn't."""
    if not reap_one(process, _RETIRE_MILLISECONDS):
        processes.send(process, _KILL)
        reap_one(process, _RETIRE_MILLISECONDS)


def _sent(pipe: int, line: bytes) -> bool:
    """Whether the whole line went into the pipe."""
    try:
        return pipe >= 0 and len(line) <= select.PIPE_BUF and bool(os.write(pipe, line))
    except (BlockingIOError, BrokenPipeError):
        return False


def end_of(name: str) -> bytes:
    """The line after which a reporter ends."""
    return fastjson.dumps({"event": END, "name": name, "at": time.time()}).encode() + b"\n"


def begin(settings: Settings) -> None:
    """Begin to tell others, in the front: it and every process that it forks from now on may.

    Raises Failure.
    """
    pipes.reporter = Channel(settings, prepare(settings))
    pipes.reporter.begin()
