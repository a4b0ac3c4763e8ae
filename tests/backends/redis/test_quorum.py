"""The lock on a quorum of real servers: some are killed, stopped, unreachable, or have forgotten all."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from operator import gt
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from singleton_run.api.contract import Grant, Held, Look
from singleton_run.errors import Lost, Unavailable
from singleton_run.system import calls
from singleton_run_redis import open_backend
from singleton_run_redis.scripts import channels_of, keys_of
from tests.servers.redis_quorum import Quorum, quorum
from tests.support.backend_calls import LIMIT, LONG, Opened, holding, refused, renews, take, waiting
from tests.support.harness import until
from tests.support.proxy import DOWN, UP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from singleton_run_redis.quorum import QuorumBackend
    from tests.servers.redis import Server

    Open = Opened[QuorumBackend]

SLACK = 5.0
RECORD = {"version": 1, "state": "succeeded", "token": 1, "holder": "h", "runs": []}
LATER = {**RECORD, "state": "failed"}
PAUSE = {"version": 1, "pause": None, "release": None}


@pytest.fixture(scope="module")
def five() -> Iterator[Quorum]:
    with quorum(5) as five:
        yield five


@pytest.fixture
def opened(five: Quorum) -> Iterator[Open]:
    """Open backends, each by the proxies; they are closed when the test is over."""
    with Opened(lambda lock=five.by_proxies: open_backend(lock, {})) as opened:
        yield opened


@pytest.fixture
def name() -> str:
    return f"n{uuid4().hex}"


@pytest.fixture(params=["killed", "stopped", "swallowed"])
def minority(request: pytest.FixtureRequest, five: Quorum) -> Callable[[], AbstractContextManager[None]]:
    """Two of the five are away, in one of three ways."""
    how = getattr(five, request.param)
    return lambda: how(1, 3)


def in_the_background(pool: ThreadPoolExecutor, backend: QuorumBackend, held: Held) -> Callable[[], bool]:
    """A wait in another thread: whether it's over."""
    return pool.submit(backend.wait, held, calls.now() + LONG, -1).done


def taken_everywhere(five: Quorum, backend: QuorumBackend, name: str) -> Grant:
    """The lock on all servers: a majority is enough for a grant, and a late server does the request later."""
    grant = take(backend, name)

    def is_whole() -> bool:
        backend.renew(grant, LIMIT)
        return five.holders(name) == [grant.holder] * 5

    until(is_whole, "the lock on all servers")
    return grant


# A minority is away.


def test_a_whole_turn_goes_on_without_a_minority(
    five: Quorum, opened: Open, name: str, minority: Callable[[], AbstractContextManager[None]]
) -> None:
    holder, other = opened(), opened()
    with minority():
        grant = take(holder, name)
        assert refused(other, name).holder == grant.holder
        holder.renew(grant, LIMIT)
        holder.write(grant, RECORD, LIMIT)
        holder.mark(grant, "k", {"run": "1"}, LIMIT)
        assert other.done(name, "k", LIMIT) == {"run": "1"}
        assert other.look(name, LIMIT).state == Look.HELD
        assert name in other.list(LIMIT)
        holder.release(grant, LATER, LIMIT)
        after = take(other, name, "host:2:b")
        assert after.token > grant.token
        assert after.record == LATER


def test_a_minority_that_goes_away_while_we_hold_changes_nothing(
    five: Quorum, opened: Open, name: str, minority: Callable[[], AbstractContextManager[None]]
) -> None:
    holder, other = opened(), opened()
    grant = take(holder, name)
    with minority():
        for _ in range(3):
            holder.renew(grant, LIMIT)
        assert isinstance(other.acquire(name, "host:2:b", LONG, LIMIT), Held)
        other.leave(LIMIT)
    holder.renew(grant, LIMIT)
    holder.release(grant, RECORD, LIMIT)
    assert take(opened(), name, "host:3:c").token > grant.token


def test_a_minority_that_goes_away_while_we_wait_changes_nothing(
    five: Quorum, opened: Open, name: str, minority: Callable[[], AbstractContextManager[None]]
) -> None:
    holder, waiter = opened(), opened()
    grant = take(holder, name)
    held = refused(waiter, name, "host:2:b")
    with ThreadPoolExecutor(1) as pool:
        is_over = in_the_background(pool, waiter, held)
        until(lambda: waiting_at(five, name) == 5, "it to listen everywhere")
        with minority():
            holder.release(grant, RECORD, LIMIT)
            until(is_over, "the waiter to be woken")
            assert take(waiter, name, "host:2:b").token > grant.token


def waiting_at(five: Quorum, name: str) -> int:
    """On how many servers the waiter listens."""
    count = 0
    for server in five.servers:
        with server.client() as client:
            count += any(state.endswith(" l") for state in client.hvals(keys_of(name)[5]))
    return count


def test_a_server_that_comes_back_empty_has_the_lock_again_after_a_renewal(
    five: Quorum, opened: Open, name: str
) -> None:
    holder = opened()
    grant = taken_everywhere(five, holder, name)
    with five.servers[2].client() as client:
        client.flushall()
    assert five.holders(name).count(grant.holder) == 4
    five.proxies[2].slow(0.01)  # its answer comes after those of a majority
    try:
        for _ in range(5):
            holder.renew(grant, LIMIT)
    finally:
        five.proxies[2].mend()
    until(lambda: five.holders(name).count(grant.holder) == 5, "the lock to be there again")
    holder.release(grant, RECORD, LIMIT)
    until(lambda: five.holders(name) == [None] * 5, "all to be free")


def test_a_server_that_freed_it_late_has_the_lock_before_the_first_renewal(
    five: Quorum, opened: Open, name: str
) -> None:
    holder = opened()
    grant = take(holder, name)
    with five.servers[2].client() as client:
        client.delete(*keys_of(name))
    wake, end = os.pipe()
    with ThreadPoolExecutor(1) as pool:
        hold = pool.submit(holder.hold, grant, calls.now() + LONG, wake)
        try:
            until(lambda: five.holders(name).count(grant.holder) == 5, "the lock to be there again")
        finally:
            os.write(end, b"1")
        hold.result()
    os.close(wake)
    os.close(end)
    holder.release(grant, RECORD, LIMIT)


def test_what_is_told_while_a_renewal_waits_for_a_late_server_is_not_forgotten(
    five: Quorum, opened: Open, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("singleton_run_redis.quorum.LINGER", LIMIT)
    holder = opened()
    grant = take(holder, name)
    with ThreadPoolExecutor(1) as pool:
        wake, end = os.pipe()
        hold = pool.submit(holder.hold, grant, calls.now() + LONG, wake)
        until(lambda: subscribed(five) == 5, "the holder to listen everywhere")
        os.write(end, b"1")
        hold.result()
        five.proxies[2].deafen(UP, DOWN)
        try:
            before = left(five, name)
            renewal = pool.submit(holder.renew, grant, LIMIT)
            until(lambda: sum(map(gt, left(five, name), before)) == 4, "the other four to have renewed")
            for server in five.servers[:2]:
                with server.client() as client:
                    client.publish(channels_of(name, grant.holder)[1], "")
            nodes = holder._masters.nodes  # noqa: SLF001 - nothing else shows that it has heard
            until(lambda: sum(node.pushed for node in nodes) == 2, "the holder to have heard both")
        finally:
            five.proxies[2].mend()
        renewal.result()
        os.read(wake, 1)
        again = pool.submit(holder.hold, grant, calls.now() + LONG, wake)
        try:
            until(again.done, "the hold to return")
        finally:
            os.write(end, b"1")
    os.close(wake)
    os.close(end)
    holder.release(grant, RECORD, LIMIT)


def left(five: Quorum, name: str) -> list[int]:
    """When the lock ends on each server, in milliseconds."""
    found = []
    for server in five.servers:
        with server.client() as client:
            found.append(client.pexpiretime(keys_of(name)[0]))
    return found


# A majority is away.


@pytest.mark.parametrize("how", ["killed", "stopped", "swallowed"])
def test_without_a_majority_nothing_is_granted_and_what_was_taken_is_given_back(
    five: Quorum, opened: Open, name: str, how: str
) -> None:
    with getattr(five, how)(0, 1, 4):
        began = calls.now()
        with pytest.raises(Unavailable, match="fewer than 3 of 5"):
            opened().acquire(name, "host:1:a", LONG, 1.0)
        assert calls.now() < began + 1.0 + SLACK
    until(lambda: five.holders(name) == [None] * 5, "all to be free")


@pytest.mark.parametrize("how", ["killed", "stopped", "swallowed"])
def test_without_a_majority_nothing_is_renewed_and_afterwards_it_is_the_same_lock(
    five: Quorum, opened: Open, name: str, how: str
) -> None:
    holder = opened()
    grant = take(holder, name)
    with getattr(five, how)(0, 1, 4), pytest.raises(Unavailable, match="fewer than 3 of 5"):
        holder.renew(grant, 1.0)
    until(lambda: renews(holder, grant), "it to be renewed")


def test_a_server_that_forgot_too_early_lets_another_in_whose_token_is_greater(
    five: Quorum, opened: Open, name: str
) -> None:
    """docs/redis.md says so: such a server has to stay away for a ttl."""
    holder, other = opened(), opened()
    with five.swallowed(3, 4):
        grant = take(holder, name)
        with five.servers[2].client() as client:
            client.flushall()
    holder.close()
    until(lambda: five.holders(name)[:2] == [grant.holder] * 2, "the lock on two servers")
    with five.killed(0):
        again = take(other, name, "host:2:b")
    assert again.token > grant.token
    with pytest.raises(Lost):
        opened().renew(grant, LIMIT)


def test_the_first_waiter_takes_over_when_the_lease_has_ended(five: Quorum, opened: Open, name: str) -> None:
    grant = take(opened(), name, ttl=3.0)
    waiter = opened()
    held = refused(waiter, name, "host:2:b")
    waiter.wait(held, calls.now() + LONG, -1)
    assert take(waiter, name, "host:2:b").token > grant.token


def test_a_lock_that_a_majority_has_lost_is_lost(five: Quorum, opened: Open, name: str) -> None:
    holder = opened()
    grant = taken_everywhere(five, holder, name)
    for server in five.servers[:3]:
        with server.client() as client:
            client.flushall()
    with pytest.raises(Lost):
        holder.renew(grant, LIMIT)
    assert five.holders(name)[:3] == [None] * 3


@pytest.mark.parametrize("had_waited", [False, True], ids=["taken at once", "after a wait"])
def test_a_lock_that_is_deleted_without_a_word_is_noticed_at_once(
    five: Quorum, opened: Open, name: str, *, had_waited: bool
) -> None:
    holder = opened()
    if had_waited:
        first = opened()
        grant = take(first, name)
        with waiting(holder, refused(holder, name)) as ends:
            until(lambda: waiting_at(five, name) == 5, "it to listen everywhere")
            first.release(grant, RECORD, LIMIT)
            ends()
    grant = take(holder, name, "host:2:b")
    wake, end = os.pipe()
    with ThreadPoolExecutor(1) as pool:
        hold = pool.submit(holder.hold, grant, calls.now() + LONG, wake)
        try:
            until(lambda: subscribed(five) == 5, "the holder to listen everywhere")
            delete_silently(five.servers, name)
            until(hold.done, "the hold to return")
        finally:
            os.write(end, b".")
    os.close(wake)
    os.close(end)
    with pytest.raises(Lost):
        holder.renew(grant, LIMIT)


def test_a_lock_is_watched_on_after_a_server_has_got_it_back(five: Quorum, opened: Open, name: str) -> None:
    """Our own change of the key ends the server's tracking of it, unless the key is read afterwards."""
    holder = opened()
    grant = take(holder, name)
    delete_silently(five.servers[:1], name)
    with holding(holder, grant) as ends:
        until(lambda: five.holders(name) == [grant.holder] * 5, "the first server to have it again")
        delete_silently(five.servers, name)
        ends()


def test_a_lock_that_is_taken_by_a_connection_that_has_held_before_is_watched(
    five: Quorum, opened: Open, name: str
) -> None:
    holder = opened()
    first = take(holder, name)
    with holding(holder, first) as ends:
        until(lambda: subscribed(five) == 5, "the holder to listen everywhere")
        delete_silently(five.servers, name)
        ends()
    grant = take(holder, name)
    with holding(holder, grant) as ends:
        delete_silently(five.servers, name)
        ends()


def delete_silently(servers: Sequence[Server], name: str) -> None:
    """Delete the lock's key by hand, and tell nobody."""
    for server in servers:
        with server.client() as client:
            client.delete(keys_of(name)[0])


def subscribed(five: Quorum) -> int:
    """On how many servers somebody has asked for something after he had asked to be told of changes."""
    count = 0
    for server in five.servers:
        with server.client() as client:
            count += any("t" in one["flags"] and one["cmd"] == "evalsha" for one in client.client_list())
    return count


def test_a_foreign_lock_on_a_majority_keeps_us_out_and_nothing_of_ours_is_left(
    five: Quorum, opened: Open, name: str
) -> None:
    for server in five.servers[:3]:
        server.take_lock(name)
    assert refused(opened(), name).holder == "somebody"
    until(lambda: five.holders(name) == ["somebody"] * 3 + [None] * 2, "what was taken to be given back")


# Tokens, records and controls meet in any two majorities.


def test_tokens_grow_though_each_holder_has_another_majority(five: Quorum, opened: Open, name: str) -> None:
    """Each server's own counter is spoiled too, so that they disagree."""
    for number, server in enumerate(five.servers):
        with server.client() as client:
            client.set(keys_of(name)[1], str(3_000_000_000_000_000 + 1000 * number))
    tokens = []
    for away in ((0, 1), (3, 4), (0, 4), (1, 2)):
        with five.killed(*away):
            backend = opened()
            grant = take(backend, name)
            tokens.append(grant.token)
            backend.release(grant, {**RECORD, "token": grant.token}, LIMIT)
    assert tokens == sorted(set(tokens))
    found = opened().read(name, LIMIT)[1]
    assert found is not None
    assert found["token"] == tokens[-1]


def test_what_a_minority_missed_does_not_come_back(five: Quorum, opened: Open, name: str) -> None:
    backend = opened()
    grant = take(backend, name)
    backend.mark(grant, "k", {"run": "1"}, LIMIT)
    assert backend.steer(name, "", PAUSE, LIMIT)
    with five.killed(0, 1):
        assert backend.forget(name, "k", LIMIT)
        seen = backend.look(name, LIMIT)
        assert backend.steer(name, seen.version, {**PAUSE, "pause": {"until": None}}, LIMIT)
        newest = backend.look(name, LIMIT)
    for away in ((3, 4), (2, 4), (2, 3)):
        with five.killed(*away):
            assert opened().done(name, "k", LIMIT) is None
            assert opened().look(name, LIMIT).version == newest.version
            assert not opened().steer(name, seen.version, PAUSE, LIMIT)


def test_of_many_who_steer_at_once_one_wins_each_round(five: Quorum, opened: Open, name: str) -> None:
    people = [opened() for _ in range(4)]
    version = ""
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            tries = [pool.submit(tries_to_steer, one, name, version) for one in people]
            won = [attempt.result() for attempt in tries]
            assert won.count(True) == 1 or (None in won and True not in won), won
            version = people[0].look(name, LIMIT).version


def tries_to_steer(backend: QuorumBackend, name: str, version: str) -> bool | None:
    """Whether this one's control was taken; None if it was not told in time."""
    try:
        return backend.steer(name, version, PAUSE, LIMIT)
    except Unavailable:
        return None


# Many who want it.


def test_of_many_who_come_at_once_each_has_it_once_and_alone(five: Quorum, opened: Open, name: str) -> None:
    inside: list[str] = []
    overlaps: list[list[str]] = []
    tokens: list[int] = []

    def one(number: int) -> None:
        backend = opened()
        holder = f"host:{number}:x"
        deadline = calls.now() + LONG
        while isinstance(got := backend.acquire(name, holder, LONG, LIMIT), Held):
            backend.wait(got, deadline, -1)
        inside.append(holder)
        overlaps.append([*inside])
        tokens.append(got.token)
        inside.remove(holder)
        backend.release(got, RECORD, LIMIT)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    assert all(len(seen) == 1 for seen in overlaps)
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 8


def test_a_release_wakes_one_waiter_by_as_many_commands_with_many(
    five: Quorum, opened: Open, name: str
) -> None:
    counts = []
    for many in (1, 8):
        holder, lock = opened(), f"{name}{many}"
        grant = taken_everywhere(five, holder, lock)
        pipe = os.pipe()
        with ThreadPoolExecutor(many) as pool:
            waits = []
            for number in range(many):
                waiter = opened()
                held = refused(waiter, lock, f"host:{number}:w")
                waits.append(pool.submit(waiter.wait, held, calls.now() + LONG, pipe[0]))
                until(lambda: listening(five, lock, number) == 5, "it to listen everywhere")  # noqa: B023 - at once
            before = commands(five)
            holder.release(grant, RECORD, LIMIT)
            until(waits[0].done, "the first to be woken")
            until(lambda: commands(five) >= before + 5, "the last server to do the release")  # noqa: B023 - at once
            counts.append(commands(five) - before)
            assert not any(wait.done() for wait in waits[1:])
            os.write(pipe[1], b".")
        os.close(pipe[0])
        os.close(pipe[1])
    assert counts == [5, 5]


def listening(five: Quorum, name: str, number: int) -> int:
    """On how many servers that waiter listens."""
    count = 0
    for server in five.servers:
        with server.client() as client:
            count += str(client.hget(keys_of(name)[5], f"host:{number}:w")).endswith(" l")
    return count


def commands(five: Quorum) -> int:
    """How many scripts all servers have run."""
    count = 0
    for server in five.servers:
        with server.client() as client:
            count += int(client.info("commandstats")["cmdstat_evalsha"]["calls"])
    return count
