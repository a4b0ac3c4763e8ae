"""Durations: what is read, what is refused, and that what is written reads as the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleton_run import durations

# fmt: off
NO_DURATIONS = [
    "nan", "NaN", "inf", "-inf", "infinity", "-1", "-5s", "+5", "5m5m", "30s1m", "5ms1s", "1m30", "s",
    "m5", ".", "1.", ".5", "1.2.3", "5x", "5M", "5S", "1e3", "1_000", "0x10", "forever", "5,5", "²",
    "٣", "٣s", "1½", "P", "PT", "P1", "PT5", "PT5M5M", "PT5S1M", "P1Y", "P1M", "P1H", "PT1D", "p1d",
    "pt5m", "P-1D", "PT-5M", "P1DT", "1dT2H", "40000d", "4000000000",
]
# fmt: on


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0),
        ("90", 90.0),
        ("90s", 90.0),
        ("1.5h", 5400.0),
        ("1m30s", 90.0),
        ("1h", 3600.0),
        ("2d", 172_800.0),
        ("1d2h3m4s5ms", 93_784.005),
        ("500ms", 0.5),
        ("0.1", 0.1),
        ("1m0.25s", 60.25),
        ("PT5M", 300.0),
        ("P1DT2H", 93_600.0),
        ("PT1.5S", 1.5),
        ("P2W", 1_209_600.0),
        ("36500d", 3_153_600_000.0),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, expected: float) -> None:
    assert durations.seconds(text) == expected


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_what_is_no_duration_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as refusal:
        durations.seconds(text)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["", " ", "5 ", " 5", "5 s", "5\n", "9" * 5000, "1" + "0" * 400 + "d", "0." + "0" * 400]
)
def test_blanks_and_endless_numbers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|unit"):
        durations.seconds(text)


@given(st.text())
def test_nothing_but_a_plain_duration_or_a_refusal_comes_of_any_text(text: str) -> None:
    try:
        result = durations.seconds(text)
    except ValueError:
        return
    assert 0 <= result < 2**32
    assert text[-1] in "0123456789dhmsWDHMS"


@given(st.integers(min_value=0, max_value=36_500 * 86_400_000))
def test_what_is_written_reads_as_the_same(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert durations.seconds(durations.text(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"),
        (0.35, "350ms"),
        (1.5, "1.5s"),
        (10, "10s"),
        (90, "1m30s"),
        (90.25, "1m30.25s"),
        (3600, "1h"),
        (3600.001, "1h0.001s"),
        (90_000, "1d1h"),
        (59.9999, "1m"),
        (0.0001, "0s"),
    ],
)
def test_durations_are_written_short(seconds: float, expected: str) -> None:
    assert durations.text(seconds) == expected
