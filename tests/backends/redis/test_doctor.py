"""`doctor` on a real Redis: one that is well, and those that lack something. It changes none of them."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import UNUSABLE
from tests.servers import redis
from tests.support.harness import LIMIT, PROGRAM, environment

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[redis.Server]:
    with redis.running(flags=redis.user("poor", "~singleton-run:* +eval +time")) as server:
        yield server


def told(*words: str) -> tuple[int, str]:
    """How a call of doctor ends, and what it says."""
    done = subprocess.run(
        [*PROGRAM, "doctor", *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert redis.PASSWORD not in done.stdout + done.stderr
    assert redis.QUOTED not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


@contextmanager
def unchanged(server: redis.Server) -> Iterator[None]:
    """No key is made or changed meanwhile."""
    with server.client() as client:
        before = client.info("persistence")["rdb_changes_since_last_save"], client.keys()
        yield
        assert (client.info("persistence")["rdb_changes_since_last_save"], client.keys()) == before


def test_a_server_that_is_well(server: redis.Server) -> None:
    with unchanged(server):
        status, said = told("backup", "--lock", server.url)
    assert (status, "BAD " in said) == (0, False), said
    for words in (
        "recent enough",
        "our user may do all that is needed",
        "evicts no keys",
        "writes each change",
        "what is published arrives",
        "the server's clock and",
    ):
        assert f"{words}" in said, said
    assert "warn the server asks for no password" in said


def test_a_server_that_may_forget(server: redis.Server) -> None:
    with server.client() as client:
        client.config_set("maxmemory", "100mb", "maxmemory-policy", "allkeys-lru", "appendonly", "no")
    status, said = told("--lock", server.url)
    assert status == 0, said
    assert "warn when its memory is full the server may delete locks and tokens (maxmemory-policy" in said
    assert "warn after a crash the server may forget who has a lock (appendonly no)" in said


def test_a_user_without_rights_gets_them_by_what_setup_prints(server: redis.Server) -> None:
    lock = f"redis://poor:{redis.QUOTED}@{server.address}"
    with unchanged(server):
        status, said = told("backup", "--lock", lock)
    assert status == UNUSABLE, said
    assert "BAD  our user may not use" in said
    assert "set, del, pexpire" in said
    status, printed = told("--setup", "backup", "--lock", lock)
    assert status == 0, printed
    with server.client() as client:
        for _ in range(2):
            client.execute_command(*printed.split())
    status, said = told("backup", "--lock", lock)
    assert (status, "BAD " in said) == (0, False), said
    argv = [*PROGRAM, "--lock", lock, "--name", "backup", "--once", "k", "--", "true"]
    assert subprocess.run(argv, env=environment(), check=False).returncode == 0


def test_setup_needs_a_user(server: redis.Server) -> None:
    status, said = told("--setup", "--lock", server.url)
    assert (status, "which user?" in said) == (UNUSABLE, True)


def test_a_replica_can_not_lock(server: redis.Server) -> None:
    with server.client() as client:
        client.replicaof("127.0.0.1", 1)
    status, said = told("--lock", server.url)
    assert (status, "BAD  the server is a replica" in said) == (UNUSABLE, True), said
