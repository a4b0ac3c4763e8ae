"""`singleton-run --lock postgresql://…` does its whole job."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import DENIED, HELD, UNAVAILABLE
from tests.servers import postgres
from tests.support.harness import LONG, Lab, environment, send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
    [("wrong", [], DENIED), (postgres.QUOTED, ["--wait", "1s"], UNAVAILABLE)],
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


def test_the_bare_name_takes_the_variables(server: postgres.Postgres, lab: Lab) -> None:
    lab.lock = "postgres"
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGDATABASE": "app", "PGUSER": "app"}
    run = lab.start(command=lab.job(), environ=environment(**where, PGPASSWORD=postgres.PASSWORD))
    assert run.wait() == 0, run.said
    lab.evidence.check(1)
