"""People steer locks of the kernel's: pause, resume, release, and check by the command itself."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import UNAVAILABLE, UNUSABLE, USAGE
from tests.support.harness import LIMIT, PROGRAM, environment
from tests.support.steering import Steered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Steered]:
    with Steered(tmp_path) as lab:
        yield lab


def test_check_is_for_commands(lab: Steered) -> None:
    done = lab.check({})
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert len(done.stderr.splitlines()) == 1
    lab.hold()
    turn = lab.turn()
    for options in (("--for", "x"), ("--for",), ("more",)):
        assert lab.check(turn, *options).returncode == USAGE
    assert lab.check({**turn, "SINGLETON_LOCK": "etcd://127.0.0.1:1"}).returncode == UNAVAILABLE
    assert lab.check({**turn, "SINGLETON_LOCK": "nonsense"}).returncode == UNUSABLE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pause"], "NAME"),
        (["pause", "a/b"], "'/'"),
        (["pause", "x", "--until", "tomorrow"], "no time such as"),
        (["pause", "x", "--until", "2020-01-01 08:00"], "is over"),
        (["pause", "x", "--for", "soon"], "--for"),
        (["pause", "x", "--for", "1h", "--until", "08:00"], "contradict"),
        (["suspend", "x", "--reason", "y" * 501], "too long"),
        (["resume", ""], "empty"),
        (["release", "x", "y"], "unexpected"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(lab: Steered, words: list[str], said: str) -> None:
    done = subprocess.run(
        [*PROGRAM, *words],
        env=environment(SINGLETON_RUN_LOCK=lab.lock),
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(lab.locks.iterdir()) == []
