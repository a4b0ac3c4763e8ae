"""What the parent has of its reporter: one for all lines, which tell it what happens through one pipe."""

from __future__ import annotations

import os
import time

from singleton_run.reporter import channel, vitals
from singleton_run.reporter.lines import ADDED, Lines
from singleton_run.reporter.preparing import prepare, stop_listening
from singleton_run.system import calls, fastjson, pipes, processes
from singleton_run.system.forked import forked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from singleton_run.call.settings import Settings
    from singleton_run.supervisor.crew import Line

_PAUSE = 1.0
_KILL = 9


class Reporting:
    """The reporter's process (0 without one), the pipe to it, and the lines' vitals.

    The parent keeps both ends of the pipe, so another reporter reads on where a dead one has stopped.
    `begin_at` is when to fork it (boot clock). Raises Failure for an address that can't be had.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.listener = prepare(settings)
        self.lines = Lines()
        self.process = 0
        self.begin_at = 0.0
        self.read, self.write = pipes.pipe()

    def begin(self) -> None:
        """Fork the reporter. Where the machine refuses that, it is tried again later."""
        self.begin_at = calls.FOREVER
        parent = os.getpid()
        try:
            self.process = forked(lambda: self._be_reporter(parent))
        except OSError:
            self.begin_at = calls.now() + _PAUSE

    def _be_reporter(self, parent: int) -> None:
        calls.set_title("singleton-run: reporter for crontab")
        calls.keep_only([self.read] if self.listener < 0 else [self.read, self.listener])
        calls.close_standard(0, 1)
        os.setsid()
        from singleton_run.reporter import process

        process.run(self.settings, vitals.Vitals(), self.read, parent, self.listener, self.lines)

    def take(self, lines: Iterable[Line]) -> None:
        """Tell the reporter of lines that it doesn't know yet."""
        for line in lines:
            ttl = line.settings.ttl
            place = self.lines.place_of(line.name, ttl)
            if place >= 0:
                self._post(ADDED, line.name, place=place, ttl=ttl)

    def ended(self, name: str) -> None:
        """A line's process has ended: it holds nothing, and a command that ran was killed by its guard."""
        known = self.lines.vitals(name)
        if known.running:
            self._post("failed", name, status=None, seconds=None, outcome="crashed")
        known.phase, known.running, known.keeper = vitals.RESTING, False, 0

    def attach(self, settings: Settings) -> None:
        """In a line's process: tell this reporter, and the line's own if its options ask for one."""
        listener = prepare(settings) if settings.reports else -1
        pipes.reporter = channel.Channel(
            settings, listener, self.lines.vitals(settings.name), self.write, has_own=settings.reports
        )
        pipes.reporter.begin()

    def gone(self) -> None:
        """The reporter has ended and was waited for: another takes its place."""
        self.process = 0
        self.begin_at = calls.now() + _PAUSE

    def end(self) -> None:
        """We end. The reporter delivers what it has; as process 1 we wait for that."""
        self.begin_at = calls.FOREVER
        try:
            os.write(self.write, channel.end_of(self.settings.name))
        except BlockingIOError:
            processes.send(self.process, _KILL)
        if self.listener >= 0:
            stop_listening(self.listener, str(self.settings.metrics_addr))
        if self.process and os.getpid() == 1:
            processes.reap_one(self.process, int(channel.LAST_WORDS * 1000))

    def _post(self, event: str, name: str, **facts: object) -> None:
        told = {"event": event, "name": name, "at": time.time(), **facts}
        try:
            os.write(self.write, fastjson.dumps(told).encode() + b"\n")
        except BlockingIOError:
            self.lines.vitals(name).dropped += 1
