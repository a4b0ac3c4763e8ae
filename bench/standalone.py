"""The executable that needs no Python, beside the wheel and `etcdctl lock`: starts and memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bench import commands, footprint, measure, servers, startup

ROUNDS = 40
COPIES = 15
NAME = commands.STANDALONE.name


def report(folder: Path) -> None:
    """Print the tables."""
    with servers.etcd(folder / "server") as server:
        lock, connected = f"etcd://{server.address}", server.ctl_command()

        def theirs(place: Path, *command: str) -> list[str] | None:
            return commands.etcdctl(connected, place.name, *command)

        makers = {"etcdctl lock": theirs, **commands.makers(lock)}
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
        _first_start(folder, connected[0])


def _first_start(folder: Path, etcdctl: str) -> None:
    """What the first start of a new copy takes, beside etcdctl, which unpacks nothing either.

    After a copy its pages are in the kernel's cache. If they aren't, any file is read from the disk.
    """
    if not commands.STANDALONE.exists():
        return
    own = ["--lock", f"file://{folder}", "--name", "b", "--", startup.TRUE]
    peer = Path(shutil.which(etcdctl) or etcdctl)
    programs = {NAME: (commands.STANDALONE, own), "etcdctl version": (peer, ["version"])}
    rows = []
    for name, (program, words) in programs.items():
        for state, forgets in (("first", False), ("first, from the disk", True)):
            first, tenth = _starts(program, words, folder, forgets=forgets)
            rows.append([f"{name}, {state}", *measure.p50_p99(first), measure.ratios(first, tenth)[0]])
    title = f"First starts of a new copy, {COPIES} copies (target: in the cache, no slower)"
    measure.table(title, ["", "p50 ms", "p99 ms", "x tenth"], rows)


def _starts(
    program: Path, words: list[str], folder: Path, *, forgets: bool
) -> tuple[list[float], list[float]]:
    """Milliseconds of the first and of the tenth start of each new copy of a program."""
    first, tenth = [], []
    for number in range(COPIES):
        copy = folder / f"copy-{number}"
        shutil.copy2(program, copy)
        if forgets:
            _forget(copy)
        times = [measure.run([str(copy), *words]) for _ in range(10)]
        first.append(times[0])
        tenth.append(times[-1])
        copy.unlink()
    return first, tenth


def _forget(path: Path) -> None:
    """Have the kernel drop what it keeps of a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
