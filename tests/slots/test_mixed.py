"""Replicas that do not agree: on the ttl, on the schedule; and `--once` with one that crashes again."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import Lab, kill_tree, labs, send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])
# Counts its calls in a file, and kills its own wrapper, the ancestor that is called a front, three times.
CRASHES = """
count=$(cat count 2>/dev/null || echo 0)
echo $((count + 1)) > count
[ "$count" -lt 3 ] || exit 0
front=$$
until tr '\\0' ' ' < /proc/$front/cmdline | grep -q '^singleton-run: front of'; do
    front=$(sed 's/.*) . //; s/ .*//' /proc/$front/stat)
done
kill -9 "$front"
sleep 600
"""


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Lab]:
    """A lock under that backend."""
    yield from labs(tmp_path, backend)


def test_a_lost_machine_s_own_ttl_counts_and_not_the_waiter_s(tmp_path: Path) -> None:
    with Lab(tmp_path, "leasefile") as lab:
        short = lab.start("--ttl", "6s", command=lab.long_job())
        lab.ready()
        long = lab.start("--ttl", "300s", command=lab.long_job())
        long.hears("waiting for lock")
        kill_tree(short.pid)
        lab.ready(2)
        short_again = lab.start("--ttl", "6s", command=lab.job())
        short_again.hears("waiting for lock")
        lab.beats()
        lab.finish()
        assert (long.wait(), short_again.wait()) == (0, 0)
        lab.evidence.check(turns=3)


@BOTH
def test_the_death_of_a_wrapper_frees_the_lock_at_once_whatever_its_ttl(lab: Lab) -> None:
    first = lab.start("--ttl", "300s", command=lab.long_job())
    lab.ready()
    second = lab.start("--ttl", "6s", command=lab.job())
    second.hears("waiting for lock")
    send(signal.SIGKILL, first.pid)
    assert second.wait() == 0
    lab.evidence.check(turns=2)


@BOTH
def test_two_schedules_under_one_name_start_no_slot_twice_and_none_that_is_older(lab: Lab) -> None:
    for every in ("1s", "2s", "1s", "3s", "1s", "2s"):
        run = lab.start("--every", every, "--no-loop", "--wait", "0s", command=lab.job())
        assert run.wait() in (0, 75), run.said
    slots = [slot.time for slot in lab.evidence.slots()]
    assert slots
    assert slots == sorted(set(slots))
    lab.evidence.check(turns=len(slots))


@BOTH
def test_what_crashes_again_and_again_is_run_until_it_has_succeeded_once(lab: Lab) -> None:
    for _ in range(3):
        crashed = lab.start("--once", "v1", command=["sh", "-c", CRASHES])
        assert crashed.wait() == -signal.SIGKILL, crashed.said
    good, later = (lab.start("--once", "v1", command=["sh", "-c", CRASHES]) for _ in range(2))
    assert (good.wait(), later.wait()) == (0, 0), good.said + later.said
    assert (lab.directory / "count").read_text() == "4\n"
