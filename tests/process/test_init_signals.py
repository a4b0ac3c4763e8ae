"""Every signal that can be caught goes on to the command, as often and in the order in which it came."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import TREE, Lab, gone, send, state, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.harness import Run

LISTENER = TREE / "tests" / "support" / "listener.py"
END = int(signal.SIGRTMAX)
EVERY = sorted({int(number) for number in signal.valid_signals()} - {signal.SIGKILL, signal.SIGSTOP, END})
NAMED = (
    "HUP",
    "INT",
    "QUIT",
    "USR1",
    "USR2",
    "ALRM",
    "WINCH",
    "CONT",
    "TSTP",
    "TTIN",
    "TTOU",
    "PIPE",
    "CHLD",
    "ABRT",
)
BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Listening]:
    """A lock under the file backend."""
    with Listening(tmp_path) as lab:
        yield lab


class Listening(Lab):
    """A lab whose command takes down the signals that it gets."""

    def listen(self, *options: str, words: tuple[str, ...] = ()) -> Run:
        """Start it, and wait until it misses nothing."""
        run = self.start(*options, command=self.listener(*words))
        for who in ("command", *words):
            until(partial(self.process, who), f"the {who} to listen; {run.said}")
        return run

    def listener(self, *words: str) -> list[str]:
        """The command."""
        return [sys.executable, "-I", "-S", str(LISTENER), str(self.directory / "heard"), *words]

    def _lines(self) -> list[list[str]]:
        file = self.directory / "heard"
        text = file.read_text() if file.exists() else ""
        return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def process(self, who: str) -> int:
        """The process id of the command or of its child, 0 if it does not listen yet."""
        return next((int(line[2]) for line in self._lines() if line[:2] == [who, "ready"]), 0)

    def heard(self, who: str = "command") -> list[int]:
        """What has come to the command or to its child, in this order."""
        return [int(line[1]) for line in self._lines() if line[0] == who and line[1] != "ready"]

    def hears(self, *numbers: int, who: str = "command") -> None:
        """Wait until this has come, and nothing else."""
        until(lambda: len(self.heard(who)) >= len(numbers), f"{numbers} where {self.heard(who)} came")
        assert self.heard(who) == list(numbers)

    def end(self, run: Run) -> None:
        """Let the child end, if there is one, and then the command; singleton-run ends well."""
        if child := self.process("child"):
            send(END, child)
            until(lambda: gone(child), "the child to end")
        send(END, run.pid)
        assert run.wait() == 0
        assert self.heard()[-1] == END


def one_by_one(lab: Listening, front: int, numbers: list[int], *others: str) -> None:
    """Send each to the front when the one before it has come to the command, and to those others."""
    for count, number in enumerate(numbers, 1):
        send(number, front)
        for who in ("command", *others):
            lab.hears(*numbers[:count], who=who)


def test_all_signals_that_anybody_names_are_among_those_that_are_tried() -> None:
    assert {int(getattr(signal, "SIG" + name)) for name in NAMED} <= set(EVERY)
    assert set(range(signal.SIGRTMIN, signal.SIGRTMAX)) <= set(EVERY)


@BOTH
def test_every_signal_reaches_the_command_and_its_group(tmp_path: Path, backend: str) -> None:
    with Listening(tmp_path, backend) as lab:
        run = lab.listen(words=("child",))
        ours = [run.pid, run.one("guard")]
        one_by_one(lab, run.pid, EVERY, "child")
        assert not [process for process in ours if gone(process) or state(process) == "T"]
        lab.end(run)
        assert run.said == ""


def test_without_a_terminal_the_command_has_a_session_and_a_group_of_its_own(lab: Listening) -> None:
    run = lab.listen()
    command = lab.process("command")
    assert os.getsid(command) == os.getpgid(command) == command
    assert os.getsid(run.pid) == os.getpgid(run.pid) == run.pid
    lab.end(run)


def test_to_the_command_alone_if_that_is_asked_for(lab: Listening) -> None:
    run = lab.listen("--signal-command-only", words=("child",))
    one_by_one(lab, run.pid, EVERY)
    lab.end(run)
    lab.hears(END, who="child")


def test_every_signal_reaches_the_command_when_its_guard_was_killed(lab: Listening) -> None:
    # With less the writer would end after a second, and the kernel drops a SIGCHLD while another is pending.
    run = lab.listen("-vv", words=("child",))
    send(signal.SIGKILL, run.one("guard"))
    run.hears("the guard of the command was killed")
    one_by_one(lab, run.pid, EVERY, "child")
    lab.end(run)


def test_real_time_signals_come_as_often_as_they_were_sent(lab: Listening) -> None:
    run = lab.listen()
    first = int(signal.SIGRTMIN)
    sent = [first + count % 5 for count in range(200)]
    for number in sent:
        send(number, run.pid)
    until(lambda: len(lab.heard()) == len(sent), "all of them")
    assert sorted(lab.heard()) == sorted(sent)
    lab.end(run)


def test_signals_to_all_of_our_processes_end_only_the_command(tmp_path: Path) -> None:
    """As a service manager sends them that stops everything in a control group."""
    with Listening(tmp_path, "leasefile") as lab:
        run = lab.listen("-vv")
        ours = [run.pid, run.one("guard"), run.one("keeper"), run.one("writer")]
        for number in EVERY:
            send(number, *ours[1:])
        one_by_one(lab, run.pid, [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
        assert not [process for process in ours if gone(process)]
        send(END, *ours)
        assert run.wait() == 0
        lab.next_one()


# Signals in the place of others.


@pytest.mark.parametrize(
    ("options", "sent", "come"),
    [
        (["--rewrite-signal", "TERM:INT"], ["TERM"], ["INT"]),
        (["--rewrite-signal", "15:2"], ["TERM"], ["INT"]),
        (["--rewrite-signal", "sigterm:RTMIN+3"], ["TERM"], ["RTMIN+3"]),
        (["--rewrite-signal", "RTMIN+3:USR1"], ["RTMIN+3"], ["USR1"]),
        (["--rewrite-signal", "HUP:0"], ["HUP", "USR1"], ["USR1"]),
        (["--rewrite-signal", "TERM:INT", "--rewrite-signal", "INT:QUIT"], ["TERM", "INT"], ["INT", "QUIT"]),
        (["--rewrite-signal", "TERM:INT,HUP:USR1"], ["HUP", "TERM", "USR2"], ["USR1", "INT", "USR2"]),
        (["--rewrite-signal", "CHLD:USR1"], ["CHLD"], ["USR1"]),
    ],
    ids=lambda words: "-".join(words).replace("--rewrite-signal-", ""),
)
@pytest.mark.parametrize("more", [[], ["--signal-command-only"]], ids=["group", "alone"])
def test_a_signal_in_the_place_of_another(
    lab: Listening, more: list[str], options: list[str], sent: list[str], come: list[str]
) -> None:
    run = lab.listen(*options, *more)
    heard: list[int] = []
    swallowed = len(sent) - len(come)
    for count, name in enumerate(sent):
        send(number_of(name), run.pid)
        heard = [number_of(name) for name in come[: max(0, count + 1 - swallowed)]]
        lab.hears(*heard)
    lab.end(run)
    lab.hears(*heard, END)


def number_of(name: str) -> int:
    """A signal's number, by what an option calls it."""
    name, _, offset = name.partition("+")
    return int(getattr(signal, "SIG" + name)) + int(offset or 0)


def test_a_stop_that_the_kernel_would_withhold_by_one_that_it_does_not(lab: Listening) -> None:
    """Without a terminal SIGTSTP does nothing by itself: a group without a shell above it isn't stopped."""
    command = "import os, signal; os.write(1, b'up'); signal.pause()"
    run = lab.start("--rewrite-signal", "TSTP:STOP", command=[sys.executable, "-S", "-c", command])
    until(lambda: run.out, "the command to run")
    process = child_of(run.one("guard"))
    send(signal.SIGTSTP, run.pid)
    until(lambda: state(process) == "T", "the command to stop")
    send(signal.SIGCONT, run.pid)
    until(lambda: state(process) == "S", "the command to go on")
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGTERM


def child_of(process: int) -> int:
    """The one child of a process."""
    (child,) = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(child)


def test_a_rewritten_stop_is_still_a_stop_for_kill_after(lab: Listening) -> None:
    # Long enough for a busy machine to let the command write down what came.
    run = lab.listen("--rewrite-signal", "TERM:USR1", "--kill-after", "3s")
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGKILL
    lab.hears(signal.SIGUSR1)


def test_a_swallowed_stop_is_none(lab: Listening) -> None:
    run = lab.listen("--rewrite-signal", "TERM:0", "--kill-after", "1ms")
    send(signal.SIGTERM, run.pid)
    send(signal.SIGUSR1, run.pid)
    lab.hears(signal.SIGUSR1)
    lab.end(run)
