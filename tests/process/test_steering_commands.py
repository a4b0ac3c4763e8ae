"""People steer locks of the kernel's: pause, resume, release, and check by the command itself."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import HELD, LOST, UNAVAILABLE, UNUSABLE, USAGE
from tests.support.harness import LIMIT, PROGRAM, environment
from tests.support.steering import Steered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Steered]:
    with Steered(tmp_path) as lab:
        yield lab


def test_nobody_starts_during_a_pause_and_all_go_on_after_it(lab: Steered) -> None:
    running = lab.hold()
    lab.names_its_holder()
    said = lab.does("pause", "--reason", "migration")
    assert f"It is held by {lab.turn()['SINGLETON_HOLDER']} on " in said
    waiter = lab.call()
    waiter.hears("migration")
    lab.beats()
    lab.finish()
    assert running.wait() == 0, running.said
    refused = lab.call("-n")
    assert refused.wait() == HELD
    assert "migration" in refused.said
    lab.evidence.check(1)
    assert "(migration)" in lab.does("resume")
    assert waiter.wait() == 0, waiter.said
    lab.evidence.check(2)


def test_a_pause_ends_by_itself(lab: Steered) -> None:
    lab.does("pause", "--for", "5s")
    waiter = lab.call()
    waiter.hears("paused by")
    assert waiter.wait() == 0, waiter.said
    assert lab.does("resume").endswith("which is over\n")


def test_the_holder_of_a_file_is_ended_by_its_process(lab: Steered) -> None:
    run = lab.hold()
    lab.names_its_holder()
    for options in ((), ("--force",), ("--force", "--yes")):
        done = lab.people("release", *options)
        assert (done.returncode, done.stdout) == (HELD, "")
        assert f": kill {run.pid}\n" in done.stderr
    os.kill(run.pid, signal.SIGTERM)
    run.wait()
    assert lab.does("release") == f"{lab.name} is free: there is nothing to release\n"


def test_a_holder_without_a_name_is_told_too(lab: Steered) -> None:
    lab.hold()
    lab.finish()
    other = subprocess.Popen(
        ["flock", str(lab.locks / f"{lab.name}.lock"), "sh", "-c", "echo; read -r _"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout is not None
    other.stdout.readline()
    done = lab.people("release", "--force", "--yes")
    other.communicate("\n", timeout=LIMIT)
    assert done.returncode == HELD
    assert "lslocks" in done.stderr


def test_a_file_that_is_kept_after_its_turn_is_freed(lab: Steered) -> None:
    run = lab.call("--lock-at-least-for", "1h")
    assert run.wait() == 0, run.said
    assert re.match(rf"released: {lab.name}, which was kept after .*\. It is free\n", lab.does("release"))
    lab.next_one()


def test_a_command_asks_whether_its_lock_is_still_its_own(lab: Steered) -> None:
    run = lab.hold()
    turn = lab.turn()
    for options in ((), ("--for", "1h"), ("--lock", lab.lock)):
        done = lab.check(turn, *options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lab.finish()
    run.wait()
    assert lab.check(turn).returncode == LOST
    (lab.directory / "finish").unlink()
    lab.hold()
    done = lab.check(turn)
    assert done.returncode == LOST
    assert "is not ours any more: it is held" in done.stderr


def test_a_script_stops_before_a_dangerous_step_if_its_lock_was_removed(lab: Steered) -> None:
    script = f'rm "{lab.locks}"/*.lock; "$@" check && echo dangerous'
    run = lab.call(command=["sh", "-c", script, "sh", *PROGRAM])
    assert run.wait() == LOST, run.said
    assert run.out == b""
    assert "is not ours any more" in run.said


def test_check_is_for_commands(lab: Steered) -> None:
    done = lab.check({})
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert len(done.stderr.splitlines()) == 1
    lab.hold()
    turn = lab.turn()
    for options in (("--for", "x"), ("--for",), ("more",)):
        assert lab.check(turn, *options).returncode == USAGE
    assert lab.check({**turn, "SINGLETON_LOCK": "etcd://127.0.0.1:1"}).returncode == UNAVAILABLE
    assert lab.check({**turn, "SINGLETON_LOCK": "nonsense"}).returncode == UNUSABLE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pause"], "NAME"),
        (["pause", "a/b"], "'/'"),
        (["pause", "x", "--until", "tomorrow"], "no time such as"),
        (["pause", "x", "--until", "2020-01-01 08:00"], "is over"),
        (["pause", "x", "--for", "soon"], "--for"),
        (["pause", "x", "--for", "1h", "--until", "08:00"], "contradict"),
        (["suspend", "x", "--reason", "y" * 501], "too long"),
        (["resume", ""], "empty"),
        (["release", "x", "y"], "unexpected"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(lab: Steered, words: list[str], said: str) -> None:
    done = subprocess.run(
        [*PROGRAM, *words],
        env=environment(SINGLETON_RUN_LOCK=lab.lock),
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(lab.locks.iterdir()) == []
