"""A slot that is due while the last one still runs, in real processes on real servers."""

from __future__ import annotations

import signal
import subprocess
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from singleton_run.api.timestamps import rfc3339
from tests.support.harness import PROGRAM, Run, environment, send, until
from tests.support.places import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEAF = ["sh", "-c", 'trap "" TERM; "$@"; while :; do sleep 0.1; done', "sh"]
"""A command that doesn't end, and whose processes ignore SIGTERM."""


@pytest.fixture(params=["file", "etcd", "postgres"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with Place(tmp_path) as place:
        if request.param != "file":
            place.put_at(request.getfixturevalue(f"{request.param}_server"))
        yield place


def _ended(lab: Place, *runs: Run) -> None:
    for run in runs:
        send(signal.SIGKILL, run.pid)
        run.popen.wait()
    until(lambda: not lab.left(), "all processes to end")


def _steer(lab: Place, word: str) -> None:
    subprocess.run([*PROGRAM, word, lab.name, "--lock", lab.lock], env=environment(), check=True)


def test_with_replace_the_next_slot_takes_the_place_of_the_run_on_any_replica(lab: Place) -> None:
    runs = [lab.start("--every", "3s", "--overlap", "replace", command=lab.long_job()) for _ in range(2)]
    slots = lab.slots(4)
    assert all(later > earlier for earlier, later in pairwise(slots))

    def said() -> str:
        return "".join(run.said for run in runs)

    stopped = "so the last run, which still goes on, is stopped"
    until(lambda: said().count(stopped) >= 3, f"three runs to be said to be stopped; {said()}")
    assert "--retry-interrupted" not in said()
    assert "interrupted" in {run["state"] for run in lab.record()["runs"]}
    _ended(lab, *runs)
    lab.evidence.check(len(lab.evidence.slots()))


def test_with_replace_a_run_goes_on_during_a_pause_and_the_first_slot_after_it_takes_its_place(
    lab: Place,
) -> None:
    # Time enough for a busy machine to start a subcommand before the next slot.
    run = lab.start("--every", "6s", "--overlap", "replace", command=lab.long_job())
    lab.slots(1)
    lab.ready()
    _steer(lab, "pause")
    run.hears("so the last run goes on")
    lab.beats()
    assert len(lab.slots(1)) == 1
    _steer(lab, "resume")
    lab.slots(2)
    run.hears("is stopped")
    _ended(lab, run)
    lab.evidence.check(len(lab.evidence.slots()))


def test_with_replace_a_deaf_command_is_killed_and_gone_before_the_next_one_starts(lab: Place) -> None:
    runs = [
        lab.start(
            *("--every", "4s", "--overlap", "replace", "--kill-after", "300ms"),
            command=[*DEAF, *lab.job("leave", "ignore")],
        )
        for _ in range(2)
    ]
    slots = lab.slots(3)
    assert slots == sorted(set(slots))
    _ended(lab, *runs)
    lab.evidence.check(len(lab.evidence.slots()))


def _run_over_the_next_slot(lab: Place, overlap: str) -> tuple[list[Run], float]:
    """Two replicas, and a run of the first slot that ends a second after the next one's time."""
    runs = [lab.start("--every", "6s", "--overlap", overlap, command=lab.long_job()) for _ in range(2)]
    first = lab.slots(1)[0]
    until(lambda: time.time() > first + 7.0, "the next slot's time to pass")
    lab.finish()
    return runs, first


def test_with_skip_a_slot_is_passed_over_and_each_replica_says_so_once(lab: Place) -> None:
    runs, first = _run_over_the_next_slot(lab, "Forbid")
    assert first + 6.0 not in lab.slots(2)
    passed_over = (
        f"slot {rfc3339(int(first + 6.0))} of {lab.name!r} is passed over: the last run still went on"
    )
    until(lambda: all(passed_over in run.said for run in runs), "both replicas to say it")
    lab.slots(3)
    assert [run.said.count(passed_over) for run in runs] == [1, 1]
    _ended(lab, *runs)
    lab.evidence.check(len(lab.evidence.slots()))


def test_with_queue_the_slot_starts_when_the_run_ends(lab: Place) -> None:
    runs, first = _run_over_the_next_slot(lab, "queue")
    assert lab.slots(2)[1] == first + 6.0
    assert "passed over" not in "".join(run.said for run in runs)
    _ended(lab, *runs)
    lab.evidence.check(len(lab.evidence.slots()))


@pytest.mark.parametrize("lab", ["etcd"], indirect=True)
def test_a_single_call_passes_its_slot_over_with_skip_and_ends_with_0(lab: Place) -> None:
    options = ["--no-loop", "--every", "3s", "--overlap", "skip"]
    first = lab.start(*options, command=lab.long_job())
    slot = lab.slots(1)[0]
    first.hears("is passed over")
    second = lab.start(*options, command=lab.job())
    assert second.wait() == 0
    assert "nothing to do, the last run still went on when it was due" in second.said
    assert lab.slots(1) == [slot]
    lab.finish()
    assert first.wait() == 0


@pytest.mark.parametrize("lab", ["postgres"], indirect=True)
def test_a_single_call_gives_way_to_the_next_with_replace(lab: Place) -> None:
    options = ["--no-loop", "--every", "4s", "--overlap", "replace"]
    first = lab.start(*options, command=lab.long_job())
    lab.slots(1)
    first.hears("is stopped")
    assert first.wait() == 128 + signal.SIGTERM
    second = lab.start(*options, command=lab.job())
    assert second.wait() == 0
    assert len(set(lab.slots(2))) == 2
