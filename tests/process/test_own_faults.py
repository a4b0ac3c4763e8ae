"""A fault of our own, wherever it is: it is said in a line, has a status, and leaves nothing behind."""

from __future__ import annotations

import subprocess
from signal import SIGKILL
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import LONG, TREE, Lab, environment, gone, labs, send, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.harness import Run

RAISING = TREE / "tests" / "support" / "raising"
COMMAND = ["sh", "-c", "echo $$; sleep 0.2; exit 3"]
MOST_LINES = 10
BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])
LEASED = pytest.mark.parametrize("backend", ["leasefile"])


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Lab]:
    """A lock under that backend."""
    yield from labs(tmp_path, backend)


def fails(lab: Lab, place: str, error: str = "RuntimeError") -> Run:
    """A call in which that function fails, once it has ended and nothing is left of it."""
    environ = environment(RAISE_AT=place, RAISE=error)
    environ["PYTHONPATH"] = f"{RAISING}:{environ['PYTHONPATH']}"
    run = lab.start("--ttl", LONG, command=COMMAND, environ=environ)
    run.wait()
    until(lambda: not lab.left(), f"our processes to end, where there are {lab.left()}")
    assert all(gone(int(line)) for line in run.out.splitlines())
    assert "Traceback" not in run.said
    assert "a secret" not in run.said
    assert 0 < run.said.count("\n") < MOST_LINES, run.said
    return run


@BOTH
@pytest.mark.parametrize("place", ["Values", "find", "Front.__init__", "_lock"])
def test_a_fault_of_the_front_is_one_line_and_78(lab: Lab, place: str) -> None:
    run = fails(lab, place)
    assert (run.popen.returncode, run.said.count("\n"), run.out) == (78, 1, b"")


@BOTH
@pytest.mark.parametrize("place", ["Front._step", "Front._let_go", "close_standard", "Signals.read"])
def test_a_fault_of_the_front_ends_the_command_before(lab: Lab, place: str) -> None:
    """Also where the guard has the same fault at that moment, and could not do it."""
    run = fails(lab, place)
    assert run.popen.returncode in (69, 78)
    if backend_is_file(lab):
        lab.next_one()


@BOTH
@pytest.mark.parametrize("place", ["Guard.start", "Guard.__init__", "Task.environ"])
def test_a_guard_that_fails_before_each_start_is_given_up(lab: Lab, place: str) -> None:
    run = fails(lab, place)
    assert (run.popen.returncode, run.out) == (78, b"")
    lab.next_one()


@LEASED
@pytest.mark.parametrize("place", ["Grant.without_record", "_Keeper._acquire", "keep_only"])
def test_a_keeper_that_fails_before_each_grant_is_given_up(lab: Lab, place: str) -> None:
    run = fails(lab, place)
    assert (run.popen.returncode, run.out) == (69, b"")


@LEASED
@pytest.mark.parametrize(
    ("place", "status"), [("Values", 78), ("Guard.start", 78), ("Grant.without_record", 69)]
)
def test_a_lack_of_memory_is_no_fault_of_ours(lab: Lab, place: str, status: int) -> None:
    run = fails(lab, place, "MemoryError")
    assert (run.popen.returncode, run.out) == (status, b"")
    assert "this machine refuses what a run takes (out of memory)" in run.said
    assert "fault" not in run.said
    assert "report" not in run.said


def backend_is_file(lab: Lab) -> bool:
    """Whether a lock is the kernel's."""
    return lab.lock.startswith("file:")


@BOTH
def test_a_guard_killed_under_another_namespace_s_proc_is_replaced(lab: Lab) -> None:
    """The front's /proc knows its processes by other ids, and it adopts the command all the same."""
    if subprocess.run(["unshare", "-fp", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespace of process ids can be had here")
    run = lab.start("--ttl", LONG, command=lab.long_job("status", "5"), via='exec unshare -fp "$@"')
    lab.ready()
    guard = run.one("guard")
    send(SIGKILL, guard)
    run.hears("its work goes on here")
    lab.finish()
    assert run.wait() == 5, run.said
    assert lab.evidence.count("end") == 1
    lab.next_one()
