"""From a holder's end to the next one's command: the time that nobody holds the lock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench import commands, measure
from bench.baton import Baton

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.commands import Maker

ROUNDS = 40
# How many are started at once: more would not come to rest within the patience of `settle`.
AT_ONCE = 20


class Queue:
    """One holder that runs a baton and `waiters` behind it, all of one wrapper."""

    def __init__(self, argv: list[str], baton: Baton, waiters: int) -> None:
        self.argv = argv
        self.baton = baton
        self.pids = [measure.spawn(argv)]
        self.fresh: list[int] = []
        try:
            baton.started()
        except measure.Broken:
            self.close()
            raise
        try:
            while waiters > AT_ONCE:
                self.add(AT_ONCE)
                measure.settle(self.fresh)
                waiters -= AT_ONCE
        except measure.Broken:
            self.close()
            raise
        self.add(waiters)

    def add(self, waiters: int = 1) -> None:
        """Put more behind it; these are `fresh` then."""
        self.fresh = [measure.spawn(self.argv) for _ in range(waiters)]
        self.pids += self.fresh

    def pass_on(self) -> float:
        """One hand-over, in ms; another waiter, `fresh`, takes the place of the one that got the lock."""
        ended = self.baton.finish()
        started, _ = self.baton.started()
        pid, status = os.waitpid(-1, 0)
        if status or pid not in self.pids:
            raise measure.Broken(f"{' '.join(self.argv)}: wait status {status}")
        self.pids.remove(pid)
        self.add()
        return (started - ended) / 1e6

    def close(self) -> None:
        """End everything."""
        measure.kill(self.pids)


class Times:
    """The hand-overs in ms of each wrapper there is; `note` for the title says if they aren't exact."""

    def __init__(self, makers: Mapping[str, Maker], folder: Path, waiters: int) -> None:
        self.note = ""
        self._times: dict[str, list[float]] = {}
        queues: dict[str, Queue] = {}
        try:
            for name, make in makers.items():
                own = folder / f"{name}-{waiters}"
                own.mkdir()
                baton = Baton(own)
                if not baton.exact:
                    self.note = "; without cc, so with the milliseconds of sh and date"
                if argv := make(own, *baton.argv):
                    queues[name] = Queue(argv, baton, waiters)
                    self._times[name] = []
            for queue in queues.values():
                measure.settle(queue.pids)
            for _ in range(ROUNDS):
                for name, queue in queues.items():
                    self._times[name].append(queue.pass_on())
                    # Or the start of the new waiter would be in the way of the next one's hand-over.
                    measure.settle(queue.fresh)
        finally:
            for queue in queues.values():
                queue.close()

    def row(self, name: str, label: str, base: str) -> list[str]:
        """A row of a table: p50, p99, and both as multiples of those of `base`, if that is there."""
        if name not in self._times:
            return [label, "-", "-", "-", commands.advice(name)]
        values = self._times[name]
        times = self._times.get(base)
        return [label, *measure.p50_p99(values, 2), *(measure.ratios(values, times) if times else "--")]


def table(title: str, makers: Mapping[str, Maker], base: str, folder: Path, counts: Sequence[int]) -> None:
    """Print the hand-overs of each wrapper, taking turns, with as many waiters; `base` is what 1.0 is.

    The title has a place for the conditions, `{}`.
    """
    rows = []
    note = ""
    for waiters in counts:
        times = Times(makers, folder, waiters)
        note = times.note
        rows += [times.row(name, f"{name}, {waiters} waiting", base) for name in makers]
    measure.table(
        title.format(f"{ROUNDS} rounds{note}"),
        ["", "p50 ms", "p99 ms", f"p50 x {base}", f"p99 x {base}"],
        rows,
    )


def report(folder: Path) -> None:
    """Print the table. The target is a p50 of at most 3 × that of flock."""
    makers = {"flock": commands.flock, "singleton-run": commands.ours}
    table("Hand-over, {} (target: p50 <= 3 x flock)", makers, "flock", folder, (1, 10))
