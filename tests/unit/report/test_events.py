"""The events have one table, and what the front sends is in it."""

from __future__ import annotations

import pytest

from singleton_run.report.events import EVENTS
from singleton_run.report.sentences import SENTENCES
from singleton_run.reporter.translation import translated

FACTS = {"pid": 7, "by": "ada", "text": "no", "number": 2.0, "slot": 60.0, "status": 1, "token": 3}
OWN = {"level", "key", "command", "verb", "pid", "by", "number", "slot", "status", "token", "text"}


@pytest.mark.parametrize("word", SENTENCES)
def test_a_word_of_the_log_becomes_events_of_the_table(word: str) -> None:
    for event, fields in translated(word, dict(FACTS)):
        assert event in EVENTS
        assert set(fields) - OWN <= set(EVENTS[event].split())


def test_a_missed_slot_is_counted_and_named() -> None:
    assert translated("missed", {"number": 3.0}) == [
        ("skipped", {"slot": None, "reason": "missed", "number": 3.0})
    ]
    assert translated("skipped", {"number": 60.0}) == [
        ("skipped", {"slot": 60.0, "reason": "deadline", "number": 1})
    ]


def test_a_lost_lock_ends_the_command() -> None:
    told = translated("lost", {"text": "the key is gone"})
    assert [event for event, _ in told] == ["lost", "killed"]
