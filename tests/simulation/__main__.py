"""`python -m tests.simulation 1..1000`: play histories, and print the first that breaks a promise."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from typing import TYPE_CHECKING

from tests.simulation.bugs import BUGS, planted
from tests.simulation.history import Totals, play, play_many
from tests.simulation.tables import show

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH = 25
FOR_EVER = 10**9


def _seeds(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


def _batches(seeds: range, bug: str) -> Iterator[tuple[range, str]]:
    for start in range(seeds.start, seeds.stop, BATCH):
        yield range(start, min(start + BATCH, seeds.stop)), bug


def _play_batch(work: tuple[range, str]) -> Totals:
    seeds, bug = work
    with planted(bug):
        return play_many(seeds)


def play_at_once(seeds: range, *, events: int, jobs: int, bug: str = "") -> Totals:
    """Play seeds in `jobs` processes until one fails, `events` were seen, or all are played."""
    totals = Totals()
    # Tests that look at a clock run beside it: they go first.
    with multiprocessing.Pool(jobs, initializer=os.nice, initargs=(10,)) as pool:
        for part in pool.imap(_play_batch, _batches(seeds, bug)):
            totals.add(part)
            if totals.broken or totals.events >= events:
                break
    return totals


def _print_history(seed: int, bug: str) -> None:
    with planted(bug):
        world, broken = play(seed, {}, logged=True)
    print(*(world.log or []), sep="\n")
    print(f"\nseed {seed}: {broken or 'every promise was kept'}")


def main() -> int:
    """Play, print what was visited and how fast, and the history of the first seed that failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", nargs="?", type=_seeds, help="SEED or SEED..SEED; one alone is printed")
    parser.add_argument("--events", type=int, default=FOR_EVER, help="enough after so many events")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes; default: one a core")
    parser.add_argument("--bug", choices=sorted(BUGS), default="", help="plant one of the bugs of bugs.py")
    options = parser.parse_args()
    seeds = options.seeds or (_seeds("1..1000") if options.events == FOR_EVER else range(1, FOR_EVER))
    if len(seeds) == 1:
        _print_history(seeds[0], options.bug)
        return 0
    begun = time.perf_counter()
    totals = play_at_once(seeds, events=options.events, jobs=options.jobs, bug=options.bug)
    seconds = time.perf_counter() - begun
    print(f"{show(totals)}\n{seconds:.1f} s, {totals.events / seconds:,.0f} events/s")
    for seed, promise in totals.broken[:1]:
        _print_history(seed, options.bug)
        again = f" --bug {options.bug}" if options.bug else ""
        print(f"again: make simulate SEEDS='{seed}{again}' ({promise})")
    return 1 if totals.broken else 0


if __name__ == "__main__":
    sys.exit(main())
