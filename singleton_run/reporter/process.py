"""The reporter's process: reads events from the pipe, and tells them to its sinks.

It begins a tenth of a second after the front, or when that has ended, so a command that is over before has
the processors for itself. It ends when the front has ended and everything is delivered, after LINGER seconds
at the latest.
"""

from __future__ import annotations

import os
import select
import time

from singleton_run.errors import describe_bug
from singleton_run.report.events import Event
from singleton_run.report.log import Log
from singleton_run.reporter.channel import END
from singleton_run.reporter.loop import Loop
from singleton_run.reporter.sinks import Place, wanted
from singleton_run.reporter.vitals import RESTING
from singleton_run.system import calls, libc
from singleton_run.system.pipes import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.call.settings import Settings
    from singleton_run.reporter.lines import Lines
    from singleton_run.reporter.sinks import Sink
    from singleton_run.reporter.vitals import Vitals

LINGER = 30.0
"""How long after the front's end the reporter may deliver what is left, in seconds."""


def run(
    settings: Settings,
    vitals: Vitals,
    descriptor: int,
    front: int,
    listener: int,
    lines: Lines | None = None,
) -> None:
    """Be the reporter of `front`, in a process forked for it, until everything is delivered.

    Where `front` is the parent of a crontab, `lines` has the vitals of its lines.
    """
    calls.become_subreaper()
    log = Log(settings)
    place = Place(settings, Loop(), log, vitals, front, listener, lines)
    calls.leave_directory()
    _Process(place, Reader(descriptor)).run()
    log.close()


def linger(settings: Settings) -> float:
    """How long after the front's end the reporter may deliver what is left, in seconds."""
    return max(LINGER, settings.on_timeout) if settings.on else LINGER


class _Process:
    """The loop's state. `over` says that the front has ended."""

    def __init__(self, place: Place, pipe: Reader) -> None:
        self.place = place
        self.loop = place.loop
        self.pipe = pipe
        self.sinks: list[Sink] = []
        self.loaded = False
        self.early: list[Event] = []
        self.over = False
        self.give_up_at = calls.FOREVER

    def run(self) -> None:
        """Go on until the front has ended, and nobody is busy any more."""
        loop = self.loop
        loop.watch(self.pipe.descriptor, select.EPOLLIN, lambda _: self._hear())
        self._watch_front()
        loop.at(calls.now(), self._load)  # after what has come meanwhile: the front may have ended
        while not (self.over and not any(sink.busy() for sink in self.sinks)):
            if calls.now() >= self.give_up_at:
                return
            loop.step()

    def _watch_front(self) -> None:
        """Notice the front's end, also if a keeper still has the pipe. A dead one was our parent."""
        try:
            descriptor = libc.pidfd_open(self.place.front)
        except OSError:
            descriptor = -1
        if os.getppid() != self.place.front:
            self.loop.at(0.0, lambda: self._died(descriptor))
        elif descriptor >= 0:
            self.loop.watch(descriptor, select.EPOLLIN, lambda _: self._died(descriptor))

    def _died(self, descriptor: int) -> None:
        """The front has ended without a word. If its command ran, the guard kills it."""
        self.loop.forget(descriptor)
        if not self.over:
            self._hear()
            self._ended_without_a_word()

    def _ended_without_a_word(self) -> None:
        vitals = self.place.vitals
        vitals.phase = RESTING
        if not self.over and vitals.running:
            vitals.running = False
            facts = {"status": None, "seconds": None, "outcome": "crashed"}
            self._tell(Event("failed", self.place.settings.name, time.time(), facts, again=False))
        self._front_ended()

    def _hear(self) -> None:
        for told in self.pipe.read():
            facts = dict(told)
            event = str(facts.pop("event"))
            if event == END:
                self._front_ended()
                return
            again = bool(facts.pop("again", False))
            self._tell(Event(event, facts.pop("name"), facts.pop("at"), facts, again=again))
        if self.pipe.closed and not self.over:
            self._ended_without_a_word()

    def _tell(self, event: Event) -> None:
        if not self.loaded:
            self.early.append(event)
            return
        for sink in list(self.sinks):
            try:
                sink.hear(event)
            except Exception as error:  # noqa: BLE001 - one who fails must not silence the others
                self.sinks.remove(sink)
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.place.log.say("error", "untold", text=f"the reporter failed: {describe_bug(error)}")

    def _load(self) -> None:
        if self.loaded:
            return
        self.loaded = True
        try:
            self.sinks = wanted(self.place, over=self.over)
        except Exception as error:  # noqa: BLE001 - a package may fail in any way
            self._failed(error)
        early, self.early = self.early, []
        for event in early:
            self._tell(event)

    def _front_ended(self) -> None:
        if self.over:
            return
        self.over = True
        self.loop.forget(self.pipe.descriptor)
        os.close(self.pipe.descriptor)
        self._load()
        self.give_up_at = calls.now() + linger(self.place.settings)
        self.loop.at(self.give_up_at, lambda: None)
        self.place.log.close()
        calls.close_standard(2)
        for sink in self.sinks:
            sink.finish()
