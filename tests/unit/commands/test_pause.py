"""When a pause ends, by what people write."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from singleton_run.api import control
from singleton_run.commands import pause
from singleton_run.system import fastjson

if TYPE_CHECKING:
    from collections.abc import Iterator

NOON = 1_795_867_200.0
"""2026-11-28T12:00:00Z"""


@pytest.fixture(autouse=True)
def _zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Berlin, an hour ahead in winter."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("2026-11-28T13:00:00Z", 1),
        ("2026-11-28T13:00:00+01:00", 0.001),
        ("2026-11-28 14:00", 1),
        ("2026-11-28 14:00:00", 1),
        ("2026-11-29T13:00", 24),
        ("14:30", 1.5),
        ("13:00:01", 1 / 3600),
        ("13:00", 24),
        ("08:00", 19),
    ],
)
def test_a_time(text: str, hours: float) -> None:
    now = NOON - 3.6 if text.endswith("+01:00") else NOON
    assert pause.instant(text, now) == pytest.approx(now + hours * 3600)


def test_a_time_of_day_is_the_next_one_over_a_change_of_the_clocks() -> None:
    evening = NOON - 35 * 86400 + 8 * 3600  # 2026-10-24 22:00 in summer time; that night has 25 hours
    assert pause.instant("08:00", evening) == evening + 11 * 3600


@pytest.mark.parametrize("text", ["2026-11-28T12:00:00Z", "2026-11-28 12:59", "1999-01-01 00:00"])
def test_what_is_over_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is over"):
        pause.instant(text, NOON)


@pytest.mark.parametrize(
    "text",
    ["", "x", "8", "25:00", "24:00", "2026-12-01", "2026-13-01 08:00", "0001-01-01 00:00", "1h", "12:3"],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no time such as|is over"):
        pause.instant(text, NOON)


def test_the_end_is_a_time_or_a_length_or_neither() -> None:
    assert pause.end_of({"until": None, "for": None}, NOON) == (None, None)
    assert pause.end_of({"until": None, "for": "90"}, NOON) == (None, 90.0)
    assert pause.end_of({"until": "13:01", "for": None}, NOON) == (NOON + 60, None)
    for wrong in ({"until": "13:01", "for": "90"}, {"for": "x"}, {"until": "x"}):
        with pytest.raises(ValueError, match=r"--until|--for"):
            pause.end_of(wrong, NOON)


def test_a_reason_is_one_line_that_leaves_the_control_readable() -> None:
    assert pause.checked_reason("a\nb\x1b[2J") == "a\\nb\\x1b[2J"
    longest = pause.checked_reason("x" * control.LONGEST_REASON)
    made = control.paused(None, by="b" * 200, at=NOON, until=NOON + 1, reason=longest)
    ordered = control.ordered(made, holder="h" * 300, token=1 << 62, by="b" * 200, at=NOON)
    assert control.parsed(fastjson.dumps(ordered)) == ordered
    for wrong in ("x" * (control.LONGEST_REASON + 1), "\N{BUG}" * 200):
        with pytest.raises(ValueError, match="too long"):
            pause.checked_reason(wrong)
