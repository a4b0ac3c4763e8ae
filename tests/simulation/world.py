"""True time: a queue of what happens next, one source of chance, and the account of a history."""

from __future__ import annotations

import random
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.machine import Machine, Process
    from tests.simulation.server import Server
    from tests.simulation.trip import Trip

FOREVER = float("inf")
END = 1e5
MOST_QUEUED = 300_000


class Broken(Exception):
    """A promise was broken; the text says which, and by whom."""


class World:
    """Everything of one history. `now` is true time in seconds; `log` is None or collects the history.

    `events` counts what was delivered (a timer that was moved meanwhile is not), `steps` the single
    actions of the processes under test.
    """

    __slots__ = (
        "chance",
        "events",
        "excuses",
        "faults",
        "heap",
        "last_token",
        "log",
        "machines",
        "nested",
        "now",
        "pids",
        "running",
        "seq",
        "server",
        "steps",
        "trips",
        "troubled_until",
        "unfinished",
        "visits",
    )

    def __init__(self, seed: int, visits: dict[tuple[str, str, str], int], *, logged: bool) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - the histories must be repeatable
        self.events = 0
        self.steps = 0
        self.faults = 0
        self.excuses: dict[str, int] = {}
        self.heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self.last_token = 0
        self.log: list[str] | None = [] if logged else None
        self.machines: list[Machine] = []
        self.nested = False
        self.now = 0.0
        self.pids = 100
        self.running: list[Trip] = []
        self.seq = 0
        self.server: Server
        self.trips: list[Trip] = []
        self.troubled_until = 0.0
        self.unfinished = 0
        self.visits = visits

    def at(self, when: float, act: Callable[[Any], None], subject: object = None) -> None:
        """Call `act(subject)` at true time `when`."""
        self.seq += 1
        heappush(self.heap, (when, self.seq, act, subject))

    def run(self) -> None:
        """Deliver events until every trip has ended; Broken if they never do."""
        while self.unfinished:
            self._next()

    def run_while_paused(self, process: Process) -> None:
        """Let the world go on while `process` stands still between two actions of one decision.

        Only one process at a time can stand there: the others wait on this call's stack.
        """
        self.nested = True
        while process.alive and (process.stopped or process.machine.frozen):
            self._next()
        self.nested = False

    def _next(self) -> None:
        if not self.heap or self.now > END or self.seq > MOST_QUEUED:
            raise Broken(f"no end: {', '.join(str(trip) for trip in self.trips if not trip.over)}")
        self.now, _, act, subject = heappop(self.heap)
        self.events += 1
        act(subject)

    def visit(self, machinery: str, state: str, event: str) -> None:
        """Note that `event` came in `state`."""
        key = (machinery, state, event)
        self.visits[key] = self.visits.get(key, 0) + 1

    def excuse(self, reason: str) -> None:
        """Count a broken promise that is one of the documented exceptions."""
        self.excuses[reason] = self.excuses.get(reason, 0) + 1
        self.note("world", "excused:", reason)

    def note(self, who: object, *what: object) -> None:
        """Add a line to the history, if one is kept."""
        if self.log is not None:
            self.log.append(f"{self.now:12.6f}  {who!s:14} {' '.join(map(str, what))}")

    def new_pid(self) -> int:
        """A process id that nobody else has."""
        self.pids += 1
        return self.pids
