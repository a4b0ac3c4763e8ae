"""Slots where clocks disagree or are set, and where days have to pass: by libfaketime, on real servers."""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.support.clocks import VIA, Clock, forget_shared
from tests.support.harness import Lab, Run, title, until
from tests.support.places import Place
from tests.support.proxy import Proxy, proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.etcd import Etcd

HOUR = 3600.0
MIDNIGHT = datetime(2031, 3, 4, tzinfo=UTC).timestamp()
ENDS = (0, 128 + signal.SIGTERM)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Place]:
    with Place(tmp_path) as place:
        yield place
        forget_shared(place.runs)


def _start(lab: Lab, clock: Clock, *options: str, command: list[str]) -> Run:
    return lab.start(*options, command=command, environ=clock.environ(), via=VIA)


def _ask_to_stop(run: Run) -> None:
    """SIGTERM to a replica that has not ended, once it is one: a Python that only starts would die of it."""

    def stops_in_order() -> bool:
        return run.popen.poll() is not None or title(run.pid).startswith("singleton-run: front of")

    until(stops_in_order, f"a replica; {run.said}")
    run.popen.terminate()


def _end(*runs: Run) -> None:
    """Ask replicas to stop; they end well, or as the command that they were in."""
    for run in runs:
        _ask_to_stop(run)
    assert all(run.wait() in ENDS for run in runs), [run.said for run in runs]


# Nobody knows the true time.


@pytest.mark.parametrize("backend", ["file", "etcd+grpc"])
def test_clocks_that_disagree_and_are_set_run_no_slot_twice(
    request: pytest.FixtureRequest, lab: Place, backend: str
) -> None:
    if backend != "file":
        server = request.getfixturevalue("etcd_server")
        lab.put_at(server)
        lab.lock = f"{backend}://{server.address}"
    right, behind, ahead = (Clock(lab.directory, seconds) for seconds in (0.0, -1.5 * HOUR, 2 * HOUR))
    options = ["--every", "2s"]
    runs = [_start(lab, clock, *options, command=lab.job()) for clock in (right, behind, ahead)]
    _later(lab, time.time() + ahead.ahead)
    ahead.set(2.5 * HOUR)
    _later(lab, time.time() + ahead.ahead)
    ahead.set(-HOUR)
    for run in runs:
        run.hears("behind that of the last slot's")
    count = len(lab.evidence.slots())
    right.set(3 * HOUR)
    runs.append(_start(lab, right, *options, command=lab.job()))
    lab.slots(count + 2)
    _end(*runs)
    slots = [slot.time for slot in lab.evidence.slots()]
    assert all(later > earlier for earlier, later in pairwise(slots))
    assert {slot.attempt for slot in lab.evidence.slots()} == {1}
    lab.evidence.check(len(slots))


def _later(lab: Place, moment: float) -> None:
    """Wait for a slot that is later."""
    until(lambda: lab.evidence.slots() and lab.evidence.slots()[-1].time > moment, "a later slot")


# The server knows it.


@pytest.mark.parametrize("backend", ["etcd", "postgres"])
def test_slots_go_by_the_servers_time(request: pytest.FixtureRequest, lab: Place, backend: str) -> None:
    lab.put_at(request.getfixturevalue(f"{backend}_server"))
    wrong = {"2h behind": 2 * HOUR, "1h30m ahead of": -1.5 * HOUR, "30d behind": 30 * 24 * HOUR}
    clocks = [Clock(lab.directory, ahead) for ahead in wrong.values()]
    options = ["--cron", "*/2 * * * * *", "--tz", "UTC"]
    runs = [_start(lab, clock, *options, command=lab.job()) for clock in clocks]
    lab.slots(3)
    for run, words in zip(runs, wrong, strict=True):
        run.hears(f"the server's clock is {words} that of this machine")
    _end(*runs)
    slots = lab.evidence.slots()
    assert all(later.time > earlier.time for earlier, later in pairwise(slots))
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    starts = [line.when + booted for line in lab.evidence.lines() if line.what == "start"]
    for slot, start in zip(slots, starts, strict=True):
        # A Date is in whole seconds; and a minute of lateness is no wrong hour.
        assert -1.0 <= start - slot.time < 60.0
    lab.evidence.check(len(slots))


# The two stories.


class World:
    """A clock for replicas and for what etcd's gateway says in its answers."""

    def __init__(self, lab: Place, between: Proxy) -> None:
        self.clock = Clock(lab.directory)
        self._between = between

    def set_to(self, moment: float) -> None:
        """Let it be that moment everywhere, in Unix seconds."""
        self.clock.set_to(moment)
        self._between.shift = self.clock.ahead


def test_an_hourly_job_on_three_replicas_runs_once_an_hour_through_a_deploy_in_each(
    etcd_server: Etcd, lab: Place
) -> None:
    with proxy(etcd_server.port) as between:
        lab.put_at(etcd_server)
        lab.lock = lab.behind(between)
        world = World(lab, between)
        old: list[Run] = []
        for hour in range(24):
            # The first slot of all is only for those who are there before its time.
            world.set_to(MIDNIGHT + hour * HOUR - (1.0 if hour else 5.0))
            new: list[Run] = []
            for number in range(3):
                new.append(_start(lab, world.clock, "--cron", "@hourly", "--tz", "UTC", command=lab.job()))
                if old:
                    _ask_to_stop(old[number])
            lab.slots(hour + 1)
            _end(*old)
            old = new
        _end(*old)
    slots = lab.evidence.slots()
    assert [slot.time - MIDNIGHT for slot in slots] == [hour * HOUR for hour in range(24)]
    assert all(slot.started >= slot.time for slot in slots)
    lab.evidence.check(24)


def test_two_daily_jobs_of_eight_minutes_on_two_replicas_run_at_eleven_and_once(
    etcd_server: Etcd, tmp_path: Path
) -> None:
    eleven = MIDNIGHT + 11 * HOUR
    with Place(tmp_path) as report, Place(tmp_path) as cleanup, proxy(etcd_server.port) as between:
        jobs = (report, cleanup)
        for job in jobs:
            job.put_at(etcd_server)
            job.lock = job.behind(between)
        world = World(report, between)

        def deploy() -> list[Run]:
            options = ["-v", "--cron", "0 11 * * *", "--tz", "UTC"]
            return [_start(job, world.clock, *options, command=job.long_job()) for job in jobs]

        world.set_to(eleven - 6.0)
        replicas = [*deploy(), *deploy()]
        for job in jobs:
            job.ready()
        world.set_to(eleven + 8 * 60.0)
        for job in jobs:
            job.finish()
        replicas += deploy()
        for run in replicas:
            run.hears("is 2031-03-05T11:00:00Z")
        _end(*replicas)
        for job in jobs:
            assert [slot.time for slot in job.evidence.slots()] == [eleven]
            started = datetime.fromtimestamp(job.evidence.slots()[0].started, UTC)
            assert (started.hour, started.minute) == (11, 0)
            job.evidence.check(1)
        forget_shared(replicas)
