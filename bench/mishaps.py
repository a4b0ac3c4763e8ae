"""How soon it is noticed that somebody took a lock by hand, or killed most of a waiter's processes."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from bench import commands, measure, servers
from bench.baton import Baton
from tests.servers import kubeaccess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.commands import Maker

ROUNDS = 10
# No renewal and no lease's end is what tells anybody.
TTL = "--ttl", "600s"
ENV = commands.program("env") or "/usr/bin/env"
ROLES = ("front", "guard", "keeper")


class Site(NamedTuple):
    """A server whose locks somebody takes away: what runs a command there, and what he does to a name."""

    make: Maker
    delete: Callable[[str], object]
    overwrite: Callable[[str], object]


def _maker(lock: str, *environ: str) -> Maker:
    make = commands.makers(lock, *TTL)[commands.OURS.name]

    def made(folder: Path, *command: str) -> list[str] | None:
        argv = make(folder, *command)
        return argv and [ENV, *environ, *argv]

    return made


@contextmanager
def _etcd(folder: Path) -> Iterator[Site]:
    with servers.etcd(folder) as server:
        yield Site(_maker(f"etcd://{server.address}"), server.delete_lock, server.take_lock)


@contextmanager
def _kubernetes(folder: Path) -> Iterator[Site]:
    with servers.kubernetes(folder) as cluster:
        namespace = cluster.namespace()
        pod = namespace.account("mishaps", kubeaccess.WATCHING).pod(folder / "pod")
        environ = [f"{word}={value}" for word, value in pod.environ.items()]
        make = _maker(f"k8s-lease://{namespace.name}?service-account={pod.folder}", *environ)
        yield Site(make, namespace.delete_lease, namespace.take_lease)


@contextmanager
def _postgres(_: Path) -> Iterator[Site]:
    with servers.postgres() as server:
        yield Site(_maker(server.url), server.delete_lock, server.take_lock)


@contextmanager
def _redis(folder: Path) -> Iterator[Site]:
    with servers.redis(folder) as server:
        yield Site(_maker(server.url), server.delete_lock, server.take_lock)


SITES = {"etcd": _etcd, "k8s-lease": _kubernetes, "postgres": _postgres, "redis": _redis}


def report(folder: Path) -> None:
    """Print both tables."""
    for table in TABLES.values():
        table(folder)


def _taken(folder: Path) -> None:
    """From the moment at which the hand's request is answered, or sent where that takes a program."""
    rows = []
    for kind, site_at in SITES.items():
        with site_at(folder / kind) as site:
            for how, take in (("deleted", site.delete), ("overwritten", site.overwrite)):
                own = folder / f"{kind}-{how}"
                times = [_told(own.with_suffix(f".{number}"), site.make, take) for number in range(ROUNDS)]
                rows.append([f"{kind}, {how}", *_least_middle_most(times)])
    title = f"A lock is taken by hand: until its command has ended, {ROUNDS} rounds (target: <= 300 ms)"
    measure.table(title, ["", "least ms", "p50 ms", "most ms"], rows)


def _behind_lock(folder: Path, make: Maker) -> tuple[Baton, list[str]]:
    folder.mkdir()
    baton = Baton(folder)
    argv = make(folder, *baton.argv)
    if argv is None:
        raise measure.Broken(f"{commands.OURS.name} isn't there: {commands.advice(commands.OURS.name)}")
    return baton, argv


def _told(folder: Path, make: Maker, take: Callable[[str], object]) -> float:
    """Milliseconds from the request to the command's end, which SIGTERM ends at once."""
    baton, argv = _behind_lock(folder, make)
    pids = [measure.spawn(argv)]
    try:
        _, command = baton.started()
        measure.settle(pids)
        end = os.pidfd_open(command)
        try:
            begun = time.monotonic()
            take(folder.name)
            if not select.select([end], [], [], measure.PATIENCE)[0]:
                raise measure.Broken("nobody told the command that its lock is gone")
            return (time.monotonic() - begun) * 1000
        finally:
            os.close(end)
    finally:
        measure.kill(pids)


def _left(folder: Path) -> None:
    """The waiter is at the head of the queue, and all of its processes but one are killed."""
    rows = []
    with servers.etcd(folder / "left") as server:
        make = _maker(f"etcd://{server.address}")
        for role in ROLES:
            times = [_behind(folder / f"left-{role}-{number}", make, role) for number in range(ROUNDS)]
            rows.append([f"{role} is left", *_least_middle_most(times)])
    title = f"etcd: a waiter's processes but one are killed: until the next starts, {ROUNDS} rounds"
    measure.table(f"{title} (target: <= 300 ms)", ["", "least ms", "p50 ms", "most ms"], rows)


def _behind(folder: Path, make: Maker, left: str) -> float:
    """Milliseconds from the kill to the next start, be it that waiter's own or of the one behind it."""
    baton, argv = _behind_lock(folder, make)
    with ExitStack() as stack:
        pids: list[int] = []
        stack.callback(measure.kill, pids)
        pids.append(measure.spawn(argv))
        baton.started()
        for _ in range(2):
            pids.append(measure.spawn(argv))
            measure.settle(pids)
        waiter = measure.tree(pids[1])
        for pid in waiter:
            os.kill(pid, signal.SIGSTOP)
        baton.finish()
        os.waitpid(pids.pop(0), 0)
        begun = time.monotonic()
        for pid in waiter:
            os.kill(pid, signal.SIGCONT if measure.role(pid).startswith(left) else signal.SIGKILL)
        started, _ = baton.started()
        clocks = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
        return (started / 1e9 - clocks - begun) * 1000


def _least_middle_most(times: list[float]) -> list[str]:
    return [f"{value:.0f}" for value in (min(times), measure.percentile(times, 50), max(times))]


TABLES = {"taken": _taken, "left": _left}
