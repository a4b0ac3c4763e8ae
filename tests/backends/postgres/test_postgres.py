"""The backend `postgres` on a real server: what is beyond the suite for every backend."""

from __future__ import annotations

import ast
import ctypes
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from singleton_run.api.contract import Grant, Held
from singleton_run.errors import UNUSABLE, Lost, Refused, Unavailable
from singleton_run.system import calls
from singleton_run_postgres import open_backend
from singleton_run_postgres.statements import for_administrator
from tests.servers import postgres
from tests.support.backend_calls import LIMIT, LONG, refused, take, waiting
from tests.support.harness import TREE, until
from tests.support.proxy import DOWN, proxy

if TYPE_CHECKING:
    from singleton_run_postgres.backend import PostgresBackend
    from tests.support.backend_calls import Opened

    Open = Opened[PostgresBackend]

QUEUES = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
RECORD = {"version": 1, "state": "succeeded", "token": 1, "holder": "h", "runs": []}


@pytest.fixture
def schema(server: postgres.Postgres) -> str:
    """A schema in which the role may make a table, and has not."""
    schema = f"s{uuid4().hex}"
    server.run(sql.SQL("CREATE SCHEMA {} AUTHORIZATION app").format(sql.Identifier(schema)))
    return schema


# The table.


def test_the_table_is_made_by_the_first_who_locks(
    server: postgres.Postgres, opened: Open, schema: str, name: str
) -> None:
    backend = opened(f"{server.url}?singleton_run_schema={schema}")

    def exists() -> bool:
        return server.run("SELECT to_regclass(%s)", [f"{schema}.singleton_run_lock"]) != [(None,)]

    assert backend.read(name, LIMIT) == (None, None)
    assert backend.list(LIMIT) == []
    assert not exists()
    take(backend, name)
    assert exists()


def test_many_who_make_the_table_at_once_do_not_disturb_each_other(
    server: postgres.Postgres, opened: Open, schema: str
) -> None:
    backends = [opened(f"{server.url}?singleton_run_schema={schema}") for _ in range(8)]
    for backend in backends:
        backend.list(LIMIT)
    ready = threading.Barrier(len(backends))

    def take_one(number: int) -> int:
        ready.wait()
        return take(backends[number], f"n{number}").token

    with ThreadPoolExecutor(len(backends)) as pool:
        tokens = list(pool.map(take_one, range(len(backends))))
    assert len(set(tokens)) == len(backends)


def test_a_maker_that_dies_leaves_no_table_without_triggers(
    server: postgres.Postgres, opened: Open, schema: str, name: str
) -> None:
    """The server's answer to the first statement that makes something never comes."""
    with proxy(server.port) as between:
        place = server.url.replace(f":{server.port}/", f":{between.port}/")
        between.deafen_at(b"CREATE TABLE", DOWN)
        with pytest.raises(Unavailable):
            opened(f"{place}?singleton_run_schema={schema}").acquire(name, "host:1:a", LONG, 1.0)
    until(lambda: server.sessions() == 0, "its session ends")
    take(opened(f"{server.url}?singleton_run_schema={schema}"), name)
    assert triggers(server, schema) == ["singleton_run_told_delete", "singleton_run_told_update"]


def triggers(server: postgres.Postgres, schema: str, database: str = "app") -> list[str]:
    """The triggers of the table of locks, sorted."""
    asking = "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal ORDER BY 1"
    return [found for (found,) in server.run(asking, [f"{schema}.singleton_run_lock"], database)]


def test_who_may_make_tables_and_no_triggers_makes_the_tables(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    server.run("CREATE DATABASE simple OWNER app")
    server.run("REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC", database="simple")
    server.run("GRANT CREATE ON SCHEMA public TO app", database="simple")
    backend = opened(server.url_of("app", database="simple"))
    grant = take(backend, name)
    assert backend.steer(name, "", {}, LIMIT)
    backend.mark(grant, "v1", RECORD, LIMIT)
    assert triggers(server, "public", "simple") == []


def test_a_lock_that_is_given_back_calls_no_trigger(
    server: postgres.Postgres, opened: Open, schema: str, name: str
) -> None:
    """The first call costs a session more than the release itself."""
    backend = opened(f"{server.url}?singleton_run_schema={schema}")
    grant = take(backend, name)
    server.run(
        f"CREATE OR REPLACE FUNCTION {schema}.singleton_run_lock_told() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN RAISE EXCEPTION ''called''; END'"
    )
    backend.release(grant, RECORD, LIMIT)
    backend.release(take(backend, name), RECORD, LIMIT, LONG)
    server.run(f"UPDATE {schema}.singleton_run_lock SET until = clock_timestamp()")  # noqa: S608 - ours
    take(backend, name)
    for change in ("DELETE FROM", "UPDATE"):
        setting = " SET holder = 'x'" if change == "UPDATE" else ""
        with pytest.raises(psycopg.errors.RaiseException):
            server.run(f"{change} {schema}.singleton_run_lock{setting}")


def test_who_may_not_is_told_what_an_administrator_has_to_say_and_it_is_enough(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    server.run("CREATE SCHEMA locked")
    backend = opened(f"{server.url_of('stranger')}?singleton_run_schema=locked")
    with pytest.raises(Refused) as no:
        backend.acquire(name, "host:1:a", LONG, LIMIT)
    text = str(no.value)
    assert "\n" not in text
    server.run(text.partition("have an administrator run: ")[2])
    grant = take(backend, name)
    backend.renew(grant, LIMIT)
    backend.write(grant, RECORD, LIMIT)
    assert isinstance(refused(opened(f"{server.url_of('stranger')}?singleton_run_schema=locked"), name), Held)
    backend.release(grant, RECORD, LIMIT)
    assert backend.read(name, LIMIT) == (None, RECORD)
    assert backend.list(LIMIT) == [name]
    grant = take(backend, name)
    for _ in range(2):
        backend.mark(grant, "v1", RECORD, LIMIT)
    assert backend.done(name, "v1", LIMIT) == RECORD
    assert backend.forget(name, "v1", LIMIT)
    for _ in range(2):
        assert backend.steer(name, backend.look(name, LIMIT).version, {}, LIMIT)
    assert backend.free(name, backend.look(name, LIMIT), LIMIT)
    backend.leave(LIMIT)
    granted = server.run(
        "SELECT table_name, privilege_type FROM information_schema.table_privileges "
        "WHERE grantee = 'stranger' AND table_schema = 'locked' ORDER BY 1, 2"
    )
    marks = "singleton_run_lock_once"
    tables = ("singleton_run_lock", "singleton_run_lock_control")
    rights = [(table, right) for table in tables for right in ("INSERT", "SELECT", "UPDATE")]
    assert granted == [*rights, *((marks, right) for right in ("DELETE", "INSERT", "SELECT", "UPDATE"))]
    # Who has the table of an earlier version hears of the other before the command runs.
    server.run(f"DROP TABLE locked.{marks}")
    assert backend.forget(name, "v1", LIMIT) is False
    with pytest.raises(Refused, match="have an administrator run: "):
        backend.done(name, "v1", LIMIT)


@pytest.mark.parametrize("schema", ['quo"ted', "with space;--", "'é'"])
def test_any_identifier_will_do_and_is_only_that(
    server: postgres.Postgres, opened: Open, schema: str, name: str
) -> None:
    server.run(sql.SQL("CREATE SCHEMA {} AUTHORIZATION app").format(sql.Identifier(schema)))
    query = f"singleton_run_schema={quote(schema)}&application_name=x&singleton_run_table={quote(schema)}"
    backend = opened(f"{server.url}?{query}")
    grant = take(backend, name)
    backend.release(grant, RECORD, LIMIT)
    found = sql.SQL("SELECT name FROM {}").format(sql.Identifier(schema, schema))
    assert server.run(found) == [(name,)]


def test_what_is_hidden_is_not_taken_for_what_is_not_there(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    """A pause, or a mark of --once, may be among the rows that nobody shows us."""
    server.make_role("blind")
    for line in for_administrator("public", "hidden", "blind"):
        server.run(line)
    backend = opened(f"{server.url_of('blind')}?singleton_run_table=hidden")
    server.run("ALTER TABLE hidden_once ENABLE ROW LEVEL SECURITY")
    backend.release(take(backend, name), RECORD, LIMIT)
    with pytest.raises(Refused, match="hidden_once"):
        backend.done(name, "key", LIMIT)
    server.run("CREATE POLICY open ON hidden_once USING (true)")
    assert backend.done(name, "key", LIMIT) is None
    server.run("ALTER TABLE hidden_control ENABLE ROW LEVEL SECURITY")
    with pytest.raises(Refused, match="hidden_control"):
        backend.acquire(name, "host:1:a", LONG, LIMIT)
    server.run("CREATE POLICY open ON hidden_control USING (true)")
    take(backend, name)


def test_a_table_that_is_another_is_refused(server: postgres.Postgres, opened: Open, name: str) -> None:
    server.run("CREATE TABLE other (name text, until date)")
    server.run("GRANT ALL ON other TO app")
    with pytest.raises(Refused, match="singleton_run_table"):
        opened(f"{server.url}?singleton_run_table=other").acquire(name, "host:1:a", LONG, LIMIT)


@pytest.mark.parametrize(
    "loss",
    [
        "DELETE FROM {}",
        "TRUNCATE {}",
        "DROP TABLE {}",
        "SELECT setval(pg_get_serial_sequence({!r}, 'token'), 1)",
    ],
)
def test_the_token_never_goes_back(
    server: postgres.Postgres, opened: Open, schema: str, name: str, loss: str
) -> None:
    backend = opened(f"{server.url}?singleton_run_schema={schema}")
    before = take(backend, name)
    server.run(loss.format(f"{schema}.singleton_run_lock"))
    if "setval" in loss:
        backend.release(before, RECORD, LIMIT)
    else:
        with pytest.raises(Lost):
            backend.renew(before, LIMIT)
    assert take(backend, name).token > before.token


# What is kept, and what is done.


def test_a_kept_lock_is_to_be_seen_in_its_row(server: postgres.Postgres, opened: Open, name: str) -> None:
    holder = opened(server.url)
    grant = take(holder, name)
    holder.release(grant, RECORD, LIMIT, LONG)
    look = (
        "SELECT holder, released = token, until > clock_timestamp() FROM singleton_run_lock WHERE name = %s"
    )
    assert server.run(look, [name]) == [(grant.holder, True, True)]
    for backend in (holder, opened(server.url)):
        assert isinstance(backend.acquire(name, grant.holder, LONG, LIMIT), Held)
        backend.leave(LIMIT)
    assert server.run(look, [name]) == [(grant.holder, True, True)]
    server.delete_lock(name)
    assert take(opened(server.url), name).token > grant.token


def test_a_waiter_of_a_kept_lock_looks_at_its_time(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    """It is told that the lock is kept, asks once until when, and is not disturbed until then."""
    holder, waiter = opened(server.url), opened(server.url)
    grant = take(holder, name)
    got: Grant | Held = refused(waiter, name)
    end = calls.now() + 1.0
    waits = 0
    while isinstance(got, Held):
        waits += 1
        with waiting(waiter, got) as ended:
            if waits == 1:
                holder.release(grant, RECORD, LIMIT, 1.0)
            ended()
        got = waiter.acquire(name, "host:2:b", LONG, LIMIT)
    assert calls.now() >= end
    assert waits <= 2


def test_a_leave_that_comes_late_does_not_free_what_is_kept(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    holder, giver = opened(server.url), opened(server.url)
    grant = take(holder, name)
    giver.release(grant, RECORD, LIMIT, LONG)
    holder.leave(LIMIT)
    refused(holder, name)


def test_a_key_that_no_index_would_take_is_a_key(server: postgres.Postgres, opened: Open, name: str) -> None:
    backend = opened(server.url)
    grant = take(backend, name)
    keys = [
        "".join(chr(0x10000 + place * step % 0x100000) for place in range(256)) for step in (7919, 104729)
    ]
    keys += [keys[0][:-1] + "x", keys[0][:-1] + "y"]
    for key in keys:
        assert backend.done(name, key, LIMIT) is None
        backend.mark(grant, key, {"key": key}, LIMIT)
    assert [backend.done(name, key, LIMIT) for key in keys] == [{"key": key} for key in keys]


def test_a_mark_that_is_damaged_is_neither_done_nor_to_do(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    backend = opened(server.url)
    backend.mark(take(backend, name), "a b", {}, LIMIT)
    for text in ("rubbish", "[]", "5"):
        server.run("UPDATE singleton_run_lock_once SET mark = %s WHERE name = %s", [text, name])
        with pytest.raises(Refused, match=f"name = '{name}' and key = 'a%20b' is damaged"):
            backend.done(name, "a b", LIMIT)
    assert backend.forget(name, "a b", LIMIT)


def test_a_mark_waits_for_who_changes_the_row_and_then_counts_no_more(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    """The lock changes hands before a mark or after it, never in between."""
    backend = opened(server.url)
    grant = take(backend, name)
    backend.done(name, "v1", LIMIT)
    with psycopg.connect(server.url_of("postgres")) as other, ThreadPoolExecutor() as pool:
        other.execute(
            "UPDATE singleton_run_lock SET holder = 'somebody', token = token + 1 WHERE name = %s", [name]
        )
        marking = pool.submit(backend.mark, grant, "v1", {}, LIMIT)
        until(lambda: server.run(WAITS) != [(0,)], "the mark to wait for the row")
        other.commit()
        with pytest.raises(Lost):
            marking.result(4 * LIMIT)
    assert backend.done(name, "v1", LIMIT) is None


def leap(backend: PostgresBackend, seconds: float) -> None:
    """Have it think that the server's last answer told another time: a real clock can't be made to leap."""
    clock = backend._session.clock  # noqa: SLF001 - the session's alone
    clock._told = (clock.told() or 0.0) + seconds  # noqa: SLF001 - nobody else may


def test_the_server_s_time_is_known_as_exactly_as_its_answer_was_quick(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    take(opened(server.url), name)  # without a table a look is not answered by a row
    backend = opened(server.url)
    assert backend.offset() is None
    backend.read(name, LIMIT)
    told = backend.offset()
    assert told is not None
    offset, exact = told
    assert 0 < exact < LIMIT
    assert abs(offset) < exact + 0.05
    leap(backend, 3600.0)
    told = backend.offset()
    assert told is not None
    assert told[0] == pytest.approx(3600.0 + offset, abs=0.05)


# Waiting.


def test_a_release_through_a_pooler_wakes_who_waits_without_one(
    server: postgres.Postgres, pooler: postgres.Pgbouncer, opened: Open, name: str
) -> None:
    holder, waiter = opened(pooler.url), opened(server.url)
    grant = take(holder, name)
    with waiting(waiter, refused(waiter, name)) as ended:
        holder.release(grant, RECORD, LIMIT)
        ended()
    assert take(waiter, name).token > grant.token


def test_a_waiter_behind_a_pooler_occupies_no_session(
    server: postgres.Postgres, pooler: postgres.Pgbouncer, opened: Open, name: str
) -> None:
    """More wait than the pooler has sessions, and each of them is served."""
    waiters = [opened(pooler.url) for _ in range(8)]
    grant = take(opened(server.url), name)
    with waiting(waiters[0], refused(waiters[0], name)) as ended:
        for waiter in waiters[1:]:
            refused(waiter, name, "host:3:c")
        opened(pooler.url).release(grant, RECORD, LIMIT)
        ended()


def test_a_session_that_is_ended_ends_the_wait(server: postgres.Postgres, opened: Open, name: str) -> None:
    server.end_sessions()  # a pooler keeps those of earlier tests
    holder, waiter = opened(server.url), opened(server.url)
    grant = take(holder, name)
    with waiting(waiter, refused(waiter, name)) as ended:
        # One that ends before the wait begins is made anew without a word.
        until(lambda: server.run(QUEUES) != [(0,)], "it to wait")
        server.end_sessions()
        with pytest.raises(Unavailable):
            ended()
    holder.release(grant, RECORD, LIMIT)
    take(waiter, name)


def test_a_long_name_wakes_its_waiters_too(server: postgres.Postgres, opened: Open, name: str) -> None:
    name = name.ljust(200, "x")
    holder, waiter = opened(server.url), opened(server.url)
    grant = take(holder, name)
    with waiting(waiter, refused(waiter, name)) as ended:
        holder.release(grant, RECORD, LIMIT)
        ended()


# What goes wrong on the way.


def test_an_ended_session_is_made_anew_without_a_word(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    backend = opened(server.url)
    grant = take(backend, name)
    server.end_sessions()
    backend.renew(grant, LIMIT)
    server.stop()
    with pytest.raises(Unavailable):
        backend.renew(grant, LIMIT)
    server.start()
    backend.renew(grant, LIMIT)
    backend.release(grant, RECORD, LIMIT)


def test_a_row_that_another_session_locks_is_unavailable_for_so_long(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    one, other = opened(server.url), opened(server.url)
    one.release(take(one, name), RECORD, LIMIT)
    grant = take(other, f"{name}-held")
    with server.connect() as admin, admin.transaction():
        admin.execute("SELECT FROM singleton_run_lock WHERE name LIKE %s FOR UPDATE", [f"{name}%"])
        with pytest.raises(Unavailable):
            one.acquire(name, "host:1:a", LONG, 0.3)
        with pytest.raises(Unavailable):
            other.renew(grant, 0.3)
        assert one.read(name, LIMIT) == (None, RECORD)
    take(one, name)
    other.renew(grant, LIMIT)


def test_a_role_that_may_only_read_is_not_taken_for_a_standby_s(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    server.make_role("reader")
    server.run("ALTER ROLE reader SET default_transaction_read_only = on")
    with pytest.raises(Unavailable, match="default_transaction_read_only"):
        opened(server.url_of("reader")).acquire(name, "host:1:a", LONG, LIMIT)


def test_a_session_that_was_given_up_does_not_wait_for_ever(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    """A renewal every few seconds would else leave one behind each, until no connection is left."""
    server.end_sessions()  # a pooler keeps those of earlier tests
    backend = opened(server.url)
    grant = take(backend, name)
    with server.connect() as admin, admin.transaction():
        admin.execute("LOCK TABLE singleton_run_lock")
        with pytest.raises(Unavailable):
            backend.renew(grant, 0.3)
        until(lambda: server.sessions() == 0, "the server gives up too, though the table is still locked")
    backend.renew(grant, LIMIT)


def test_what_was_given_up_while_the_server_was_stopped_changes_nothing_later(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    server.end_sessions()  # a pooler keeps those of earlier tests
    one, other = opened(server.url), opened(server.url)
    one.read(name, LIMIT)
    grant = take(other, f"{name}-held")
    with server.stopped():
        with pytest.raises(Unavailable):
            one.acquire(name, "host:1:a", LONG, 0.3)
        with pytest.raises(Unavailable):
            one.leave(0.3)
        with pytest.raises(Unavailable):
            other.write(grant, {**RECORD, "state": "late"}, 0.3)
    until(lambda: server.sessions() == 0, "the server ends the sessions that were dropped")
    backend = opened(server.url)
    assert backend.read(name, LIMIT) == (None, None)
    held, record = backend.read(grant.name, LIMIT)
    assert held is not None
    assert record is None
    other.renew(grant, LIMIT)


def test_a_server_whose_clock_leaps_is_believed_at_the_next_answer(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    backend = opened(server.url)
    backend.read(name, LIMIT)
    leap(backend, -3600.0)
    grant = take(backend, name)
    for change in (backend.renew, lambda *how: backend.release(how[0], RECORD, how[1])):
        leap(backend, -3600.0)
        change(grant, LIMIT)
    assert backend.read(name, LIMIT) == (None, RECORD)


@pytest.mark.parametrize("isolation", ["serializable", r"repeatable\ read"])
def test_another_default_isolation_changes_nothing(
    server: postgres.Postgres, opened: Open, name: str, isolation: str
) -> None:
    lock = f"{server.url}?options={quote(f'-c default_transaction_isolation={isolation}')}"
    alone = threading.Lock()
    never, end = os.pipe()

    def turns(number: int) -> int:
        backend = opened(lock)
        count = 0
        while count < 5:
            got = backend.acquire(name, f"host:{number}:a", LONG, LIMIT)
            if isinstance(got, Held):
                backend.wait(got, calls.now() + LIMIT, never)
                continue
            assert alone.acquire(blocking=False)
            backend.write(got, RECORD, LIMIT)
            alone.release()
            backend.release(got, RECORD, LIMIT)
            count += 1
        return count

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(turns, range(6))) == [5] * 6
    os.close(never)
    os.close(end)


def test_a_role_that_sees_numbers_rounded_changes_nothing(
    server: postgres.Postgres, opened: Open, name: str
) -> None:
    """Of `extra_float_digits=-15` a float8 is shown with one digit: 2e+09 is the clock."""
    server.make_role("rounded")
    server.run(
        "GRANT ALL ON DATABASE app TO rounded; GRANT ALL ON SCHEMA public TO rounded; GRANT app TO rounded"
    )
    server.run("ALTER ROLE rounded SET extra_float_digits = -15")
    backend = opened(server.url_of("rounded"))
    before = time.time()
    grant = take(backend, name)
    offset = backend.offset()
    assert offset is not None
    assert abs(offset[0]) < 5.0
    held = refused(opened(server.url_of("rounded")), name)
    assert held.until is not None
    assert abs(held.until - calls.now() - LONG) < 5.0
    assert held.since is not None
    assert abs(held.since - before) < 5.0
    backend.renew(grant, LIMIT)
    backend.release(grant, RECORD, LIMIT)


def test_no_connection_left_is_unavailable(server: postgres.Postgres, opened: Open, name: str) -> None:
    server.run("ALTER ROLE stranger CONNECTION LIMIT 0")
    try:
        with pytest.raises(Unavailable, match="no connection left"):
            opened(server.url_of("stranger")).acquire(name, "host:1:a", LONG, LIMIT)
    finally:
        server.run("ALTER ROLE stranger CONNECTION LIMIT -1")


def test_a_standby_is_unavailable_and_passed_over_for_the_primary(opened: Open, name: str) -> None:
    with postgres.folder() as place:
        primary = postgres.Postgres(place / "primary")
        standby = primary
        try:
            take(opened(primary.make().url), name)
            primary.stop()
            standby = primary.copy(place / "standby")
            standby.make_standby()
            standby.start(hot_standby="on")
            with pytest.raises(Unavailable, match="standby"):
                opened(standby.url).acquire(name, "host:1:a", LONG, LIMIT)
            both = primary.url.replace(f":{primary.port}/", f":{standby.port},127.0.0.1:{primary.port}/")
            holder = opened(both)
            with pytest.raises(Unavailable):
                holder.acquire(name, "host:1:a", LONG, LIMIT)
            primary.start()
            grant = take(holder, name)
            primary.stop()
            standby.run("SELECT pg_promote()")
            with pytest.raises(Lost):
                holder.renew(grant, LIMIT)
            assert isinstance(refused(holder, name, "host:3:c"), Held)
        finally:
            primary.kill()
            standby.kill()


def test_a_database_of_another_encoding_will_do(server: postgres.Postgres, opened: Open, name: str) -> None:
    server.run("CREATE DATABASE latin OWNER app ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    one, other = (opened(server.url_of("app", database="latin")) for _ in range(2))
    grant = take(one, name, "hôst-\udcff-🔒:1:a")
    one.renew(grant, LIMIT)
    record = {**RECORD, "note": "🔒\0"}
    one.write(grant, record, LIMIT)
    held = refused(other, name)
    assert held.holder == grant.holder
    assert held.holder.isascii()
    assert other.read(name, LIMIT)[1] == record


def test_a_damaged_record_is_unreadable(server: postgres.Postgres, opened: Open, name: str) -> None:
    backend = opened(server.url)
    backend.release(take(backend, name), RECORD, LIMIT)
    for damage in ("", "{", "[1]", "[" * 100000, '{"version": 99}'):
        server.run("UPDATE singleton_run_lock SET record = %s WHERE name = %s", [damage, name])
        held, seen = backend.read(name, LIMIT)
        found = take(backend, name).record
        assert held is None
        assert seen is not None
        assert found is not None
        assert (seen["state"], found["state"]) == ("unreadable", "unreadable")
        backend.leave(LIMIT)


def test_without_libpq_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise OSError(name)

    for module in ("address", "libpq", "libpq_shared"):
        monkeypatch.delitem(sys.modules, f"singleton_run_postgres.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setattr(ctypes, "CDLL", nothing)
    with pytest.raises(Refused, match=r"singleton-run\[postgres\]") as no:
        open_backend("postgres", os.environ)
    assert no.value.status == UNUSABLE


@pytest.mark.parametrize("place", ["the wheel of psycopg", "where psycopg finds it"])
def test_libpq_is_found(tmp_path: Path, place: str) -> None:
    """In the second case only the loader knows the wheel's folder, and the system's libpq is broken."""
    packages = Path(psycopg.__file__).parents[1]
    libraries = packages / "psycopg_binary.libs"
    if place != "the wheel of psycopg":
        for name in ("psycopg", "psycopg_binary", "typing_extensions.py"):
            (tmp_path / name).symlink_to(packages / name)
        (tmp_path / "libpq.so.5").touch()
        packages = tmp_path
    program = (
        "import sys; from singleton_run_postgres import libpq; print('psycopg' in sys.modules); "
        "print(libpq.options_of('postgresql://app@example/a%20b?sslmode=disable'))"
    )
    paths = [str(TREE), str(TREE / "backends"), str(packages)]
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": ":".join(paths), "LD_LIBRARY_PATH": f"{tmp_path}:{libraries}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported, options = done.stdout.splitlines()
    assert (imported == "True") == (packages == tmp_path)
    expected = {"user": "app", "host": "example", "dbname": "a b", "sslmode": "disable"}
    assert ast.literal_eval(options) == expected


def test_one_session_at_most(server: postgres.Postgres, opened: Open, name: str) -> None:
    """Of a holder and of a waiter."""
    server.end_sessions()  # a pooler keeps those of earlier tests
    holder, waiter = opened(server.url), opened(server.url)
    take(holder, name)
    with waiting(waiter, refused(waiter, name)):
        assert server.sessions() == 2


def test_the_page_says_what_an_administrator_has_to_say(server: postgres.Postgres, opened: Open) -> None:
    """Its statements, for its role, in a database where that role may do nothing else."""
    page = (TREE / "docs" / "postgres.md").read_text(encoding="utf-8")
    make, look, delete = (block.partition("```")[0] for block in page.split("```sql\n")[1:])
    server.run("CREATE DATABASE paged")
    server.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database="paged")
    lock = server.url_of("app", database="paged")
    with pytest.raises(Refused) as no:
        take(opened(lock), "backup")
    told, page_says = (re.sub(r"WITH \d+|\s", "", text) for text in (str(no.value), make))
    assert page_says.rstrip(";") in told
    server.run(make, database="paged")
    holder, waiter = opened(lock), opened(lock)
    grant = take(holder, "backup")
    ((found, by, _, left),) = server.run(look, database="paged")
    assert (found, by) == ("backup", grant.holder)
    assert left.total_seconds() > 0
    with waiting(waiter, refused(waiter, "backup")) as ended:
        server.run(delete, database="paged")
        ended()
    with pytest.raises(Lost):
        holder.renew(grant, LIMIT)
