"""What people ask of a lock while it is waited for or held: a pause, and an order to give it back."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run.api import control, registry
from singleton_run.system import calls
from tests.example_backends.singleton_run_queuefile import QueueFile
from tests.support.harness import LONG, Lab, gone, kill_tree, labs, ours, send, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from singleton_run.api.contract import Backend, Look
    from singleton_run.api.control import Control
    from tests.support.harness import Run

    Change = Callable[[Mapping[str, Any] | None], Control]

BOTH = pytest.mark.parametrize("backend", ["queuefile", "file"])
LEASED = pytest.mark.parametrize("backend", ["queuefile"])
WHY = "the database moves"
PAUSED = "is paused by alice@desk since 20"


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Lab]:
    """A lock under that backend."""
    yield from labs(tmp_path, backend)


def opened(lab: Lab) -> Backend | QueueFile:
    """The lab's backend."""
    return registry.open_backend(lab.lock, {}) if lab.lock.startswith("file") else QueueFile(lab.locks)


def look(lab: Lab) -> Look:
    """All that the server tells of the lab's lock."""
    backend = opened(lab)
    try:
        return backend.look(lab.name, 1.0)
    finally:
        backend.close()


def steer(lab: Lab, change: Change) -> None:
    """Change the control of the lab's lock."""
    backend = opened(lab)
    try:
        seen = backend.look(lab.name, 1.0)
        assert backend.steer(lab.name, seen.version, change(seen.control), 1.0)
    finally:
        backend.close()


def pause(lab: Lab, seconds: float | None = None, why: str = WHY) -> None:
    """Pause the lab's lock for so long, or until it is resumed."""
    now = time.time()
    ends = None if seconds is None else now + seconds
    steer(lab, lambda was: control.paused(was, by="alice@desk", at=now, until=ends, reason=why))


def resume(lab: Lab) -> None:
    """End the pause."""
    steer(lab, control.resumed)


def record_of(lab: Lab) -> Mapping[str, Any]:
    """The record beside the lock; empty without one."""
    return look(lab).record or {}


def order(lab: Lab) -> None:
    """Order that the present holder give the lock back."""
    held = look(lab).holder
    assert held is not None
    assert held.token is not None
    holder, token, at = held.holder, held.token, time.time()
    steer(lab, lambda was: control.ordered(was, holder=holder, token=token, by="bob@desk", at=at))


def waiting(lab: Lab, *options: str) -> Run:
    """One that waits for the pause's end, and has said so."""
    run = lab.start("--ttl", LONG, *options, command=lab.job())
    run.hears(PAUSED)
    assert lab.evidence.turns() == []
    return run


@BOTH
def test_nothing_starts_during_a_pause_and_the_one_that_waits_starts_when_it_is_resumed(lab: Lab) -> None:
    pause(lab)
    run = waiting(lab)
    assert f"waiting: lock '{lab.name}' {PAUSED}" in run.said
    assert run.said.endswith(f" until it is resumed: {WHY}\n")
    resume(lab)
    assert run.wait() == 0
    lab.evidence.check(1)
    assert run.said.count("waiting") == 1


@BOTH
def test_a_pause_ends_by_itself_at_its_time(lab: Lab) -> None:
    began = calls.now()
    pause(lab, 2.0)
    run = lab.start("--ttl", LONG, command=lab.job())
    assert run.wait() == 0
    assert lab.evidence.lines()[0].when > began + 1.99  # the wall clock may be slowed down meanwhile
    lab.evidence.check(1)


@BOTH
def test_a_change_of_the_pause_is_said(lab: Lab) -> None:
    pause(lab)
    run = waiting(lab)
    pause(lab, why="and the network too")
    run.hears("and the network too")
    assert run.said.count("waiting") == 2
    resume(lab)
    assert run.wait() == 0


@BOTH
@pytest.mark.parametrize("wait", ["0", "300ms"])
def test_a_call_that_does_not_wait_so_long_ends_with_75_and_the_reason(lab: Lab, wait: str) -> None:
    pause(lab)
    run = lab.start("--wait", wait, command=lab.job())
    assert run.wait() == 75
    last = run.said.splitlines()[-1]
    assert last.startswith(f"singleton-run: lock '{lab.name}' {PAUSED}")
    assert last.endswith(WHY)
    resume(lab)
    lab.next_one()


@BOTH
def test_a_call_that_does_not_wait_for_another_says_the_pause_too(lab: Lab) -> None:
    pause(lab)
    waiting(lab)
    run = lab.start("-n", command=lab.job())
    assert run.wait() == 75
    assert "is held" in run.said
    assert f"; it {PAUSED}" in run.said


@BOTH
def test_a_running_command_goes_on_and_the_next_one_waits_for_the_end_of_the_pause(lab: Lab) -> None:
    first = lab.start("--ttl", LONG, command=lab.long_job())
    lab.ready()
    second = lab.start("--ttl", LONG, command=lab.job())
    second.hears("waiting")
    pause(lab)
    lab.beats()
    lab.finish()
    assert first.wait() == 0
    second.hears(PAUSED)
    assert len(lab.evidence.turns()) == 1
    resume(lab)
    assert second.wait() == 0
    lab.evidence.check(2)


@BOTH
def test_a_signal_ends_the_wait_and_the_lock_is_free_at_once(lab: Lab) -> None:
    pause(lab)
    run = waiting(lab)
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGTERM
    resume(lab)
    free = lab.start("-n", command=lab.job())
    assert free.wait() == 0, free.said
    lab.evidence.check(1)


@BOTH
def test_a_front_that_is_killed_during_a_pause_leaves_nothing(lab: Lab) -> None:
    pause(lab)
    run = waiting(lab)
    run.popen.kill()
    run.wait()
    until(lambda: not ours(lab.name), "guard and keeper to end")
    resume(lab)
    lab.next_one()
    lab.evidence.check(1)


@pytest.mark.parametrize(("backend", "role"), [("queuefile", "keeper of"), ("file", "guard of")])
def test_who_waits_with_the_lock_is_killed_and_another_waits_on(lab: Lab, role: str) -> None:
    pause(lab)
    run = waiting(lab)
    killed = run.one(role)
    send(signal.SIGKILL, killed)
    until(lambda: gone(killed), "its end")
    run.one(role, but=killed)
    assert lab.evidence.turns() == []
    resume(lab)
    assert run.wait() == 0
    lab.evidence.check(1)
    assert run.said.count("waiting") == 1


@BOTH
def test_once_waits_for_the_end_of_the_pause(lab: Lab) -> None:
    pause(lab)
    run = waiting(lab, "--once", "migration")
    resume(lab)
    assert run.wait() == 0
    lab.evidence.check(1)


@BOTH
def test_a_slot_that_is_due_during_a_pause_is_skipped_and_said_to_be(lab: Lab) -> None:
    pause(lab)
    runs = [lab.start("--every", "2s", command=lab.job()) for _ in range(2)]
    until(
        lambda: "is skipped: the lock is paused" in "".join(run.said for run in runs), "a slot to be skipped"
    )
    assert lab.evidence.turns() == []
    resume(lab)
    until(lab.evidence.slots, "the next slot")
    for run in runs:
        run.popen.terminate()
        run.wait()
    skipped = [line.split()[2] for run in runs for line in run.said.splitlines() if "is skipped" in line]
    assert len(skipped) == len(set(skipped))
    started = [slot.time for slot in lab.evidence.slots()]
    assert len(set(started)) == len(started)


@BOTH
def test_the_one_slot_of_a_call_by_cron_ends_with_75_during_a_pause_and_is_not_run_later(lab: Lab) -> None:
    pause(lab)
    options = ("--cron", "0 0 1 1 *", "--no-loop")
    run = lab.start(*options, command=lab.job())
    assert run.wait() == 75
    assert "is skipped: the lock is paused by alice@desk" in run.said
    resume(lab)
    again = lab.start(*options, "--retries", "3", command=lab.job())
    assert again.wait() == 0
    assert "it was skipped, because the lock was paused" in again.said
    assert lab.evidence.turns() == []


@LEASED
def test_an_order_stops_a_command_that_is_deaf_and_only_then_is_the_lock_free(lab: Lab) -> None:
    first = lab.start("--ttl", LONG, "--kill-after", "300ms", command=lab.long_job("leave", "ignore"))
    lab.ready()
    second = lab.start("--ttl", LONG, command=lab.job())
    second.hears("waiting")
    order(lab)
    assert first.wait() == 79
    assert f"lock '{lab.name}' is taken away by bob@desk, so the command is stopped" in first.said
    assert second.wait() == 0
    lab.evidence.check(2)
    assert record_of(lab)["runs"][0]["state"] == "lost"


@LEASED
def test_an_order_to_a_keeper_that_is_killed_in_the_middle_is_obeyed(lab: Lab) -> None:
    first = lab.start("--ttl", LONG, "--kill-after", "2s", command=lab.long_job("ignore"))
    lab.ready()
    order(lab)
    first.hears("taken away")
    send(signal.SIGKILL, first.one("keeper"))
    second = lab.start("--ttl", LONG, command=lab.job())
    assert first.wait() == 79
    assert second.wait() == 0
    lab.evidence.check(2)


@LEASED
def test_an_order_wakes_a_front_that_is_stopped(lab: Lab) -> None:
    first = lab.start("--ttl", LONG, command=lab.long_job())
    lab.ready()
    send(signal.SIGSTOP, first.pid)
    order(lab)
    assert first.wait() == 79
    lab.next_one()
    lab.evidence.check(2)


@LEASED
def test_an_order_to_one_that_waits_during_a_pause_ends_its_wait(lab: Lab) -> None:
    pause(lab)
    run = waiting(lab)
    order(lab)
    assert run.wait() == 79
    assert "is taken away by bob@desk, so the command is not started" in run.said
    resume(lab)
    lab.next_one()
    lab.evidence.check(1)


@LEASED
def test_a_run_that_lasts_is_in_the_record_while_it_runs(lab: Lab) -> None:
    run = lab.start("--ttl", LONG, command=lab.long_job())
    lab.ready()
    until(lambda: record_of(lab).get("state") == "running", "the record of the run")
    record = record_of(lab)
    held = look(lab).holder
    assert held is not None
    assert (record["token"], record["holder"]) == (lab.evidence.turns()[0], held.holder)
    lab.finish()
    assert run.wait() == 0
    assert record_of(lab)["state"] == "succeeded"
    assert record_of(lab)["runs"] == []


@LEASED
def test_a_run_whose_machine_is_lost_has_crashed_by_the_record(lab: Lab) -> None:
    run = lab.start("--ttl", "6s", command=lab.long_job())
    lab.ready()
    until(lambda: record_of(lab).get("state") == "running", "the record of the run")
    kill_tree(run.pid)
    lab.next_one()
    assert record_of(lab)["runs"][0]["state"] == "crashed"
