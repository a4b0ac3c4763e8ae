"""Commands that make it hard: users whom we may not signal, what can't be killed, thousands of processes."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import (
    Lab,
    below,
    children_of,
    gone,
    labs,
    ours,
    python,
    send,
    send_if_there,
    state,
    title,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.harness import Run

BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="to become another user one has to be root")
SOMEBODY = ["--reuid", "4711", "--regid", "4711", "--clear-groups"]
# As in a container that was started without CAP_KILL: root there may not signal other users either.
POWERLESS = 'exec setpriv --bounding-set=-kill --inh-caps=-kill "$@"'


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Lab]:
    """A lock under that backend."""
    yield from labs(tmp_path, backend)


def waiting(lab: Lab) -> Run:
    """Another that waits for the lock."""
    run = lab.start(command=lab.job())
    run.hears("waiting for lock")
    return run


# A command that becomes a user whom we may not signal.

BECOME = """
import os, signal, sys
if "child" in sys.argv and os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pause()
os.setgid(4711); os.setuid(4711)
if "up" in sys.argv:
    os.write(1, b"up")
signal.pause()
"""


@pytest.fixture
def other(lab: Lab) -> Iterator[Lab]:
    """A lab at whose end the other user's processes are ended too."""
    yield lab
    for run in lab.runs:
        for process in below(run.pid):
            send_if_there(signal.SIGKILL, process)
    for guard in ours(lab.name):
        for process in below(guard):
            send_if_there(signal.SIGKILL, process)


def forbidden(other: Lab, *options: str, words: tuple[str, ...] = ()) -> tuple[Run, int]:
    """singleton-run, and its command that has become another user."""
    command = [*python(BECOME), "up", *words]
    run = other.start(*options, command=command, via=POWERLESS)
    until(lambda: run.out, f"the command to run; {run.said}")
    return run, child_of(run.one("guard"))


def child_of(process: int) -> int:
    """The one child of a process."""
    (child,) = children_of(process)
    return child


def says(run: Run, process: int) -> None:
    """Wait until it says that this process may not be signalled, and what to do about it."""
    run.hears(f"process {process} (")
    line = next(line for line in run.said.splitlines() if f"process {process} (" in line)
    assert "may not be signalled" in line
    assert "sudo singleton-run -- COMMAND" in line


@ROOT
@BOTH
@pytest.mark.parametrize("words", [(), ("child",)], ids=["alone", "with a child that may be"])
def test_a_command_that_may_not_be_signalled_is_said_at_once_and_waited_for(
    other: Lab, words: tuple[str, ...]
) -> None:
    run, command = forbidden(other, words=words)
    second = waiting(other)
    send(signal.SIGTERM, run.pid)
    says(run, command)
    send(signal.SIGTERM, run.pid)
    send(signal.SIGHUP, run.pid)
    other_wait(other, second)
    assert run.said.count(f"process {command} (") == 1
    assert not gone(command)
    send(signal.SIGTERM, command)
    assert run.wait() == 128 + signal.SIGTERM
    assert second.wait() == 0


def other_wait(lab: Lab, second: Run) -> None:
    """A third comes, asks, and learns that the lock is held; so the second hasn't got it either."""
    assert lab.start("-n", command=lab.job()).wait() == 75
    assert second.popen.poll() is None
    assert lab.evidence.lines() == []


@ROOT
@BOTH
def test_not_even_a_kill_gives_the_lock_away(other: Lab) -> None:
    run, command = forbidden(other, "--timeout", "3s", "--kill-after", "200ms")
    second = waiting(other)
    says(run, command)
    other_wait(other, second)
    send(signal.SIGTERM, command)
    assert run.wait() == 124
    assert second.wait() == 0


@ROOT
@BOTH
def test_nor_does_the_death_of_the_front(other: Lab) -> None:
    run, command = forbidden(other)
    second = waiting(other)
    send(signal.SIGKILL, run.pid)
    run.hears("was killed, so its command is killed too")
    other_wait(other, second)
    assert not gone(command)
    send(signal.SIGTERM, command)
    assert second.wait() == 0


@ROOT
@BOTH
def test_what_is_left_behind_as_another_user_is_waited_for(other: Lab) -> None:
    sleeps = "until grep -qsa ^sleep /proc/$!/cmdline; do :; done"
    script = f"setpriv {' '.join(SOMEBODY)} sleep 1000 & {sleeps}; exit 3"
    run = other.start("--kill-after", "100ms", command=["sh", "-c", script], via=POWERLESS)
    run.hears("may not be signalled")
    process = int(re.findall(r"process (\d+) \(sleep 1000\) may not be", run.said)[0])
    says(run, process)
    second = waiting(other)
    other_wait(other, second)
    send(signal.SIGTERM, process)
    assert run.wait() == 3
    assert second.wait() == 0


@ROOT
@BOTH
def test_whoever_may_signal_everybody_has_no_such_trouble(other: Lab) -> None:
    """As `sudo singleton-run -- gosu USER COMMAND`."""
    run = other.start(command=[*python(BECOME), "up"])
    until(lambda: run.out, f"the command to run; {run.said}")
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGTERM
    assert run.said == ""


# By sudo itself, in both orders. Its own settings are put aside for the test.
BY_SUDO = (
    "exec unshare --mount sh -c "
    "'mount --bind sudoers /etc/sudoers && exec setpriv --reuid 65534 --regid 65534 --clear-groups "
    '--inh-caps=+dac_read_search --ambient-caps=+dac_read_search {} "$@"\' sh "$@"'
)
NOBODY_S = BY_SUDO.format("")
SUDO_FIRST = BY_SUDO.format('sudo -n env "PYTHONPATH=$PYTHONPATH"')


@pytest.fixture
def sudoers(lab: Lab) -> Lab:
    """A lab in which everybody may do everything by sudo; its lock is an ordinary user's."""
    if shutil.which("sudo") is None:
        pytest.skip("there is no sudo: apt-get install sudo")
    file = lab.directory / "sudoers"
    file.write_text("ALL ALL=(ALL:ALL) NOPASSWD: ALL\n")
    file.chmod(0o440)
    return lab


def sudo_s(sudoers: Lab, script: str, *options: str) -> tuple[Run, int]:
    """An ordinary user's singleton-run, whose command is root's by sudo; and what sudo has started."""
    for directory in (sudoers.directory, sudoers.locks):
        os.chown(directory, 65534, 65534)
    run = sudoers.start(*options, command=["sudo", "-n", "sh", "-c", script], via=NOBODY_S)
    return run, sleeper(run)


def sleeper(run: Run) -> int:
    """The process that sleeps below it, once it does."""

    def look() -> list[int]:
        return [process for process in below(run.pid) if title(process) == "sleep\0001000"]

    return until(look, f"it to sleep; {run.said}")[0]


@ROOT
@BOTH
def test_sudo_behind_us_passes_a_stop_on(sudoers: Lab) -> None:
    run, process = sudo_s(sudoers, "exec sleep 1000")
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGTERM
    assert gone(process)
    assert run.said == ""


@ROOT
@BOTH
def test_sudo_behind_us_can_not_pass_a_kill_on_so_what_it_started_is_waited_for(sudoers: Lab) -> None:
    run, process = sudo_s(sudoers, "trap '' TERM; exec sleep 1000", "--kill-after", "100ms")
    send(signal.SIGTERM, run.pid)
    says(run, process)
    second = sudoers.start("-n", command=["true"], via=NOBODY_S)
    assert second.wait() == 75
    assert not gone(process)
    send(signal.SIGKILL, process)
    assert run.wait() == 128 + signal.SIGKILL
    third = sudoers.start("-n", command=["true"], via=NOBODY_S)
    assert third.wait() == 0, third.said


@ROOT
@BOTH
def test_sudo_in_front_of_us(sudoers: Lab) -> None:
    run = sudoers.start(command=["setpriv", *SOMEBODY, "sleep", "1000"], via=SUDO_FIRST)
    sleeper(run)
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGTERM
    assert "may not be signalled" not in run.said
    sudoers.next_one()


# What was killed and does not end.


def trace(process: int) -> None:
    """Have what was killed stay until we let it go: a tracer's word comes before the parent's."""
    seize = 0x4206
    assert ctypes.CDLL(None, use_errno=True).ptrace(seize, process, None, None) == 0, os.strerror(
        ctypes.get_errno()
    )


def leaves_what_stays(lab: Lab) -> tuple[Run, int]:
    """singleton-run whose command has ended and left a process behind that will stay; and that process."""
    os.mkfifo(lab.directory / "go")
    script = "sleep 1000 & echo $!; read line < go; exit 3"
    run = lab.start("--kill-after", "100ms", command=["sh", "-c", script])
    until(lambda: run.out.endswith(b"\n"), "the command to run")
    process = int(run.out)
    trace(process)
    (lab.directory / "go").write_text("\n")
    return run, process


def test_what_does_not_end_though_killed_is_waited_for_and_said(tmp_path: Path) -> None:
    """It stands for uninterruptible sleep, which a test can't make: dead, and still not gone."""
    with Lab(tmp_path, "file") as one, Lab(tmp_path, "leasefile") as two:
        started = [(lab, *leaves_what_stays(lab), waiting(lab)) for lab in (one, two)]
        for lab, run, process, second in started:
            run.hears(f"process {process} (")
            run.hears("was killed and has not ended yet: the lock is kept until it does")
            assert state(process) == "Z"
            other_wait(lab, second)
            os.waitpid(process, 0)
            assert run.wait() == 3
            assert second.wait() == 0


# Very many processes, very short ones, and ones that run away.

MANY = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(1000):
    if os.fork() == 0:
        signal.pause()
os._exit(5)
"""


@BOTH
def test_a_thousand_processes_that_ignore_the_stop(lab: Lab) -> None:
    run = lab.start("--kill-after", "200ms", command=python(MANY))
    run.hears("the command left more processes behind, not named here")
    left = set(below(run.pid)) - set(ours(lab.name))
    assert run.wait() == 5
    assert run.said.count("asked to end") < 60
    assert all(gone(process) for process in left)
    lab.next_one()


ORPHANS = """
import os, signal
for _ in range(100):
    if os.fork() == 0:
        for _ in range(100):
            if os.fork() == 0:
                os.setsid()
                os._exit(0)
        os._exit(0)
    os.wait()
    os.write(1, b".")
signal.pause()
"""


def left_so_many(run: Run, hundreds: int) -> bool:
    """Whether the command has left so many orphans up to now."""
    return len(run.out) >= hundreds


def test_ten_thousand_orphans_are_reaped_while_the_command_runs(tmp_path: Path) -> None:
    """Each has forked twice and left its session; nobody here is process 1."""
    with Lab(tmp_path, "leasefile") as lab:
        run = lab.start(command=python(ORPHANS))
        for hundreds in range(1, 101):
            until(partial(left_so_many, run, hundreds), "the command to leave its orphans")
        guard = run.one("guard")
        until(lambda: len(children_of(guard)) == 1, "the orphans to be reaped")
        assert children_of(run.pid) == [run.one("keeper")]
        send(signal.SIGTERM, run.pid)
        assert run.wait() == 128 + signal.SIGTERM
        assert run.said == ""


RUNAWAY = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
command = os.getpid()
if os.fork():
    os._exit(6)
while True:
    if os.fork():
        os._exit(0)
    os.setsid()
"""


@BOTH
def test_one_that_forks_away_from_every_signal_is_caught(lab: Lab) -> None:
    """Each step a new process in a new session, whose parent has ended."""
    run = lab.start("--kill-after", "100ms", command=python(RUNAWAY))
    assert run.wait() == 6
    lab.next_one()


@BOTH
def test_commands_that_end_at_once_keep_their_status(lab: Lab) -> None:
    for status in range(20):
        run = lab.start(command=["sh", "-c", f"exit {status}"])
        assert (run.wait(), run.said) == (status, "")


@BOTH
def test_a_flood_of_output_goes_past_us(lab: Lab) -> None:
    size = 1_000_000_000
    read, write = os.pipe()
    run = lab.start("-vv", command=["head", "-c", str(size), "/dev/zero"], stdout=write)
    os.close(write)
    came = 0
    while data := os.read(read, 1 << 20):
        came += len(data)
    os.close(read)
    assert came == size
    assert run.wait() == 0
    assert "\0" not in run.said


@BOTH
@pytest.mark.parametrize("script", ["exec 2>&-; exec sleep 1000", "while :; do echo flood >&2; done"])
def test_a_command_that_closes_or_fills_stderr(lab: Lab, script: str) -> None:
    read, write = os.pipe()
    run = lab.start("-vv", command=["sh", "-c", f"touch up; {script}"], stderr=write)
    os.close(write)
    until((lab.directory / "up").exists, "the command to run")
    second = waiting(lab)
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGTERM
    assert second.wait() == 0
    os.close(read)
