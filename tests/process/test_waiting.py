"""Waiting for the lock: what is said, how it ends early, and that nothing of it stays."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import LONG, Lab, below, gone, labs, send, state, title, until
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.harness import Run

BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])
ABOVE = "\x1b[1A\x1b[2K"
REMIND = """
import os
from singleton_run.report import writer
writer._REMINDER_SECONDS = 0.05
os.set_blocking(0, False)
writer.write(0, as_json=False)
"""


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Lab]:
    """A lock under that backend."""
    yield from labs(tmp_path, backend)


@pytest.fixture
def filed(tmp_path: Path) -> Iterator[Lab]:
    """A lock under the file backend."""
    yield from labs(tmp_path, "file")


def holding(lab: Lab) -> Run:
    """One that has the lock."""
    run = lab.start("--ttl", LONG, command=lab.long_job())
    lab.ready()
    return run


@BOTH
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)],
)
def test_a_signal_ends_the_wait_at_once_and_nothing_of_it_stays(lab: Lab, number: int, status: int) -> None:
    first = holding(lab)
    run = lab.start("--ttl", LONG, command=lab.job())
    run.hears("waiting for lock")
    helpers = below(run.pid)
    send(number, run.pid)
    assert run.wait() == status
    assert run.said.count("\n") == 1
    until(lambda: all(gone(process) for process in helpers), "what the wait had forked to end")
    lab.finish()
    assert first.wait() == 0
    assert len(lab.evidence.turns()) == 1
    lab.next_one()


def test_while_waiting_rewriting_changes_nothing_but_that_to_0_is_to_ignore(filed: Lab) -> None:
    holding(filed)
    run = filed.start(
        "--rewrite-signal", "HUP:0", "--rewrite-signal", "TERM:USR1,USR1:TERM", command=filed.job()
    )
    run.hears("waiting for lock")
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):  # the order in which they are read
        send(number, run.pid)
    assert run.wait() == 128 + signal.SIGTERM


def is_front(process: int) -> bool:
    """Whether a process has got as far as to show its title."""
    return title(process).startswith("singleton-run: front of ")


@BOTH
def test_a_signal_that_comes_before_anything_else_ends_without_a_traceback(lab: Lab) -> None:
    first = holding(lab)
    for number in (signal.SIGINT, signal.SIGTERM):
        run = lab.start("--ttl", LONG, command=lab.job())
        until(partial(is_front, run.pid), "the front")
        send(number, run.pid)
        assert run.wait() in (-signal.SIGINT, 128 + signal.SIGTERM)
        assert "Traceback" not in run.said
    lab.finish()
    assert first.wait() == 0
    lab.evidence.check(turns=1)


def test_a_signal_while_the_server_is_stuck_ends_the_wait(tmp_path: Path) -> None:
    with Lab(tmp_path, "leasefile") as lab:
        lab.control("stuck").touch()
        run = lab.start("--ttl", LONG, command=lab.job())
        until((lab.locks / "requests").exists, "the first request")
        send(signal.SIGTERM, run.pid)
        assert run.wait() == 143
        until(lambda: not lab.left(), "the keeper to end")


@BOTH
def test_whoever_has_waited_says_so_and_runs(lab: Lab) -> None:
    first = holding(lab)
    run = lab.start(command=lab.job())
    run.hears("waiting for lock")
    lab.finish()
    assert (first.wait(), run.wait()) == (0, 0)
    waiting, got = run.said.splitlines()
    assert waiting.startswith(f"singleton-run: waiting for lock '{lab.name}': held by ")
    assert f":{first.pid}:" in waiting
    assert got.startswith(f"singleton-run: got lock '{lab.name}' after ")
    lab.evidence.check(turns=2)


@BOTH
def test_an_uncontended_turn_says_nothing(lab: Lab) -> None:
    run = lab.start(command=lab.job())
    assert (run.wait(), run.said, run.out) == (0, "", b"")


@BOTH
def test_without_waiting_nobody_says_that_they_wait(lab: Lab) -> None:
    holding(lab)
    run = lab.start("-n", command=lab.job())
    assert run.wait() == 75
    assert run.said.count("\n") == 1
    assert "waiting" not in run.said


@BOTH
def test_quiet_also_silences_that_the_lock_is_held(lab: Lab) -> None:
    first = holding(lab)
    for options in (["-n"], ["--wait", "100ms"]):
        run = lab.start("-q", *options, command=lab.job())
        assert (run.wait(), run.said) == (75, "")
    run = lab.start("-q", command=lab.job())
    until(lambda: len(below(run.pid)) > 0, "it to wait")
    lab.finish()
    assert (first.wait(), run.wait(), run.said) == (0, 0, "")


def test_whoever_waits_is_reminded_of_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", REMIND], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin is not None
        assert writer.stderr is not None
        held = '{"event": "held", "level": "wait", "name": "x", "holder": "h:1:2", "host": "h", "since": 0}\n'
        writer.stdin.write(held)
        writer.stdin.flush()
        lines = [writer.stderr.readline() for _ in range(3)]
        assert (
            lines[0] == "singleton-run: waiting for lock 'x': held by h:1:2 on h since 1970-01-01T00:00:00Z\n"
        )
        assert all(line.endswith(lines[0].partition(" for ")[2]) for line in lines)
        writer.stdin.write('{"event": "acquired", "level": "wait", "name": "x", "token": 7}\n')
        writer.stdin.close()
        rest = writer.stderr.read().splitlines()
        assert rest[-1].startswith("singleton-run: got lock 'x' after ")
        assert writer.wait() == 0


# At a terminal.


@BOTH
def test_at_a_terminal_the_wait_is_one_line_that_is_written_over(lab: Lab) -> None:
    first = holding(lab)
    with Terminal(lab.argv(command=["echo", "done"]), lab.directory) as terminal:
        terminal.shows(ABOVE, times=3)
        waited = terminal.shown
        assert waited.count("\r\n") - waited.count(ABOVE) in (0, 1)
        assert f" for lock '{lab.name}'" in waited
        lab.finish()
        assert terminal.wait() == 0
        assert first.wait() == 0
        rest = terminal.shown.rpartition(ABOVE)[2]
        assert f"singleton-run: got lock '{lab.name}' after " in rest
        assert "\r\ndone\r\n" in terminal.shown


def test_what_is_said_during_the_wait_is_not_written_over(tmp_path: Path) -> None:
    with Lab(tmp_path, "leasefile") as lab:
        holding(lab)
        with Terminal(lab.argv("--ttl", LONG, command=lab.job()), lab.directory) as terminal:
            terminal.shows("waiting for 0s for lock")
            lab.control("outage").touch()
            terminal.shows("out of reach; trying again\r\n")
            lab.control("outage").unlink()
            terminal.shows(ABOVE, terminal.shown.count(ABOVE) + 2)
            assert not terminal.shown.partition("trying again\r\n")[2].startswith(ABOVE)


@BOTH
def test_ctrl_c_ends_the_wait_and_clears_its_line(lab: Lab) -> None:
    first = holding(lab)
    with Terminal(lab.argv(command=lab.job()), lab.directory) as terminal:
        terminal.shows("waiting for 0s for lock")
        terminal.type("\x03")
        assert terminal.wait() == -signal.SIGINT
        assert "Traceback" not in terminal.shown
    lab.finish()
    assert first.wait() == 0
    lab.evidence.check(turns=1)


def test_stderr_may_be_a_terminal_that_is_not_ours(filed: Lab) -> None:
    first = holding(filed)
    with Terminal(filed.argv(command=["echo", "done"]), filed.directory, controlling=False) as terminal:
        terminal.shows("waiting for lock")
        filed.finish()
        assert terminal.wait() == 0
        assert "got lock" in terminal.shown
    assert first.wait() == 0


def test_ctrl_c_ends_a_shell_s_loop(filed: Lab) -> None:
    ready = "import signal; signal.signal(2, signal.SIG_DFL); print('ready', flush=True); signal.pause()"
    call = shlex.join(filed.argv(command=[sys.executable, "-c", ready]))
    script = f"for i in 1 2 3; do {call}; done; echo survived"
    with Terminal(["bash", "-c", script], filed.directory) as terminal:
        terminal.shows("ready")
        terminal.type("\x03")
        terminal.wait()
        assert terminal.shown.count("ready") == 1
        assert "survived" not in terminal.shown


# A select that the signal itself ends: Python would see one that comes just before a read only after it.
COUNTS = """
import os, select, signal
woken, end = os.pipe()
os.set_blocking(end, False)
signal.set_wakeup_fd(end)
signal.signal(2, lambda *_: print("came", flush=True))
print("ready", flush=True)
while woken in select.select([0, woken], [], [])[0]:
    os.read(woken, 1)
"""


def test_ctrl_c_reaches_the_command_once(filed: Lab) -> None:
    argv = filed.argv(command=[sys.executable, "-c", COUNTS])
    with Terminal(argv, filed.directory) as terminal:
        terminal.shows("ready")
        terminal.type("\x03")
        terminal.shows("came", times=1)
        terminal.type("\x03")
        terminal.shows("came", times=2)
        terminal.type("\n")
        assert terminal.wait() == 0
        assert terminal.shown.count("came") == 2


@BOTH
def test_ctrl_z_stops_and_fg_goes_on(lab: Lab) -> None:
    with Terminal(["bash", "--norc", "--noprofile", "-i"], lab.directory) as terminal:
        terminal.type(shlex.join(lab.argv("--ttl", LONG, command=lab.long_job("status", "3"))) + "\n")
        lab.ready()
        front = next(filter(is_front, below(terminal.pid)))
        command = lab.evidence.lines()[0].process
        terminal.type("\x1a")
        until(lambda: (state(front), state(command)) == ("T", "T"), "both to stop")
        second = lab.start("--ttl", LONG, command=lab.job())
        second.hears("waiting for lock")
        terminal.type("fg\n")
        lab.beats()
        lab.finish()
        assert second.wait() == 0
        terminal.type("echo status $?\n")
        terminal.shows("status 3")
        terminal.type("exit\n")
        terminal.wait()
    lab.evidence.check(turns=2)


def test_the_command_can_read_from_the_terminal(filed: Lab) -> None:
    with Terminal(
        filed.argv(command=["sh", "-c", 'read line; echo "got $line"']), filed.directory
    ) as terminal:
        terminal.type("hello\n")
        terminal.shows("got hello")
        assert terminal.wait() == 0
