"""What a record says of a schedule: the next slot, one that was missed, and which lock is stale."""

from __future__ import annotations

from typing import Any

import pytest

from singleton_run.api.timestamps import rfc3339, unix_time
from singleton_run.commands import facts
from singleton_run.commands.schedules import schedule_of
from singleton_run.errors import Failure
from singleton_run.schedule import slot_times
from singleton_run.schedule.schedule_text import slots_of
from tests.unit.commands.samples import NOW, record, slot_of

HOUR = 3600.0


def told_of(slot: dict[str, Any], state: str = "succeeded", now: float = NOW, *, runs: bool = False) -> Any:
    return schedule_of(record(state, slot=slot), now, runs=runs)


@pytest.mark.parametrize(
    "slots",
    [
        slot_times.Grid(60.0, NOW),
        slot_times.Grid(5400.0, NOW - 0.5),
        slot_times.Grid(1.0, 0.0),
        slot_times.Grid(3600.0001, NOW),
        slot_times.Grid(90 * 366 * 86400.0, NOW),
        slot_times.Cron("*/5 * * * *", "UTC"),
        slot_times.Cron("30 2 * * 1-5", "Europe/Berlin"),
        slot_times.Cron("15 30 2 * * *", "America/New_York"),
        slot_times.Cron("@daily", "UTC"),
    ],
)
def test_the_text_in_a_record_is_the_schedule_again(slots: Any) -> None:
    again = slots_of(slots.text, getattr(slots, "anchor", 0.0))
    assert again.text == slots.text
    at = NOW
    for _ in range(20):
        assert again.next(at) == slots.next(at)
        at = slots.next(at)


@pytest.mark.parametrize(
    "text",
    [
        *("", "every", "every ", "every x", "every 0s", "every 1ms", "every 0.0000001s", "never"),
        *("cron", "cron ", "cron *", "cron * * * UTC", "cron 99 * * * * UTC"),
        *("cron * * * * * ../../etc/passwd", "cron * * * * * Europe/Nowhere"),
    ],
)
def test_a_text_that_is_no_schedule_here_is_refused(text: str) -> None:
    with pytest.raises(Failure):
        slots_of(text, NOW)


def test_the_next_slot_is_told() -> None:
    told = told_of(slot_of(at=NOW - 60))
    assert (told["text"], told["slot"], told["attempt"]) == ("every 1h", rfc3339(NOW - 60), 1)
    assert (told["next"], told["missed"], told["note"]) == (rfc3339(NOW - 60 + HOUR), None, None)
    told = told_of(slot_of("cron 0 11 * * * Europe/Berlin"))
    following = unix_time(told["next"])
    assert following is not None
    assert NOW < following <= NOW + 86_400


def test_what_happens_to_a_slot_that_overlaps_is_told() -> None:
    assert told_of(slot_of())["overlap"] == "queue"
    assert told_of(slot_of(overlap="replace"))["overlap"] == "replace"
    assert told_of(slot_of(overlap=7))["overlap"] == "queue"


def test_a_time_zone_that_is_not_known_here_is_named() -> None:
    told = told_of(slot_of("cron 0 11 * * * Europe/Nowhere"))
    assert (told["next"], told["missed"]) == (None, None)
    assert "Europe/Nowhere isn't known on this machine" in told["note"]


def test_a_schedule_that_ends_has_no_next_slot() -> None:
    assert told_of(slot_of("cron 0 0 29 2 1 UTC"))["note"] is None
    assert told_of(slot_of(at=2e11, text="every 1h"))["next"] is not None
    assert schedule_of(None, NOW, runs=False) is None
    assert schedule_of(record(), NOW, runs=False) is None
    assert schedule_of({**record(), "slot": {"slot": "x"}}, NOW, runs=False) is None


@pytest.mark.parametrize(
    ("text", "behind", "missed"),
    [
        ("every 1h", HOUR - 1, None),
        ("every 1h", HOUR + 299, None),
        ("every 1h", HOUR + 301, HOUR),
        ("every 1h", 2 * HOUR + 1, HOUR),
        ("every 1h", 2 * HOUR + 301, 2 * HOUR),
        ("every 10s", 14, None),
        ("every 10s", 16, 10),
        ("every 30s", 29, None),
    ],
)
def test_a_slot_is_missed_when_it_has_not_been_started_for_a_while(
    text: str, behind: float, missed: float | None
) -> None:
    last = NOW - behind
    found = told_of(slot_of(text, at=last))
    assert found["missed"] == (None if missed is None else rfc3339(last + missed))
    assert facts.is_stale(found) == (missed is not None)


@pytest.mark.parametrize(
    ("state", "stale"),
    [("succeeded", False), ("failed", True), ("interrupted", True), ("lost", True), ("running", True)],
)
def test_a_lock_is_stale_if_its_last_slot_did_not_succeed(state: str, stale: bool) -> None:
    assert facts.is_stale(told_of(slot_of(), state)) == stale


def test_a_slot_that_runs_is_not_stale_and_a_lock_without_one_neither() -> None:
    found = told_of(slot_of(), "running", runs=True)
    assert found["state"] == "running"
    assert not facts.is_stale(found)
    assert not facts.is_stale(None)


def test_a_slot_of_an_earlier_run_does_not_run_with_a_later_one() -> None:
    found = told_of({**slot_of(), "start": NOW - 9999}, "running", runs=True)
    assert found["state"] == "crashed"
