"""What somebody wrote by hand where a lock's record, token or key is: ignored or refused, and mended.

On real servers, by real processes: the command runs, and what its holder leaves is in order again.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from singleton_run.api.record import UNREADABLE, VERSION, ended, parsed, started, unreadable
from singleton_run.system import fastjson
from singleton_run_redis.scripts import keys_of
from tests.servers import etcd, postgres, redis
from tests.support.harness import Lab, environment, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.harness import Run

WHOLE = ended(started(None, "x", "host:1:a", 7, 1000.5), "failed", 3, 1001.5)
WHOLE["runs"] = [{word: WHOLE[word] for word in ("state", "token", "holder", "start", "end", "status")}]
TEXT = json.dumps(WHOLE)


def changed(**words: Any) -> str:
    """The whole record with some words changed."""
    return json.dumps({**WHOLE, **words})


def with_run(**words: Any) -> str:
    """The whole record with an earlier run that is damaged."""
    return changed(runs=[{**WHOLE["runs"][0], **words}])


DAMAGED = {
    "empty": "",
    "cut": TEXT[: len(TEXT) // 2],
    "twice": TEXT * 2,
    "no object": "[1, 2]",
    "of a later version": changed(version=VERSION + 1),
    "without a version": json.dumps({word: WHOLE[word] for word in WHOLE if word != "version"}),
    "a state that is a number": changed(state=5),
    "no holder": changed(holder=None),
    "a holder without end": changed(holder="h" * 5000),
    "a token that is a text": TEXT.replace('"token": 7', '"token": "7"'),
    "a token without end": changed(token=10**400),
    "not a number": changed(start=float("nan")),
    "endless": TEXT.replace("1000.5", "1e999"),
    "before all time": changed(start=-1e300),
    "after all time": changed(state="running", start=1e17, end=None),
    "runs that are none": changed(runs={"a": 1}),
    "a run that is none": changed(runs=[None]),
    "a run at no time": with_run(start=float("inf")),
    "a run that says nothing": changed(runs=[{}]),
    "too many runs": changed(runs=WHOLE["runs"] * 1000),
    "a nest": '{"version":1,"x":' * 400 + "1" + "}" * 400,
    "a deep nest": "[" * 100_000,
    "more than it may": changed(extra={"a": {"b": {"c": {"d": {"e": 1}}}}}),
    "digits without end": TEXT.replace("1000.5", "9" * 6000),
}
# What is only long, and what is no text at all.
HUGE = TEXT[:-1] + ', "extra": "' + "x" * 10_000_000 + '"}'
BYTES = {"latin": TEXT.replace("host", "höst").encode("latin-1"), "utf-16": TEXT.encode("utf-16")}
BYTES |= {"a zero": TEXT.encode() + b"\0", "noise": bytes(range(256)), "huge": HUGE.encode()}


def test_what_is_whole_is_read_and_written_again() -> None:
    found = parsed(TEXT)
    assert found == WHOLE
    assert parsed(fastjson.dumps(started(found, "x", "host:2:b", 8, 2000.0)))["state"] == "running"


@pytest.mark.parametrize("text", [*DAMAGED.values(), HUGE], ids=[*DAMAGED, "huge"])
def test_what_is_damaged_is_a_record_of_no_run_and_of_an_unknown_slot(text: str) -> None:
    assert parsed(text) == unreadable()
    following = started(parsed(text), "x", "host:2:b", 8, 2000.0)
    assert following["runs"] == []
    assert following["slot"] is None
    assert parsed(fastjson.dumps(following)) == following


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
VALUES = st.recursive(LEAVES, lambda deeper: st.lists(deeper) | st.dictionaries(st.text(max_size=3), deeper))
CHANGES = st.dictionaries(st.sampled_from([*WHOLE, "extra"]), VALUES, max_size=3)


@given(CHANGES, CHANGES)
def test_what_is_taken_for_a_record_can_be_written_down_again(
    outer: dict[str, Any], inner: dict[str, Any]
) -> None:
    """Shown, too: its times are some."""
    found = parsed(json.dumps({**WHOLE, "runs": [{**WHOLE["runs"][0], **inner}], **outer}))
    if found["state"] != UNREADABLE:
        assert parsed(fastjson.dumps(started(found, "x", "host:2:b", 8, 2000.0)))["state"] == "running"
        assert all(found[word] is None or time.gmtime(found[word]) for word in ("start", "end"))


@given(VALUES)
def test_json_is_read_and_written_alike_by_its_fast_and_its_slow_half(value: object) -> None:
    for half in (fastjson.fast(), fastjson.slow()):
        dumps, loads = half
        try:
            text = dumps(value)
        except ValueError:
            assert "Infinity" in json.dumps(value) or "NaN" in json.dumps(value)
        else:
            assert loads(text) == value
            assert text == json.dumps(value, separators=(",", ":"))
        for text in ("NaN", "[-Infinity]", "{", "1 2", "[" * 10_000):
            with pytest.raises(ValueError, match=r".+"):
                loads(text)


# On the servers.


class Store(Protocol):
    """Where a lock's record can be written and read by hand."""

    def put(self, name: str, data: bytes) -> None:
        """Write it."""

    def get(self, name: str) -> str:
        """Read it."""


class InFile:
    """The record beside the lock's file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, name: str, data: bytes) -> None:
        (self.directory / f"{name}.json").write_bytes(data)

    def get(self, name: str) -> str:
        return (self.directory / f"{name}.json").read_text()


class InEtcd:
    """The record's key."""

    def __init__(self, server: etcd.Etcd) -> None:
        self.server = server

    def put(self, name: str, data: bytes) -> None:
        command = self.server.ctl_command("put", f"singleton-run/record/{name}")
        subprocess.run(command, input=data, env=etcd.environment(), check=True, capture_output=True)

    def get(self, name: str) -> str:
        return self.server.ctl("get", f"singleton-run/record/{name}", "--print-value-only")


class InPostgres:
    """The row's record."""

    def __init__(self, server: postgres.Postgres) -> None:
        self.server = server

    def put(self, name: str, data: bytes) -> None:
        statement = "UPDATE singleton_run_lock SET record = %s WHERE name = %s"
        self.server.run(statement, [data.decode(), name])

    def get(self, name: str) -> str:
        ((record,),) = self.server.run("SELECT record FROM singleton_run_lock WHERE name = %s", [name])
        return str(record)


class InRedis:
    """The field of the record's key."""

    def __init__(self, server: redis.Server) -> None:
        self.server = server

    def put(self, name: str, data: bytes) -> None:
        with self.server.client() as client:
            client.hset(keys_of(name)[2], "text", data)

    def get(self, name: str) -> str:
        with self.server.client() as client:
            return str(client.hget(keys_of(name)[2], "text"))


@pytest.fixture(params=["file", "etcd", "postgres", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Lab, Store]]:
    """A lab on each backend, and a way to its records."""
    with Lab(tmp_path) as lab:
        store: Store = InFile(lab.locks)
        if request.param == "etcd":
            server = request.getfixturevalue("etcd_server")
            lab.lock, store = f"etcd://{server.address}", InEtcd(server)
        elif request.param == "postgres":
            database = request.getfixturevalue("postgres_server")
            lab.lock, store = database.url, InPostgres(database)
        elif request.param == "redis":
            keeper = request.getfixturevalue("redis_server")
            lab.lock, store = keeper.url, InRedis(keeper)
        yield lab, store


def assert_all_well(run: Run) -> None:
    """The command ran, and nothing but that was said."""
    assert run.wait() == 0, run.said
    assert run.said == ""


def test_a_damaged_record_is_ignored_and_the_next_one_is_whole(place: tuple[Lab, Store]) -> None:
    lab, store = place
    assert_all_well(lab.start(command=["true"]))
    data = {what: text.encode() for what, text in DAMAGED.items()}
    if isinstance(store, InPostgres):  # where each takes half a second; it has only what is text
        data = {what: data[what] for what in ("cut", "a token without end", "a run at no time", "a nest")}
        data["huge"] = HUGE.encode()
    else:
        data |= BYTES
    if isinstance(store, InEtcd):
        # More than etcd takes; no value, which etcdctl doesn't put; and bytes that are kept as they are.
        del data["huge"], data["empty"], data["latin"]
    if isinstance(store, InRedis):  # bytes that are kept as they are
        del data["latin"]
    for what, damage in data.items():
        store.put(lab.name, damage)
        assert_all_well(lab.start(command=["true"]))
        record = parsed(store.get(lab.name).removesuffix("\n"))
        assert record["state"] != UNREADABLE, what
        assert (record["state"], record["status"], record["runs"]) == ("succeeded", 0, []), what


def test_a_record_that_is_damaged_while_the_command_runs_is_replaced(place: tuple[Lab, Store]) -> None:
    """Who is told that the lock is held is told so all the same."""
    lab, store = place
    run = lab.start(command=lab.long_job())
    lab.ready()
    if isinstance(store, InEtcd | InFile):
        store.put(lab.name, DAMAGED["after all time"].encode())
    else:
        store.put(lab.name, DAMAGED["a nest"].encode())
    second = lab.start("-n", command=["true"])
    assert second.wait() == 75, second.said
    assert len(second.said.splitlines()) == 1
    assert "is held" in second.said
    lab.finish()
    assert_all_well(run)
    record = parsed(store.get(lab.name).removesuffix("\n"))
    assert record["state"] == "succeeded"


@pytest.mark.parametrize("schedule", [["--every", "1h"], ["--cron", "0 0 29 2 *", "--tz", "UTC"]])
def test_a_slot_whose_record_is_damaged_is_left_out_and_said_to_be(
    place: tuple[Lab, Store], schedule: list[str]
) -> None:
    lab, store = place
    assert_all_well(lab.start("--no-loop", *schedule, command=lab.job()))
    store.put(lab.name, TEXT[: len(TEXT) // 2].encode())
    plain = lab.start(command=["true"])
    assert_all_well(plain)
    run = lab.start("--no-loop", *schedule, command=lab.job())
    assert run.wait() == 0
    assert "can't be read" in run.said
    again = lab.start("--no-loop", *schedule, command=lab.job())
    assert again.wait() == 0
    assert "nothing to do, its record could not be read" in again.said
    lab.evidence.check(1)


# What else there is.


@pytest.mark.parametrize(
    "token", [b"", b"x", b"-5", b"9" * 20, b"\0" * 30, b"1.5", "²".encode(), b"7", b"0" * 20 + b"x" * 10_000]
)
def test_a_token_that_is_none_of_ours_gives_way_to_the_clock(tmp_path: Path, token: bytes) -> None:
    with Lab(tmp_path) as lab:
        before = time.time_ns() // 1000
        (lab.locks / f"{lab.name}.lock").write_bytes(token)
        for _ in range(2):
            assert_all_well(lab.start(command=lab.job()))
        first, second = lab.evidence.turns()
        assert before <= first < second < before + 3_600_000_000


def test_what_is_no_file_where_one_should_be_is_refused_or_ignored_at_once(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        record = lab.locks / f"{lab.name}.json"
        for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)):
            make(record)
            run = lab.start(command=["true"])
            assert run.wait() in (0, 69, 78), run.said
            assert len(set(run.said.splitlines())) <= 1, run.said
            if not record.is_dir():
                assert parsed(record.read_text())["state"] != UNREADABLE
                record.unlink()
            else:
                assert record.name in run.said or str(lab.locks) in run.said
                record.rmdir()
        assert "root:" in (lab.locks / "../../../../../../../../etc/passwd").read_text()
        temporary = lab.locks / f".{lab.name}.tmp"
        os.mkfifo(temporary)
        run = lab.start(command=["true"])
        assert run.wait() in (0, 69, 78), run.said
        assert str(lab.locks) in run.said


KEYS = [
    b"x",
    b"[]",
    b'{"holder":5,"since":"x"}',
    b'{"generation":"00000000","holder":"a:1:b","since":1e999}',
    b'{"holder":"a:1:b","since":-1e300}',
    b'{"holder":"a:1:b","since":' + b"9" * 5000 + b"}",
    b'{"holder":"a\\u001b[2J\\nb","since":1}',
    b'{"holder":"' + b"h" * 100_000 + b'","since":1}',
    b'{"holder":' * 5000,
    bytes(range(128, 256)),
]


@pytest.mark.parametrize("value", KEYS, ids=range(len(KEYS)))
def test_a_key_in_etcd_that_a_stranger_wrote_is_held_by_somebody(
    tmp_path: Path, etcd_server: etcd.Etcd, value: bytes
) -> None:
    with Lab(tmp_path) as lab:
        lab.lock = f"etcd://{etcd_server.address}"
        lease = etcd_server.ctl("lease", "grant", "100").split()[1]
        command = etcd_server.ctl_command("put", f"{lab.name}/{lease}", "--lease", lease)
        subprocess.run(command, input=value, env=etcd.environment(), check=True, capture_output=True)
        run = lab.start("-n", command=["true"])
        assert run.wait() == 75, run.said
        assert len(run.said.splitlines()) == 1
        assert run.said.rstrip("\n").isprintable()
        waiter = lab.start("--log-format", "json", command=["true"])
        waiter.hears("waiting")
        etcd_server.ctl("lease", "revoke", lease)
        assert waiter.wait() == 0, waiter.said
        assert all(json.loads(line) for line in waiter.said.splitlines())


STRANGE_FIELDS = [
    {"holder": "x"},
    {"holder": "\x1b[2J\nby hand", "token": "-1", "since": "1e9", "generation": "x"},
    {"holder": "h" * 100_000, "token": "9" * 5000, "since": "9" * 5000},
    {"holder": "a:1:b", "token": "", "since": "", "generation": "", "kept": ""},
]


@pytest.mark.parametrize("fields", STRANGE_FIELDS, ids=range(len(STRANGE_FIELDS)))
def test_a_key_in_redis_that_a_stranger_wrote_is_held_by_somebody(
    tmp_path: Path, redis_server: redis.Server, fields: dict[str, str]
) -> None:
    with Lab(tmp_path) as lab, redis_server.client() as client:
        lab.lock = redis_server.url
        lock, _, _, control, queue, waiters, _ = keys_of(lab.name)
        client.hset(lock, mapping=fields)
        client.zadd(queue, {"somebody": 5})
        client.hset(waiters, "somebody", "rubbish")
        run = lab.start("-n", command=["true"])
        assert run.wait() == 75, run.said
        assert len(run.said.splitlines()) == 1
        assert run.said.rstrip("\n").isprintable()
        waiter = lab.start("--log-format", "json", command=["true"])
        waiter.hears("waiting")
        redis_server.delete_lock(lab.name)
        assert waiter.wait() == 0, waiter.said
        assert all(json.loads(line) for line in waiter.said.splitlines())
        client.hset(control, "version", "rubbish")
        assert_all_well(lab.start(command=["true"]))


def test_a_row_in_postgres_has_values_that_the_table_allows_or_none(
    tmp_path: Path, postgres_server: postgres.Postgres
) -> None:
    with Lab(tmp_path) as lab:
        lab.lock = postgres_server.url
        assert_all_well(lab.start(command=["true"]))
        update = sql.SQL("UPDATE singleton_run_lock SET {} = %s WHERE name = %s")
        for column in ("holder", "token", "generation", "since", "until", "released"):
            with pytest.raises(psycopg.errors.NotNullViolation):
                postgres_server.run(update.format(sql.Identifier(column)), [None, lab.name])
        for column, value in [
            ("token", -(1 << 63)),
            ("generation", -(1 << 31)),
            ("generation", (1 << 31) - 1),
            ("since", "-infinity"),
            ("until", "-infinity"),
            ("released", (1 << 63) - 1),
            ("holder", "\x1b[2J\n" * 100_000),
        ]:
            postgres_server.run(update.format(sql.Identifier(column)), [value, lab.name])
            assert_all_well(lab.start(command=["true"]))
        postgres_server.run(update.format(sql.SQL("token")), [(1 << 63) - 1, lab.name])
        run = lab.start(command=["true"])
        assert run.wait() == 77, run.said
        assert "delete" in run.said


@pytest.mark.parametrize("end", ["infinity", "9999-01-01"])
def test_a_row_in_postgres_that_is_held_for_ever_is_held(
    tmp_path: Path, postgres_server: postgres.Postgres, end: str
) -> None:
    with Lab(tmp_path) as lab:
        lab.lock = postgres_server.url
        assert_all_well(lab.start(command=["true"]))
        update = "UPDATE singleton_run_lock SET holder = %s, until = %s, since = 'infinity' WHERE name = %s"
        postgres_server.run(update, ["\x1b[2Jby hand\n" * 1000, end, lab.name])
        run = lab.start("-n", command=["true"], environ=environment())
        assert run.wait() == 75, run.said
        assert len(run.said.splitlines()) == 1
        assert run.said.rstrip("\n").isprintable()
        waiter = lab.start(command=["true"])
        waiter.hears("waiting")
        postgres_server.delete_lock(lab.name)
        postgres_server.run("SELECT pg_notify(%s, '')", [f"singleton_run:{lab.name}"])
        assert waiter.wait() == 0, waiter.said
        until(lambda: not lab.left(), "an end of all processes")
