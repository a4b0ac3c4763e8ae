"""What is written of a run is read again, whatever may stand in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleton_run.api import record
from singleton_run.api.contract import Grant
from singleton_run.names import LONGEST
from singleton_run.schedule import cron_expression, slot_rules
from singleton_run.system import fastjson
from tests.unit.schedule.test_slot_rules import asked

ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/Argentina/ComodRivadavia"])
NAMES = st.integers(1, LONGEST).map(lambda length: "n" * length)
HOLDERS = st.text(min_size=1, max_size=300) | st.sampled_from(["\U0001f512" * 300, "\udcff" * 64 + ":1:a"])
STATES = st.sampled_from(["running", "succeeded", "failed", "interrupted", "crashed", "lost"])
MOMENTS = st.floats(0, 253_402_300_799) | st.integers(0, 253_402_300_799)
STATUSES = st.none() | st.integers(0, 255)
TOKENS = st.integers(0, (1 << 63) - 1)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    """A list of a field's values, among them those that nothing makes shorter."""
    every_other = [low, *range(low + 1, high + 1, 2)]
    uneven = sorted({*every_other, low + 4, low + 5, high})
    chosen = st.sets(st.integers(low, high), min_size=1).map(sorted) | st.just(uneven)
    return chosen.map(lambda values: ",".join(map(str, values)))


CRONS = st.tuples(field(0, 59), field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)).map(
    " ".join
)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Any, ...]:
    """The holder, token, start, end, state and status of a run."""
    return tuple(draw(part) for part in (HOLDERS, TOKENS, MOMENTS, MOMENTS, STATES, STATUSES))


def written(run: dict[str, Any]) -> dict[str, Any]:
    """A record as the next one reads it."""
    text = fastjson.dumps(run)
    found = record.parsed(text)
    assert found == run
    assert record.parsed_last(text) == record.without_earlier(run)
    assert found["state"] != record.UNREADABLE
    return found


@given(name=NAMES, cron=st.none() | CRONS, zone=ZONES, history=st.lists(runs(), min_size=1, max_size=8))
@settings(max_examples=100)
def test_what_is_written_down_is_read_again(
    name: str, cron: str | None, zone: str, history: list[tuple[Any, ...]]
) -> None:
    schedule: dict[str, Any] = {"every": 3600.0}
    if cron is not None:
        schedule = {"cron": cron_expression.canonical(cron), "zone": zone}
    plan = slot_rules.Plan(asked(name=name, **schedule), 0.0, lambda: 0.5)
    before: dict[str, Any] | None = None
    for holder, token, start, end, state, status in history:
        if before is not None and before["token"] == token:
            continue
        decision = plan.decide(None, start, held=False, exact=True)
        run = written(plan.started(record.started(before, name, holder, token, start), decision, start))
        last = slot_rules.last_slot(run)
        assert last is not None
        assert last["slot"] == decision.slot
        before = written(record.ended(run, state, status, end))
        plain = written(record.started(before, name, holder, token ^ 1, start))
        assert plain["slot"] == before["slot"]


@given(slot=st.dictionaries(st.text(max_size=1000), st.text(max_size=1000), max_size=10))
@settings(max_examples=50)
def test_what_a_stranger_wrote_of_a_slot_makes_no_record_unreadable(slot: dict[str, str]) -> None:
    before = record.started(None, "n", "h", 1, 1.0)
    found = record.parsed(fastjson.dumps({**before, "slot": slot}))
    written(record.started(found, "n", "h", 2, 2.0))


@given(text=st.text(max_size=30))
def test_the_earlier_runs_are_read_only_when_they_are_needed(text: str) -> None:
    run = record.started(record.started(None, "n", "h", 1, 1.0), "n", 'h,"runs":[]}', 2, 2.0)
    whole = fastjson.dumps(run)
    damaged = whole[: whole.rindex("{")] + text + "]}"
    grant = Grant("n", "h", 3, 1.0, {}, damaged)
    assert grant.last_run() == record.without_earlier(run)
    assert grant.record == record.parsed(damaged)
    assert Grant("n", "h", 3, 1.0, {}, whole).as_dict()["record"] == run


@pytest.mark.parametrize("text", ["", "x", "{}", '{"version":1}', '{"version":1,"runs":[]}', ',"runs":[]}'])
def test_what_is_no_record_is_none_without_its_earlier_runs_either(text: str) -> None:
    assert record.parsed_last(text) == record.without_earlier(record.unreadable())
