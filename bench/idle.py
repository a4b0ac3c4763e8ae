"""What each process does while nothing happens: a holder whose command runs, and a waiter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench import commands, measure
from bench.baton import Baton
from bench.pair import Pair

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 20


def report(folder: Path) -> None:
    """Print the table. With a file lock there is nothing to renew: the target is no wake-up at all."""
    baton = Baton(folder)
    argv = commands.ours(folder, *baton.argv)
    rows = [["singleton-run", "-", commands.advice("singleton-run")]]
    if argv:
        pair = Pair(argv, baton)
        try:
            names = {pid: f"holder: {measure.role(pid)}" for pid in pair.holding}
            names |= {pid: f"waiter: {measure.role(pid)}" for pid in pair.wait()}
            before = {pid: (measure.wakeups(pid), measure.cpu(pid)) for pid in names}
            time.sleep(SECONDS)
            after = {pid: (measure.wakeups(pid), measure.cpu(pid)) for pid in names}
        finally:
            pair.close()
        rows = [
            [name, str(after[pid][0] - before[pid][0]), f"{after[pid][1] - before[pid][1]:.2f}"]
            for pid, name in names.items()
        ]
    measure.table(f"Idle for {SECONDS} s (target: no wake-up)", ["", "wake-ups", "CPU ms"], rows)
