"""What people ask of a lock in Postgres: the control in its table, and what the server tells of the lock."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from psycopg import sql

from singleton_run.api import control as controls
from singleton_run.api.contract import Held, Look
from singleton_run.errors import Lost, Refused, Unavailable
from singleton_run.system import calls, pipes
from tests.support.backend_calls import (
    LIMIT,
    LONG,
    holding,
    pause,
    paused_by_damage,
    steer,
    steered_by_many,
    take,
)
from tests.support.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from singleton_run_postgres.backend import PostgresBackend
    from tests.servers import postgres
    from tests.support.backend_calls import Opened

    Open = Opened[PostgresBackend]

AWHILE = 1.0
RECORD = {"version": 1, "state": "succeeded", "token": 1, "holder": "h", "runs": []}


@pytest.fixture
def old(server: postgres.Postgres, opened: Open) -> str:
    """A schema of the role's with the two tables that an earlier version made. The stranger may use them."""
    schema = f"s{uuid4().hex}"
    server.run(sql.SQL("CREATE SCHEMA {} AUTHORIZATION app").format(sql.Identifier(schema)))
    opened(at(server, schema)).acquire("first", "host:1:a", LONG, LIMIT)
    server.run(f"DROP TABLE {schema}.singleton_run_lock_control")
    server.run(f"GRANT USAGE ON SCHEMA {schema} TO stranger")
    server.run(f"GRANT SELECT, INSERT, UPDATE ON {schema}.singleton_run_lock TO stranger")
    server.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.singleton_run_lock_once TO stranger")
    return schema


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the statements that are sent from now on, in order."""
    kinds: list[str] = []

    class Tracer:
        def request(self, work: Callable[[], Any], kind: str, key: Callable[[], str], _: object) -> Any:
            result = work()
            kinds.append(key().partition(" ")[0] if kind == "query" else kind)
            return result

    monkeypatch.setattr(pipes, "tracer", Tracer())
    return kinds


def at(server: postgres.Postgres, schema: str, user: str = "app") -> str:
    return f"{server.url_of(user)}?singleton_run_schema={schema}"


def sessions(server: postgres.Postgres) -> set[int]:
    """The server's processes that serve singleton-run."""
    asking = "SELECT pid FROM pg_stat_activity WHERE application_name = 'singleton-run'"
    return {process for (process,) in server.run(asking)}


def channels(server: postgres.Postgres) -> int:
    """How many of singleton-run's sessions said LISTEN last, or have looked after that."""
    listening = "application_name = 'singleton-run' AND state = 'idle' AND query ~ '^(LISTEN|/. look)'"
    count: int = server.run(f"SELECT count(*) FROM pg_stat_activity WHERE {listening}")[0][0]  # noqa: S608
    return count


# The control.


@pytest.mark.parametrize("way", ["direct", "pooled"])
def test_a_control_comes_with_each_answer_and_takes_no_statement_more(
    server: postgres.Postgres, pooler: postgres.Pgbouncer, opened: Open, name: str, way: str, asked: list[str]
) -> None:
    lock = server.url if way == "direct" else pooler.url
    one, other = opened(lock), opened(lock)
    one.release(take(one, name), RECORD, LIMIT)
    assert other.look(name, LIMIT).version == ""
    assert one.steer(name, "", pause(), LIMIT)
    asked.clear()
    grant = take(one, name)
    assert one.renew(grant, LIMIT) == pause()
    assert asked == ["acquire", "renew"]
    held = other.acquire(name, "host:2:b", LONG, LIMIT)
    assert isinstance(held, Held)
    assert held.token == grant.token
    assert grant.control == held.control == pause()
    seen = other.look(name, LIMIT)
    assert seen.control == pause()
    resumed = controls.resumed(seen.control)
    assert other.steer(name, seen.version, resumed, LIMIT)
    assert one.renew(grant, LIMIT) == resumed


def test_only_the_present_version_is_replaced_and_none_comes_back(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    backend = opened(server.url)
    for wrong in ("1", "nonsense", "-", "' OR true --"):
        assert not backend.steer(name, wrong, pause(), LIMIT)
    versions = [""]
    for number in range(3):
        for version in versions[:-1]:
            assert not backend.steer(name, version, pause("late"), LIMIT)
        assert backend.steer(name, versions[-1], pause(str(number)), LIMIT)
        versions.append(backend.look(name, LIMIT).version)
    assert backend.look(name, LIMIT).control == pause("2")
    server.run("DELETE FROM singleton_run_lock_control WHERE name = %s", [name])
    assert not backend.steer(name, versions[-1], pause(), LIMIT)
    assert backend.steer(name, "", pause(), LIMIT)
    assert backend.look(name, LIMIT).version not in versions


def test_a_control_outlives_its_lock_and_its_lock_s_row(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    backend = opened(server.url)
    steer(backend, name, pause())
    assert name in backend.list(LIMIT)
    assert backend.read(name, LIMIT) == (None, None)
    take(backend, name)
    server.delete_lock(name)
    assert take(backend, name).control == pause()


def test_of_many_who_steer_at_once_one_wins_each_time_and_renewals_go_on(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    holder = opened(server.url)
    grant = take(holder, name)
    people = [opened(server.url) for _ in range(4)]
    steered_by_many(holder, grant, name, people, 10)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 2}', "x" * 5000])
def test_a_damaged_control_pauses_the_lock_until_it_is_replaced(
    server: postgres.Postgres, opened: Open, name: str, damage: str
) -> None:
    update = "UPDATE singleton_run_lock_control SET control = %s WHERE name = %s"
    paused_by_damage(opened(server.url), name, lambda: server.run(update, [damage, name]))


def test_a_steer_that_was_given_up_while_the_server_was_stopped_changes_nothing_later(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    backend = opened(server.url)
    grant = take(backend, name)
    steer(backend, name, pause())
    seen = backend.look(name, LIMIT)
    before = sessions(server)
    givers: list[Callable[[PostgresBackend], object]] = [
        lambda late: late.steer(name, seen.version, controls.resumed(None), 0.3),
        lambda late: late.steer(f"{name}-other", "", pause(), 0.3),
        lambda late: late.free(name, seen, 0.3),
    ]
    late = [opened(server.url) for _ in givers]
    for one in late:
        take(one, f"{name}-{id(one)}")
    with server.stopped():
        for one, give in zip(late, givers, strict=True):
            with pytest.raises(Unavailable):
                give(one)
        for one in late:
            one.close()
    # Not compared by their number: one of an earlier test's may end only now.
    until(lambda: sessions(server) <= before, "the server ends the sessions that were dropped")
    assert backend.renew(grant, LIMIT) == pause()
    assert backend.look(f"{name}-other", LIMIT).control is None


def test_a_steer_waits_for_no_lock_of_the_lock_s_row(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    backend = opened(server.url)
    grant = take(backend, name)
    with server.connect() as admin, admin.transaction():
        admin.execute("SELECT FROM singleton_run_lock WHERE name = %s FOR UPDATE", [name])
        steer(backend, name, pause())
    assert backend.renew(grant, LIMIT) == pause()


# Who is told.


def test_a_holder_is_told_of_a_steer(server: postgres.Postgres, opened: Open, name: str) -> None:
    name = name.ljust(200, "x")
    holder, person = opened(server.url), opened(server.url)
    grant = take(holder, name)
    with holding(holder, grant) as ended:
        until(lambda: channels(server) > 0, "the holder listens")
        steer(person, name, pause())
        ended()
    assert holder.renew(grant, LIMIT) == pause()
    with holding(holder, grant) as ended:
        steer(person, name, controls.resumed(pause()))
        ended()


def test_a_holder_is_told_of_a_steer_through_a_pooler(
    server: postgres.Postgres, pooler: postgres.Pgbouncer, opened: Open, name: str
) -> None:
    holder, person = opened(server.url), opened(pooler.url)
    grant = take(holder, name)
    with holding(holder, grant) as ended:
        steer(person, name, pause())
        ended()


def test_a_steer_between_the_acquire_and_the_listen_is_not_missed(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    holder = opened(server.url)
    grant = take(holder, name)
    steer(opened(server.url), name, pause())
    with holding(holder, grant) as ended:
        ended()


def test_a_holder_behind_a_pooler_sees_it_by_its_renewal(
    pooler: postgres.Pgbouncer, opened: Open, name: str, asked: list[str]
) -> None:
    holder = opened(pooler.url)
    grant = take(holder, name)
    steer(opened(pooler.url), name, pause())
    asked.clear()
    with holding(holder, grant, AWHILE) as ended:
        ended()
    assert asked == []
    assert holder.renew(grant, LIMIT) == pause()


def test_a_short_command_takes_no_listen_and_a_long_one_takes_one(
    server: postgres.Postgres, opened: Open, name: str, asked: list[str]
) -> None:
    holder = opened(server.url)
    grant = take(holder, name)
    asked.clear()
    # However slow the machine is, this command is a short one.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("singleton_run_postgres.backend._LISTEN_AFTER", LONG)
        with holding(holder, grant):
            server.run("SELECT 1")  # as long as a LISTEN would take
    assert asked == []
    for _ in range(3):
        with holding(holder, grant) as ended:
            until(lambda: asked[:2] == ["LISTEN", "look"], "the holder listens")
            server.run("SELECT pg_notify(%s, '')", [f"singleton_run:{name}"])
            ended()
        holder.renew(grant, LIMIT)
    assert asked == ["LISTEN", "look", "renew", "renew", "renew"]


def test_a_session_that_is_ended_does_not_end_the_hold(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    holder = opened(server.url)
    grant = take(holder, name)
    with holding(holder, grant) as ended:
        until(lambda: channels(server) > 0, "the holder listens")
        server.end_sessions()
        with pytest.raises(TimeoutError):
            _within(ended)
    holder.renew(grant, LIMIT)
    server.stop()
    try:
        with holding(holder, grant, AWHILE) as ended:
            ended()
    finally:
        server.start()
    holder.renew(grant, LIMIT)


def test_a_holder_is_told_of_a_deletion_though_a_pause_made_the_table(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    schema = f"s{uuid4().hex}"
    server.run(sql.SQL("CREATE SCHEMA {} AUTHORIZATION app").format(sql.Identifier(schema)))
    holder = opened(at(server, schema))
    steer(holder, name, pause())
    grant = take(holder, name)
    with holding(holder, grant) as ended:
        until(lambda: channels(server) > 0, "the holder listens")
        server.run(f"DELETE FROM {schema}.singleton_run_lock")  # noqa: S608 - a name of ours
        ended()


@pytest.mark.parametrize("when", ["before the hold", "during it"])
def test_a_holder_whose_session_was_ended_is_told_all_the_same(
    server: postgres.Postgres, opened: Open, name: str, when: str
) -> None:
    holder = opened(server.url)
    grant = take(holder, name)
    if when == "before the hold":
        server.end_sessions()
    with holding(holder, grant) as ended:
        until(lambda: channels(server) > 0, "the holder listens")
        if when == "during it":
            server.end_sessions()
            until(lambda: channels(server) > 0, "the holder listens again")
        server.delete_lock(name)
        ended()
    with pytest.raises(Lost):
        holder.renew(grant, LIMIT)


def _within(ended: Callable[[], None]) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(ended)
        try:
            waiting.result(AWHILE)
        finally:
            pool.shutdown(wait=False)


# What the server tells.


def test_each_state_by_the_server_s_clock(server: postgres.Postgres, opened: Open, name: str) -> None:
    holder, person = opened(server.url), opened(server.url)
    assert vars_of(person.look(name, LIMIT)) == (Look.FREE, None)
    grant = take(holder, name)
    seen = person.look(name, LIMIT)
    assert vars_of(seen) == (Look.HELD, (grant.holder, grant.token))
    assert seen.waiting is None
    assert seen.holder is not None
    assert seen.holder.until == pytest.approx(calls.now() + LONG, abs=LIMIT)
    for end, state in (("-infinity", Look.EXPIRED), ("2000-01-01", Look.EXPIRED), ("infinity", Look.HELD)):
        server.run("UPDATE singleton_run_lock SET until = %s WHERE name = %s", [end, name])
        assert vars_of(person.look(name, LIMIT)) == (state, (grant.holder, grant.token))
    holder.renew(grant, LIMIT)
    holder.release(grant, RECORD, LIMIT, LONG)
    seen = person.look(name, LIMIT)
    assert vars_of(seen) == (Look.KEPT, (grant.holder, grant.token))
    assert seen.record == RECORD
    server.run("UPDATE singleton_run_lock SET until = clock_timestamp() WHERE name = %s", [name])
    assert vars_of(person.look(name, LIMIT)) == (Look.FREE, None)
    assert person.look(name, LIMIT).record == RECORD


def vars_of(seen: Look) -> tuple[str, tuple[str, int | None] | None]:
    holder = seen.holder
    return seen.state, None if holder is None else (holder.holder, holder.token)


def test_a_lock_is_freed_of_the_holder_that_was_seen_and_of_no_other(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    holder, person = opened(server.url), opened(server.url)
    free = person.look(name, LIMIT)
    assert not person.free(name, free, LIMIT)
    earlier = take(holder, name)
    before = person.look(name, LIMIT)
    holder.release(earlier, RECORD, LIMIT)
    grant = take(holder, name)
    for seen in (free, before):
        assert not person.free(name, seen, LIMIT)
    assert holder.renew(grant, LIMIT) is None
    assert person.free(name, person.look(name, LIMIT), LIMIT)
    with pytest.raises(Lost):
        holder.renew(grant, LIMIT)
    with pytest.raises(Lost):
        holder.release(grant, RECORD, LIMIT)
    assert take(person, name).token > grant.token


def test_a_lock_that_is_kept_is_freed_and_who_waits_is_told(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    holder, waiter = opened(server.url), opened(server.url)
    holder.release(take(holder, name), RECORD, LIMIT, LONG)
    held = waiter.acquire(name, "host:2:b", LONG, LIMIT)
    assert isinstance(held, Held)
    never, end = os.pipe()
    with ThreadPoolExecutor() as pool:
        wait = pool.submit(waiter.wait, held, calls.now() + LONG, never)
        try:
            assert holder.free(name, holder.look(name, LIMIT), LIMIT)
            wait.result(4 * LIMIT)
        finally:
            os.write(end, b".")
    os.close(never)
    os.close(end)
    take(waiter, name, "host:2:b")


def test_whoever_looked_before_there_was_a_table_sees_what_is_in_it_later(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    schema = f"s{uuid4().hex}"
    server.run(sql.SQL("CREATE SCHEMA {} AUTHORIZATION app").format(sql.Identifier(schema)))
    looker, person = opened(at(server, schema)), opened(at(server, schema))
    assert (looker.look(name, LIMIT).control, looker.list(LIMIT)) == (None, [])
    assert person.steer(name, "", pause(), LIMIT)
    assert looker.look(name, LIMIT).control == pause()
    assert looker.list(LIMIT) == [name]


# The tables of an earlier version.


def test_old_tables_go_on_working(
    server: postgres.Postgres, opened: Open, old: str, name: str, asked: list[str]
) -> None:
    backend = opened(at(server, old, "stranger"))
    for _ in range(2):
        asked.clear()
        grant = take(backend, name)
        assert (grant.control, backend.renew(grant, LIMIT)) == (None, None)
        backend.done(name, "v1", LIMIT)
        backend.mark(grant, "v1", {}, LIMIT)
        assert name in backend.list(LIMIT)
        assert vars_of(backend.look(name, LIMIT)) == (Look.HELD, (grant.holder, grant.token))
        backend.release(grant, RECORD, LIMIT)
    assert asked == ["acquire", "renew", "done", "mark", "list", "look", "release"]


def test_who_may_not_make_the_table_is_told_what_an_administrator_has_to_say_and_it_is_enough(
    server: postgres.Postgres, opened: Open, old: str, name: str
) -> None:
    holder, person = opened(at(server, old, "stranger")), opened(at(server, old, "stranger"))
    grant = take(holder, name)
    with pytest.raises(Refused) as no:
        person.steer(name, "", pause(), LIMIT)
    text = str(no.value)
    assert "\n" not in text
    server.run(text.partition("have an administrator run: ")[2])
    assert person.steer(name, "", pause(), LIMIT)
    assert holder.renew(grant, LIMIT) == pause()
    holder.release(grant, RECORD, LIMIT)
    assert take(holder, name).control == pause()


def test_who_had_old_tables_and_waits_sees_the_pause_of_one_who_made_the_table(
    server: postgres.Postgres, opened: Open, old: str, name: str
) -> None:
    waiter, person = opened(at(server, old)), opened(at(server, old))
    take(waiter, f"{name}-other")
    steer(person, name, pause())
    assert take(waiter, name).control == pause()


def test_who_may_not_read_the_table_gets_no_lock_and_keeps_the_one_that_it_has(
    server: postgres.Postgres, opened: Open, old: str, name: str
) -> None:
    """What can't be read never means that a command may start."""
    holder = opened(at(server, old, "stranger"))
    grant = take(holder, name)
    steer(opened(at(server, old)), f"{name}-other", pause())
    for backend in (holder, opened(at(server, old, "stranger"))):
        assert backend.renew(grant, LIMIT) is None
        with pytest.raises(Refused, match="have an administrator run: "):
            backend.acquire(f"{name}-other", "host:2:b", LONG, LIMIT)
        assert backend.renew(grant, LIMIT) is None
    holder.release(grant, RECORD, LIMIT)


@pytest.mark.parametrize("words", [{"schema": 'quo"ted', "table": "it's"}, {"table": "é" * 29}])
def test_any_table_s_name_has_a_control_beside_it(
    server: postgres.Postgres, opened: Open, name: str, words: dict[str, str]
) -> None:
    schema = words.get("schema", f"s{uuid4().hex}")
    server.run(sql.SQL("CREATE SCHEMA {} AUTHORIZATION app").format(sql.Identifier(schema)))
    lock = f"{at(server, schema)}&singleton_run_table={words['table']}"
    waiter, person = opened(lock), opened(lock)
    take(waiter, f"{name}-other")
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_name !~ %s"
    ((table,),) = server.run(tables, [schema, f"^{words['table']}(_once)?$"])
    server.run(sql.SQL("DROP TABLE {}").format(sql.Identifier(schema, table)))
    take(waiter, f"{name}-another")
    steer(person, name, pause())
    assert take(waiter, name).control == pause()
