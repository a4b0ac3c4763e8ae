"""What doctor says of times, by the numbers alone."""

from __future__ import annotations

import pytest

from singleton_run.api.finding import Finding
from singleton_run.commands import timing


@pytest.mark.parametrize(
    ("median", "limit", "grade"),
    [
        (0.0004, 5.0, Finding.GOOD),
        (0.3, 1.0, Finding.WARNING),
        (1.2, 1.0, Finding.BAD),
        (6.0, 5.0, Finding.BAD),
    ],
)
def test_a_round_trip_is_judged_by_the_time_that_a_request_may_take(
    median: float, limit: float, grade: str
) -> None:
    assert timing.trip(median, limit).grade == grade


def test_a_ttl_that_would_do_for_a_slow_server_is_named() -> None:
    assert timing.trip(1.2, 1.0).todo == "give --ttl 9s or more"


@pytest.mark.parametrize(
    ("offset", "grade"),
    [
        (None, Finding.GOOD),
        ((0.4, 0.5), Finding.GOOD),
        ((1.4, 0.5), Finding.GOOD),
        ((1.6, 0.5), Finding.WARNING),
        ((-300.0, 0.001), Finding.WARNING),
    ],
)
def test_clocks_differ_when_they_do_so_surely(offset: tuple[float, float] | None, grade: str) -> None:
    assert timing.clock(offset).grade == grade


def test_whose_clock_is_ahead_is_said() -> None:
    assert "5m ahead of this machine's" in timing.clock((300.0, 0.1)).text
    assert "5m behind this machine's" in timing.clock((-300.0, 0.1)).text


def test_how_long_a_command_goes_on_without_its_lock_is_said() -> None:
    (said,) = timing.without_server(30.0, 7.0)
    assert "asked to stop 20s after" in said.text
    assert "killed after 27s" in said.text


def test_a_kill_after_that_a_lost_lock_does_not_wait_for_is_said() -> None:
    _, said = timing.without_server(30.0, 7.1)
    assert said.grade == Finding.WARNING
    assert said.todo.startswith("give --ttl 31s or more")
    assert len(list(timing.without_server(31.0, 7.1))) == 1
