"""Whoever wakes up late hears first what has happened, as of then, and only then looks at the clock."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import threading
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import TYPE_CHECKING

import pytest

from singleton_run.system.calls import now
from tests.support.harness import LONG, Lab, gone, labs, send, state, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WALL = 0x40000000
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Lab]:
    """A lock under that backend."""
    yield from labs(tmp_path, backend)


def stopped(*processes: int) -> None:
    """Stop processes, and wait until they are."""
    send(SIGSTOP, *processes)
    until(lambda: all(state(process) == "T" for process in processes), "processes to stop")


def passed(deadline: float) -> None:
    """Wait until a reading of the boot clock is past."""
    until(lambda: now() > deadline, "the deadline to pass")


@BOTH
def test_a_command_that_ended_before_its_timeout_has_its_own_status(lab: Lab) -> None:
    run = lab.start("--ttl", LONG, "--timeout", "4s", command=lab.long_job("status", "5"))
    lab.ready()
    deadline = now() + 4.2
    stopped(run.pid)
    lab.finish()
    until(lambda: lab.evidence.count("end"), "the command to end")
    passed(deadline)
    send(SIGCONT, run.pid)
    assert run.wait() == 5, run.said


@BOTH
def test_so_it_has_if_the_guard_was_stopped_too(lab: Lab) -> None:
    run = lab.start("--ttl", LONG, "--timeout", "4s", command=lab.long_job("status", "5"))
    lab.ready()
    deadline = now() + 4.2
    guard = run.one("guard")
    stopped(guard, run.pid)
    lab.finish()
    until(lambda: lab.evidence.count("end"), "the command to end")
    passed(deadline)
    send(SIGCONT, run.pid)
    assert run.wait() == 5, run.said


@BOTH
def test_the_timeout_counts_from_the_command_s_start(lab: Lab) -> None:
    first = lab.start("--ttl", LONG, command=lab.long_job())
    lab.ready()
    never = str(lab.directory / "never")
    run = lab.start("--ttl", LONG, "--timeout", "4s", command=lab.job("until", never))
    run.hears("waiting for lock")
    assert run.one("guard")
    stopped(run.pid)
    lab.finish()
    assert first.wait() == 0
    if "file:" in lab.lock and "lease" not in lab.lock:  # a leased one is started by the front
        until(lambda: lab.evidence.count("ready") == 2, "the second command to run")
        passed(now() + 4.2)
        before = now()
        send(SIGCONT, run.pid)
        assert run.wait() == 124, run.said
        assert lab.evidence.lines()[-1].when < before + 3.9
    else:
        send(SIGCONT, run.pid)
        assert run.wait() == 124, run.said


@BOTH
def test_a_lock_that_came_within_the_wait_is_ours(lab: Lab) -> None:
    first = lab.start("--ttl", LONG, command=lab.long_job())
    lab.ready()
    run = lab.start("--ttl", LONG, "--wait", "5s", command=lab.job("status", "4"))
    deadline = now() + 5
    run.hears("waiting for lock")
    assert run.one("guard")
    stopped(run.pid)
    lab.finish()
    assert first.wait() == 0
    passed(deadline + 6.5)
    send(SIGCONT, run.pid)
    assert run.wait() == 4, run.said
    lab.next_one()


def test_a_file_s_lock_that_comes_after_the_wait_starts_nothing(tmp_path: Path) -> None:
    """The guard gets it, and finds that the wait was over: front and guard decide alike."""
    with Lab(tmp_path) as lab:
        first = lab.start(command=lab.long_job())
        lab.ready()
        run = lab.start("--wait", "3s", command=lab.job())
        run.hears("waiting for lock")
        deadline = now() + 3
        guard = run.one("guard")
        stopped(run.pid)
        passed(deadline + 1)
        lab.finish()
        assert first.wait() == 0
        until(lambda: state(guard) in ("", "Z"), "the guard to give up")
        send(SIGCONT, run.pid)
        assert run.wait() == 75, run.said
        assert lab.evidence.count("start") == 1
        lab.next_one()


@pytest.mark.parametrize("end", ["the wait's end", "SIGTERM"])
def test_a_file_s_lock_that_comes_at_the_end_of_the_wait_is_decided_once(tmp_path: Path, end: str) -> None:
    """Either the command runs to its end, or it was never started; a signal reaches the one that runs."""
    with Lab(tmp_path) as lab:
        (lab.locks / f"{lab.name}.lock").touch(mode=0o600)
        for number in range(12):
            lock = os.open(lab.locks / f"{lab.name}.lock", os.O_RDWR)
            fcntl.flock(lock, fcntl.LOCK_EX)
            starts, ends = lab.evidence.count("start"), lab.evidence.count("end")
            began = now()
            wait = "forever" if end == "SIGTERM" else "300ms"
            run = lab.start("--wait", wait, command=lab.job("status", "4"))
            until(lambda: "waiting for lock" in run.said or run.popen.poll() is not None, "it to wait")  # noqa: B023 - at once
            if end == "SIGTERM":
                send(SIGTERM, run.pid)
            else:
                passed(began + 0.3 + number / 50)
            os.close(lock)
            status = run.wait()
            begun, ended = lab.evidence.count("start") - starts, lab.evidence.count("end") - ends
            if status == 4:
                assert (begun, ended) == (1, 1), run.said
            elif end == "SIGTERM":
                assert (status, ended) == (-SIGTERM, 0) or status == 128 + SIGTERM, run.said
            else:
                assert (status, begun) == (75, 0), run.said


def test_a_stopped_guard_hears_of_its_front_s_death(tmp_path: Path) -> None:
    """The keeper wakes it. With the lock `file` nobody is left who could."""
    with Lab(tmp_path, "leasefile") as lab:
        first = lab.start("--ttl", LONG, command=lab.long_job())
        lab.ready()
        second = lab.start("--ttl", LONG, command=lab.job())
        second.hears("waiting for lock")
        stopped(first.one("guard"))
        send(SIGKILL, first.pid)
        assert second.wait() == 0, second.said
        lab.evidence.check(turns=2)


@BOTH
@pytest.mark.parametrize("stop", ["--timeout", "SIGTERM"])
def test_a_guard_that_does_not_wake_up_is_replaced_by_the_front(lab: Lab, stop: str) -> None:
    """One that is traced: SIGCONT is no help."""
    options = ["--timeout", "4s"] if stop == "--timeout" else []  # time to trace it
    run = lab.start("--ttl", LONG, *options, command=lab.long_job())
    lab.ready()
    with Traced(run.one("guard")):
        if stop == "SIGTERM":
            send(SIGTERM, run.pid)
        assert run.wait() == (124 if stop == "--timeout" else 143), run.said
    assert "does not answer" in run.said
    assert lab.evidence.count("end") == 0
    lab.next_one()


def test_a_lock_is_kept_at_least_for_its_time_when_the_front_is_killed(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        run = lab.start("--lock-at-least-for", "600s", command=lab.long_job())
        lab.ready()
        guard = run.one("guard")
        send(SIGKILL, run.pid)
        until(lambda: gone(guard), "the guard to end")
        second = lab.start("-n", command=lab.job())
        assert second.wait() == 75, second.said


class Traced:
    """A process that is stopped by ptrace(2), as a debugger does it."""

    def __init__(self, process: int) -> None:
        self.process = process
        self.libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> None:
        for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
            assert self.libc.ptrace(request, self.process, None, None) == 0, os.strerror(ctypes.get_errno())
        until(lambda: state(self.process) == "t", "the process to be stopped")
        threading.Thread(target=self._bury, daemon=True).start()

    def _bury(self) -> None:
        """Wait for its end, as a debugger does: until then its parent is not told."""
        with contextlib.suppress(ChildProcessError):
            while os.WIFSTOPPED(os.waitpid(self.process, WALL)[1]):
                pass

    def __exit__(self, *failure: object) -> None:
        self.libc.ptrace(PTRACE_DETACH, self.process, None, None)
