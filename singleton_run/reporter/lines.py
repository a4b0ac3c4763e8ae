"""The lines of a crontab, for its parent's reporter: one `Vitals` each, in memory that all of them share."""

from __future__ import annotations

import mmap

from singleton_run.reporter import vitals
from singleton_run.reporter.vitals import Vitals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.report.events import Event
    from singleton_run.reporter.series import Series

ADDED = "line"
"""The event by which the parent tells of a line that has come later: its `place` and its `ttl`."""
MOST = 8192
"""Only so many lines are seen by the reporter: the memory is there before the lines are."""


class Lines:
    """The vitals of each line by its name, and the ttl. Make it before the reporter is forked.

    A name keeps its place when its line is removed: what was counted of it stays. It is also the
    `sinks.Sink` that gives a later line its series.
    """

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, MOST * vitals.SIZE))
        self._places: dict[str, tuple[int, float]] = {}
        self._series: Series | None = None

    def place_of(self, name: str, ttl: float) -> int:
        """The place of a line, a new one if it has none. -1 if there is no more."""
        place = self._places[name][0] if name in self._places else len(self._places)
        if place >= MOST:
            return -1
        self._places[name] = place, ttl
        return place

    def vitals(self, name: str) -> Vitals:
        """The vitals of a line that has a place; those of any other are its own."""
        if name not in self._places:
            return Vitals()
        start = self._places[name][0] * vitals.SIZE
        return Vitals(self._memory[start : start + vitals.SIZE])

    def add_all(self, series: Series) -> None:
        """Have series of all lines, now and when they come later."""
        self._series = series
        for name in self._places:
            series.add(name, self.vitals(name))

    def troubles(self, front: int) -> list[str]:
        """Why the promises of the parent or of a line can't be kept now, a sentence each."""
        from singleton_run.reporter import health

        found = health.of_front(front)
        for name, (_, ttl) in self._places.items():
            found += [f"{name}: {trouble}" for trouble in health.of_keeper(self.vitals(name), ttl)]
        return found

    def are_ready(self, when: str) -> bool:
        """Whether all lines have had an answer about their locks; or whether one holds its lock, or runs."""
        from singleton_run.reporter import health

        ready = [health.is_ready(self.vitals(name), when) for name in self._places]
        return any(ready) if when in ("holding", "running") else all(ready)

    # As a sink.

    def hear(self, event: Event) -> None:
        """A line that has come later gets its series."""
        if event.event != ADDED:
            return
        self._places[event.name] = int(event.facts["place"]), float(event.facts["ttl"])
        if self._series is not None:
            self._series.add(event.name, self.vitals(event.name))

    def finish(self) -> None:
        """Nothing more comes."""

    def busy(self) -> bool:
        """Nothing is to be delivered."""
        return False
