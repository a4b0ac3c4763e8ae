"""Three replicas of one crontab of six lines, on real servers, while what can be killed is killed.

The lines start in the first three of each fifteen seconds. A fault comes when all lines have run, and before
anybody prepares the next slots: then no slot may be missing, and none may run twice. A busy machine may miss
a slot all the same: it has to say so, or the fault was not over in time. At last faults come in the middle of
runs: then a run may be cut short, and still none may run twice.
"""

from __future__ import annotations

import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.servers.etcd import Etcd
from tests.support.crontabs import Table, kill_below
from tests.support.harness import gone, kill_tree, send, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.servers.postgres import Postgres
    from tests.support.harness import Run

LINES = 6
SECONDS = 3
PERIOD = 15
QUIET = 10
"""Until this second of the period a fault may begin."""
PREPARES = 13.9
"""From this second on somebody may prepare the next slots: a sixth of the ttl before the first of them."""


class Replicas:
    """A crontab's replicas. `since` is the first slot that has to be complete (Unix seconds)."""

    def __init__(self, table: Table, restart_server: Callable[[], None] | None) -> None:
        self.table = table
        self.restart_server = restart_server
        self.words = [f"line{number}" for number in range(LINES)]
        lines = [
            table.noted(word, f"{number % SECONDS}-59/{PERIOD} * * * * *")
            for number, word in enumerate(self.words)
        ]
        table.write(*lines, table.noted("long", f"*/{PERIOD} * * * * *", "sleep 600"))
        self.runs = [self.start() for _ in range(3)]
        for run in self.runs:
            for word in self.words:
                table.front(run, word)
        for word in self.words:
            table.started(word)
        self.since = _period() + PERIOD
        self.hit: set[float] = set()
        """The periods whose slots a fault may have hit, because it took too long."""

    def start(self) -> Run:
        """Start a replica."""
        return self.table.start("--ttl", "6s")

    def when_quiet(self, *faults: Callable[[], None]) -> None:
        """Have each fault when all lines have run in a period, and nobody prepares the next."""
        for fault in faults:
            until(self._is_quiet, f"a quiet moment; {self.table.said()}")
            start = _period()
            fault()
            periods = int((time.time() - start + PERIOD - PREPARES) // PERIOD)
            self.hit.update(start + PERIOD * step for step in range(1, 1 + periods))

    def next_period(self) -> None:
        """Wait for the period after this one."""
        start = _period()
        until(lambda: _period() > start, "the next period")

    def _is_quiet(self) -> bool:
        start = _period()
        ended = {each.name for each in self.table.starts(kind="end") if each.slot >= start}
        return start >= self.since and len(ended) == LINES and time.time() - start < QUIET

    def slots(self, word: str) -> list[float]:
        """The slots for which a line was started."""
        return [start.slot for start in self.table.starts(word)]

    def check(self, *, whole: bool) -> None:
        """No slot twice, and with `whole` each slot up to now, but for those that are said to be missed."""
        up_to = _period()
        for number, word in enumerate(self.words):
            slots = self.slots(word)
            assert len(slots) == len(set(slots)), (word, slots, self.table.said())
            first = self.since + number % SECONDS
            expected = {first + PERIOD * step for step in range(int(up_to - first) // PERIOD + 1)}
            hit = {start + number % SECONDS for start in self.hit}
            missing = expected - set(slots) - hit if whole else set()
            assert len(missing) <= self._missed(word), (word, sorted(missing), slots, self.table.said())

    def _missed(self, word: str) -> int:
        """How many slots of a line are said to be missed."""
        told = re.findall(f"slot of '{self.table.name(word)}' (\\d+) w(?:as|ere) missed", self.table.said())
        return sum(map(int, told))


def _period() -> float:
    return time.time() // PERIOD * PERIOD


@pytest.fixture(params=["file", "etcd", "postgres"])
def replicas(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Replicas]:
    lock, restart = "", None
    if request.param != "file":
        server = request.getfixturevalue(f"{request.param}_server")
        lock = f"etcd://{server.address}" if request.param == "etcd" else server.url
        restart = _restart_of(server)
    with Table(tmp_path, lock) as table:
        yield Replicas(table, restart)


def _restart_of(server: Etcd | Postgres) -> Callable[[], None]:
    def restart() -> None:
        server.kill()
        started = server.start()
        if isinstance(started, Etcd):
            started.serves()

    return restart


def test_of_three_replicas_each_line_runs_each_slot_once_whatever_is_killed(replicas: Replicas) -> None:
    table, runs = replicas.table, replicas.runs

    def kill_a_line() -> None:
        for run in runs:
            send(signal.SIGKILL, table.front(run, "line4"))

    def kill_a_parent() -> None:
        send(signal.SIGKILL, runs[0].pid)
        runs[0].popen.wait()
        runs[0] = replicas.start()

    def kill_a_replica() -> None:
        kill_tree(runs[1].pid)
        runs[1].popen.wait()
        runs[1] = replicas.start()

    replicas.when_quiet(kill_a_line, kill_a_parent, kill_a_replica)
    replicas.next_period()
    if replicas.restart_server is not None:
        replicas.when_quiet(replicas.restart_server)
        replicas.next_period()
    replicas.when_quiet(lambda: replicas.check(whole=True))

    def kill_what_runs() -> None:
        for run, role in zip(runs, ("guard", "keeper", "front"), strict=True):
            kill_below(run, role)

    kill_what_runs()
    until(lambda: gone(table.starts("long")[0].process), "the long command to end with its guard or front")
    before = {word: len(replicas.slots(word)) for word in replicas.words}
    for word in replicas.words:
        table.started(word, before[word] + 1)
    replicas.check(whole=False)
    for run in runs:
        run.popen.terminate()
    assert [run.wait() for run in runs] == [0, 0, 0], table.said()
