"""/metrics, /healthz, /readyz and /leader of real replicas on real servers, while something is wrong."""

from __future__ import annotations

import threading
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from singleton_run.errors import LOST
from tests.servers import prometheus
from tests.support.harness import Lab, environment, send, state, until
from tests.support.ports import free_ports
from tests.support.proxy import DOWN, UP, proxy
from tests.support.scrape import get, leader, scrape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.etcd import Etcd
    from tests.support.harness import Run
    from tests.support.proxy import Proxy

TTL = 6.0
WELL = (200, "ok\n")
UNKNOWN = {"name": None, "holder": None, "is_leader": False, "since": None, "until": None}


SERVERS = ("etcd", "k8s-lease", "postgres", "redis")


class Pair(Lab):
    """Two replicas of one service, each with an address; `port` is that of the lock's server."""

    port = 0

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.first, self.second = (f"127.0.0.1:{port}" for port in free_ports(2))
        self.variables: dict[str, str] = {}

    def replica(self, address: str, *options: str, by: Proxy | None = None) -> Run:
        """One of them, whose command goes on until `finish`; `by` is a proxy to the server."""
        variables = dict(self.variables)
        lock = self.lock
        if by is not None and "KUBERNETES_SERVICE_PORT" in variables:
            variables["KUBERNETES_SERVICE_PORT"] = str(by.port)
        elif by is not None:
            lock = self.lock.replace(f":{self.port}", f":{by.port}")
        return self.start(
            *("--lock", lock, "--ttl", f"{TTL:g}s", "--metrics-addr", address, *options),
            command=self.long_job(),
            environ=environment(**variables),
        )

    def put_at(self, kind: str, request: pytest.FixtureRequest, folder: Path) -> None:
        """Have the lock on a server of that kind, or on none."""
        if kind == "k8s-lease":
            pod = (
                request.getfixturevalue("namespace")
                .account(f"endpoints-{uuid4().hex[:8]}")
                .pod(folder / "pod")
            )
            self.variables = pod.environ
            self.lock = f"k8s-lease://?service-account={pod.folder}"
            self.port = int(pod.environ["KUBERNETES_SERVICE_PORT"])
        elif kind != "file":
            server = request.getfixturevalue(f"{kind}_server")
            self.lock = f"etcd://{server.address}" if kind == "etcd" else server.url
            self.port = server.port


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two replicas on one machine."""
    with Pair(tmp_path) as pair:
        yield pair


@pytest.fixture
def clustered(pair: Pair, etcd_server: Etcd) -> Pair:
    """Two replicas on etcd."""
    pair.lock = f"etcd://{etcd_server.address}"
    return pair


@pytest.mark.parametrize("kind", ["file", *SERVERS])
def test_holder_and_standby(kind: str, pair: Pair, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pair.put_at(kind, request, tmp_path)
    holder = pair.replica(pair.first, "--ready-when", "running")
    # The front hears that the command runs after the command itself; by then a file names its holder, too.
    until(lambda: get(pair.first, "/readyz") == WELL, "the holder to say that its command runs")
    standby = pair.replica(pair.second, "--ready-when", "holding")
    standby.hears("waiting for lock")
    assert get(pair.first, "/healthz") == get(pair.second, "/healthz") == WELL
    assert get(pair.second, "/readyz") == (503, "not holding\n")
    (status, own), (also, others) = leader(pair.first), leader(pair.second)
    assert (status, also) == (200, 200)
    assert (own["is_leader"], others["is_leader"]) == (True, False)
    assert own["holder"] == others["holder"]
    assert own["name"] == others["name"] == own["holder"].split(":")[0]
    assert own["since"] is not None
    assert (own["until"] is None) == (kind == "file")
    assert get(pair.first, "/")[0] == 200
    assert (scrape(pair.first).value("held"), scrape(pair.second).value("held")) == (1, 0)
    assert (scrape(pair.first).value("waiting"), scrape(pair.second).value("waiting")) == (0, 1)
    pair.finish()
    assert holder.wait() == 0
    assert standby.wait() == 0
    pair.evidence.check(turns=2)


@pytest.mark.parametrize("kind", SERVERS)
def test_a_standby_tells_of_the_new_leader_and_not_of_the_old(
    kind: str, pair: Pair, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pair.put_at(kind, request, tmp_path)
    holder = pair.replica(pair.first)
    pair.ready()
    standby = pair.replica(pair.second)
    standby.hears("waiting for lock")
    old = leader(pair.second)[1]["holder"]
    send(SIGKILL, holder.pid)
    pair.ready(2)
    told = until(lambda: leader(pair.second)[1]["is_leader"] and leader(pair.second)[1], "the new leader")
    assert told
    assert told["holder"] != old
    assert scrape(pair.second).value("transitions_total") == 1
    pair.finish()
    assert standby.wait() == 0


@pytest.mark.parametrize("kind", SERVERS)
def test_while_the_server_is_away(
    kind: str, pair: Pair, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A standby stays healthy and says that it doesn't know; a holder says that it can't renew, and loses."""
    pair.put_at(kind, request, tmp_path)
    with proxy(pair.port) as near, proxy(pair.port) as far:
        holder = pair.replica(pair.first, by=near)
        pair.ready()
        standby = pair.replica(pair.second, by=far)
        standby.hears("waiting for lock")
        assert leader(pair.second)[0] == 200
        far.deafen(UP, DOWN)

        def unknown() -> bool:
            status, told = leader(pair.second)
            if status == 503:
                assert {**told, "error": None} == {**UNKNOWN, "error": None}
            return status == 503

        until(unknown, "the standby to say that it does not know")
        assert get(pair.second, "/healthz") == WELL
        assert leader(pair.first)[1]["is_leader"]
        near.deafen(UP, DOWN)
        until(lambda: get(pair.first, "/healthz")[0] == 503, "the holder to say that it can not renew")
        assert holder.wait() == LOST
        far.mend()
        pair.ready(2)
        until(lambda: leader(pair.second)[1]["is_leader"], "the standby to be the leader")
        pair.finish()
        assert standby.wait() == 0


def test_a_keeper_that_is_stopped_is_told_at_once(clustered: Pair) -> None:
    pair = clustered
    holder = pair.replica(pair.first)
    pair.ready()
    standby = pair.replica(pair.second)
    standby.hears("waiting for lock")
    for run, address in ((holder, pair.first), (standby, pair.second)):
        keeper = run.one("keeper")
        send(SIGSTOP, keeper)
        until(lambda: state(keeper) == "T", "the keeper to stop")  # noqa: B023 - called at once
        status, text = get(address, "/healthz")
        assert (status, "keeper is stopped" in text) == (503, True)
        send(SIGCONT, keeper)
        until(lambda: get(address, "/healthz") == WELL, "to be well again")  # noqa: B023
    pair.finish()
    assert holder.wait() == 0
    assert standby.wait() == 0


def test_a_keeper_that_hangs_is_replaced_and_all_is_well(clustered: Pair) -> None:
    pair = clustered
    holder = pair.replica(pair.first)
    pair.ready()
    keeper = holder.one("keeper")
    send(SIGSTOP, keeper)
    holder.one("keeper", but=keeper)
    until(lambda: get(pair.first, "/healthz") == WELL, "to be well again")
    pair.finish()
    assert holder.wait() == 0
    pair.evidence.check(turns=1)


def test_a_hundred_scrapes_a_second_delay_no_renewal(clustered: Pair) -> None:
    pair = clustered
    holder = pair.replica(pair.first)
    pair.ready()
    over = threading.Event()
    statuses: list[int] = []

    def ask() -> None:
        while not over.wait(0.01):
            statuses.append(get(pair.first, "/metrics")[0])

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: scrape(pair.first).count("renewals_total", result="ok") >= 3, "renewals")
    over.set()
    asking.join()
    told = scrape(pair.first)
    assert set(statuses) == {200}
    assert told.value("renewals_total", result="failed") == 0
    assert told.value("events_dropped_total") == 0
    assert told.count("renewal_seconds_count") == told.count("lease_remaining_seconds_count") >= 3
    assert 0 < told.count("lease_remaining_seconds_sum") <= TTL * told.count("renewals_total", result="ok")
    pair.finish()
    assert holder.wait() == 0


# A scrape that takes too long on a busy machine takes the series away until the next one: each is waited for.


def test_prometheus_tells_what_happened(clustered: Pair, tmp_path: Path) -> None:
    pair = clustered
    with prometheus.running(tmp_path / "prometheus", [pair.first, pair.second]) as server:

        def counted(query: str, wanted: float) -> None:
            until(lambda: server.value(query) == wanted, f"{query} to be {wanted}")

        ours = f'name="{pair.name}"'
        holder = pair.replica(pair.first)
        pair.ready()
        standby = pair.replica(pair.second)
        counted(f"sum(singleton_run_held{{{ours}}})", 1)
        counted(f"sum(singleton_run_waiting{{{ours}}})", 1)
        counted(f"sum(singleton_run_running{{{ours}}})", 1)
        held = f"singleton_run_held{{{ours}}}"
        until(lambda: server.ask(held) == {pair.first: 1, pair.second: 0}, "the holder")
        send(SIGKILL, holder.pid)
        pair.ready(2)
        until(lambda: server.ask(f"{held} == 1") == {pair.second: 1}, "the new holder")
        counted(f"singleton_run_transitions_total{{{ours},instance='{pair.second}'}}", 1)
        counted(f"singleton_run_wait_seconds_count{{{ours},instance='{pair.second}'}}", 1)
        until(lambda: server.value("count(singleton_run_build_info)") in (1, 2), "the version")
        pair.finish()
        assert standby.wait() == 0
        until(lambda: server.ask("up") == {pair.first: 0, pair.second: 0}, "both to be down")


def test_prometheus_sees_every_kind_of_end(pair: Pair, etcd_server: Etcd, tmp_path: Path) -> None:
    """A service of slots whose command succeeds, fails and runs into --timeout."""
    pair.lock = f"etcd://{etcd_server.address}"
    count = "n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n"
    script = f"{count}; case $n in 0) ;; 1) exit 3;; *) sleep 60;; esac"
    with prometheus.running(tmp_path / "prometheus", [pair.first]) as server:
        options = ("--every", "1s", "--timeout", "300ms", "--metrics-addr", pair.first)
        run = pair.start(*options, command=["sh", "-c", script])
        for query, least in (
            ('singleton_run_runs_total{result="succeeded"}', 1),
            ('singleton_run_runs_total{result="failed"}', 2),
            ('singleton_run_commands_killed_total{reason="timeout"}', 1),
            ("singleton_run_start_lateness_seconds_count", 3),
            ("singleton_run_last_start_timestamp_seconds", 1),
        ):
            until(lambda: (server.value(query) or 0) >= least, query)  # noqa: B023 - called at once
        until(lambda: server.value("singleton_run_lost_total") == 0, "no lock to be lost")
        run.popen.terminate()
        run.wait()
