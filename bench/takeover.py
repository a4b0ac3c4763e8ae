"""What becomes of a Lease when its holder is killed with everything below it, and when it is asked to end."""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from typing import TYPE_CHECKING

from bench import commands, measure
from bench.baton import Baton

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.commands import Maker
    from tests.servers.kubeaccess import Namespace

ROUNDS = 5
LEASE = 6
OURS = f"SINGLETON_RUN_TTL={LEASE}s"
THEIRS = {"lease-duration": f"{LEASE}s", "renew-deadline": "4s", "retry-period": "2s"}
# Takes some seconds to end when it is asked to, as who must finish what it does.
SCRIPT = """#!/bin/sh
trap 'sleep 5; date +"E %s.%N" >> "{log}"; exit 0' TERM
date +"S %s.%N" >> "{log}"
while :; do sleep 0.05; done
"""


class _Race:
    """A holder of one wrapper that runs a baton, and a waiter behind it."""

    def __init__(self, argv: list[str], baton: Baton, lease: str) -> None:
        self.baton = baton
        self.lease = lease
        self.pids = [measure.spawn(argv)]
        try:
            baton.started()
            self.pids.append(measure.spawn(argv))
            measure.settle(self.pids)
        except measure.Broken:
            measure.kill(self.pids)
            raise

    def kill_holder(self, namespace: Namespace) -> float:
        """Kill the holder and all below it; when its Lease's end is, in Unix seconds."""
        for pid in measure.tree(self.pids[0]):
            os.kill(pid, signal.SIGSTOP)
        measure.kill([self.pids.pop(0)])
        lease = namespace.lease(self.lease)
        if lease is None:
            raise measure.Broken(f"there is no Lease {self.lease}")
        renewed = dt.datetime.fromisoformat(lease["spec"]["renewTime"]).timestamp()
        return renewed + int(lease["spec"]["leaseDurationSeconds"])

    def excess(self, end: float) -> float:
        """Wait for the next start; how long after `end` it was, in ms."""
        started, _ = self.baton.started()
        clocks = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return (started / 1e9 + clocks - end) * 1000


def killed(folder: Path, namespace: Namespace, makers: Mapping[str, Maker]) -> None:
    """Print how long after the Lease's end the next one starts when everything of the holder was killed."""
    times: dict[str, list[float]] = {name: [] for name in makers}
    for number in range(ROUNDS):
        races: dict[str, _Race] = {}
        try:
            for name, make in makers.items():
                own = folder / f"killed-{name}-{number}"
                own.mkdir()
                baton = Baton(own)
                if argv := make(own, *baton.argv):
                    races[name] = _Race(argv, baton, own.name)
            ends = {name: race.kill_holder(namespace) for name, race in races.items()}
            for name, end in ends.items():
                times[name].append(races[name].excess(end))
        finally:
            for race in races.values():
                measure.kill(race.pids)
    rows = []
    for name, found in times.items():
        ordered = sorted(found) or [0.0]
        cells = [f"{value:.0f}" for value in (ordered[0], measure.percentile(ordered, 50), ordered[-1])]
        rows.append([name, *(cells if found else ["-", "-", commands.advice(name)])])
    title = f"Everything killed: from the Lease's end to the next start, {ROUNDS} rounds (target: <= 100 ms)"
    measure.table(title, ["", "least ms", "p50 ms", "most ms"], rows)


def terminated(folder: Path, makers: Mapping[str, Maker]) -> None:
    """Print how long two commands ran at once when the first was asked to end and took its time."""
    rows = []
    for name, make in makers.items():
        own = folder / f"terminated-{name}"
        own.mkdir()
        log = own / "log"
        script = own / "script"
        script.write_text(SCRIPT.format(log=log))
        script.chmod(0o700)
        argv = make(own, str(script))
        rows.append([name, f"{_overlap(argv, log):.2f}" if argv else commands.advice(name)])
    title = "A command that takes 5 s to end, asked to: seconds for which the next runs beside it (target: 0)"
    measure.table(title, ["", "s"], rows)


def _overlap(argv: list[str], log: Path) -> float:
    """Seconds, 0 if the second starts after the first's end."""
    pids = [measure.spawn(argv)]
    try:
        _marks(log, "S", 1)
        pids.append(measure.spawn(argv))
        measure.settle(pids[1:])
        os.kill(pids[0], signal.SIGTERM)
        starts, ends = _marks(log, "S", 2), _marks(log, "E", 1)
    finally:
        measure.kill(pids)
    return max(0.0, ends[0] - starts[1])


def _marks(log: Path, kind: str, count: int) -> list[float]:
    """Wait for so many marks of a kind; their times."""
    deadline = time.monotonic() + measure.PATIENCE
    while time.monotonic() < deadline:
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        found = [float(line[1]) for line in lines if len(line) == 2 and line[0] == kind]
        if len(found) >= count:
            return found
        time.sleep(0.01)
    raise measure.Broken(f"a command did not say {kind!r} in {measure.PATIENCE:.0f} s")
