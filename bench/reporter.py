"""What --metrics-addr costs: an idle replica's memory and wake-ups, and start to end of `true`."""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING

from bench import commands, measure, servers, startup
from bench.baton import Baton
from bench.pair import Pair
from tests.support.harness import until
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROUNDS = 60
SECONDS = 20
SCRAPES = 200


def report(folder: Path) -> None:
    """Print the tables."""
    if commands.ours(folder, startup.TRUE) is None:
        measure.table("The reporter", ["", ""], [["singleton-run", commands.advice("singleton-run")]])
        return
    with servers.etcd(folder / "etcd") as server:
        locks = {"file": f"file://{folder}", "etcd": f"etcd://{server.address}"}
        for kind, lock in locks.items():
            _startup(kind, lock)
        for kind, lock in locks.items():
            _idle(kind, lock, folder)


def _behind(lock: str, name: str, options: Sequence[str], *command: str) -> list[str]:
    """What runs `command` behind singleton-run with these options."""
    argv = commands.behind(lock, name, *command) or []
    at = argv.index("--")
    return [*argv[:at], *options, *argv[at:]]


def _startup(kind: str, lock: str) -> None:
    """The target is 10 ms more than without: the reporter loads beside the command, and not before it."""
    port = free_port()
    calls = {
        "true": _behind(lock, "b", [], startup.TRUE),
        "true, --metrics-addr": _behind(lock, "b", ["--metrics-addr", f"127.0.0.1:{port}"], startup.TRUE),
    }
    times = measure.interleaved(calls, ROUNDS)
    plain = measure.percentile(times["true"], 50)
    rows = [
        [name, *measure.p50_p99(values), f"{measure.percentile(values, 50) - plain:+.1f}"]
        for name, values in times.items()
    ]
    title = f"Start to end with {kind}, {ROUNDS} rounds (target: <= 10 ms more)"
    measure.table(title, ["", "p50 ms", "p99 ms", "more ms"], rows)


def _idle(kind: str, lock: str, folder: Path) -> None:
    """The targets are 25 MB in all, and no wake-up of a waiter without scrapes."""
    own = folder / f"idle-{kind}"
    own.mkdir()
    baton = Baton(own)
    port = free_port()
    holder = Pair(_behind(lock, "idle", [], *baton.argv), baton)
    try:
        argv = _behind(lock, "idle", ["--metrics-addr", f"127.0.0.1:{port}"], *baton.argv)
        replica = [measure.spawn(argv)]
        try:
            until(lambda: _scrape(port), "the replica to answer")
            measure.settle(replica)
            pids = measure.tree(*replica)
            pss, alone = measure.memory(pids)
            before = {pid: measure.wakeups(pid) for pid in pids}
            time.sleep(SECONDS)
            woken = {pid: measure.wakeups(pid) - before[pid] for pid in pids}
            reporter = next(pid for pid in pids if measure.role(pid).startswith("reporter"))
            spent = measure.cpu(reporter)
            for _ in range(SCRAPES):
                _scrape(port)
            spent = (measure.cpu(reporter) - spent) / SCRAPES
            rows = [[measure.role(pid), f"{measure.memory([pid])[0]:.1f}", str(woken[pid])] for pid in pids]
            rows.append(["in all", f"{pss:.1f}", str(sum(woken.values()))])
            rows.append(["alone on a machine", f"{alone:.1f}", "-"])
            rows.append(["a scrape, CPU ms", f"{spent:.2f}", "-"])
        finally:
            measure.kill(replica)
    finally:
        holder.close()
    title = f"An idle replica with {kind} and --metrics-addr (targets: 25 MB, no wake-up in {SECONDS} s)"
    measure.table(title, ["", "PSS MB", "wake-ups"], rows)


def _scrape(port: int) -> bool:
    """Whether /metrics answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=measure.PATIENCE)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read() != b""
    except OSError:
        return False
    finally:
        connection.close()
