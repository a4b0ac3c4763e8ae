"""Slots in real processes on real servers: what ran is read from what the commands wrote."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from singleton_run.durations import text
from singleton_run.errors import DENIED, HELD, UNUSABLE
from singleton_run.system import calls
from tests.support.harness import LONG, PROGRAM, Lab, Run, kill_tree, send, until
from tests.support.places import Place
from tests.support.proxy import proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.etcd import Etcd
    from tests.servers.postgres import Postgres

INTERRUPTED = 128 + signal.SIGTERM
LEAPDAY = "0 0 29 2 *"
"""A schedule whose next slot no test lives to see."""


@pytest.fixture(params=["file", "etcd", "postgres"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with Place(tmp_path) as place:
        if request.param != "file":
            place.put_at(request.getfixturevalue(f"{request.param}_server"))
        yield place


@pytest.fixture(params=["etcd", "postgres"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with Place(tmp_path) as place:
        place.put_at(request.getfixturevalue(f"{request.param}_server"))
        yield place


def _check_after_kill(lab: Lab) -> None:
    """Nobody of an earlier turn ran on; who had to reap them was killed, so some may not be buried yet."""
    assert all(survivor.endswith(":Z") for survivor in lab.evidence.survivors())


# Loops.


def test_of_three_replicas_one_runs_each_slot(lab: Place) -> None:
    runs = [lab.start("--every", "1s", command=lab.job()) for _ in range(3)]
    slots = lab.slots(4)
    for run in runs:
        run.popen.terminate()
    assert [run.wait() in (0, INTERRUPTED) for run in runs] == [True] * 3
    assert slots == sorted(set(slots))
    assert {(slot - slots[0]) % 1 for slot in slots} == {0.0}
    assert {slot.attempt for slot in lab.evidence.slots()} == {1}
    assert all(slot.started >= slot.time for slot in lab.evidence.slots())
    lab.evidence.check(len(lab.evidence.slots()))
    until(lambda: not lab.left(), "all processes to end")


def test_between_slots_there_is_one_process_without_a_connection(lab: Place) -> None:
    run = lab.start(
        "--ttl", "6s", "--cron", "*/6 * * * * *", "--tz", "UTC", command=[*_SAYS_SLOT, *lab.job()]
    )
    for count in (1, 2):
        lab.slots(count)
        lab.idle(run)
    send(signal.SIGTERM, run.pid)
    assert run.wait() in (0, INTERRUPTED)
    slots = lab.evidence.slots()
    assert run.out.decode().split() == [slot.name for slot in slots]
    assert all(slot.time % 6 == 0 for slot in slots)
    assert all(later.time > earlier.time for earlier, later in pairwise(slots))


_SAYS_SLOT = ["sh", "-c", 'echo "$SINGLETON_SLOT"; exec "$@"', "sh"]


@pytest.mark.parametrize("lab", ["etcd"], indirect=True)
def test_a_slot_longer_than_the_interval_is_never_joined_by_the_next(lab: Place) -> None:
    long = ["sh", "-c", '"$@"; sleep 1.6', "sh", *lab.job()]
    runs = [lab.start("--every", "1s", command=long) for _ in range(2)]
    slots = lab.slots(4)
    until(lambda: sum(run.said.count(" missed") for run in runs) > 1, "each missed slot to be told")
    for run in runs:
        run.popen.terminate()
        run.wait()
    assert slots == sorted(set(slots))
    lab.evidence.check(len(lab.evidence.slots()))
    last = lab.record()["slot"]
    before = max(slot.time for slot in lab.evidence.slots() if slot.time < last["slot"] - 0.5)
    assert last["missed"] == round(last["slot"] - before) - 1


@pytest.mark.parametrize("lab", ["postgres"], indirect=True)
def test_a_slot_that_another_holds_up_is_skipped_by_its_deadline(lab: Place) -> None:
    lab.start("--no-loop", "--every", "2s", command=lab.job())
    lab.slots(1)
    plain = lab.start(command=lab.long_job())
    until(lambda: len(lab.evidence.turns()) == 2, "a plain turn")
    run = lab.start("--every", "2s", "--start-deadline", "500ms", command=lab.job())
    run.hears("is skipped")
    assert len(lab.evidence.slots()) == 1
    lab.finish()
    assert plain.wait() == 0
    lab.slots(2)


def test_asked_to_stop_between_slots_it_ends_with_0(lab: Place) -> None:
    run = lab.start("--every", "1h", command=lab.job())
    lab.slots(1)
    lab.idle(run)
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 0
    assert lab.record()["slot"]["state"] == "succeeded"


def test_between_slots_a_rewritten_signal_stops_it_all_the_same(tmp_path: Path) -> None:
    with Place(tmp_path) as place:
        run = place.start("--every", "1h", "--rewrite-signal", "TERM:USR1", command=place.job())
        place.slots(1)
        place.idle(run)
        send(signal.SIGTERM, run.pid)
        assert run.wait() == 0


def test_asked_to_stop_in_the_middle_it_waits_for_the_command(lab: Place) -> None:
    slow = 'trap "sleep 0.3; echo over; exit 9" TERM; "$@"; sleep 60 & wait'
    run = lab.start("--every", "1s", "--retries", "1", command=["sh", "-c", slow, "sh", *lab.job()])
    until(lambda: lab.evidence.count("end"), "the command to run")
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 9
    assert run.out == b"over\n"
    assert len(lab.evidence.slots()) == 1
    assert lab.record()["slot"]["state"] == "interrupted"
    assert "was interrupted" in run.said
    lab.next_one()


@pytest.mark.parametrize("lab", ["etcd"], indirect=True)
def test_what_was_interrupted_is_run_again_by_who_is_asked_to(lab: Place) -> None:
    first = lab.start("--every", "1h", command=lab.long_job())
    lab.slots(1)
    send(signal.SIGTERM, first.pid)
    assert first.wait() == INTERRUPTED
    lab.finish()
    again = ["--no-loop", "--every", "1h", "--retries", "1"]
    assert lab.start(*again, command=lab.job()).wait() == 0
    assert len(lab.evidence.slots()) == 1
    assert lab.start(*again, "--retry-interrupted", command=lab.job()).wait() == 0
    assert [slot.attempt for slot in lab.evidence.slots()] == [1, 2]


# What goes wrong.


@pytest.mark.parametrize("lab", ["file", "etcd"], indirect=True)
def test_a_replica_that_dies_is_followed_by_another_with_retries(lab: Place) -> None:
    options = ["--ttl", "6s", "--every", "1h", "--retries", "1"]
    first = lab.start(*options, command=lab.long_job())
    lab.slots(1)
    second = lab.start(*options, command=lab.job())
    second.hears("waiting for lock")
    kill_tree(first.pid)
    slots = lab.slots(2)
    assert slots[0] == slots[1]
    assert [slot.attempt for slot in lab.evidence.slots()] == [1, 2]
    lab.slot_is("succeeded")
    _check_after_kill(lab)


@pytest.mark.parametrize(
    ("lab", "number"),
    [("file", signal.SIGTERM), ("etcd", signal.SIGTERM), ("postgres", signal.SIGKILL)],
    indirect=["lab"],
)
def test_a_slot_is_taken_over_from_who_goes_away_just_before_it(lab: Place, number: int) -> None:
    # Time enough for three clients of a server to be loaded on a busy machine: how soon is for other tests.
    options = ["--every", "8s", "--start-deadline", "5s"]
    runs = [lab.start(*options, command=lab.job()) for _ in range(3)]
    first = lab.slots(1)[0]
    until(lambda: time.time() > first + 8 - 0.25, "the lock to be taken ahead of the next slot")
    for run in runs[1:]:
        send(number, run.pid)
    assert lab.slots(2)[1] == first + 8
    assert "skipped" not in runs[0].said
    send(signal.SIGTERM, runs[0].pid)
    assert runs[0].wait() in (0, INTERRUPTED)


@pytest.mark.parametrize("lab", ["postgres"], indirect=True)
def test_a_front_that_dies_has_its_slot_retried_at_once(lab: Place) -> None:
    options = ["--ttl", LONG, "--every", "1h", "--retries", "1"]
    first = lab.start(*options, command=lab.long_job("leave", "ignore"))
    lab.ready()
    second = lab.start(*options, command=lab.job())
    second.hears("waiting for lock")
    send(signal.SIGKILL, first.pid)
    lab.slots(2)
    assert [slot.attempt for slot in lab.evidence.slots()] == [1, 2]
    lab.evidence.check(2)


@pytest.mark.parametrize("lab", ["postgres"], indirect=True)
def test_without_retries_a_slot_that_crashed_is_not_run_again(lab: Place) -> None:
    options = ["--ttl", LONG, "--every", "2s"]
    first = lab.start(*options, command=lab.long_job())
    lab.slots(1)
    second = lab.start(*options, command=lab.job())
    send(signal.SIGKILL, first.pid)
    slots = lab.slots(2)
    assert slots[1] > slots[0]
    assert "crashed" in [run["state"] for run in lab.record()["runs"]]
    assert [slot.attempt for slot in lab.evidence.slots()][:2] == [1, 1]
    send(signal.SIGTERM, second.pid)


@pytest.mark.parametrize("lab", ["etcd"], indirect=True)
def test_what_fails_is_retried_until_it_succeeds_by_whoever_is_there(lab: Place) -> None:
    third = ["sh", "-c", '"$@"; test "$SINGLETON_ATTEMPT" = 3', "sh", *lab.job()]
    options = ["--every", "1h", "--retries", "5", "--retry-delay", "100ms", "--retry-backoff", "1"]
    for _ in range(2):
        lab.start(*options, command=third)
    slots = lab.slots(3)
    lab.slot_is("succeeded")
    assert len(set(slots)) == 1
    assert [slot.attempt for slot in lab.evidence.slots()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("served", "deadline"), [("etcd", ["--start-deadline", "1s"]), ("postgres", [])], indirect=["served"]
)
def test_a_server_that_is_away_at_the_slots_time_is_tried_until_the_deadline(
    served: Place, deadline: list[str]
) -> None:
    with proxy(served.port) as between:
        served.lock = served.behind(between)
        run = served.start("--ttl", "6s", "--every", "8s", *deadline, command=served.job())
        first = served.slots(1)[0]
        served.idle(run)
        before = run.said
        between.cut()
        until(lambda: len(run.said) > len(before), "trouble to be told")
        until(lambda: time.time() > first + 8 + 1.5, "the slot and its deadline to pass")
        between.mend()
        second = served.slots(2)[1]
        assert second > first + 8 if deadline else second >= first + 8
        if second == first + 16:
            assert ("is skipped" in run.said) == bool(deadline)


def test_a_refusal_ends_it_at_the_start_and_is_only_said_later(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    postgres_server.make_role("guest")
    with Place(tmp_path) as lab:
        lab.put_at(postgres_server)
        assert lab.start("--no-loop", "--every", "1h", command=["true"]).wait() == 0
        granted = lab.lock
        lab.lock = postgres_server.url_of("guest")
        postgres_server.run("GRANT app TO guest")
        run = lab.start("--ttl", "6s", "--every", "8s", command=lab.job())
        first = lab.slots(1)[0]
        lab.idle(run)
        postgres_server.run("ALTER ROLE guest NOLOGIN")
        try:
            run.hears("not permitted to log in")
            refused = lab.start("--every", "8s", command=lab.job())
            assert refused.wait() == DENIED, refused.said
            assert run.popen.poll() is None
        finally:
            postgres_server.run("ALTER ROLE guest LOGIN")
        assert lab.slots(2)[1] == first + 8, "the slot of the refusal was given up"
        assert run.said.count("not permitted to log in") == 1
        send(signal.SIGTERM, run.pid)
        assert run.wait() in (0, INTERRUPTED)
        lab.lock = granted


def exchange(one: Path, other: Path) -> None:
    """Each gets the other's name, at one stroke: a slot in between would make a new directory."""
    here, both = -100, 2
    names = os.fsencode(one), os.fsencode(other)
    assert ctypes.CDLL(None).renameat2(here, names[0], here, names[1], both) == 0


def test_a_directory_that_goes_away_between_slots_is_said_and_looked_for_again(tmp_path: Path) -> None:
    with Place(tmp_path) as lab:
        run = lab.start("--every", "1s", command=lab.job())
        lab.slots(1)
        other = lab.directory / "other"
        other.write_text("")
        exchange(lab.locks, other)
        run.hears("it is a symbolic link or not a directory")
        assert run.popen.poll() is None
        exchange(lab.locks, other)
        lab.slots(len(lab.evidence.slots()) + 1)
        send(signal.SIGTERM, run.pid)
        assert run.wait() in (0, INTERRUPTED)


@pytest.mark.parametrize(
    ("lock", "options"),
    [("file:///proc/nowhere", []), ("file", ["--cron", "@daily", "--tz", "Mars/Olympus"])],
)
def test_what_cannot_be_here_ends_it_at_the_start(tmp_path: Path, lock: str, options: list[str]) -> None:
    with Place(tmp_path) as lab:
        lab.lock = lab.lock if lock == "file" else lock
        run = lab.start(*(options or ["--every", "1h"]), command=lab.job())
        assert run.wait() == UNUSABLE, run.said
        assert run.said.count("\n") == 1
        assert lab.evidence.lines() == []


# Others under the same name.


@pytest.mark.parametrize("lab", ["file", "etcd"], indirect=True)
def test_another_schedule_is_said_and_a_plain_turn_touches_no_slot(lab: Place) -> None:
    assert lab.start("--no-loop", "--every", "1h", command=lab.job()).wait() == 0
    before = lab.record()["slot"]
    plain = lab.start(command=[*_SAYS_SLOT, *lab.job()], environ=None)
    assert plain.wait() == 0
    assert plain.out == b"\n"
    assert lab.record()["slot"] == before
    again = lab.start("--no-loop", "--every", "1h", command=lab.job())
    assert again.wait() == 0
    assert "it has succeeded" in again.said
    assert "another schedule" not in again.said
    other = lab.start("--no-loop", "--every", "2h", command=lab.job())
    assert other.wait() == 0
    assert "was run by another schedule" in other.said
    assert len(lab.evidence.slots()) == 1


# --no-loop and --once.


def test_of_twenty_that_come_once_one_runs_and_all_end_well(lab: Place) -> None:
    options = ["--no-loop", "--cron", LEAPDAY]
    runs = [lab.start(*options, *(["-n"] if turn % 2 else []), command=_a_while(lab)) for turn in range(20)]
    assert [run.wait() for run in runs] == [0] * 20, [run.said for run in runs]
    assert len(lab.evidence.slots()) == 1
    late = lab.start(*options, command=lab.job())
    assert late.wait() == 0
    assert "nothing to do, it has succeeded" in late.said
    lab.evidence.check(1)


def _a_while(lab: Lab) -> list[str]:
    """A command that lasts long enough for the others to see it."""
    return ["sh", "-c", '"$@"; sleep 1', "sh", *lab.job()]


@pytest.mark.parametrize("lab", ["file"], indirect=True)
def test_one_that_comes_once_ends_as_its_command_did(lab: Place) -> None:
    run = lab.start("--no-loop", "--cron", LEAPDAY, command=lab.job("status", "3"))
    assert run.wait() == 3
    assert lab.record()["slot"]["state"] == "failed"


def test_of_forty_with_one_key_one_runs_and_all_end_well(lab: Place) -> None:
    runs = [lab.start("--once", "v1", command=_a_while(lab)) for _ in range(40)]
    assert [run.wait() for run in runs] == [0] * 40, [run.said for run in runs if run.wait()]
    lab.evidence.check(1)
    late = lab.start("--once", "v1", command=lab.job())
    assert late.wait() == 0
    other = lab.start("--once", "v2/ä", command=lab.job())
    assert other.wait() == 0
    lab.evidence.check(2)
    assert _forget(lab, "v1").wait() == 0
    assert _forget(lab, "v1").wait() == 1
    assert lab.start("--once", "v1", command=lab.job()).wait() == 0
    assert lab.start("--once", "v2/ä", command=lab.job()).wait() == 0
    lab.evidence.check(3)


def _forget(lab: Lab, key: str) -> Run:
    argv = [*PROGRAM, "forget", "--lock", lab.lock, lab.name, key]
    return Run(argv, lab.directory)


@pytest.mark.parametrize("lab", ["file", "etcd"], indirect=True)
def test_a_key_that_was_not_done_is_tried_by_the_next(lab: Place) -> None:
    options = ["--once", "v1"]
    fails = lab.start(*options, command=lab.long_job("status", "3"))
    lab.ready()
    next_one = lab.start("--ttl", "6s", *options, command=_marked(lab, "second"))
    next_one.hears("waiting for lock")
    lab.finish()
    assert fails.wait() == 3
    until(lambda: lab.evidence.count("ready") == 2, "the next to run")
    (lab.directory / "finish").unlink()
    third = lab.start(*options, command=lab.long_job())
    third.hears("waiting for lock")
    kill_tree(next_one.pid)
    lab.ready(3)
    fourth = lab.start(*options, command=lab.job())
    fourth.hears("waiting for lock")
    send(signal.SIGKILL, third.pid)
    assert fourth.wait() == 0
    assert lab.start(*options, command=lab.job()).wait() == 0
    assert len(lab.evidence.turns()) == 4
    _check_after_kill(lab)


def _marked(lab: Lab, what: str) -> list[str]:
    return ["sh", "-c", f'"$@"; : {what}; sleep 60', "sh", *lab.job()]


@pytest.mark.parametrize("lab", ["postgres"], indirect=True)
def test_a_key_is_retried_by_the_one_that_was_asked_to(lab: Place) -> None:
    second = ["sh", "-c", '"$@"; echo $SINGLETON_ATTEMPT; test "$SINGLETON_ATTEMPT" = 2', "sh", *lab.job()]
    run = lab.start("--once", "v1", "--retries", "2", "--retry-delay", "100ms", command=second)
    assert run.wait() == 0, run.said
    assert run.out == b"1\n2\n"
    lab.evidence.check(2)


# --lock-at-least-for.


def test_a_lock_is_kept_without_a_process_also_when_the_server_is_restarted(lab: Place) -> None:
    run = lab.start("--lock-at-least-for", LONG, command=lab.job("status", "3"))
    assert run.wait() == 3
    until(lambda: not lab.left(), "all processes to end")
    assert lab.start("-n", command=lab.job()).wait() == HELD
    lab.restart()
    assert lab.start("-n", command=lab.job()).wait() == HELD
    lab.evidence.check(1)


def test_a_lock_that_was_kept_is_free_afterwards(lab: Place) -> None:
    keep = 3.0
    before = calls.now()
    assert lab.start("--lock-at-least-for", text(keep), command=lab.job()).wait() == 0
    lab.next_one()
    starts = [line.when for line in lab.evidence.lines() if line.what == "start"]
    # The server's clock may run a little faster than ours.
    assert starts[1] >= before + keep * 0.99


def test_etcdctl_waits_too_for_a_lock_that_is_kept(etcd_server: Etcd, tmp_path: Path) -> None:
    with Place(tmp_path) as lab:
        lab.put_at(etcd_server)
        before = calls.now()
        assert lab.start("--lock-at-least-for", "3s", command=lab.job()).wait() == 0
        theirs = etcd_server.ctl_command("lock", lab.name, "--", "env", "SINGLETON_TOKEN=999999", *lab.job())
        run = Run(theirs, lab.directory)
        assert run.wait() == 0, run.said
        starts = [line.when for line in lab.evidence.lines() if line.what == "start"]
        assert starts[1] >= before + 3.0 * 0.99
