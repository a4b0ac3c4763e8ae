"""The lock `redis+cluster`: its slot moves, its node fails, while one holds it and others wait."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from singleton_run.api.contract import Held, Look
from singleton_run.api.http.wire import Broken
from singleton_run.errors import UNAVAILABLE, UNUSABLE, Failure, Unavailable
from singleton_run.system import calls
from singleton_run_redis import cluster as clusters
from singleton_run_redis import open_backend
from singleton_run_redis.errors import RIGHTS, ServerError
from tests.backends.redis.test_replicas import trouble
from tests.servers import redis, redis_cluster
from tests.support.backend_calls import LIMIT, attempt, renews, take
from tests.support.harness import Lab, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from singleton_run_redis.backend import RedisBackend

SHORT = 0.5
TTL = 60.0
RECORD = {"version": 1, "state": "succeeded", "token": 1, "holder": "h", "runs": []}
MARK = {"version": 1, "time": 1.0}
KEYS = 7


@pytest.fixture(scope="module")
def cluster() -> Iterator[redis_cluster.RedisCluster]:
    rights = f"{RIGHTS} +asking +cluster|slots"
    with redis_cluster.clustered(flags=redis.user("app", rights)) as cluster:
        yield cluster


@pytest.fixture
def replicated() -> Iterator[redis_cluster.RedisCluster]:
    with redis_cluster.clustered(replicas=1, patience=1000) as cluster:
        yield cluster


@pytest.fixture
def name() -> str:
    return f"n{uuid4().hex}"


def steer(backend: RedisBackend, name: str) -> None:
    """Ask something of the lock's holder."""
    seen = backend.look(name, LIMIT)
    assert backend.steer(name, seen.version, {"version": 1, "pause": None}, LIMIT)


def test_a_slot_that_is_moved_is_followed(cluster: redis_cluster.RedisCluster, name: str) -> None:
    url = cluster.url.replace("://", f"://app:{redis.QUOTED}@")
    with closing(open_backend(url, {})) as holder, closing(open_backend(url, {})) as waiter:
        grant = take(holder, name, "host:1:a")
        assert isinstance(waiter.acquire(name, "host:2:b", TTL, LIMIT), Held)
        first = cluster.owner(name)
        assert cluster.move(name) is not first
        holder.renew(grant, LIMIT)
        holder.write(grant, RECORD, LIMIT)
        held = waiter.acquire(name, "host:2:b", TTL, LIMIT)
        assert isinstance(held, Held)
        assert held.holder == "host:1:a"
        seen = waiter.look(name, LIMIT)
        assert (seen.state, [one.holder for one in seen.waiting or ()]) == (Look.HELD, ["host:2:b"])
        holder.release(grant, RECORD, LIMIT)
        assert take(waiter, name, "host:2:b").token > grant.token


def test_who_waits_is_woken_after_a_move_that_it_has_not_seen(
    cluster: redis_cluster.RedisCluster, tmp_path: Path
) -> None:
    """The commands wait for longer than any timer of theirs would let them look by themselves."""
    with Lab(tmp_path) as lab:
        lab.lock = cluster.url
        holder = lab.start("--ttl", "600s", command=lab.long_job())
        lab.ready()
        waiters = []
        for at in range(3):
            waiters.append(lab.start("--ttl", "600s", command=lab.job()))
            until(lambda at=at: len(waiting(lab)) == at + 1, "the next one to wait")  # type: ignore[misc]
        cluster.move(lab.name)
        lab.finish()
        assert holder.wait() == 0, holder.said
        for waiter in waiters:
            assert waiter.wait() == 0, waiter.said
        lab.evidence.check(4)


def waiting(lab: Lab) -> list[Held]:
    """Who waits for the lab's lock."""
    with closing(open_backend(lab.lock, {})) as backend:
        return [*(backend.look(lab.name, LIMIT).waiting or ())]


def test_while_the_slot_moves_nobody_is_let_in_and_the_holder_goes_on(
    cluster: redis_cluster.RedisCluster, name: str
) -> None:
    with closing(open_backend(cluster.url, {})) as holder, closing(open_backend(cluster.url, {})) as other:
        grant = take(holder, name, "host:1:a")
        target = cluster.others(name)[0]
        source = cluster.begin_move(name, target)
        for moved in range(2):
            for act in (
                partial(other.acquire, name, "host:2:b", TTL, SHORT),
                partial(holder.renew, grant, SHORT),
            ):
                until(lambda: "TRYAGAIN" in trouble(act), "the nodes to say why")  # noqa: B023 - at once
            if not moved:
                assert cluster.move_keys(name, source, target) > 0
        cluster.end_move(name, target)
        holder.renew(grant, LIMIT)
        assert isinstance(other.acquire(name, "host:2:b", TTL, LIMIT), Held)
        holder.release(grant, RECORD, LIMIT)


def test_a_node_that_has_all_keys_already_is_asked(cluster: redis_cluster.RedisCluster, name: str) -> None:
    with closing(open_backend(cluster.url, {})) as holder, closing(open_backend(cluster.url, {})) as other:
        grant = take(holder, name, "host:1:a")
        holder.mark(grant, "k", MARK, LIMIT)
        holder.write(grant, RECORD, LIMIT)
        assert isinstance(other.acquire(name, "host:2:b", TTL, LIMIT), Held)
        steer(other, name)
        target = cluster.others(name)[0]
        source = cluster.begin_move(name, target)
        assert cluster.move_keys(name, source, target) == KEYS
        holder.renew(grant, LIMIT)
        assert isinstance(other.acquire(name, "host:2:b", TTL, LIMIT), Held)
        cluster.end_move(name, target)
        holder.renew(grant, LIMIT)
        holder.release(grant, RECORD, LIMIT)
        take(other, name, "host:2:b")


def test_a_holder_hears_what_is_asked_of_it_after_a_move(
    cluster: redis_cluster.RedisCluster, name: str
) -> None:
    """It asks the node that had the slot, which names another one: there it has to listen."""
    with closing(open_backend(cluster.url, {})) as holder, closing(open_backend(cluster.url, {})) as other:
        grant = take(holder, name, "host:1:a")
        target = cluster.move(name)
        never, end = os.pipe()
        listening = threading.Thread(target=holder.hold, args=(grant, calls.now() + TTL, never))
        listening.start()
        try:
            with target.client() as client:
                until(lambda: client.pubsub_channels(f"*{name}*"), "the holder to listen there")
            steer(other, name)
            listening.join(LIMIT)
            assert not listening.is_alive()
        finally:
            os.close(end)
            listening.join()
            os.close(never)


def test_every_node_is_asked_for_the_names(cluster: redis_cluster.RedisCluster) -> None:
    names = sorted(f"list-{number}" for number in range(12))
    with closing(open_backend(cluster.url, {})) as backend:
        for name in names:
            take(backend, name, "host:1:a")
        assert len({cluster.owner(name).port for name in names}) == redis_cluster.MASTERS
        assert [name for name in backend.list(LIMIT) if name.startswith("list-")] == names
        assert backend.look(names[0], LIMIT).state == Look.HELD


def test_the_nodes_of_the_address_are_tried_one_after_the_other(
    cluster: redis_cluster.RedisCluster, name: str
) -> None:
    url = f"redis+cluster://127.0.0.1:1,{cluster.servers[2].address}"
    with closing(open_backend(url, {})) as backend:
        take(backend, name, "host:1:a")
    with closing(open_backend("redis+cluster://127.0.0.1:1,127.0.0.1:2", {})) as backend:
        with pytest.raises(Unavailable) as no:
            backend.acquire(name, "host:1:a", TTL, LIMIT)
        assert all(f"127.0.0.1:{port}: connection refused" in str(no.value) for port in (1, 2)), no.value


def test_of_a_silent_node_one_thing_is_said_whichever_was_asked_last(
    cluster: redis_cluster.RedisCluster, tmp_path: Path
) -> None:
    """The others name the silent one first, and after a while say that the cluster is down."""
    with Lab(tmp_path) as lab:
        lab.lock = cluster.url
        owner = cluster.owner(lab.name)
        down = f"singleton-run: lock '{lab.name}': redis: {owner.address}: no answer in time; trying again"
        with owner.stopped():
            run = lab.start("--wait", "9s", "--ttl", "6s", command=lab.job())
            assert run.wait() == UNAVAILABLE, run.said
            until(lambda: cluster_is_down(cluster.others(lab.name)), "the others to miss it")
        assert run.said.splitlines() == [down, f"singleton-run: redis: {owner.address}: no answer in time"]
        cluster.wait()
        lab.evidence.check(0)


def cluster_is_down(servers: list[redis.Server]) -> bool:
    """Whether these nodes say so."""
    states = []
    for server in servers:
        with server.client() as client:
            states.append("cluster_state:fail" in client.execute_command("CLUSTER", "INFO"))
    return all(states)


def test_one_node_is_named_where_it_is_not_the_locks(cluster: redis_cluster.RedisCluster, name: str) -> None:
    with closing(open_backend(cluster.others(name)[0].url, {})) as backend, pytest.raises(Failure) as no:
        backend.acquire(name, "host:1:a", TTL, LIMIT)
    assert (no.value.status, "say redis+cluster://" in str(no.value)) == (UNUSABLE, True), no.value


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_the_lock_outlives_its_node(replicated: redis_cluster.RedisCluster, name: str, how: str) -> None:
    with (
        closing(open_backend(replicated.url, {})) as holder,
        closing(open_backend(replicated.url, {})) as waiter,
    ):
        grant = take(holder, name, "host:1:a")
        assert isinstance(waiter.acquire(name, "host:2:b", TTL, LIMIT), Held)
        first = replicated.owner(name)
        with first.client() as client:
            until(lambda: client.wait(1, 100) == 1, "the replica to follow")
        if how == "killed":
            first.kill()
        else:
            first.send(signal.SIGSTOP)
        until(lambda: renews(holder, grant), "the lock to be renewed on the replica")
        until(lambda: replicated.owner(name) in replicated.replicas_of(first), "the others to know it")
        until(lambda: isinstance(attempt(waiter, name, "host:2:b"), Held), "the waiter to be refused there")
        holder.release(grant, RECORD, LIMIT)
        assert take(waiter, name, "host:2:b").token > grant.token


def test_a_command_runs_on_when_the_node_of_its_lock_is_killed(
    replicated: redis_cluster.RedisCluster, tmp_path: Path
) -> None:
    with Lab(tmp_path) as lab:
        lab.lock = replicated.url
        run = lab.start("--ttl", "30s", command=lab.long_job())
        lab.ready()
        waiter = lab.start("--ttl", "30s", command=lab.job())
        until(lambda: waiting(lab), "the other one to wait")
        first = replicated.owner(lab.name)
        with first.client() as client:
            until(lambda: client.wait(1, 100) == 1, "the replica to follow")
        first.kill()
        until(lambda: replicated.owner(lab.name) is not first, "the replica to take over")
        lab.beats()
        lab.finish()
        assert run.wait() == 0, run.said
        assert waiter.wait() == 0, waiter.said
        lab.evidence.check(2)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("3999 10.0.0.7:6381", ("10.0.0.7", 6381)),
        ("3999 node.example:6381", ("node.example", 6381)),
        ("3999 2001:db8::1:6381", ("2001:db8::1", 6381)),
        ("3999 :6381", ("asked", 6381)),
        ("3999 ?:6381", ("asked", 6381)),
    ],
)
def test_the_node_that_is_named_is_asked_next(text: str, place: tuple[str, int]) -> None:
    nodes = clusters.Nodes([("asked", 1), ("other", 1)])
    assert nodes.follow(ServerError("MOVED", text), ("asked", 1))
    assert nodes.candidates()[0] == place
    flags = [nodes.asking]
    assert nodes.follow(ServerError("ASK", text), ("asked", 1))
    flags += [nodes.asking]
    assert flags == [False, True]
    nodes.pass_over(place, Broken("it is gone"))
    assert place not in nodes.candidates()
    assert not nodes.follow(ServerError("TRYAGAIN", ""), ("asked", 1))
