"""The lock in Redis, beside scripts with the locks of redis-py and python-redis-lock, and single-beat."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from bench import commands, footprint, handover, measure, servers, startup
from bench.baton import Baton
from bench.handover import Queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from redis import Redis

    from bench.commands import Maker
    from tests.servers.redis import Server

ROUNDS = 40
COUNTED = 20
OURS = "singleton-run"
PEER = "redis-py Lock"
COUNTS = (2, 50)
MANY = 500
BARE = "import redis, sys; lock = redis.Redis.from_url(sys.argv[1]).lock('bare', timeout=30)\nwith lock: pass"
# What clients ask for. The server counts what a script does by itself too: ours sets a token.
ASKED = ("evalsha", "eval", "blpop", "subscribe", "hello", "select", "client|setname", "client|setinfo")
# Of the server's commands those that only the bench gives.
BENCH = ("info", "client|kill")
# Nobody renews anything while it is counted what a hand-over takes.
QUIET = ("--ttl", "1h")


def report(folder: Path) -> None:
    """Print all tables but those with many waiters."""
    for name, table in TABLES.items():
        if not name.startswith(f"{MANY}"):
            own = folder / name
            own.mkdir()
            table(own)


def _makers(server: Server, *options: str) -> dict[str, Maker]:
    """Those that wait; single-beat looks every few seconds, and starts nothing else than its next copy."""

    def peer(name: str) -> Maker:
        return lambda folder, *command: commands.library(name, server.url, folder.name, *command)

    return {name: peer(name) for name in commands.LIBRARIES} | commands.makers(server.url, *options)


def _startup(folder: Path) -> None:
    """The target is 1.3 × a script that imports redis-py, and takes and releases its lock."""
    bare = f"{PEER}, bare script"
    with servers.redis(folder / "server") as server:
        candidates: dict[str, list[str] | None] = {
            startup.PYTHON: [commands.PYTHON, "-c", "pass"],
            bare: [commands.PYTHON, "-c", BARE, server.url],
        }
        candidates |= {name: make(folder, startup.TRUE) for name, make in _makers(server).items()}
        title = f"Redis: start to end of `true`, {ROUNDS} rounds (target: {OURS} <= 1.3 x {bare})"
        bases = {"x python": lambda _: startup.PYTHON, f"x {bare}": lambda _: bare}
        startup.table(title, ROUNDS, candidates, bases)
        single = commands.single_beat(server.url, "b", startup.TRUE)
        cell = f"{measure.run(single):.0f}" if single else commands.advice("single-beat")
    measure.table("Redis: the same by single-beat, once", ["", "ms"], [["single-beat", cell]])


def _handover(folder: Path) -> None:
    with servers.redis(folder / "server") as server:
        title = f"Redis: hand-over, {{}} (target: p50 <= 5 ms with 50; {PEER} looks every 100 ms)"
        handover.table(title, _makers(server), PEER, folder, COUNTS)


def _memory(folder: Path) -> None:
    with servers.redis(folder / "server") as server:
        footprint.table("Redis: memory without the command", _makers(server), PEER, folder)


class _Line:
    """A holder and its waiters, whose requests and wake-ups are counted."""

    def __init__(self, argv: list[str], baton: Baton, waiters: int, asked: Sequence[str]) -> None:
        self.asked = asked
        self.queue = Queue(argv, baton, waiters)

    def hand_over(self, client: Redis) -> tuple[float, int, int, int]:
        """Let the holder end and the next one begin.

        It takes so many ms. Until then there are so many requests, so many commands in all with those within
        the scripts, and so many waiters wake.
        """
        trees = dict(zip(self.queue.pids, measure.trees(self.queue.pids), strict=True))
        told, woken = client.info("commandstats"), {pid: _wakeups(tree) for pid, tree in trees.items()}
        ended = self.queue.baton.finish()
        started, _ = self.queue.baton.started()
        now = client.info("commandstats")
        woke = [pid for pid, tree in trees.items() if _wakeups(tree) != woken[pid]]
        # The holder isn't the one that was started first: they queue up in another order.
        holder, _ = os.waitpid(-1, 0)
        self.queue.pids.remove(holder)
        self.queue.add()
        measure.settle(self.queue.fresh)
        every = [name.removeprefix("cmdstat_") for name in now]
        every = [name for name in every if name not in BENCH]
        asked, all_of_them = (_calls(now, names) - _calls(told, names) for names in (self.asked, every))
        return (started - ended) / 1e6, asked, all_of_them, len(set(woke) - {holder})


def _calls(told: dict[str, dict[str, float]], names: Sequence[str]) -> int:
    """How often the server was given these commands."""
    return sum(int(told.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in names)


def _wakeups(tree: list[int]) -> int:
    """How often its processes have gone to sleep; -1 where one has ended, which the winner's may."""
    try:
        return sum(measure.wakeups(pid) for pid in tree)
    except (FileNotFoundError, ProcessLookupError):
        return -1


@contextmanager
def _line(server: Server, name: str, folder: Path, waiters: int) -> Iterator[_Line | None]:
    """Those behind one lock, at rest; None if that wrapper is missing."""
    own = folder / f"counted-{name}-{waiters}"
    own.mkdir()
    baton = Baton(own)
    argv = _makers(server, *QUIET)[name](own, *baton.argv)
    if not argv:
        yield None
        return
    line = _Line(argv, baton, waiters, ASKED if name == OURS else (*ASKED, "set"))
    try:
        measure.settle(line.queue.pids)
        yield line
    finally:
        line.queue.close()


HEAD = [
    "",
    "p50 ms",
    "p99 ms",
    *("requests p50", "most", "commands p50", "most", "waiters woken p50", "most"),
]


def _row(server: Server, name: str, folder: Path, waiters: int) -> list[str]:
    """What the holder and its waiters ask of the server at a hand-over, that wrapper by itself."""
    label = f"{name}, {waiters} waiting"
    with _line(server, name, folder, waiters) as line:
        if line is None:
            return [label, *("-" * (len(HEAD) - 2)), commands.advice(name)]
        with server.client(single_connection_client=True) as client:
            times, *counts = zip(*(line.hand_over(client) for _ in range(COUNTED)), strict=True)
    cells = [f"{value}" for found in counts for value in (measure.percentile(found, 50), max(found))]
    return [label, *measure.p50_p99(times, 2), *cells]


def _commands(
    folder: Path, names: Sequence[str] = (*commands.LIBRARIES, OURS), counts: Sequence[int] = COUNTS
) -> None:
    with servers.redis(folder / "server") as server:
        rows = [_row(server, name, folder, waiters) for waiters in counts for name in names]
    target = "target: one waiter woken, as many commands with many as with few"
    how = f"{COUNTED} rounds, each wrapper by itself, ours with {' '.join(QUIET)}"
    title = f"Redis: what one hand-over takes, {how} ({target})"
    measure.table(title, HEAD, rows)


TABLES: dict[str, Callable[[Path], None]] = {
    "startup": _startup,
    "handover": _handover,
    "memory": _memory,
    "commands": _commands,
    f"{MANY}": partial(_commands, names=[OURS], counts=[MANY]),
    f"{MANY}-redis-py": partial(_commands, names=[PEER], counts=[MANY]),
    f"{MANY}-python-redis-lock": partial(_commands, names=["python-redis-lock"], counts=[MANY]),
}
"""Each by itself as `redis.NAME`. With many waiters they take minutes to come, and gigabytes."""
