"""The Date of an answer, read without the modules that know dates."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleton_run.api.http.date import seconds
from singleton_run.api.servers import ServerClock
from singleton_run.system import calls


@given(st.integers(min_value=0, max_value=253402300799))
def test_a_date_is_read_as_it_was_written(at: int) -> None:
    assert seconds(formatdate(at, usegmt=True)) == at


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun, x Nov 1994 08:49:37 GMT",
    ],
)
def test_what_is_no_date_tells_no_time(text: str) -> None:
    assert seconds(text) is None
    clock = ServerClock()
    clock.read(text, 1.0, 2.0)
    assert clock.offset() is None


def test_a_server_is_ahead_by_what_its_date_says_and_no_more_exactly_than_that() -> None:
    clock = ServerClock()
    assert clock.offset() is None
    heard = calls.now()
    clock.read(formatdate(time.time() + 100.0, usegmt=True), heard - 2.0, heard)
    told = clock.offset()
    assert told is not None
    offset, exact = told
    # It was said 1 s ago, give or take 1 s, and is cut to the second.
    assert exact == pytest.approx(1.5)
    assert offset + exact >= 100.0
    assert offset - exact <= 102.0


def test_a_server_that_tells_fractions_is_known_as_exactly_as_its_answer_was_quick() -> None:
    clock = ServerClock()
    before, heard = time.time(), calls.now()
    clock.read(before + 100.0, heard - 2.0, heard)
    assert clock.at(heard + 5.0) == pytest.approx(before + 105.0)
    told = clock.offset()
    assert told is not None
    offset, exact = told
    assert exact == pytest.approx(1.0)
    assert offset - exact <= 100.001
    assert offset + exact >= 100.0
