"""The lock in Kubernetes, against klock and a plain leader election of client-go on the same API server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench import commands, footprint, handover, measure, servers, startup, takeover
from bench.baton import Baton
from tests.servers import kubeaccess
from tests.support import installs

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from bench.commands import Maker
    from tests.servers.kube import Request
    from tests.servers.kubeaccess import Cluster, Namespace

ROUNDS = 40
SECONDS = 60
OURS = "singleton-run"
# What klock takes beside the least.
VERBS = {"klock": (*kubeaccess.LEAST, "patch"), "elector": kubeaccess.LEAST, OURS: kubeaccess.WATCHING}
ENV = commands.program("env") or "/usr/bin/env"
HEAD = ["", "requests/h", "of these"]


class _Login:
    """A new account for a wrapper. `user` is whom the server counts."""

    def __init__(self, namespace: Namespace, name: str, folder: Path) -> None:
        own = folder / f"account-{len(list(folder.iterdir()))}"
        account = namespace.account(own.name, VERBS[name])
        pod = account.pod(own)
        self.user = account.user
        self._name = name
        self._namespace = namespace.name
        self._kubeconfig = str(account.token_kubeconfig(own))
        self._lock = f"k8s-lease://{namespace.name}?service-account={pod.folder}"
        self._environ = [f"{word}={value}" for word, value in pod.environ.items()]

    def make(self, lease: Path, *command: str, short: bool = False) -> list[str] | None:
        """What runs `command` behind the lock; `short` is its lease."""
        if self._name == OURS:
            environ = [*self._environ, *([takeover.OURS] if short else ())]
            ours = commands.behind(self._lock, lease.name, *command)
            return [ENV, *environ, *ours] if ours else None
        wrapper, dashes = (commands.klock, "--") if self._name == "klock" else (commands.elector, "-")
        options = [f"{dashes}{word}={value}" for word, value in takeover.THEIRS.items() if short]
        theirs = wrapper(self._kubeconfig, self._namespace, lease.name, *options)
        return [*theirs, *command] if theirs else None

    def make_short(self, lease: Path, *command: str) -> list[str] | None:
        """The same with a short lease."""
        return self.make(lease, *command, short=True)


def report(folder: Path) -> None:
    """Print the tables."""
    with servers.kubernetes(folder / "server") as cluster:
        namespace = cluster.namespace()
        places = folder / "accounts"
        places.mkdir()
        logins = {name: _Login(namespace, name, places) for name in VERBS}
        makers: dict[str, Maker] = {name: login.make for name, login in logins.items()}
        makers[commands.STANDALONE.name] = _alone(makers[OURS])
        base = "klock" if makers["klock"](folder) else "elector"
        _startup(folder, makers, base)
        footprint.table("Kubernetes: memory without the command (target: PSS <= 0.9 x)", makers, base, folder)
        title = "Kubernetes: hand-over, {} (target: p50 <= 20 ms, p99 <= 100 ms)"
        handover.table(title, makers, base, folder, (2,))
        takeover.killed(folder, namespace, {name: login.make_short for name, login in logins.items()})
        takeover.terminated(folder, makers)
        _requests(folder, cluster, namespace)


def _startup(folder: Path, makers: dict[str, Maker], base: str) -> None:
    candidates: dict[str, list[str] | None] = {startup.PYTHON: [commands.PYTHON, "-c", "pass"]}
    candidates |= {name: make(folder / f"startup-{name}", startup.TRUE) for name, make in makers.items()}
    if ours := candidates[OURS]:
        installed, _ = installs.installed("venv", installs.build_wheel(folder), folder / "wheel")
        candidates[f"{OURS}, from the wheel"] = _started_by(installed, ours)
    title = f"Kubernetes: start to end of `true`, {ROUNDS} rounds (target: {OURS} in a pod <= 1.2 x klock)"
    bases = {"x python": lambda _: startup.PYTHON, f"x {base}": lambda _: base}
    startup.table(title, ROUNDS, candidates, bases)


def _alone(make: Maker) -> Maker:
    """The same by the executable."""

    def made(folder: Path, *command: str) -> list[str] | None:
        ours = make(folder, *command)
        return _started_by(commands.STANDALONE, ours) if ours and commands.STANDALONE.exists() else None

    return made


def _started_by(path: Path, ours: list[str]) -> list[str]:
    """The same call of another singleton-run. One that is installed knows where its modules are."""
    return [str(path) if word == str(commands.OURS) else word for word in ours]


def _requests(folder: Path, cluster: Cluster, namespace: Namespace) -> None:
    """Holder and standby of each wrapper have accounts of their own."""
    pids: list[int] = []
    users: dict[str, str] = {}
    missing = []
    try:
        for name in VERBS:
            own = folder / f"requests-{name}"
            own.mkdir()
            baton = Baton(own)
            for role in ("holder", "standby"):
                login = _Login(namespace, name, folder / "accounts")
                if argv := login.make(own, *baton.argv):
                    pids.append(measure.spawn(argv))
                    users[f"{name}, {role}"] = login.user
                    if role == "holder":
                        baton.started()
                else:
                    missing.append([f"{name}, {role}", "-", commands.advice(name)])
        measure.settle(pids)
        counts = _span(cluster)
    finally:
        measure.kill(pids)
    rows = [[label, *_cells(counts, user)] for label, user in users.items()]
    title = f"Kubernetes: requests in {SECONDS} s as the server counts them; ttl 30 s, client-go's 15 s"
    measure.table(title, HEAD, [*rows, *missing])


def _span(cluster: Cluster) -> Counter[Request]:
    """What the server counted in a while."""
    assert cluster.server is not None
    before = cluster.server.requests()
    time.sleep(SECONDS)
    return cluster.server.requests() - before


def _cells(counts: Counter[Request], user: str) -> list[str]:
    kinds = {f"{kind.verb} {kind.resource}": count for kind, count in counts.items() if kind.user == user}
    hourly = 3600 / SECONDS
    parts = [f"{kind} {count * hourly:.0f}" for kind, count in sorted(kinds.items())]
    return [f"{sum(kinds.values()) * hourly:.0f}", ", ".join(parts)]
