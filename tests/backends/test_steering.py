"""A pause, an order to give the lock back, and the record of a run that goes on, on real servers."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run.api import control, registry
from tests.servers import etcd
from tests.servers.kubeaccess import WATCHING
from tests.support.harness import LONG, gone, send, send_if_there, until
from tests.support.steering import Steered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from singleton_run.api.contract import Backend, Look
    from singleton_run.api.control import Control
    from tests.servers.kubeaccess import Namespace, Pod
    from tests.support.harness import Run

    Change = Callable[[Mapping[str, Any] | None], Control]

SERVERS = ["etcd", pytest.param("etcd+grpc", marks=etcd.NEEDS_GRPC), "postgres", "k8s-lease"]
PAUSED = "is paused by alice@desk since 20"


@pytest.fixture(scope="module")
def pod(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    return namespace.account("steered", (*WATCHING, "list")).pod(tmp_path_factory.mktemp("pod"))


@pytest.fixture(params=SERVERS)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Steered]:
    """A lock on that server."""
    with Steered(tmp_path) as lab:
        if request.param == "k8s-lease":
            pod: Pod = request.getfixturevalue("pod")
            lab.put_at(f"k8s-lease://?service-account={pod.folder}", **pod.environ)
        elif request.param == "postgres":
            lab.put_at(request.getfixturevalue("postgres_server").url)
        else:
            lab.put_at(f"{request.param}://{request.getfixturevalue('etcd_server').address}")
        yield lab


def opened(lab: Steered) -> Backend:
    """The backend of the lab's server; not by gRPC, whose package warns at its import."""
    address = lab.lock.replace("etcd+grpc", "etcd")
    return registry.open_backend(address, {**os.environ, **lab.variables})


def look(lab: Steered) -> Look:
    """All that the server tells of the lab's lock."""
    backend = opened(lab)
    try:
        return backend.look(lab.name, 5.0)
    finally:
        backend.close()


def steer(lab: Steered, change: Change) -> None:
    """Change the control of the lab's lock, whoever else changes it."""
    backend = opened(lab)
    try:
        while True:
            seen = backend.look(lab.name, 5.0)
            if backend.steer(lab.name, seen.version, change(seen.control), 5.0):
                return
    finally:
        backend.close()


def pause(lab: Steered, seconds: float | None = None) -> None:
    """Pause the lab's lock for so long, or until it is resumed."""
    now = time.time()
    ends = None if seconds is None else now + seconds
    steer(lab, lambda was: control.paused(was, by="alice@desk", at=now, until=ends, reason="the move"))


def holder_of(lab: Steered) -> tuple[str, int] | None:
    """The lock's holder and its token, which Kubernetes tells from the first renewal on."""
    held = look(lab).holder
    return None if held is None or held.token is None else (held.holder, held.token)


def order(lab: Steered) -> None:
    """Order that the present holder give the lock back."""
    known = until(lambda: holder_of(lab), "a holder with a token")
    assert known is not None
    holder, token = known
    at = time.time()
    steer(lab, lambda was: control.ordered(was, holder=holder, token=token, by="bob@desk", at=at))


def one_runs_and_one_waits(lab: Steered, *words: str) -> tuple[Run, Run]:
    """Two replicas, of which the first has the lock."""
    first = lab.call("--ttl", LONG, "--kill-after", "300ms", command=lab.long_job(*words))
    lab.ready()
    second = lab.call("--ttl", LONG)
    second.hears("waiting")
    return first, second


def test_a_pause_lets_the_running_one_go_on_and_keeps_the_waiting_one_back(lab: Steered) -> None:
    first, second = one_runs_and_one_waits(lab)
    pause(lab)
    lab.beats()
    lab.finish()
    assert first.wait() == 0
    second.hears(PAUSED)
    refused = lab.call("-n")
    assert refused.wait() == 75
    assert PAUSED in refused.said
    assert len(lab.evidence.turns()) == 1
    steer(lab, control.resumed)
    assert second.wait() == 0
    lab.evidence.check(2)


def test_a_pause_ends_by_itself_at_its_time_by_the_server_s_clock(lab: Steered) -> None:
    runs: list[Run] = []
    # On a busy machine it may be over before the call comes to see it.
    for seconds in (5.0, 30.0, 90.0):
        pause(lab, seconds)
        runs.append(lab.call("--ttl", LONG))
        assert runs[-1].wait() == 0
        if PAUSED in runs[-1].said:
            break
    assert PAUSED in runs[-1].said
    lab.evidence.check(len(runs))


@pytest.mark.parametrize("resumes", [True, False])
def test_a_keeper_that_is_killed_during_a_pause_has_a_successor(lab: Steered, *, resumes: bool) -> None:
    """It acquires the lock anew: where the dead one's lease isn't known to it, once that has lapsed."""
    pause(lab)
    run = lab.call("--ttl", "6s")
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


def test_an_order_ends_a_command_that_is_deaf_and_then_the_next_one_runs(lab: Steered) -> None:
    first, second = one_runs_and_one_waits(lab, "leave", "ignore")
    order(lab)
    assert first.wait() == 79
    assert "is taken away by bob@desk" in first.said
    assert second.wait() == 0
    lab.evidence.check(2)
    record = look(lab).record
    assert record is not None
    assert record["runs"][0]["state"] == "lost"


def test_an_order_is_obeyed_though_the_keeper_is_killed_meanwhile(lab: Steered) -> None:
    first, second = one_runs_and_one_waits(lab, "ignore")
    keeper = first.one("keeper")
    order(lab)
    first.hears("is taken away by bob@desk")
    send_if_there(signal.SIGKILL, keeper)
    assert first.wait() == 79
    assert second.wait() == 0
    lab.evidence.check(2)


def test_an_order_to_one_that_waits_during_a_pause_ends_its_wait(lab: Steered) -> None:
    pause(lab)
    run = lab.call("--ttl", "6s")
    run.hears(PAUSED)
    order(lab)
    assert run.wait() == 79
    assert "so the command is not started" in run.said
    steer(lab, control.resumed)
    lab.next_one()
    lab.evidence.check(1)


def test_slots_are_skipped_during_a_pause(lab: Steered) -> None:
    pause(lab)
    runs = [lab.call("--every", "2s") for _ in range(2)]
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


def test_a_run_that_lasts_is_in_the_record_while_it_runs(lab: Steered) -> None:
    run = lab.call("--ttl", LONG, command=lab.long_job())
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


def test_who_has_waited_holds_the_lock_since_its_own_run_began(lab: Steered) -> None:
    first = lab.call("--ttl", LONG, command=lab.long_job())
    lab.ready()
    second = lab.call("--ttl", LONG, command=lab.long_job())
    second.hears("waiting")
    waited = time.time()
    send(signal.SIGTERM, first.pid)
    assert first.wait() == 128 + signal.SIGTERM
    lab.ready(2)
    until(lambda: (look(lab).record or {}).get("state") == "running", "the record of the second run")
    held = look(lab).holder
    assert held is not None
    assert held.since is not None
    assert held.since > waited - 0.01
    lab.finish()
    assert second.wait() == 0
