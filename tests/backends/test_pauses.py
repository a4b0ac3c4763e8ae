"""A pause, an order to give the lock back, and the record of a run that goes on, on real servers."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run.api import control, registry
from tests.servers import etcd
from tests.support.harness import LONG, Lab, gone, send, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from singleton_run.api.contract import Backend, Look
    from singleton_run.api.control import Control
    from tests.support.harness import Run

    Change = Callable[[Mapping[str, Any] | None], Control]

SERVERS = ["etcd", pytest.param("etcd+grpc", marks=etcd.NEEDS_GRPC)]
PAUSED = "is paused by alice@desk since 20"


@pytest.fixture(params=SERVERS)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A lock on that server."""
    with Lab(tmp_path) as lab:
        server: etcd.Etcd = request.getfixturevalue("etcd_server")
        lab.lock = f"{request.param}://{server.address}"
        yield lab


def opened(lab: Lab) -> Backend:
    """The backend of the lab's server; not by gRPC, whose package warns at its import."""
    return registry.open_backend(lab.lock.replace("etcd+grpc", "etcd"), os.environ)


def look(lab: Lab) -> Look:
    """All that the server tells of the lab's lock."""
    backend = opened(lab)
    try:
        return backend.look(lab.name, 5.0)
    finally:
        backend.close()


def steer(lab: Lab, change: Change) -> None:
    """Change the control of the lab's lock, whoever else changes it."""
    backend = opened(lab)
    try:
        while True:
            seen = backend.look(lab.name, 5.0)
            if backend.steer(lab.name, seen.version, change(seen.control), 5.0):
                return
    finally:
        backend.close()


def pause(lab: Lab, seconds: float | None = None) -> None:
    """Pause the lab's lock for so long, or until it is resumed."""
    now = time.time()
    ends = None if seconds is None else now + seconds
    steer(lab, lambda was: control.paused(was, by="alice@desk", at=now, until=ends, reason="the move"))


def order(lab: Lab) -> None:
    """Order that the present holder give the lock back."""
    held = look(lab).holder
    assert held is not None
    assert held.token is not None
    holder, token, at = held.holder, held.token, time.time()
    steer(lab, lambda was: control.ordered(was, holder=holder, token=token, by="bob@desk", at=at))


def one_runs_and_one_waits(lab: Lab, *words: str) -> tuple[Run, Run]:
    """Two replicas, of which the first has the lock."""
    first = lab.start("--ttl", LONG, "--kill-after", "300ms", command=lab.long_job(*words))
    lab.ready()
    second = lab.start("--ttl", LONG, command=lab.job())
    second.hears("waiting")
    return first, second


def test_a_pause_lets_the_running_one_go_on_and_keeps_the_waiting_one_back(lab: Lab) -> None:
    first, second = one_runs_and_one_waits(lab)
    pause(lab)
    lab.beats()
    lab.finish()
    assert first.wait() == 0
    second.hears(PAUSED)
    refused = lab.start("-n", command=lab.job())
    assert refused.wait() == 75
    assert PAUSED in refused.said
    assert len(lab.evidence.turns()) == 1
    steer(lab, control.resumed)
    assert second.wait() == 0
    lab.evidence.check(2)


def test_a_pause_ends_by_itself_at_its_time_by_the_server_s_clock(lab: Lab) -> None:
    pause(lab, 5.0)
    run = lab.start("--ttl", LONG, command=lab.job())
    run.hears(PAUSED)
    assert run.wait() == 0
    lab.evidence.check(1)


@pytest.mark.parametrize("resumes", [True, False])
def test_a_keeper_that_is_killed_during_a_pause_has_a_successor(lab: Lab, *, resumes: bool) -> None:
    """It acquires the lock anew: where the dead one's lease isn't known to it, once that has lapsed."""
    pause(lab)
    run = lab.start("--ttl", "6s", command=lab.job())
    run.hears(PAUSED)
    keeper = run.one("keeper")
    send(signal.SIGKILL, keeper)
    until(lambda: gone(keeper), "its end")
    run.one("keeper", but=keeper)
    assert lab.evidence.turns() == []
    if resumes:
        steer(lab, control.resumed)
        assert run.wait() == 0
        lab.evidence.check(1)
    else:
        send(signal.SIGTERM, run.pid)
        assert run.wait() == 128 + signal.SIGTERM
        steer(lab, control.resumed)
        lab.next_one()


def test_an_order_ends_a_command_that_is_deaf_and_then_the_next_one_runs(lab: Lab) -> None:
    first, second = one_runs_and_one_waits(lab, "leave", "ignore")
    order(lab)
    assert first.wait() == 79
    assert "is taken away by bob@desk" in first.said
    assert second.wait() == 0
    lab.evidence.check(2)
    record = look(lab).record
    assert record is not None
    assert record["runs"][0]["state"] == "lost"


def test_an_order_is_obeyed_though_the_keeper_is_killed_meanwhile(lab: Lab) -> None:
    first, second = one_runs_and_one_waits(lab, "ignore")
    order(lab)
    first.hears("is taken away by bob@desk")
    send(signal.SIGKILL, first.one("keeper"))
    assert first.wait() == 79
    assert second.wait() == 0
    lab.evidence.check(2)


def test_an_order_to_one_that_waits_during_a_pause_ends_its_wait(lab: Lab) -> None:
    pause(lab)
    run = lab.start("--ttl", LONG, command=lab.job())
    run.hears(PAUSED)
    order(lab)
    assert run.wait() == 79
    assert "so the command is not started" in run.said
    steer(lab, control.resumed)
    lab.next_one()
    lab.evidence.check(1)


def test_slots_are_skipped_during_a_pause(lab: Lab) -> None:
    pause(lab)
    runs = [lab.start("--every", "2s", command=lab.job()) for _ in range(2)]
    until(lambda: "is skipped: the lock is paused" in runs[0].said + runs[1].said, "a slot to be skipped")
    steer(lab, control.resumed)
    until(lab.evidence.slots, "the next slot")
    for run in runs:
        send(signal.SIGTERM, run.pid)
        assert run.wait() in (0, 128 + signal.SIGTERM)  # the second where it ended a command
    skipped = [line.split()[2] for run in runs for line in run.said.splitlines() if "is skipped" in line]
    assert len(skipped) == len(set(skipped))
    names = [slot.name for slot in lab.evidence.slots()]
    assert len(names) == len(set(names))


def test_a_run_that_lasts_is_in_the_record_while_it_runs(lab: Lab) -> None:
    run = lab.start("--ttl", LONG, command=lab.long_job())
    lab.ready()
    until(lambda: (look(lab).record or {}).get("state") == "running", "the record of the run")
    found = look(lab)
    assert found.record is not None
    assert found.holder is not None
    assert (found.record["holder"], found.record["token"]) == (found.holder.holder, found.holder.token)
    lab.finish()
    assert run.wait() == 0
    record = look(lab).record
    assert record is not None
    assert (record["state"], record["runs"]) == ("succeeded", [])
