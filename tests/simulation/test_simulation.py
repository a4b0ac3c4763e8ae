"""The decisions, through many simulated histories: none breaks a promise, and every bug made by hand does."""

from __future__ import annotations

import os

import pytest

from tests.simulation.__main__ import play_at_once
from tests.simulation.bugs import BUGS, planted
from tests.simulation.history import play
from tests.simulation.tables import show

EVENTS = 5_000_000
ENOUGH = 3000


def test_no_promise_is_broken_in_five_million_events(capsys: pytest.CaptureFixture[str]) -> None:
    totals = play_at_once(range(1, 10**6), events=EVENTS, jobs=os.cpu_count() or 1)
    with capsys.disabled():
        print(f"\n{show(totals)}")
    assert totals.broken == []
    assert totals.events >= EVENTS
    assert totals.faults >= 0.9 * totals.turns


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_made_by_hand_is_caught(bug: str) -> None:
    with planted(bug):
        assert any(play(seed, {})[1] for seed in range(1, ENOUGH))


def test_a_seed_has_one_history() -> None:
    first, second = (play(7, {}, logged=True)[0].log for _ in range(2))
    assert first
    assert first == second


def test_what_was_planted_is_taken_out_again() -> None:
    before = play(1, {}, logged=True)[0].log
    with planted("release-before-proof"):
        pass
    assert play(1, {}, logged=True)[0].log == before


def test_every_phase_of_a_turn_meets_every_death() -> None:
    visits: dict[tuple[str, str, str], int] = {}
    for seed in range(1, 300):
        play(seed, visits)
    for phase in ("waiting", "starting", "running", "settling"):
        for event in ("keeper_died", "guard_died", "look", "trouble"):
            assert visits.get(("turn", phase, event)), (phase, event)
