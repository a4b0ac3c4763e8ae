"""The backend `redis` on a real server: the queue, tokens, time limits, and what is beyond every backend."""

# ruff: noqa: SLF001 - which connection a waiter has is seen nowhere else

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from singleton_run.api.contract import Held
from singleton_run.errors import Lost, Unavailable
from singleton_run.system import calls
from singleton_run_redis import open_backend
from singleton_run_redis.errors import RIGHTS
from singleton_run_redis.scripts import keys_of
from tests.servers import redis
from tests.support.backend_calls import LIMIT, LONG, Opened, refused, take
from tests.support.harness import until
from tests.support.proxy import DOWN, proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from singleton_run_redis.backend import RedisBackend

    Open = Opened[RedisBackend]

SLACK = 5.0
RECORD = {"version": 1, "state": "succeeded", "token": 1, "holder": "h", "runs": []}


@pytest.fixture(scope="module")
def server() -> Iterator[redis.Server]:
    with redis.running() as server:
        yield server


@pytest.fixture
def opened(server: redis.Server) -> Iterator[Open]:
    """Open backends; they are closed when the test is over."""
    with Opened(lambda lock=server.url: open_backend(lock, {})) as opened:
        yield opened


@pytest.fixture
def name() -> str:
    return f"n{uuid4().hex}"


class Waiting:
    """A waiter in a thread of its own; `woken` says whether its wait has ended."""

    def __init__(self, backend: RedisBackend, held: Held) -> None:
        self.backend = backend
        self.never, self.end = os.pipe()
        self._pool = ThreadPoolExecutor(1)
        self._wait = self._pool.submit(backend.wait, held, calls.now() + LONG, self.never)

    @property
    def woken(self) -> bool:
        return self._wait.done()

    def ends(self) -> None:
        """Return when the wait has ended; raises what it raised."""
        self._wait.result(4 * LIMIT)

    def stop(self) -> None:
        """Interrupt the wait if it goes on."""
        os.write(self.end, b".")
        self._pool.shutdown()
        os.close(self.never)
        os.close(self.end)


@contextmanager
def waiting(
    server: redis.Server, opened: Open, name: str, count: int, ttl: float = LONG
) -> Iterator[list[Waiting]]:
    """Waiters for a lock that is held, in the order in which they came; all of them listen."""
    with ExitStack() as stack:
        waiters = []
        for number in range(count):
            backend = opened()
            waiters.append(Waiting(backend, refused(backend, name, waiter(number), ttl)))
            stack.callback(waiters[-1].stop)
            until(lambda: state(server, name, waiter(number)) == "l", "the waiter to listen")  # noqa: B023 - at once
        yield waiters


def waiter(number: int) -> str:
    """The holder's name of that waiter."""
    return f"host:{number}:waiter"


def state(server: redis.Server, name: str, holder: str) -> str:
    """`l` if that waiter listens, `g` if it is gone, '' if it has no place."""
    with server.client() as client:
        return str(client.hget(keys_of(name)[5], holder) or " ").split(" ")[1]


# The queue.


def test_a_release_wakes_the_first_waiter_and_no_other(server: redis.Server, opened: Open, name: str) -> None:
    holder = opened()
    grant = take(holder, name)
    with waiting(server, opened, name, 5) as waiters:
        for number, first in enumerate(waiters):
            holder.release(grant, RECORD, LIMIT)
            first.ends()
            assert not any(other.woken for other in waiters[number + 1 :])
            holder = first.backend
            grant = take(holder, name, waiter(number))


def test_a_hand_over_takes_as_many_commands_with_many_waiters(
    server: redis.Server, opened: Open, name: str
) -> None:
    def commands() -> tuple[int, int]:
        """How many scripts the server has run, and how many commands with those within the scripts."""
        with server.client() as client:
            told = client.info("commandstats")
        ours = [
            stats["calls"] for word, stats in told.items() if word not in ("cmdstat_info", "cmdstat_hget")
        ]
        return told["cmdstat_evalsha"]["calls"], sum(ours)

    scripts, all_commands = [], []
    for many in (1, 20):
        holder = opened()
        grant = take(holder, f"{name}{many}")
        with waiting(server, opened, f"{name}{many}", many) as waiters:
            before = commands()
            holder.release(grant, RECORD, LIMIT)
            waiters[0].ends()
            take(waiters[0].backend, f"{name}{many}", waiter(0))
            after = commands()
            scripts.append(after[0] - before[0])
            all_commands.append(after[1] - before[1])
    assert scripts == [2, 2]
    assert all_commands[0] == all_commands[1]


def test_whoever_got_it_asks_for_nothing_more_while_its_command_starts(
    server: redis.Server, opened: Open, name: str
) -> None:
    def asked() -> list[int]:
        """How many scripts there were, and how often somebody asked to be told of changes."""
        with server.client() as client:
            told = client.info("commandstats")
        words = ("evalsha", "client|tracking")
        return [int(told.get(f"cmdstat_{word}", {}).get("calls", 0)) for word in words]

    holder = opened()
    grant = take(holder, name)
    with waiting(server, opened, name, 1) as (waiter_,):
        holder.release(grant, RECORD, LIMIT)
        waiter_.ends()
        mine = take(waiter_.backend, name, waiter(0))
        before = asked()
        with ended() as wake:
            waiter_.backend.hold(mine, calls.now() + LONG, wake)
        assert asked() == before


@contextmanager
def ended() -> Iterator[int]:
    """A descriptor that interrupts at once."""
    wake, end = os.pipe()
    os.close(end)
    yield wake
    os.close(wake)


def test_a_waiter_that_died_is_passed_over_at_once(server: redis.Server, opened: Open, name: str) -> None:
    holder = opened()
    grant = take(holder, name)
    with waiting(server, opened, name, 3) as waiters:
        for dead in waiters[:2]:
            with pytest.raises(Unavailable):
                kill_connection(server, dead)
        holder.release(grant, RECORD, LIMIT)
        waiters[2].ends()
        take(waiters[2].backend, name, waiter(2))
        assert [state(server, name, waiter(number)) for number in range(3)] == ["g", "g", ""]


def kill_connection(server: redis.Server, waiter: Waiting) -> None:
    """Have the server break the waiter's connection, as when its process dies."""
    session = waiter.backend._session
    wire = session._linked()._wire
    local = wire._socket.getsockname()  # type: ignore[attr-defined]
    with server.client() as client:
        client.client_kill(f"{local[0]}:{local[1]}")
    waiter.ends()


def test_a_waiter_whose_connection_broke_keeps_its_place(
    server: redis.Server, opened: Open, name: str
) -> None:
    holder = opened()
    grant = take(holder, name)
    with waiting(server, opened, name, 2) as waiters:
        with pytest.raises(Unavailable):
            kill_connection(server, waiters[0])
        again = Waiting(waiters[0].backend, refused(waiters[0].backend, name, waiter(0)))
        until(lambda: not again.woken and again.backend._session._channels, "it to listen again")
        holder.release(grant, RECORD, LIMIT)
        again.ends()
        take(again.backend, name, waiter(0))
        assert not waiters[1].woken
        again.stop()


def test_a_waiter_that_is_woken_and_leaves_wakes_the_next(
    server: redis.Server, opened: Open, name: str
) -> None:
    holder = opened()
    grant = take(holder, name)
    with waiting(server, opened, name, 2) as waiters:
        holder.release(grant, RECORD, LIMIT)
        waiters[0].ends()
        assert not waiters[1].woken
        waiters[0].backend.leave(LIMIT)
        waiters[1].ends()
        take(waiters[1].backend, name, waiter(1))


def test_who_comes_later_does_not_overtake_a_waiter_that_was_woken(
    server: redis.Server, opened: Open, name: str
) -> None:
    holder = opened()
    grant = take(holder, name)
    with waiting(server, opened, name, 1) as waiters:
        holder.release(grant, RECORD, LIMIT)
        waiters[0].ends()
        assert refused(opened(), name, "host:9:late").holder == waiter(0)
        take(waiters[0].backend, name, waiter(0))


def test_a_waiter_that_is_stopped_holds_the_others_up_for_seconds(
    server: redis.Server, opened: Open, name: str
) -> None:
    """It is woken and doesn't come. Its own lease of ten minutes doesn't count."""
    holder = opened()
    grant = take(holder, name)
    with waiting(server, opened, name, 1) as stopped:
        later = opened()
        held = refused(later, name, "host:9:late", 6.0)
        holder.release(grant, RECORD, LIMIT)
        stopped[0].ends()
        later.wait(held, calls.now() + 4 * LIMIT, -1)
        deadline = calls.now() + 4 * LIMIT
        while isinstance(got := later.acquire(name, "host:9:late", 6.0, LIMIT), Held):
            assert calls.now() < deadline
            later.wait(got, deadline, -1)


def test_the_first_waiter_takes_over_when_the_lease_ends(
    server: redis.Server, opened: Open, name: str
) -> None:
    take(opened(), name, ttl=3.0)
    with waiting(server, opened, name, 2) as waiters:
        waiters[0].ends()
        take(waiters[0].backend, name, waiter(0))
        assert not waiters[1].woken


def test_look_tells_who_waits_in_their_order(server: redis.Server, opened: Open, name: str) -> None:
    take(opened(), name)
    with waiting(server, opened, name, 3):
        seen = opened().look(name, LIMIT)
    assert seen.waiting is not None
    assert [held.holder for held in seen.waiting] == [waiter(number) for number in range(3)]
    assert all(held.since is not None for held in seen.waiting)


# Keys and tokens.


def test_only_what_has_to_stay_stays(server: redis.Server, opened: Open, name: str) -> None:
    holder = opened()
    grant = take(holder, name)
    refused(opened(), name, ttl=5.0)
    lock, token, record, control, queue, waiters, once = keys_of(name)
    with server.client() as client:
        assert 0 < client.pttl(lock) <= LONG * 1000
        assert 0 < client.pttl(queue) <= 6000
        assert 0 < client.pttl(waiters) <= 6000
        holder.mark(grant, "k", {}, LIMIT)
        holder.steer(name, "", {"version": 1, "pause": None, "release": None}, LIMIT)
        holder.release(grant, RECORD, LIMIT)
        assert client.exists(lock) == 0
        assert [client.pttl(key) for key in (token, record, control, once)] == [-1] * 4


@pytest.mark.parametrize("lost", ["all", "token"])
def test_tokens_grow_though_the_server_forgets(
    server: redis.Server, opened: Open, name: str, lost: str
) -> None:
    backend = opened()
    tokens = []
    for _ in range(3):
        grant = take(backend, name)
        tokens.append(grant.token)
        with server.client() as client:
            if lost == "all":
                client.flushall()
                with pytest.raises(Lost):
                    backend.renew(grant, LIMIT)
            else:
                client.delete(keys_of(name)[1])
                backend.release(grant, RECORD, LIMIT)
    assert tokens == sorted(set(tokens))


def test_tokens_grow_though_the_clock_went_back(server: redis.Server, opened: Open, name: str) -> None:
    with server.client() as client:
        client.set(keys_of(name)[1], "4000000000000000")
    assert take(opened(), name).token == 4_000_000_000_000_001


def test_the_scripts_may_be_flushed(server: redis.Server, opened: Open, name: str) -> None:
    backend = opened()
    grant = take(backend, name)
    with server.client() as client:
        client.script_flush()
    backend.renew(grant, LIMIT)
    with server.client() as client:
        client.script_flush()
    backend.release(grant, RECORD, LIMIT)


def test_locks_are_listed_among_other_keys(server: redis.Server, opened: Open, name: str) -> None:
    with server.client() as client, client.pipeline() as pipeline:
        for number in range(5000):
            pipeline.set(f"other:{number}", "x", ex=60)
        pipeline.set("singleton-run:{half", "x", ex=60)
        pipeline.execute()
    backend = opened()
    take(backend, name)
    names = backend.list(LIMIT)
    assert name in names
    assert "half" not in names


def test_the_rights_are_those_of_the_page() -> None:
    page = Path(__file__).parents[3] / "docs" / "redis.md"
    assert f"on >PASSWORD {RIGHTS}\n" in page.read_text(encoding="utf-8")


# Time.


@pytest.mark.parametrize("call", ["acquire", "renew", "write", "mark", "release", "leave", "steer"])
def test_what_comes_too_late_changes_nothing(
    server: redis.Server, opened: Open, name: str, call: str
) -> None:
    """The server is stopped, and does what was sent to it when it goes on."""
    backend = opened()
    grant = take(backend, name if call != "acquire" else f"{name}-other")
    arguments: dict[str, tuple[object, ...]] = {
        "acquire": (name, "host:1:a", LONG),
        "leave": (),
        "mark": (grant, "k", {}),
        "steer": (name, "", {}),
        "renew": (grant,),
    }

    def dump() -> list[object]:
        with server.client() as client:
            return [client.dump(key) for key in keys_of(name)] + [client.pexpiretime(keys_of(name)[0])]

    before = dump()
    with server.stopped(), pytest.raises(Unavailable):
        getattr(backend, call)(*arguments.get(call, (grant, {})), 0.5)
    assert dump() == before


@pytest.mark.parametrize("how", ["deaf", "trickle"])
def test_a_call_ends_in_its_time_whatever_the_network_does(
    server: redis.Server, opened: Open, name: str, how: str
) -> None:
    with proxy(server.port) as between:
        backend = opened(f"redis://{between.address}")
        grant = take(backend, name)
        if how == "deaf":
            between.deafen(DOWN)
        else:
            between.trickle()
        for again in (backend, opened(f"redis://{between.address}")):
            began = calls.now()
            with pytest.raises(Unavailable):
                again.renew(grant, 1.0)
            assert calls.now() < began + 1.0 + SLACK
