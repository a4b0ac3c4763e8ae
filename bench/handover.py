"""From a holder's end to the next one's command: the time that nobody holds the lock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench import commands, measure
from bench.baton import Baton

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 40
MAKERS = {"flock": commands.flock, "singleton-run": commands.ours}


class Queue:
    """One holder that runs a baton and `waiters` behind it, all of one wrapper."""

    def __init__(self, argv: list[str], baton: Baton, waiters: int) -> None:
        self.argv = argv
        self.baton = baton
        self.pids = [measure.spawn(argv)]
        baton.started()
        self.pids += [measure.spawn(argv) for _ in range(waiters)]

    def pass_on(self) -> float:
        """One hand-over, in ms; another waiter takes the place of the one that got the lock."""
        ended = self.baton.finish()
        started, _ = self.baton.started()
        pid, status = os.waitpid(-1, 0)
        if status or pid not in self.pids:
            raise measure.Broken(f"{' '.join(self.argv)}: wait status {status}")
        self.pids.remove(pid)
        self.pids.append(measure.spawn(self.argv))
        return (started - ended) / 1e6

    def close(self) -> None:
        """End everything."""
        measure.kill(self.pids)


def _times(folder: Path, waiters: int) -> tuple[dict[str, list[float]], bool]:
    """The hand-overs of each wrapper there is, in ms, taking turns; and whether the stamps are exact."""
    queues: dict[str, Queue] = {}
    times: dict[str, list[float]] = {}
    exact = True
    try:
        for name, make in MAKERS.items():
            own = folder / f"{name}-{waiters}"
            own.mkdir()
            baton = Baton(own)
            exact = baton.exact
            if argv := make(own, *baton.argv):
                queues[name] = Queue(argv, baton, waiters)
                times[name] = []
        for _ in range(ROUNDS):
            measure.settle([pid for queue in queues.values() for pid in queue.pids])
            for name, queue in queues.items():
                times[name].append(queue.pass_on())
    finally:
        for queue in queues.values():
            queue.close()
    return times, exact


def _row(label: str, values: list[float], base: list[float]) -> list[str]:
    p50, p99, base50, base99 = (measure.percentile(of, at) for of in (values, base) for at in (50, 99))
    return [label, f"{p50:.2f}", f"{p99:.2f}", f"{p50 / base50:.1f}", f"{p99 / base99:.1f}"]


def report(folder: Path) -> None:
    """Print the table. The target is a p50 of at most 3 × that of flock."""
    rows = []
    exact = True
    for waiters in (1, 10):
        times, exact = _times(folder, waiters)
        for name in MAKERS:
            label = f"{name}, {waiters} waiting"
            if name in times:
                rows.append(_row(label, times[name], times.get("flock", times[name])))
            else:
                rows.append([label, "-", "-", "-", commands.advice(name)])
    note = "" if exact else "; without cc, so with the milliseconds of sh and date"
    title = f"Hand-over, {ROUNDS} rounds (target: p50 <= 3 x flock{note})"
    measure.table(title, ["", "p50 ms", "p99 ms", "p50 x flock", "p99 x flock"], rows)
