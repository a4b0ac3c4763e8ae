"""`redis+sentinel`: a real fail-over while we hold and wait, and what goes wrong with the Sentinels."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from singleton_run.api.contract import Grant, Held
from singleton_run.errors import UNAVAILABLE, UNUSABLE, Failure, Lost, Unavailable
from singleton_run.system import calls
from singleton_run_redis import open_backend
from tests.servers import redis
from tests.support.backend_calls import LIMIT, attempt, renews, take
from tests.support.harness import Lab, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


TTL = 60.0
RECORD = {"version": 1, "state": "succeeded", "token": 1, "holder": "h", "runs": []}


@pytest.fixture
def watched() -> Iterator[redis.Watched]:
    with redis.watched() as watched:
        yield watched


def replicated(server: redis.Server) -> None:
    """Wait until the replicas have what the server has."""
    with server.client() as client:
        until(lambda: client.wait(2, 100) == 2, "the replicas to follow")


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_fail_over_while_one_holds_and_another_waits(watched: redis.Watched, how: str) -> None:
    name = f"n{uuid4().hex}"
    with (
        closing(open_backend(watched.url, {})) as holder,
        closing(open_backend(watched.url, {})) as waiter,
    ):
        grant = take(holder, name, ttl=TTL)
        assert isinstance(waiter.acquire(name, "host:2:b", TTL, LIMIT), Held)
        first = watched.primary()
        replicated(first)
        if how == "killed":
            first.kill()
        else:
            first.send(signal.SIGSTOP)
        until(lambda: watched.primary() is not first, "the Sentinels to choose another primary")
        until(lambda: renews(holder, grant), "the lock to be renewed on the new primary")
        until(lambda: isinstance(attempt(waiter, name, "host:2:b"), Held), "the waiter to be refused there")
        holder.release(grant, RECORD, LIMIT)
        got = attempt(waiter, name, "host:2:b")
        assert isinstance(got, Grant)
        assert got.token > grant.token


def test_a_token_grows_over_a_fail_over_that_loses_the_lock(watched: redis.Watched) -> None:
    """The replicas don't hear of the lock: the promise that asynchronous replication can't keep."""
    name = f"n{uuid4().hex}"
    with (
        closing(open_backend(watched.url, {})) as holder,
        closing(open_backend(watched.url, {})) as other,
    ):
        first = watched.primary()
        replicated(first)
        for server in watched.servers:
            if server is not first:
                with server.client() as client:
                    # In this order, or it may follow again before it can't any more.
                    client.config_set("masterauth", "wrong", "masteruser", "nobody")
                    client.execute_command("CLIENT", "KILL", "TYPE", "master")
        grant = attempt(holder, name, "host:1:a")
        assert isinstance(grant, Grant)
        first.kill()
        until(lambda: watched.primary() is not first, "the Sentinels to choose another primary")
        found: list[Grant] = []

        def takes() -> bool:
            got = attempt(other, name, "host:2:b")
            found.extend([got] if isinstance(got, Grant) else [])
            return bool(found)

        until(takes, "another to get the lock")
        assert found[0].token > grant.token
        with pytest.raises(Lost):
            holder.renew(grant, LIMIT)


def test_a_command_runs_on_over_a_fail_over(watched: redis.Watched, tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        lab.lock = watched.url
        run = lab.start("--ttl", "30s", command=lab.long_job())
        lab.ready()
        first = watched.primary()
        replicated(first)
        first.kill()
        until(lambda: watched.primary() is not first, "the Sentinels to choose another primary")
        lab.beats()
        lab.finish()
        assert run.wait() == 0, run.said
        lab.evidence.check(1)


def test_the_sentinels_are_asked_one_after_the_other(watched: redis.Watched) -> None:
    dead, alive = watched.sentinels[0], watched.sentinels[1]
    dead.kill()
    with closing(open_backend(f"redis+sentinel://{dead.address},{alive.address}/locks", {})) as backend:
        assert isinstance(attempt(backend, "one", "host:1:a"), Grant)
    for lock, status, words in (
        (f"redis+sentinel://{alive.address}/nothing", UNUSABLE, "no Sentinel watches over 'nothing'"),
        (f"redis+sentinel://{dead.address}/locks", UNAVAILABLE, f"{dead.address}: connection refused"),
    ):
        with closing(open_backend(lock, {})) as backend, pytest.raises(Failure) as no:
            backend.acquire("one", "host:1:a", TTL, LIMIT)
        assert (no.value.status, words in str(no.value)) == (status, True), str(no.value)


def test_a_wait_ends_when_the_primary_is_gone(watched: redis.Watched) -> None:
    """The keeper then asks again: at the new primary."""
    with (
        closing(open_backend(watched.url, {})) as holder,
        closing(open_backend(watched.url, {})) as waiter,
    ):
        assert isinstance(attempt(holder, "two", "host:1:a"), Grant)
        held = waiter.acquire("two", "host:2:b", TTL, LIMIT)
        assert isinstance(held, Held)
        never, end = os.pipe()
        watched.primary().kill()
        with pytest.raises(Unavailable):
            waiter.wait(held, calls.now() + TTL, never)
        os.close(never)
        os.close(end)
