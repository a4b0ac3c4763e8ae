"""An idle crontab: what its processes take, and how often they wake up, beside supercronic."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from bench import commands, measure

if TYPE_CHECKING:
    from pathlib import Path

SIZES = (1, 20, 200)
SECONDS = 20
PEER = "supercronic"
_SETTLED = 2.0


def report(folder: Path) -> None:
    """Print the table. The targets are 5 MB a line, and no wake-up."""
    rows = []
    for name in (commands.OURS.name, PEER):
        path = str(commands.OURS) if name == commands.OURS.name else commands.program(PEER)
        if path is None or not os.path.exists(path):
            rows.append([name, *["-"] * 5, commands.advice(name)])
            continue
        rows += [[f"{name}, {size} lines", *_idle(_argv(path, folder, size))] for size in SIZES]
    title = f"A crontab whose lines wait for {SECONDS} s (targets: 5 MB a line, no wake-up)"
    measure.table(title, ["", "processes", "PSS MB", "PSS MB, the largest", "wake-ups", "CPU ms"], rows)


def _argv(path: str, folder: Path, size: int) -> list[str]:
    file = folder / f"crontab-{size}"
    file.write_text("".join(f"# singleton-run: name=line{each}\n0 0 29 2 * true\n" for each in range(size)))
    if path != str(commands.OURS):
        return [path, "-quiet", str(file)]
    locks = folder / "locks"
    locks.mkdir(mode=0o700, exist_ok=True)
    return [path, "crontab", str(file), "--lock", f"file://{locks}"]


def _idle(argv: list[str]) -> list[str]:
    """The cells of one that is at rest."""
    parent = measure.spawn(argv)
    try:
        pids = _at_rest(parent)
        pss, _ = measure.memory(pids)
        largest = max(measure.memory([pid])[0] for pid in pids)
        before = [(measure.wakeups(pid), measure.cpu(pid)) for pid in pids]
        time.sleep(SECONDS)
        after = [(measure.wakeups(pid), measure.cpu(pid)) for pid in pids]
    finally:
        measure.kill([parent])
    woken, used = (sum(new[at] - old[at] for new, old in zip(after, before, strict=True)) for at in (0, 1))
    return [str(len(pids)), f"{pss:.1f}", f"{largest:.1f}", str(woken), f"{used:.2f}"]


def _at_rest(parent: int) -> list[int]:
    """Its processes, once they have been the same for some time."""
    since, pids = time.monotonic(), measure.tree(parent)
    while time.monotonic() < since + _SETTLED:
        now = measure.tree(parent)
        if now != pids:
            since, pids = time.monotonic(), now
        time.sleep(0.05)
    return pids
