"""Start processes, time them, and read from /proc what they use. Linux only."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATIENCE = 10.0
"""Seconds after which whatever was to happen is taken not to happen."""
_LOOK = 2.0  # ms of processor time


class Broken(Exception):
    """A measured command did not do what it should; the text says which and how."""


def environment() -> dict[str, str]:
    """Our environment without the variables that would change what the measured commands do."""
    own = ("SINGLETON_", "KUBERNETES_", "ETCD", "PG", "REDIS")
    return {key: value for key, value in os.environ.items() if not key.startswith(own)}


def spawn(argv: list[str]) -> int:
    """Start `argv` (a full path first) with /dev/null for what it reads and prints; its pid."""
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    return os.posix_spawn(argv[0], argv, environment(), file_actions=null)


def run(argv: list[str]) -> float:
    """Milliseconds from start to end of `argv`. Raises Broken unless it exits with 0."""
    start = time.perf_counter_ns()
    pid = spawn(argv)
    _, status, _ = os.wait4(pid, 0)
    elapsed = time.perf_counter_ns() - start
    if status:
        raise Broken(f"{' '.join(argv)}: exit status {os.waitstatus_to_exitcode(status)}")
    return elapsed / 1e6


def interleaved(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each command, `rounds` times each, taking turns so that drift hits all alike."""
    for argv in commands.values():
        run(argv)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, argv in commands.items():
            times[name].append(run(argv))
    return times


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; of fewer than 100 values the 99th is the greatest."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def p50_p99(values: Sequence[float], digits: int = 1) -> list[str]:
    """Median and 99th percentile, as cells of a table."""
    return [f"{percentile(values, at):.{digits}f}" for at in (50, 99)]


def ratios(values: Sequence[float], base: Sequence[float], digits: int = 2) -> list[str]:
    """Median and 99th percentile as multiples of those of `base`, as cells of a table."""
    return [f"{percentile(values, at) / percentile(base, at):.{digits}f}" for at in (50, 99)]


def kill(children: list[int]) -> None:
    """Kill these children of ours with everything below them, reap them, and empty the list."""
    for pid in tree(*children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while children:
        os.waitpid(children.pop(), 0)


def tree(*roots: int) -> list[int]:
    """`roots` and all of their descendants there are now, parents first."""
    return _below(_children(), *roots)


def trees(roots: Sequence[int]) -> list[list[int]]:
    """The tree of each of these, as they are now."""
    children = _children()
    return [_below(children, root) for root in roots]


def _below(children: Mapping[int, Sequence[int]], *roots: int) -> list[int]:
    found = list(roots)
    for pid in found:
        found += sorted(children.get(pid, ()))
    return found


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            children.setdefault(_parent(entry), []).append(int(entry.name))
    return children


def _parent(entry: Path) -> int:
    try:
        return int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def role(pid: int) -> str:
    """`keeper of b` if it calls itself `singleton-run: keeper of b`; else `front`, or the program's name."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    if words[0].startswith("singleton-run: "):
        return words[0].partition(": ")[2]
    if any(word.endswith("/singleton-run") for word in words[:2]):
        return "front"
    return os.path.basename(words[0])


def _kilobytes(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.partition(":")[0]: int(line.split()[1]) for line in lines}


def memory(pids: Sequence[int]) -> tuple[float, float]:
    """(sum of PSS, what they would take if nobody else shared their pages), in MB.

    The second is an estimate: all private pages, and the shared ones of the process that has the most.
    """
    sizes = [_kilobytes(pid) for pid in pids]
    pss = sum(size["Pss"] for size in sizes)
    private = sum(size["Private_Clean"] + size["Private_Dirty"] for size in sizes)
    shared = max(size["Shared_Clean"] + size["Shared_Dirty"] for size in sizes)
    return pss / 1000, (private + shared) / 1000


def resident(pids: Sequence[int]) -> float:
    """Sum of RSS in MB: a page counts once for each process that uses it."""
    return sum(_kilobytes(pid)["Rss"] for pid in pids) / 1000


def wakeups(pid: int) -> int:
    """How often the process has gone to sleep since it started: all of its threads, voluntary switches."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in task.joinpath("status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def cpu(pid: int) -> float:
    """CPU time so far in ms, of all threads: to the ns where the kernel keeps schedstat, else to the tick."""
    proc = Path(f"/proc/{pid}")
    try:
        tasks = list(proc.joinpath("task").iterdir())
        return sum(int(task.joinpath("schedstat").read_text().split()[0]) for task in tasks) / 1e6
    except FileNotFoundError:
        fields = proc.joinpath("stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def _work(pid: int) -> float:
    try:
        return cpu(pid)
    except (FileNotFoundError, ProcessLookupError):
        return -1


def _rests(before: Sequence[tuple[int, float]], after: Sequence[tuple[int, float]]) -> bool:
    """Whether they are the same processes, none of which has done more than look at its server."""
    same = [pid for pid, _ in before] == [pid for pid, _ in after]
    return same and all(new - old <= _LOOK for (_, old), (_, new) in zip(before, after, strict=True))


def settle(roots: Sequence[int]) -> None:
    """Return when below each of `roots` nothing has run or been born for some 0.1 s, but for a poll.

    Each for itself, for of many that renew something from time to time there is always one that runs.
    Raises Broken after PATIENCE.
    """
    deadline = time.monotonic() + PATIENCE
    restless = list(roots)
    last: dict[int, list[tuple[int, float]]] = {}
    while time.monotonic() < deadline:
        time.sleep(0.1)
        children = _children()
        now = {root: [(pid, _work(pid)) for pid in _below(children, root)] for root in restless}
        restless = [root for root in restless if not _rests(last.get(root, []), now[root])]
        if not restless:
            return
        last = now
    raise Broken("the processes did not come to rest")


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    print(f"\n{title}")
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        cells[0] = line[0].ljust(widths[0])
        print("  " + "  ".join(cells).rstrip())
    sys.stdout.flush()
