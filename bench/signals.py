"""What an init is measured by: time to start, time of a signal, wake-ups, and orphans reaped."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import commands, measure

if TYPE_CHECKING:
    from collections.abc import Mapping

ROUNDS = 100
SIGNALS = 400
SECONDS = 10
ORPHANS = 10_000
BATCH = 100
MARK = "the breeder"
ECHO = commands.program("echo") or "/bin/echo"
DIRECT = "without anything"
OURS = "singleton-run"
# Says when it listens, and then for each signal when it had it.
LISTENER = """
import os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
clock, wait, write = time.perf_counter_ns, signal.sigwait, os.write
write(1, b"%020d" % os.getpid())
while wait([signal.SIGUSR1]):
    write(1, b"%020d" % clock())
"""
# Leaves so many behind, each of which ends at once, and then says so.
BREEDER = f"""
import os, signal  # {MARK}
for _ in range({ORPHANS // BATCH}):
    if os.fork() == 0:
        for _ in range({BATCH}):
            if os.fork() == 0:
                os._exit(0)
        os._exit(0)
    os.wait()
os.write(1, b"%020d" % os.getpid())
signal.pause()
"""


def _wrapped(folder: Path, *command: str) -> dict[str, list[str] | None]:
    """The command by itself and behind each wrapper; None for one that is missing."""
    tini, dumb_init, timeout = (commands.program(name) for name in ("tini", "dumb-init", "timeout"))
    return {
        DIRECT: list(command),
        "tini": [tini, "-s", "-g", "--", *command] if tini else None,
        "dumb-init": [dumb_init, *command] if dumb_init else None,
        "timeout 99": [timeout, "99", *command] if timeout else None,
        OURS: commands.ours(folder, *command),
    }


class Started:
    """A command behind a wrapper, which writes numbers of 20 digits."""

    def __init__(self, argv: list[str]) -> None:
        read, write = os.pipe()
        self._out = os.fdopen(read, "rb", buffering=0)
        null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 2)]
        actions = [*null, (os.POSIX_SPAWN_DUP2, write, 1)]
        self.pid = os.posix_spawn(argv[0], argv, measure.environment(), file_actions=actions, setpgroup=0)
        os.close(write)

    def number(self) -> int:
        """The next number. Raises Broken if there is none."""
        data = self._out.read(20)
        if not data or len(data) < 20:
            raise measure.Broken(f"a command has ended early: {data!r}")
        return int(data)

    def close(self) -> None:
        """End it."""
        measure.kill([self.pid])
        self._out.close()


def _rows(head: list[str], cells: Mapping[str, list[str] | None]) -> list[list[str]]:
    """A row for each wrapper; one that is missing says how to get it."""
    gaps = ["-"] * (len(head) - 2)
    return [[name, *(of or [*gaps, commands.advice(name)])] for name, of in cells.items()]


def _start(argv: list[str]) -> float:
    """Milliseconds until the command has written its first byte."""
    read, write = os.pipe()
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 2)]
    began = time.perf_counter_ns()
    pid = os.posix_spawn(
        argv[0], argv, measure.environment(), file_actions=[*null, (os.POSIX_SPAWN_DUP2, write, 1)]
    )
    os.close(write)
    came = os.read(read, 1)
    elapsed = time.perf_counter_ns() - began
    os.close(read)
    os.waitpid(pid, 0)
    if not came:
        raise measure.Broken(f"{' '.join(argv)}: no output")
    return elapsed / 1e6


def _report_starts(folder: Path) -> None:
    argvs = _wrapped(folder, ECHO, "x")
    times: dict[str, list[float]] = {name: [] for name in argvs}
    for _ in range(ROUNDS):
        for name, argv in argvs.items():
            if argv:
                times[name].append(_start(argv))
    head = ["", "p50 ms", "p99 ms"]
    cells = {name: measure.p50_p99(times[name]) if argv else None for name, argv in argvs.items()}
    measure.table(f"From the start to the first byte of `echo`, {ROUNDS} rounds", head, _rows(head, cells))


def _signal(started: Started, front: int) -> float:
    """Milliseconds from a signal's sending to when the command has it."""
    sent = time.perf_counter_ns()
    os.kill(front, signal.SIGUSR1)
    return (started.number() - sent) / 1e6


def _report_signals(folder: Path) -> None:
    argvs = _wrapped(folder, sys.executable, "-I", "-S", "-c", LISTENER)
    argvs.pop("timeout 99")  # it passes on only what ends it
    running = {name: Started(argv) for name, argv in argvs.items() if argv}
    times: dict[str, list[float]] = {name: [] for name in running}
    try:
        inside = {name: started.number() for name, started in running.items()}
        measure.settle([started.pid for started in running.values()])
        for _ in range(SIGNALS):
            for name, started in running.items():
                times[name].append(_signal(started, started.pid))
        wakes = _wakeups(running, inside)
    finally:
        for started in running.values():
            started.close()
    cells = {
        name: [*measure.p50_p99(times[name], 3), wakes[name]] if argv else None
        for name, argv in argvs.items()
    }
    head = ["", "p50 ms", "p99 ms", f"wake-ups in {SECONDS} s"]
    measure.table(
        f"From a signal at the front to the same at the command, {SIGNALS} rounds (target: p50 <= 0.5)",
        head,
        _rows(head, cells),
    )


def _wakeups(running: Mapping[str, Started], inside: Mapping[str, int]) -> dict[str, str]:
    """How often the processes of each wrapper have woken up while nothing happened: one number each."""
    pids = {
        name: [pid for pid in measure.tree(started.pid) if pid != inside[name]]
        for name, started in running.items()
    }
    before = {pid: measure.wakeups(pid) for all_of in pids.values() for pid in all_of}
    time.sleep(SECONDS)
    after = {pid: measure.wakeups(pid) for pid in before}
    return {name: " ".join(str(after[pid] - before[pid]) for pid in pids[name]) or "-" for name in pids}


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _reap(argv: list[str]) -> list[str]:
    """How many gather while the command's parent is stopped, and the seconds in which it reaps them."""
    started = Started(argv)
    try:
        reaper = _parent_of_command(started)
        os.kill(reaper, signal.SIGSTOP)
        started.number()
        dead = _children(reaper)
        began = time.perf_counter_ns()
        os.kill(reaper, signal.SIGCONT)
        while len(_children(reaper)) > 1:
            time.sleep(0.001)
        return [str(len(dead) - 1), f"{(time.perf_counter_ns() - began) / 1e9:.3f}"]
    finally:
        started.close()


def _parent_of_command(started: Started) -> int:
    """The process that has the breeder as its child, once that runs."""
    end = time.monotonic() + measure.PATIENCE
    while time.monotonic() < end:
        for pid in measure.tree(started.pid):
            if any(MARK.encode() in Path(f"/proc/{child}/cmdline").read_bytes() for child in _children(pid)):
                return pid
    raise measure.Broken("the command does not start")


def _report_orphans(folder: Path) -> None:
    argvs = _wrapped(folder, sys.executable, "-I", "-S", "-c", BREEDER)
    head = ["", "orphans", "s to reap them"]
    cells = {name: _reap(argv) if (argv := argvs[name]) else None for name in ("tini", OURS)}
    measure.table("Orphans that ended while their reaper was stopped", head, _rows(head, cells))


def report(folder: Path) -> None:
    """Print the tables."""
    _report_starts(folder)
    _report_signals(folder)
    _report_orphans(folder)
