"""Where no descriptor is to be had: the promise holds, and the user is told."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from signal import SIGKILL
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import TREE, Lab, environment, gone, labs, open_files, send, state, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOTH = pytest.mark.parametrize("lab", ["file", "leasefile"], indirect=True)
LEASED = pytest.mark.parametrize("lab", ["leasefile"], indirect=True)
OUT_OF_DESCRIPTORS = ("Too many open files", "No file descriptors available")
"""EMFILE in the words of glibc and of musl."""

# The list of children is read in a process that can't open it, nor ask about every process id.
LISTING = """
import os, resource
from singleton_run.system import processes
processes._MOST_PROCESSES = 2
assert len(processes.hold_listing()) == 1
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
assert processes.children() == []
child = os.fork() or os._exit(0)
assert processes.children() == [child]
os.waitpid(child, 0)
assert processes.children() == []
"""


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    yield from labs(tmp_path, request.param)


def rests(front: int) -> bool:
    """Whether a front has let go of what the command has now, and waits."""
    return open_files(front).get(1) == "/dev/null" and state(front) == "S"


def take_descriptors(process: int) -> int:
    """From now on it can't open anything, but poll(2) what it has; the limit that it had."""
    used = set(open_files(process))
    lowest_free = min(set(range(len(used) + 1)) - used)
    soft, hard = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (max(8, lowest_free), hard))
    return soft


def give_descriptors(process: int, soft: int) -> None:
    hard = resource.prlimit(process, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(process, resource.RLIMIT_NOFILE, (soft, hard))


def test_the_children_are_known_when_nothing_can_be_opened_any_more() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTING], cwd=TREE, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@BOTH
def test_a_guard_that_can_open_nothing_kills_all_the_same(lab: Lab) -> None:
    run = lab.start(command=lab.long_job("leave", "ignore"))
    lab.ready()
    take_descriptors(run.one("guard"))
    send(SIGKILL, run.pid)
    until(lambda: all(gone(process) for process in lab.tree()), "the command's processes to be gone")
    lab.next_one()
    lab.evidence.check(turns=2)


@BOTH
def test_what_no_writer_can_be_had_for_is_said_all_the_same(lab: Lab) -> None:
    run = lab.start(command=lab.long_job("leave"))
    lab.ready()
    until(lambda: rests(run.pid), "the front to rest")
    take_descriptors(run.pid)
    lab.finish()
    assert run.wait() == 0
    assert f"lock {lab.name!r}: leftover\n" in run.said
    assert "Traceback" not in run.said


@LEASED
def test_a_keeper_that_can_not_be_had_is_tried_again(lab: Lab) -> None:
    run = lab.start("--ttl", "600s", command=lab.long_job())
    lab.ready()
    keeper = run.one("keeper")
    until(lambda: rests(run.pid), "the front to rest")
    limit = take_descriptors(run.pid)
    send(SIGKILL, keeper)
    run.hears("another keeper can't be had (")
    give_descriptors(run.pid, limit)
    run.one("keeper", but=keeper)
    lab.finish()
    assert run.wait() == 0
    lab.evidence.check(turns=1)


@BOTH
def test_a_start_without_descriptors_is_one_line_and_78(lab: Lab) -> None:
    run = lab.start(command=lab.job(), via='ulimit -n 6; exec "$@"')
    assert run.wait() == 78
    assert run.said.startswith("singleton-run: ")
    assert any(words in run.said for words in OUT_OF_DESCRIPTORS)
    assert run.said.count("\n") == 1
    assert lab.evidence.lines() == []


@BOTH
@pytest.mark.parametrize("stderr", ["file", "pipe"])
def test_few_descriptors_are_enough_or_it_is_one_line_and_78(lab: Lab, stderr: str) -> None:
    """Whichever open is the first to fail: one more descriptor is enough for the next."""
    statuses = []
    for limit in range(5, 21):
        status, out, said = with_descriptors(lab, limit, stderr)
        assert (status, out, said.count("\n")) in ((0, b"ran\n", 0), (78, b"", 1)), (limit, said)
        assert "Traceback" not in said
        assert "name one with" not in said, (limit, said)  # another directory would not help
        statuses.append(status)
    assert statuses == sorted(statuses, reverse=True)
    assert (statuses[0], statuses[-1]) == (78, 0)
    until(lambda: lab.left() == [], "the last keepers to end")


def with_descriptors(lab: Lab, limit: int, stderr: str) -> tuple[int, bytes, str]:
    """Status, output and what was said by a call that may have so many descriptors."""
    via = f'ulimit -n {limit}; exec "$@"'
    if stderr == "file":
        run = lab.start(command=["echo", "ran"], via=via)
        return run.wait(), run.out, run.said
    read, write = os.pipe()
    run = lab.start(command=["echo", "ran"], via=via, stderr=write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        return run.wait(), run.out, pipe.read().decode()


@BOTH
def test_a_loop_goes_on_after_a_time_in_which_no_process_could_be_forked(lab: Lab) -> None:
    refusal = lab.directory / "no-fork"
    environ = environment(NO_FORK=str(refusal))
    environ["PYTHONPATH"] = f"{TREE / 'tests' / 'support' / 'unforking'}:{environ['PYTHONPATH']}"
    run = lab.start("--every", "1s", command=lab.job(), environ=environ)
    until(lambda: lab.evidence.count("end"), "a first slot")
    refusal.touch()
    until(lambda: refusal.read_text() == "refused", "a fork to be refused")
    refusal.unlink()
    ended = lab.evidence.count("end")
    until(lambda: lab.evidence.count("end") > ended or run.popen.poll() is not None, "another slot")
    assert run.popen.poll() is None, run.said
    run.popen.terminate()
    run.wait()
    lab.evidence.check(turns=lab.evidence.count("start"))
