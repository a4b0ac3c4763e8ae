"""What is said on stderr: nothing waits for it, nothing of it is lost silently, none of it is on stdout."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support import schemas
from tests.support.harness import (
    LONG,
    PROGRAM,
    Lab,
    Run,
    environment,
    full_pipe,
    labs,
    open_files,
    send,
    state,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BRIEF = ("--ttl", LONG, "--kill-after", "100ms")
# Loaded at the start of every Python: a writer that is slow to get a turn.
SLOW_WRITER = """
import os, posix, time
write = os.write
def slow_write(descriptor, data):
    if descriptor == 2:
        time.sleep(1.5)
    return write(descriptor, data)
os.write = posix.write = slow_write
"""
BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Lab]:
    """A lock under that backend."""
    yield from labs(tmp_path, backend)


@pytest.fixture
def full() -> Iterator[int]:
    """A pipe that takes nothing more, and that nobody reads."""
    read, write = full_pipe()
    yield write
    os.close(write)
    os.close(read)


@BOTH
def test_a_full_stderr_that_nobody_reads_stalls_nothing(lab: Lab, full: int) -> None:
    first = lab.start("-vv", *BRIEF, command=lab.long_job("leave", "status", "4"), stderr=full)
    lab.ready()
    second = lab.start("-vv", *BRIEF, command=lab.job("leave"), stderr=full)
    until(lambda: second.one("writer"), "the second to say that it waits")
    lab.finish()
    send(signal.SIGTERM, first.pid)
    third = lab.start(*BRIEF, command=lab.job())
    assert second.wait() == 0
    assert third.wait() == 0
    assert first.wait() in (4, 143)
    lab.evidence.check(turns=3)


@BOTH
def test_with_a_full_stderr_a_killed_front_is_cleaned_up_after(lab: Lab, full: int) -> None:
    first = lab.start("-vv", "--ttl", LONG, command=lab.long_job("leave", "ignore"), stderr=full)
    lab.ready()
    send(signal.SIGKILL, first.pid)
    lab.next_one()
    lab.evidence.check(turns=2)


def test_with_a_full_stderr_a_keeper_is_replaced(tmp_path: Path, full: int) -> None:
    with Lab(tmp_path, "leasefile") as lab:
        run = lab.start("-vv", "--ttl", LONG, command=lab.long_job(), stderr=full)
        lab.ready()
        keeper = run.one("keeper")
        send(signal.SIGKILL, keeper)
        run.one("keeper", but=keeper)
        lab.finish()
        assert run.wait() == 0


@BOTH
@pytest.mark.parametrize("closed", ["2>&-", "<&-", ">&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors_do_no_harm(lab: Lab, closed: str) -> None:
    via = f'exec "$@" {closed}'
    first = lab.start("-vv", "--ttl", LONG, command=lab.long_job("status", "4"), via=via)
    lab.ready()
    second = lab.start("-vv", *BRIEF, command=lab.job("leave"), via=via)
    until(lambda: second.all("guard") or second.all("keeper"), "the second to wait")
    lab.finish()
    send(signal.SIGCONT, first.pid)
    assert (first.wait(), second.wait()) == (4, 0)
    lab.evidence.check(turns=2)
    for file in lab.locks.iterdir():
        assert b"singleton-run:" not in file.read_bytes()


def test_a_refusal_with_stderr_closed_is_still_a_status(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        run = lab.start(command=["./nonesuch"], via='exec "$@" 2>&-')
        assert (run.wait(), run.said) == (127, "")


@BOTH
def test_a_writer_that_is_killed_is_replaced(lab: Lab) -> None:
    run = lab.start("-vv", *BRIEF, command=lab.long_job("leave"))
    lab.ready()
    run.hears("the command runs as process")
    writer = run.one("writer")
    send(signal.SIGKILL, writer)
    until(lambda: not state(writer), "the writer to be waited for")
    lab.finish()
    assert run.wait() == 0
    assert "the command left process" in run.said


def test_a_writer_that_gets_no_processor_is_waited_for(tmp_path: Path) -> None:
    """A busy machine costs time, and not the reason of a refusal."""
    with Lab(tmp_path) as lab:
        lab.start(command=lab.long_job())
        lab.ready()
        (lab.directory / "sitecustomize.py").write_text(SLOW_WRITER)
        path = f"{lab.directory}{os.pathsep}{environment()['PYTHONPATH']}"
        run = lab.start("-n", command=lab.job(), environ=environment(PYTHONPATH=path))
        assert run.wait() == 75
        assert "is held" in run.said


@BOTH
def test_nobody_but_the_front_keeps_the_writer_waiting(lab: Lab, full: int) -> None:
    lab.start("--ttl", LONG, command=lab.long_job())
    lab.ready()
    run = lab.start("-v", "--ttl", LONG, command=lab.job(), stderr=full)  # or the writer ends after a second
    run.one("guard")
    writer = run.one("writer")

    def what_it_reads() -> str:
        kept = [file for number, file in open_files(writer).items() if number > 2]
        return kept[0] if len(kept) == 1 else ""

    read = until(what_it_reads, "the writer to let go of what it has inherited")
    assert read.startswith("pipe:")
    for role in ("guard", "keeper"):
        for process in run.all(role):
            assert read not in open_files(process).values()


@BOTH
def test_json_is_one_object_a_line(lab: Lab) -> None:
    odd = 'é\n"\\\x1b[31m\x7f'
    first = lab.start("--log-format", "json", "-vv", "--ttl", LONG, command=lab.long_job())
    lab.ready()
    lab.names_its_holder()
    script = 'sh -c "sleep 60; :" "$1" & sleep 0'
    second = lab.start("--log-format", "json", "-vv", "--ttl", LONG, command=["sh", "-c", script, "sh", odd])
    second.hears('"waiting"')
    third = lab.start("--log-format", "json", "-n", "--ttl", LONG, command=lab.job())
    assert third.wait() == 75
    lab.finish()
    assert (first.wait(), second.wait()) == (0, 0)
    said = [json.loads(line) for run in (first, second, third) for line in run.said.splitlines()]
    events = {one["event"] for one in said}
    assert {"acquired", "started", "succeeded", "waiting", "leftover", "gave_up"} <= events
    for one in said:
        assert one["name"] == lab.name
        assert one["level"] in ("info", "wait", "warning", "error", "final", "trace")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one["time"])
        if one["level"] != "trace":
            schemas.check("log", one)
        assert one["message"].isprintable() or one["event"] == "leftover"
    held = next(one for one in said if one["event"] == "waiting")
    assert held["holder"].split(":")[1] == str(first.pid)
    assert {"host", "since"} <= held.keys()


def test_errors_are_said_though_quiet(tmp_path: Path) -> None:
    with Lab(tmp_path, "leasefile") as lab:
        lab.control("denied").touch()
        run = lab.start("-q", command=lab.job())
        assert (run.wait(), run.said.count("\n")) == (77, 1)


def test_many_leftovers_are_not_all_named(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        script = "i=0; while [ $i -lt 70 ]; do sleep 60 & i=$((i+1)); done"
        run = lab.start(command=["sh", "-c", script])
        assert run.wait() == 0
        assert 10 < run.said.count("the command left process") < 70
        assert "the command left more processes behind" in run.said


def test_a_lock_named_by_its_command_is_warned_of_where_others_see_it(tmp_path: Path) -> None:
    with Lab(tmp_path, "leasefile") as lab:
        call = [*PROGRAM, "--lock", lab.lock, "--", "true"]
        run = Run(call, lab.directory)
        assert run.wait() == 0
        assert run.said.startswith("singleton-run: without --name, lock 'true-")
        assert run.said.count("\n") == 1
