"""`singleton-run --lock postgresql://…` does its whole job."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import DENIED, HELD, LOST, UNAVAILABLE
from tests.servers import postgres
from tests.support.harness import LONG, Lab, environment, send, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.harness import Run


@pytest.fixture
def lab(server: postgres.Postgres, tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        lab.lock = server.url
        yield lab


def test_one_after_the_other(lab: Lab) -> None:
    runs = [lab.start(command=lab.job()) for _ in range(4)]
    assert [run.wait() for run in runs] == [0] * 4
    lab.evidence.check(4)


def test_who_waits_is_next_when_the_wrapper_is_killed(lab: Lab) -> None:
    first = lab.start("--ttl", LONG, command=lab.long_job("leave", "ignore"))
    lab.ready()
    second = lab.start("--ttl", LONG, command=lab.job())
    second.hears("waiting for lock")
    send(signal.SIGKILL, first.pid)
    assert second.wait() == 0, second.said
    lab.evidence.check(2)


def test_a_keeper_that_is_killed_is_replaced_and_sessions_that_end_are_not_noticed(
    server: postgres.Postgres, lab: Lab
) -> None:
    run = lab.start("--ttl", "6s", command=lab.long_job())
    lab.ready()
    keeper = run.one("keeper")
    send(signal.SIGKILL, keeper)
    run.one("keeper", but=keeper)
    server.end_sessions()
    lab.finish()
    assert run.wait() == 0, run.said
    lab.next_one()


def test_held_says_by_whom(lab: Lab) -> None:
    first = lab.start(command=lab.long_job())
    lab.ready()
    second = lab.start("-n", command=lab.job())
    assert second.wait() == HELD
    assert f":{first.pid}:" in second.said
    lab.finish()
    assert first.wait() == 0


@pytest.mark.parametrize(
    ("password", "options", "status"),
    [("wrong", [], DENIED), (postgres.QUOTED, ["--wait", "4s"], UNAVAILABLE)],
)
def test_no_and_nobody_there_have_their_statuses(
    server: postgres.Postgres, lab: Lab, password: str, options: list[str], status: int
) -> None:
    lab.lock = server.url_of("app", password)
    if status == UNAVAILABLE:
        lab.lock = lab.lock.replace(f":{server.port}/", ":1/")
    run = lab.start(*options, command=lab.job())
    assert run.wait() == status, run.said
    assert "postgres: " in run.said
    assert "Traceback" not in run.said
    assert password not in run.said
    assert lab.evidence.lines() == []


def test_a_right_that_is_taken_away_is_said_once(server: postgres.Postgres, lab: Lab) -> None:
    """It is a long line, with all that an administrator runs, and the renewal is tried again many times."""
    lab.lock = f"{server.url}?singleton_run_table=taken_away"
    run = lab.start("--ttl", "6s", command=lab.long_job())
    lab.ready()
    server.run("REVOKE ALL ON taken_away FROM app")
    assert run.wait() == LOST, run.said
    assert run.said.count("; trying again") == 1, run.said


def test_the_bare_name_takes_the_variables(server: postgres.Postgres, lab: Lab) -> None:
    lab.lock = "postgres"
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGDATABASE": "app", "PGUSER": "app"}
    run = lab.start(command=lab.job(), environ=environment(**where, PGPASSWORD=postgres.PASSWORD))
    assert run.wait() == 0, run.said
    lab.evidence.check(1)


# Who waits.


def first_and_others(server: postgres.Postgres, lab: Lab) -> tuple[Run, list[Run]]:
    """Three that wait: the first of them, and the others."""
    waiters: list[Run] = []
    while len(waiters) < 3:
        waiters.append(lab.start("--ttl", LONG, command=lab.job()))
        until(lambda: (listeners(server), queued(server)) == (1, len(waiters) - 1), "it waits")
    return waiters[0], waiters[1:]


def queued(server: postgres.Postgres) -> int:
    found = server.run("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'")
    return int(found[0][0])


def listeners(server: postgres.Postgres) -> int:
    """How many have got to the head of the queue."""
    found = server.run("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")
    return int(found[0][0])


@pytest.mark.parametrize("while_held", [True, False])
def test_a_waiter_that_is_killed_is_passed_over(
    server: postgres.Postgres, lab: Lab, *, while_held: bool
) -> None:
    """Also when it is at the head of the queue, and when it is the one that a release wakes."""
    holder = lab.start("--ttl", LONG, command=lab.long_job())
    lab.ready()
    first, others = first_and_others(server, lab)
    keeper = first.one("keeper")
    if while_held:
        send(signal.SIGKILL, first.pid, keeper)
        until(lambda: (listeners(server), queued(server)) == (1, 1), "the next is the first")
        lab.finish()
    else:
        # The kernel continues a stopped process that is orphaned: it would take the lock, so it dies first.
        send(signal.SIGSTOP, first.pid, keeper)
        lab.finish()
        assert holder.wait() == 0
        send(signal.SIGKILL, keeper, first.pid)
    assert holder.wait() == 0
    assert [run.wait() for run in others] == [0, 0], [run.said for run in others]
    lab.evidence.check(3)


def test_a_waiter_that_hangs_at_the_head_of_the_queue_keeps_nobody_waiting_for_ever(
    server: postgres.Postgres, lab: Lab
) -> None:
    holder = lab.start("--ttl", "6s", command=lab.long_job())
    lab.ready()
    first = lab.start("--ttl", "6s", command=lab.job())
    until(lambda: listeners(server) == 1, "it waits")
    second = lab.start("--ttl", "6s", command=lab.job())
    until(lambda: queued(server) == 1, "it waits")
    for process in (first.pid, first.one("keeper")):
        send(signal.SIGSTOP, process)
    lab.finish()
    assert holder.wait() == 0
    assert second.wait() == 0, second.said
    for process in (first.pid, first.one("keeper")):
        send(signal.SIGCONT, process)
    assert first.wait() == 0, first.said
    lab.evidence.check(3)


def test_who_goes_away_leaves_no_session_in_the_queue(server: postgres.Postgres, lab: Lab) -> None:
    lab.start("--ttl", LONG, command=lab.long_job())
    lab.ready()
    _, others = first_and_others(server, lab)
    for run in others:
        send(signal.SIGTERM, run.pid)
        assert run.wait() == 128 + signal.SIGTERM
    until(lambda: queued(server) == 0, "their sessions end")
    lab.finish()
