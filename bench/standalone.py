"""The executable that needs no Python, beside the wheel and `etcdctl lock`: starts and memory."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from bench import commands, footprint, measure, servers, startup

if TYPE_CHECKING:
    from pathlib import Path

    from bench.handover import Maker

ROUNDS = 40
COPIES = 15
NAME = commands.STANDALONE.name


def report(folder: Path) -> None:
    """Print the tables."""
    with servers.etcd(folder / "server") as server:
        lock, connected = f"etcd://{server.address}", server.ctl_command()

        def wheel(place: Path, *command: str) -> list[str] | None:
            return commands.behind(lock, place.name, *command)

        def alone(place: Path, *command: str) -> list[str] | None:
            return commands.standalone(lock, place.name, *command)

        def theirs(place: Path, *command: str) -> list[str] | None:
            return commands.etcdctl(connected, place.name, *command)

        makers: dict[str, Maker] = {"etcdctl lock": theirs, "singleton-run": wheel, NAME: alone}
        here = f"file://{folder}", "b", startup.TRUE
        candidates = {
            startup.PYTHON: [commands.PYTHON, "-c", "pass"],
            "singleton-run, file": commands.behind(*here),
            f"{NAME}, file": commands.standalone(*here),
            **{name: make(folder, startup.TRUE) for name, make in makers.items()},
        }
        title = f"Start to end of `true`, {ROUNDS} rounds"
        startup.table(title, ROUNDS, candidates, {"x etcdctl lock": lambda _: "etcdctl lock"})
        title = "etcd: memory without the command, the executable beside `etcdctl lock`"
        footprint.table(title, makers, "etcdctl lock", folder)
    _first_start(folder)


def _first_start(folder: Path) -> None:
    """What the first start of a new copy takes: its pages are in no cache of the kernel's by then."""
    if not commands.STANDALONE.exists():
        return
    first, tenth = [], []
    for number in range(COPIES):
        copy = folder / f"copy-{number}"
        shutil.copy2(commands.STANDALONE, copy)
        _forget(copy)
        argv = [str(copy), "--lock", f"file://{folder}", "--name", "b", "--", startup.TRUE]
        times = [measure.run(argv) for _ in range(10)]
        first.append(times[0])
        tenth.append(times[-1])
        copy.unlink()
    rows = [["first", *measure.p50_p99(first)], ["tenth", *measure.p50_p99(tenth)]]
    measure.table(f"Starts of a new copy of the executable, {COPIES} copies", ["", "p50 ms", "p99 ms"], rows)


def _forget(path: Path) -> None:
    """Have the kernel drop what it keeps of a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
