"""A replica that rests for long is a small program, and nobody else sees a difference."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import LONG, Lab, Run, below, environment, gone, labs, send, stat_of, title, until

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORTEST = 36
ARGUMENTS_START = 45
TIMES = slice(11, 13)
# Whatever a command can see of how it was started, but for what is of this turn alone.
SEEN = (
    "env | grep -v -e ^SINGLETON_SLOT= -e ^SINGLETON_TOKEN= -e ^SINGLETON_ID= -e ^SINGLETON_HOLDER= | sort;"
    "grep -e ^Sig[BI] -e ^Shd /proc/self/status; ls /proc/self/fd; pwd; umask"
)


@pytest.fixture(params=["file", "leasefile"])
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lock under each kind of backend."""
    yield from labs(tmp_path, request.param)


def _environ(run: Run) -> bytes:
    return Path(f"/proc/{run.pid}/environ").read_bytes()


def _small(run: Run) -> bool:
    """It has no descriptor of its own but two timers and its signals, and no child."""
    folder = Path(f"/proc/{run.pid}/fd")
    try:
        files = [os.readlink(entry) for entry in folder.iterdir() if int(entry.name) > 2]
    except OSError:
        return False
    own = sorted(file for file in files if file != os.devnull)
    return own == ["anon_inode:[signalfd]", *["anon_inode:[timerfd]"] * 2] and below(run.pid) == []


def _program(run: Run) -> str:
    """What tells one program in the same process from the next."""
    fields = stat_of(run.pid)
    return "" if fields is None else fields[ARGUMENTS_START]


def _resting(run: Run, lab: Lab, but: str = "") -> str:
    """Wait until it rests as a small program. What tells that program from others."""

    def look() -> str:
        program = _program(run)
        told = b"_SINGLETON_RUN_RESTED=" in _environ(run)
        shown = title(run.pid) == f"singleton-run: front of {lab.name}"
        return program if told and shown and program != but and _small(run) else ""

    return until(look, "the replica to rest")


@pytest.mark.parametrize("options", [["--every", "1h"], ["--once", "v1"], []], ids=["slot", "key", "plain"])
def test_nobody_of_ours_uses_the_processor_while_the_command_runs(lab: Lab, options: list[str]) -> None:
    run = lab.start("--ttl", LONG, *options, command=lab.long_job())
    lab.ready()
    ours = [process for process in (run.pid, *below(run.pid)) if title(process).startswith("singleton-run: ")]

    def used() -> list[list[str]]:
        return [fields[TIMES] for process in ours if (fields := stat_of(process))]

    def sleep() -> bool:
        before = used()
        lab.beats()
        return used() == before

    until(sleep, "all to sleep")


def test_a_rest_is_over_at_a_signal_that_asks_to_stop(lab: Lab) -> None:
    run = lab.start("--every", "1h", "-v", command=["true"])
    _resting(run, lab)
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 0
    assert run.said.splitlines()[-1].startswith(f"singleton-run: the next slot of '{lab.name}' is ")


def test_it_rests_on_after_a_signal_that_does_not(lab: Lab) -> None:
    run = lab.start("--every", "1h", "-v", command=["true"])
    first = _resting(run, lab)
    said = run.said
    send(signal.SIGWINCH, run.pid)
    second = _resting(run, lab, but=first)
    send(signal.SIGCONT, run.pid)
    _resting(run, lab, but=second)
    assert run.said == said
    send(signal.SIGKILL, run.pid)
    until(lambda: gone(run.pid), "the replica to be gone")


def test_the_command_of_the_slot_after_it_is_started_as_the_first_one_was(lab: Lab) -> None:
    via = 'trap "" USR2; exec 7</dev/null; exec "$@"'
    environ = environment(LC_CTYPE="C")  # which Python changes for itself
    command = ["sh", "-c", SEEN + "; echo over"]
    run = lab.start("--every", f"{SHORTEST}s", "-v", command=command, via=via, environ=environ)
    _resting(run, lab)
    until(lambda: run.out.count(b"over\n") == 2, "the next slot's command to have run", SHORTEST + 30.0)
    # Each run has a holder of its own, whose digest SINGLETON_HELD has as its last word.
    first, second, _ = re.sub(rb"(?m)^(SINGLETON_HELD=.*) \w+$", rb"\1", run.out).split(b"over\n")
    assert b"SINGLETON_HELD=" in first
    assert first == second
    _resting(run, lab)  # or the command may not be over yet
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 0
    assert run.said.count("got lock") == 2
