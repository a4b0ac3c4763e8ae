"""Slots: how late a command starts, what a replica costs between slots, and how often all of them ask."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from bench import commands, measure, servers, startup
from bench.baton import Baton
from bench.etcd import counters
from tests.support.proxy import Proxy, proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SLOTS = 20
LATE_EVERY = 2
SECONDS = 20
REPLICAS = 20
INTERVAL = 15


class Site:
    """One kind of lock: its address, and how many requests its server has had (None: it can't say)."""

    def __init__(self, name: str, lock: str, port: int = 0, count: Callable[[], float] | None = None) -> None:
        self.name = name
        self.lock = lock
        self.port = port
        self.count = count


@contextlib.contextmanager
def _sites(folder: Path) -> Iterator[list[Site]]:
    with servers.etcd(folder / "etcd") as etcd, servers.postgres() as postgres:

        def calls() -> float:
            return counters(etcd)["grpc_server_started_total"]

        def transactions() -> float:
            counting = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'app'"
            return float(postgres.run(counting, database="postgres")[0][0])

        yield [
            Site("file", f"file://{folder}"),
            Site("etcd", f"etcd://{etcd.address}", etcd.port, calls),
            Site("postgres", postgres.url, postgres.port, transactions),
        ]


def _argv(lock: str, name: str, schedule: list[str], *command: str) -> list[str]:
    argv = commands.behind(lock, name, *command)
    if argv is None:
        raise measure.Broken(commands.advice("singleton-run"))
    return _scheduled(argv, schedule)


def _scheduled(argv: list[str], schedule: list[str]) -> list[str]:
    return [argv[0], *schedule, *argv[1:]]


def report(folder: Path) -> None:
    """Print the tables."""
    with _sites(folder) as sites:
        _lateness(folder, sites)
        _idle(sites)
        _requests(sites)


def _lateness(folder: Path, sites: list[Site]) -> None:
    """By cron the slots are on even seconds, so what is above one is how late a start is."""
    rows = []
    for site in sites:
        own = folder / f"late-{site.name}"
        own.mkdir()
        baton = Baton(own)
        pids = [
            measure.spawn(
                _argv(site.lock, "late", ["--cron", f"*/{LATE_EVERY} * * * * *", "--tz", "UTC"], *baton.argv)
            )
        ]
        late = []
        try:
            baton.started()
            for _ in range(SLOTS):
                baton.finish()
                start = baton.started()[0] / 1e9 + time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
                late.append(start % LATE_EVERY * 1000)
        finally:
            measure.kill(pids)
        rows.append([site.name, *measure.p50_p99(late), f"{min(late):.1f}"])
    title = f"Slots: how late the command starts, {SLOTS} slots (target: p50 <= 5 ms, p99 <= 20 ms)"
    measure.table(title, ["", "p50 ms", "p99 ms", "min ms"], rows)


def _idle(sites: list[Site]) -> None:
    rows = []
    for site in sites:
        with proxy(site.port) if site.port else contextlib.nullcontext() as between:
            lock = site.lock.replace(f":{site.port}", f":{between.port}") if between else site.lock
            for name, wrap in (("", commands.behind), (", executable", commands.standalone)):
                if argv := wrap(lock, "idle", startup.TRUE):
                    rows.append([f"{site.name}{name}", *_idle_at(argv, between)])
    title = (
        f"Slots: a replica of an hourly job, {SECONDS} s between slots (target: PSS <= 4 MB, nothing else)"
    )
    head = ["", "processes", "PSS MB", "alone MB", "wake-ups", "CPU ms", "CPU s/day", "bytes sent"]
    measure.table(title, head, rows)


def _idle_at(argv: list[str], between: Proxy | None) -> list[str]:
    pids = [measure.spawn(_scheduled(argv, ["--every", "1h"]))]
    try:
        _come_to_rest(pids)
        pss, alone = measure.memory(pids)
        woken, worked = measure.wakeups(pids[0]), measure.cpu(pids[0])
        sent = len(between.seen) if between else 0
        time.sleep(SECONDS)
        woken, worked = measure.wakeups(pids[0]) - woken, measure.cpu(pids[0]) - worked
        sent = len(between.seen) - sent if between else 0
        processes = len(measure.tree(*pids))
    finally:
        measure.kill(pids)
    a_day = worked / 1000 * 86400 / SECONDS
    numbers = [f"{pss:.1f}", f"{alone:.1f}", str(woken), f"{worked:.2f}", f"{a_day:.1f}"]
    return [str(processes), *numbers, str(sent) if between else "-"]


def _come_to_rest(pids: list[int]) -> None:
    """Wait until nothing but the replicas themselves has been seen for some time."""
    deadline = time.monotonic() + 10 * measure.PATIENCE
    since = time.monotonic()
    while time.monotonic() - since < 1.0:
        begun = all(measure.role(pid).startswith("front of ") for pid in pids)
        if not begun or len(measure.tree(*pids)) > len(pids):
            since = time.monotonic()
        if time.monotonic() > deadline:
            raise measure.Broken("the replicas did not come to rest")
        time.sleep(0.1)


def _requests(sites: list[Site]) -> None:
    rows = []
    for site in sites:
        if site.count is None:
            continue
        alone, together = _a_slot(site, 1), _a_slot(site, REPLICAS)
        each = (together - alone) / (REPLICAS - 1)
        rows.append([site.name, f"{alone:.0f}", f"{together:.0f}", f"{each:.2f}"])
    title = (
        f"Slots: requests for one slot, {REPLICAS} replicas (target: at most 2 for one that doesn't run it)"
    )
    measure.table(title, ["", "one replica", f"{REPLICAS} replicas", "each that doesn't run it"], rows)


def _a_slot(site: Site, replicas: int) -> float:
    """How many requests the server has from one rest of the replicas to the next, with one slot between."""
    assert site.count is not None
    slots = ["--cron", f"*/{INTERVAL} * * * * *", "--tz", "UTC", "--ttl", "6s"]
    pids = [
        measure.spawn(_argv(site.lock, f"asked-{replicas}", slots, startup.TRUE)) for _ in range(replicas)
    ]
    try:
        _come_to_rest(pids)
        # Two thirds on, everybody has looked after the last slot, and nobody looks for the next one yet.
        time.sleep((INTERVAL * 2 / 3 - time.time()) % INTERVAL)
        before = site.count()
        time.sleep(INTERVAL)
        return site.count() - before
    finally:
        measure.kill(pids)
