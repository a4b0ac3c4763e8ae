"""Waiting for the lock: what is said, how it ends early, and that nothing of it stays."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import UNUSABLE
from tests.support.harness import LONG, TREE, Lab, below, environment, gone, labs, send, state, title, until
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.harness import Run

BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])
ABOVE = "\x1b[1A\x1b[2K"
# Loaded at the start of every Python: a minute is short.
REMIND = """
from singleton_run.report import log
log.REMINDER_SECONDS = 0.05
"""
_LOG = """
import os, resource
from types import SimpleNamespace
from singleton_run.api import toolbox
from singleton_run.report import log
log.REMINDER_SECONDS = 0.05
settings = SimpleNamespace(lock_address="file", name="x", verbosity=0, log_format="text")
told = log.Log(settings, looked_at=True)
"""
# Where the first message is to be said, no descriptor is left.
POOR = f"""{_LOG}
free = os.dup(0)
os.close(free)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
told.say("wait", "held", holder="h:1:2", host="h", since=0)
assert told.process == 0
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert told.due < toolbox.now() + 1, "nobody is to be told again"
toolbox.wait(told.due, [])
told.look()
told.say("wait", "acquired", token=7)
told.close()
"""
# The writer has failed when the turn is over.
CLOSED = f"""{_LOG}
told.say("wait", "held", holder="h:1:2", host="h", since=0)
os.kill(told.process, 9)
os.waitpid(told.process, 0)
told.gone(-9)
told.close()
assert told.due > toolbox.now() + 3600, told.due
told.look()
assert told.process == 0
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
def test_a_call_below_itself_is_refused_however_it_spells_the_address(lab: Lab) -> None:
    other = [*lab.argv("--ttl", LONG, command=["true"])]
    other[other.index(lab.lock)] = lab.lock + "/"
    run = lab.start("--ttl", LONG, command=other)
    assert run.wait() == UNUSABLE
    assert "and would wait for itself forever: give it another --name" in run.said
    lab.next_one()


def test_a_call_below_itself_is_refused_before_its_holder_is_written_down(filed: Lab) -> None:
    other = [*filed.argv("--ttl", LONG, command=["true"])]
    other[other.index(filed.lock)] = filed.lock + "/"
    (filed.locks / f"{filed.name}.json").mkdir(parents=True)  # so that no record can be written
    run = filed.start("--ttl", LONG, command=other)
    assert run.wait() == UNUSABLE
    assert "and would wait for itself forever: give it another --name" in run.said


@pytest.mark.parametrize("backend", ["leasefile"])
def test_a_call_below_another_that_gives_up_at_once_leaves_nothing_behind(lab: Lab, tmp_path: Path) -> None:
    holding(lab)
    with Lab(tmp_path / "outer") as outer:
        calls = [outer.start(command=lab.argv("-n", "-q", command=["true"])) for _ in range(8)]
        assert [run.wait() for run in calls] == [75] * 8
        assert not [run.said for run in calls if "left process" in run.said]


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
    lab.names_its_holder()
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


@BOTH
def test_whoever_waits_is_reminded_of_it(lab: Lab) -> None:
    first = holding(lab)
    (lab.directory / "sitecustomize.py").write_text(REMIND)
    path = f"{lab.directory}{os.pathsep}{environment()['PYTHONPATH']}"
    run = lab.start(command=lab.job("leave"), environ=environment(PYTHONPATH=path))
    until(lambda: run.said.count("\n") > 3, "it to say again that it waits")
    lab.finish()
    assert first.wait() == 0
    assert run.wait() == 0
    *waiting, last = [line for line in run.said.splitlines() if "left process" not in line]
    assert {line.partition(" for lock ")[2] for line in waiting} == {waiting[0].partition(" for lock ")[2]}
    assert last.startswith(f"singleton-run: got lock '{lab.name}' after ")


@BOTH
def test_while_there_is_nothing_to_say_nobody_is_there_to_say_it(lab: Lab) -> None:
    first = holding(lab)
    run = lab.start("-v", command=lab.long_job())
    run.hears("waiting for lock")
    until(lambda: not run.all("writer"), "the writer to end")
    lab.finish()
    assert first.wait() == 0
    assert run.wait() == 0
    waiting, got, *rest = (line for line in run.said.splitlines() if " for 1m" not in line)
    assert waiting.startswith("singleton-run: waiting for lock"), run.said
    assert got.startswith("singleton-run: got lock"), run.said
    assert " after " in got
    assert "the command runs" in rest[0]


@BOTH
def test_a_writer_that_fails_in_a_wait_does_not_end_the_call(lab: Lab) -> None:
    first = holding(lab)
    (lab.directory / "sitecustomize.py").write_text(REMIND)
    path = f"{lab.directory}{os.pathsep}{environment()['PYTHONPATH']}"
    run = lab.start(command=lab.job(), environ=environment(PYTHONPATH=path))
    for _ in range(3):
        run.hears("waiting for ")
        writer = run.one("writer")
        send(signal.SIGKILL, writer)
        until(lambda killed=writer: gone(killed), "the writer to end")  # type: ignore[misc]
        said = run.said.count("\n")
        until(lambda before=said: run.said.count("\n") > before, "it to say it again")  # type: ignore[misc]
    lab.finish()
    assert (first.wait(), run.wait()) == (0, 0), run.said
    lab.evidence.check(turns=2)


def test_whoever_could_not_say_that_they_wait_says_it_once_they_can() -> None:
    done = subprocess.run([sys.executable, "-c", POOR], cwd=TREE, capture_output=True, text=True, check=False)
    first, *again, last = done.stderr.splitlines()
    assert (done.returncode, first) == (0, "singleton-run: lock 'x': held"), done.stderr
    assert again
    assert all(line.startswith("singleton-run: waiting for ") for line in again)
    assert last.startswith("singleton-run: got lock 'x' after ")


def test_a_log_that_was_closed_without_a_writer_reminds_of_no_wait() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLOSED], cwd=TREE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


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
