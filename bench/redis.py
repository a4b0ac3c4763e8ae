"""The lock in Redis, beside scripts with the locks of redis-py and python-redis-lock, and single-beat."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench import commands, footprint, handover, measure, servers, startup
from bench.baton import Baton
from bench.handover import Queue

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis

    from bench.handover import Maker
    from tests.servers.redis import Server

ROUNDS = 40
COUNTED = 20
PEER = "redis-py Lock"
COUNTS = (2, 50)
BARE = "import redis, sys; lock = redis.Redis.from_url(sys.argv[1]).lock('bare', timeout=30)\nwith lock: pass"
# What clients ask for. The server counts what a script does by itself too: ours sets a token.
ASKED = ("evalsha", "eval", "blpop", "subscribe", "hello", "select", "client|setname", "client|setinfo")


def report(folder: Path) -> None:
    """Print the tables."""
    with servers.redis(folder / "server") as server:
        _startup(folder, server)
        title = f"Redis: hand-over, {{}} (target: p50 <= 5 ms with 50; {PEER} looks every 100 ms)"
        handover.table(title, _makers(server), PEER, folder, COUNTS)
        footprint.table("Redis: memory without the command", _makers(server), PEER, folder)
        _commands(folder, server)


def _makers(server: Server) -> dict[str, Maker]:
    """Those that wait; single-beat looks every few seconds, and starts nothing else than its next copy."""

    def peer(name: str) -> Maker:
        return lambda folder, *command: commands.library(name, server.url, folder.name, *command)

    def ours(folder: Path, *command: str) -> list[str] | None:
        return commands.behind(server.url, folder.name, *command)

    return {**{name: peer(name) for name in commands.LIBRARIES}, "singleton-run": ours}


def _startup(folder: Path, server: Server) -> None:
    """The target is 1.3 × a script that imports redis-py, and takes and releases its lock."""
    bare = f"{PEER}, bare script"
    candidates: dict[str, list[str] | None] = {
        startup.PYTHON: [commands.PYTHON, "-c", "pass"],
        bare: [commands.PYTHON, "-c", BARE, server.url],
    }
    candidates |= {name: make(folder, startup.TRUE) for name, make in _makers(server).items()}
    title = f"Redis: start to end of `true`, {ROUNDS} rounds (target: singleton-run <= 1.3 x {bare})"
    bases = {"x python": lambda _: startup.PYTHON, f"x {bare}": lambda _: bare}
    startup.table(title, ROUNDS, candidates, bases)
    single = commands.single_beat(server.url, "b", startup.TRUE)
    cell = f"{measure.run(single):.0f}" if single else commands.advice("single-beat")
    measure.table("Redis: the same by single-beat, once", ["", "ms"], [["single-beat", cell]])


class _Line:
    """A holder and its waiters, whose requests and wake-ups are counted."""

    def __init__(self, argv: list[str], baton: Baton, waiters: int, asked: tuple[str, ...]) -> None:
        self.asked = asked
        self.queue = Queue(argv, baton, waiters)

    def hand_over(self, client: Redis) -> tuple[int, int]:
        """Let the holder end and the next one begin: requests until then, and how many waiters woke."""
        trees = [measure.tree(pid) for pid in self.queue.pids[1:]]
        asked, woken = self._requests(client), [_wakeups(tree) for tree in trees]
        self.queue.baton.finish()
        self.queue.baton.started()
        woke = sum(_wakeups(tree) != before for tree, before in zip(trees, woken, strict=True))
        asked = self._requests(client) - asked
        pid, _ = os.waitpid(-1, 0)
        self.queue.pids.remove(pid)
        self.queue.add()
        measure.settle(self.queue.fresh)
        return asked, woke

    def _requests(self, client: Redis) -> int:
        counts = client.info("commandstats")
        return sum(int(counts.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in self.asked)


def _wakeups(tree: list[int]) -> int:
    return sum(measure.wakeups(pid) for pid in tree)


def _commands(folder: Path, server: Server) -> None:
    """What the holder and its waiters ask of the server meanwhile, each wrapper by itself."""
    rows = []
    for waiters in COUNTS:
        for name, make in _makers(server).items():
            own = folder / f"counted-{name}-{waiters}"
            own.mkdir()
            baton = Baton(own)
            argv = make(own, *baton.argv)
            cells = _counted(server, argv, baton, waiters) if argv else ["-", commands.advice(name)]
            rows.append([f"{name}, {waiters} waiting", *cells])
    title = f"Redis: what one hand-over takes, {COUNTED} rounds (target: one waiter woken)"
    measure.table(title, ["", "requests p50", "most", "waiters woken p50", "most"], rows)


def _counted(server: Server, argv: list[str], baton: Baton, waiters: int) -> list[str]:
    line = _Line(argv, baton, waiters, ASKED if argv[0] == str(commands.OURS) else (*ASKED, "set"))
    try:
        measure.settle(line.queue.pids)
        with server.client(single_connection_client=True) as client:
            found = [line.hand_over(client) for _ in range(COUNTED)]
    finally:
        line.queue.close()
    return [
        f"{value:.0f}"
        for values in zip(*found, strict=True)
        for value in (measure.percentile(values, 50), max(values))
    ]
