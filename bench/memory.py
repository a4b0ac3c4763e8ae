"""What the wrappers' own processes take while the command runs, and while they wait for the lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import commands, measure
from bench.baton import Baton
from bench.pair import Pair

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def _rows(name: str, argv: list[str], baton: Baton) -> list[list[str]]:
    pair = Pair(argv, baton)
    try:
        rows = [[f"{name}, holding", *_cells(pair.holding)]]
        rows.append([f"{name}, waiting", *_cells(pair.wait())])
    finally:
        pair.close()
    return rows


def _cells(pids: Sequence[int]) -> list[str]:
    pss, alone = measure.memory(pids)
    return [str(len(pids)), f"{pss:.1f}", f"{alone:.1f}"]


def report(folder: Path) -> None:
    """Print the table. The target is 12 MB in all.

    PSS divides a page by the number of its users, and this bench is itself a Python that shares pages with
    singleton-run; the last column says what it would be on a machine where no other Python runs.
    """
    baton = Baton(folder)
    rows = []
    for name, make in (("flock", commands.flock), ("singleton-run", commands.ours)):
        argv = make(folder, *baton.argv)
        rows += _rows(name, argv, baton) if argv else [[name, "-", "-", commands.advice(name)]]
    title = "Memory of the wrapper's processes, without the command (target: PSS <= 12 MB)"
    measure.table(title, ["", "processes", "PSS MB", "alone MB"], rows)
