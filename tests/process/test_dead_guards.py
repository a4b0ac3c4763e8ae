"""A guard is killed as it starts the command: that starts once, under the lock, or not at all."""

from __future__ import annotations

from signal import SIGCONT, SIGSTOP
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import LONG, TREE, Lab, environment, labs, send, stands_still, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.harness import Run

DYING = TREE / "tests" / "support" / "dying"
KERNEL = pytest.mark.parametrize("backend", ["file", "kernel+ofdfile"])
BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])
BEFORE, AFTER = "_Process.start", "return Command.spawn"


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Lab]:
    """A lock under that backend."""
    yield from labs(tmp_path, backend)


def dying(lab: Lab, place: str, *options: str, command: list[str]) -> Run:
    """A call whose guard is killed there."""
    environ = environment(DIE_AT=place, DIE_ONCE=str(lab.directory / "died"))
    environ["PYTHONPATH"] = f"{DYING}:{environ['PYTHONPATH']}"
    return lab.start("--ttl", LONG, "-v", *options, command=command, environ=environ)


def holding(lab: Lab) -> Run:
    """A long job that has the lock."""
    run = lab.start("--ttl", LONG, command=lab.long_job())
    lab.ready()
    return run


@KERNEL
def test_a_lock_that_its_guard_has_got_is_not_given_away_by_the_guard_s_death(lab: Lab) -> None:
    """Another that waits would start beside the command, which has the token of a lock that is lost."""
    first = holding(lab)
    second = dying(lab, BEFORE, command=lab.job())
    second.hears("waiting for lock")
    until(lambda: second.all("guard"), "the guard to wait")
    third = lab.start("--ttl", LONG, command=lab.job())
    third.hears("waiting for lock")
    lab.finish()
    assert [run.wait() for run in (first, second, third)] == [0, 0, 0]
    assert (lab.directory / "died").exists()
    assert second.said.count("waiting for") == 1
    assert "not held" not in second.said
    lab.evidence.check(turns=3)


@KERNEL
def test_a_command_that_was_started_before_we_heard_of_the_lock_is_adopted(lab: Lab) -> None:
    first = holding(lab)
    second = dying(lab, AFTER, command=lab.long_job())
    second.hears("waiting for lock")
    until(lambda: second.all("guard"), "the guard to wait")
    send(SIGSTOP, second.pid)
    until(lambda: stands_still(second.pid), "the front to stop")
    lab.finish()
    assert first.wait() == 0
    until(lambda: lab.evidence.count("end") == 2, "the command to run and end")
    send(SIGCONT, second.pid)
    assert second.wait() == 0
    lab.evidence.check(turns=2)


@BOTH
def test_an_adopted_command_has_its_timeout(lab: Lab) -> None:
    run = dying(lab, AFTER, "--timeout", "1s", command=lab.long_job())
    assert run.wait() == 124
    assert "the command runs as process" in run.said
    assert (lab.directory / "died").exists()
