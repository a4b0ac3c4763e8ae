"""The lock in etcd, against `etcdctl lock` on the same server."""

from __future__ import annotations

import http.client
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench import commands, footprint, handover, measure, servers, startup
from bench.baton import Baton
from bench.pair import Pair
from tests.support.harness import until

if TYPE_CHECKING:
    from pathlib import Path

    from bench.commands import Maker
    from tests.servers.etcd import Etcd

ROUNDS = 40
SECONDS = 30
PEER = "etcdctl lock"


def _lock(server: Etcd) -> str:
    lock = f"etcd://{server.address}"
    if files := server.certificates:
        lock += f"?cacert={files.ca}&cert={files.client_cert}&key={files.client_key}"
    return lock


def _theirs(server: Etcd) -> Maker:
    connected = server.ctl_command()
    return lambda folder, *command: commands.etcdctl(connected, folder.name, *command)


def _makers(server: Etcd) -> dict[str, Maker]:
    return {PEER: _theirs(server), **commands.makers(_lock(server))}


def report(folder: Path) -> None:
    """Print the tables."""
    with servers.etcd(folder / "plain") as server:
        _startup(folder, server)
        _check(folder, server)
        title = f"etcd: hand-over, {{}} (target: p50 and p99 <= 1.5 x {PEER})"
        handover.table(title, _makers(server), PEER, folder, (2, 50))
        title = "etcd: memory without the command (targets: PSS <= 0.8 x holding, <= 1.2 x waiting)"
        footprint.table(title, _makers(server), PEER, folder)
    _requests(folder)


def _startup(folder: Path, server: Etcd) -> None:
    """The target is 1.2 × etcdctl; with TLS there is none."""
    with servers.etcd(folder / "tls", tls=True) as secure:
        candidates: dict[str, list[str] | None] = {startup.PYTHON: [commands.PYTHON, "-c", "pass"]}
        candidates |= {name: make(folder, startup.TRUE) for name, make in _makers(server).items()}
        candidates |= {f"{name}, TLS": make(folder, startup.TRUE) for name, make in _makers(secure).items()}
        title = f"etcd: start to end of `true`, {ROUNDS} rounds (target: singleton-run <= 1.2 x {PEER})"
        bases = {
            "x python": lambda _: startup.PYTHON,
            f"x {PEER}": lambda name: f"{PEER}, TLS" if name.endswith(", TLS") else PEER,
        }
        startup.table(title, ROUNDS, candidates, bases)


def _check(folder: Path, server: Etcd) -> None:
    """`check`, as the command asks that has the lock: the target is 60 ms."""
    told = folder / "told"
    script = f"env | grep ^SINGLETON_ > {told}.part; mv {told}.part {told}; exec sleep 600"
    with ExitStack() as stack:
        holder = commands.behind(_lock(server), folder.name, "sh", "-c", script)
        if holder is None:
            return
        process = subprocess.Popen(holder)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        until(told.exists, "the command to have the lock")
        turn = told.read_text(encoding="utf-8").splitlines()
        candidates: dict[str, list[str] | None] = {
            startup.PYTHON: [commands.PYTHON, "-c", "pass"],
            "singleton-run check": [commands.program("env") or "/usr/bin/env", *turn, holder[0], "check"],
        }
        title = f"etcd: check, {ROUNDS} rounds (target: p50 <= 60 ms)"
        startup.table(title, ROUNDS, candidates, {"x python": lambda _: startup.PYTHON})


def counters(server: Etcd) -> dict[str, float]:
    """The server's counters by name, summed over their labels."""
    connection = http.client.HTTPConnection(server.address, timeout=measure.PATIENCE)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    sums: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


class _Site:
    """A server for one wrapper alone, so that all that it counts is that wrapper's."""

    def __init__(self, name: str, server: Etcd, pair: Pair) -> None:
        self.name = name
        self.server = server
        self.pair = pair

    def span(self, before: dict[str, float]) -> list[float]:
        """Messages and calls a minute since `before`, and the watches that are open."""
        now = counters(self.server)
        names = ("grpc_server_msg_received_total", "grpc_server_started_total")
        rates = [(now[name] - before[name]) * 60 / SECONDS for name in names]
        return [*rates, now["etcd_debugging_mvcc_watcher_total"]]


def _spans(sites: list[_Site]) -> list[list[float]]:
    before = [counters(site.server) for site in sites]
    time.sleep(SECONDS)
    return [site.span(counters) for site, counters in zip(sites, before, strict=True)]


def _requests(folder: Path) -> None:
    """A waiter's are what there are more with it than without."""
    sites: list[_Site] = []
    with ExitStack() as stack:
        for name in (PEER, "singleton-run"):
            own = folder / f"requests-{name}"
            server = stack.enter_context(servers.etcd(own))
            baton = Baton(own)
            if argv := _makers(server)[name](own, *baton.argv):
                pair = Pair(argv, baton)
                stack.callback(pair.close)
                sites.append(_Site(name, server, pair))
        holding = _spans(sites)
        for site in sites:
            site.pair.wait()
        both = _spans(sites)
    rows = []
    for site, alone, together in zip(sites, holding, both, strict=True):
        more = [with_it - without for with_it, without in zip(together, alone, strict=True)]
        rows.append([f"{site.name}, holder", *(f"{value:.0f}" for value in alone)])
        rows.append([f"{site.name}, waiter", *(f"{value:.0f}" for value in more)])
    title = f"etcd: requests in {SECONDS} s as the server counts them, ttl 30 s, that of {PEER} 10 s"
    measure.table(title, ["", "messages/min", "calls/min", "open watches"], rows)
