"""`?replicas=1`: a lock counts when a replica has it, and not before."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from singleton_run.api.contract import Grant, Held
from singleton_run.errors import UNAVAILABLE, UNUSABLE, Refused, Unavailable
from singleton_run_redis import open_backend
from tests.servers import redis
from tests.support.harness import Lab, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT = 5.0
SHORT = 0.5
TTL = 60.0
MARK = {"version": 1, "time": 1.0}
RECORD = {"version": 1, "state": "succeeded", "token": 1, "holder": "h", "runs": []}


class Pair:
    """A primary and its replica."""

    def __init__(self, folder: Path) -> None:
        self.primary = redis.Server(folder / "primary")
        follow = ["--replicaof", "127.0.0.1", str(self.primary.port), "--repl-diskless-sync-delay", "0"]
        self.replica = redis.Server(folder / "replica", follow)

    def start(self) -> None:
        """Start both, and wait until the replica follows."""
        self.primary.start()
        self.replica.start()
        with self.primary.client() as client:
            until(lambda: client.wait(1, 100) == 1, "the replica to follow")

    def waits(self) -> int:
        """How often WAIT was asked for, but for our own."""
        with self.primary.client() as client:
            return int(client.info("commandstats").get("cmdstat_wait", {}).get("calls", 0))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("pair"))
    try:
        pair.start()
        yield pair
    finally:
        pair.primary.kill()
        pair.replica.kill()


def test_what_was_granted_is_on_the_replica(pair: Pair) -> None:
    with closing(open_backend(f"{pair.primary.url}?replicas=1", {})) as backend:
        before = pair.waits()
        grant = backend.acquire("one", "host:1:a", TTL, LIMIT)
        assert isinstance(grant, Grant)
        with pair.replica.client() as client:
            assert client.hget("singleton-run:{one}:lock", "token") == str(grant.token)
        backend.renew(grant, LIMIT)
        backend.mark(grant, "k", MARK, LIMIT)
        with pair.replica.client() as client:
            assert client.hexists("singleton-run:{one}:once", "k")
        assert pair.waits() == before + 3
        assert isinstance(backend.acquire("one", "host:2:b", TTL, LIMIT), Held)
        backend.release(grant, RECORD, LIMIT)
        assert pair.waits() == before + 3


def test_without_the_option_nobody_is_waited_for(pair: Pair) -> None:
    with closing(open_backend(pair.primary.url, {})) as backend, pair.replica.stopped():
        before = pair.waits()
        grant = backend.acquire("two", "host:1:a", TTL, LIMIT)
        assert isinstance(grant, Grant)
        backend.release(grant, RECORD, LIMIT)
        assert pair.waits() == before


def test_what_the_replica_has_not_does_not_count(pair: Pair) -> None:
    with closing(open_backend(f"{pair.primary.url}?replicas=1", {})) as backend:
        grant = backend.acquire("three", "host:1:a", TTL, LIMIT)
        assert isinstance(grant, Grant)
        with pair.replica.stopped():
            for act in (
                partial(backend.acquire, "four", "host:1:a", TTL, SHORT),
                partial(backend.renew, grant, SHORT),
                partial(backend.mark, grant, "k", MARK, SHORT),
            ):
                until(lambda: "0 of 1 replicas" in trouble(act), "the server to say how many have it")  # noqa: B023 - at once
        backend.renew(grant, LIMIT)
        assert isinstance(backend.acquire("four", "host:1:a", TTL, LIMIT), Grant)


def trouble(act: Callable[[], object]) -> str:
    """Why a call failed, as it must. On a busy machine it may be over before the server's answer comes."""
    with pytest.raises(Unavailable) as no:
        act()
    return str(no.value)


def test_no_command_is_started_that_no_replica_knows_of(pair: Pair, tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        lab.lock = f"{pair.primary.url}?replicas=1"
        with pair.replica.stopped():
            run = lab.start("--wait", "4s", "--ttl", "6s", command=lab.job())
            assert run.wait() == UNAVAILABLE
            assert "0 of 1 replicas have it in time: see INFO replication" in run.said
        again = lab.start("--ttl", "6s", command=lab.job())
        assert again.wait() == 0, again.said
        lab.evidence.check(1)


@pytest.mark.parametrize("count", ["6", "-1", "x", ""])
def test_a_number_of_replicas_that_is_none_is_refused(count: str) -> None:
    with pytest.raises(Refused, match="replicas is not a number from 0 to 5") as no:
        open_backend(f"redis://localhost?replicas={count}", {})
    assert no.value.status == UNUSABLE
