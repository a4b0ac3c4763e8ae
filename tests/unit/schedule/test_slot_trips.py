"""A keeper's trip to a slot, driven with a made clock: what it does to the lock, and when.

The sequence is the real one; what the server answers to an operation is said by each test.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run import lease_times
from singleton_run.api.contract import Grant, Held
from singleton_run.errors import UNAVAILABLE, Refused, Unavailable
from singleton_run.job import Job
from singleton_run.keeper import decisions, slot_decisions
from singleton_run.keeper.operations import Operation, Orders, Result
from singleton_run.schedule import slot_rules, slot_times
from singleton_run.schedule.slot_rules import REST, RUN, Plan
from tests.unit.schedule.test_slot_rules import HOUR, NOON, asked, decide, last, once

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = Callable[["Trip", Operation], object]

FOREVER = float("inf")
TTL = 6.0
TOOK = 0.01
"""How long each request takes, in seconds."""


class Trip:
    """One keeper's sequence; its boot clock is in seconds after noon, as is the time of slots."""

    def __init__(
        self,
        answer: Answer,
        *,
        record: dict[str, Any] | None = None,
        begin: float = 0.0,
        wait: float | None = None,
        ttl: float = TTL,
        **wishes: Any,
    ) -> None:
        wishes.setdefault("every", HOUR)
        self.now = begin
        self.record = record
        self.ttl = ttl
        self.answer = answer
        self.orders = Orders()
        self.did: list[tuple[float, Operation]] = []
        plan = Plan(asked(ttl=ttl, wait=wait, **wishes), NOON + begin, lambda: 0.5)
        until = FOREVER if wait is None else begin + wait
        self.job = Job("lock", "me", ttl, until, plan=plan, waits=wait != 0)
        self.granted = Grant("lock", "me", 1, ttl, {}, record)
        self.steps = slot_decisions.take_slot(self.job, self.orders)
        with contextlib.suppress(StopIteration):
            do = next(self.steps)
            while self.now < begin + 2 * HOUR:
                do = self.steps.send(self.carry_out(do))

    def carry_out(self, do: Operation) -> Result:
        """The outcome of an operation, and the time that it took."""
        began = self.now
        self.did.append((began, do))
        if do.name == "sleep":
            self.now = max(began, do.arguments[0])
            return Result(began, self.now)
        if do.name == "clock":
            return Result(began, began, (NOON + began, 0.0))
        if do.name in ("tell", "report"):
            return Result(began, began)
        self.now += TOOK
        answer = self.answer(self, do)
        if isinstance(answer, Unavailable | Refused):
            return Result(began, self.now, None, answer)
        return Result(began, self.now, self.usual(do) if answer is None else answer)

    def usual(self, do: Operation) -> object:
        """What a server answers that has the lock for us."""
        if do.name == "read":
            return None, self.record
        return self.granted if do.name == "acquire" else None

    def times(self, name: str) -> list[float]:
        """When an operation was begun."""
        return [when for when, do in self.did if do.name == name]

    def told(self) -> list[tuple[object, ...]]:
        """All that was told."""
        return [do.arguments for _, do in self.did if do.name == "tell"]

    def end(self) -> tuple[object, ...]:
        """What was told last."""
        return self.told()[-1]


def fails(name: str, until: float, error: Exception | None = None) -> Answer:
    """A server that can't do one operation before that time."""

    def answer(trip: Trip, do: Operation) -> object:
        return (error or Unavailable("down")) if do.name == name and trip.now < until else None

    return answer


# One that fails for a while is tried again.


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("operation", ["read", "acquire"])
def test_a_server_that_is_away_for_a_moment_is_asked_again(operation: str, *, loop: bool) -> None:
    trip = Trip(fails(operation, HOUR + 4.0), record=last(), begin=HOUR - 0.5, loop=loop)
    assert trip.end()[0] == "granted"
    assert HOUR + 4.0 <= trip.now < HOUR + 4.0 + 5.0 + 1.0
    assert [told[0] for told in trip.told()].count("trouble") == len(trip.times(operation)) - 1


def test_it_is_asked_until_the_slot_may_not_start_any_more() -> None:
    trip = Trip(fails("acquire", FOREVER), record=last(), begin=HOUR - 0.5, start_deadline=60.0)
    assert trip.end()[:2] == ("gave_up", UNAVAILABLE)
    assert HOUR + 60.0 <= trip.now < HOUR + 66.0


def test_one_that_comes_once_asks_until_its_wait_is_over() -> None:
    trip = Trip(fails("acquire", FOREVER), record=last(), begin=HOUR, wait=10.0, loop=False)
    assert trip.end()[:2] == ("gave_up", UNAVAILABLE)
    assert HOUR + 10.0 <= trip.now < HOUR + 16.0
    trip = Trip(fails("acquire", FOREVER), record=last(), begin=HOUR, wait=0.0, loop=False)
    assert len(trip.times("acquire")) == 1


def held_until(until: float) -> Answer:
    """A lock that another has until then."""

    def answer(trip: Trip, do: Operation) -> object:
        held = trip.now < until
        if do.name == "wait":
            trip.now = max(trip.now, min(until, do.arguments[1]))
        elif do.name == "acquire" and held:
            return Held()
        elif do.name == "read":
            return (Held() if held else None), trip.record
        return None

    return answer


@pytest.mark.parametrize("begin", [HOUR - 0.9, HOUR - 0.1])
@pytest.mark.parametrize("free", [HOUR - 0.5, HOUR, HOUR + 0.3])
@pytest.mark.parametrize("wishes", [{}, {"start_deadline": 1.0}, {"every": 2.0}], ids=str)
def test_a_lock_that_was_taken_ahead_and_given_back_is_taken_over_at_once(
    begin: float, free: float, wishes: dict[str, Any]
) -> None:
    before = last(HOUR - 2.0, schedule="every 2s") if "every" in wishes else last()
    begin = max(begin, HOUR - 0.5) if "every" in wishes else begin
    trip = Trip(held_until(free), record=before, begin=begin, **wishes)
    assert trip.end()[0] == "granted"
    assert trip.now <= max(HOUR, free) + 0.1
    assert len([1 for _, do in trip.did if do.name in ("read", "acquire", "wait")]) <= 4
    assert "held" not in [told[0] for told in trip.told()]


def test_what_holds_the_lock_is_waited_for_until_it_has_started() -> None:
    trip = Trip(held_until(FOREVER), record=last(), begin=HOUR - 0.5)
    rest: Any = trip.end()
    assert rest[0] == "rest"
    assert HOUR + 0.5 < rest[1] < HOUR + 1.6
    assert len([1 for _, do in trip.did if do.name in ("read", "acquire", "wait")]) <= 4


@pytest.mark.parametrize("error", [Unavailable("down"), Refused("no")], ids=["unavailable", "refused"])
def test_an_attempt_that_cannot_be_written_is_taken_back_and_tried_again(error: Exception) -> None:
    trip = Trip(fails("write", FOREVER, error), record=last(), begin=HOUR - 0.5)
    assert trip.end()[0] == "rest"
    assert ("trouble", str(error)) in trip.told()
    release = next(do for _, do in trip.did if do.name == "release")
    assert release.arguments[1] == last()
    trip = Trip(fails("write", FOREVER, error), record=last(), begin=HOUR - 0.5, wait=0.0, loop=False)
    assert trip.end()[0] == "gave_up"


def test_what_was_written_is_taken_back_though_the_server_is_silent_for_a_moment() -> None:
    def silent(trip: Trip, do: Operation) -> object:
        return Unavailable("silent") if do.name in ("write", "release") and trip.now < HOUR + 3.0 else None

    trip = Trip(silent, record=last(), begin=HOUR - 0.5)
    assert trip.times("release")[-1] >= HOUR + 3.0 - TOOK
    assert trip.end()[0] == "rest"


def test_the_pauses_grow_and_leave_time_for_several_tries_at_a_slot() -> None:
    daily = asked(every=24 * HOUR)
    pauses = [slot_rules.pause(failures, daily, 0.0) for failures in range(1, 20)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 0.1
    assert pauses[-1] == 30.0
    for wishes in ({"every": 8.0}, {"every": 24 * HOUR, "start_deadline": 8.0}):
        assert slot_rules.pause(99, asked(**wishes), 0.0) == 2.0
        assert slot_rules.pause(99, asked(**wishes), 0.99) > 1.0


@pytest.mark.parametrize("end", ["asked to leave", "front and guard have died"])
def test_a_slot_that_was_granted_and_not_begun_is_taken_back(end: str) -> None:
    """A signal that stops it, or their death, came in the very moment: nothing ran, and another may."""
    trip = Trip(lambda *_: None, record=last(), begin=HOUR - 0.5)
    assert trip.end()[0] == "granted"
    if end == "asked to leave":
        trip.orders.leaving = True
    else:
        trip.orders.no_front = trip.orders.nothing_runs = trip.orders.never_started = True
    rest = decisions.lifecycle(trip.job, trip.orders, (trip.granted, trip.now + TTL))
    with contextlib.suppress(StopIteration):
        do = next(rest)
        while True:
            do = rest.send(trip.carry_out(do))
    release = next(do for _, do in trip.did if do.name == "release")
    assert release.arguments[1] == last()


# Nothing longer than a ttl happens under the lock without a renewal.


@pytest.mark.parametrize("jitter", [0.0, 30.0, 600.0])
@pytest.mark.parametrize("wait", [None, 0.0])
def test_the_lock_is_taken_shortly_before_the_start_however_long_the_jitter(
    jitter: float, wait: float | None
) -> None:
    starts = HOUR + (slot_times.jitter("lock", NOON + HOUR, jitter) if jitter else 0.0)
    trip = Trip(lambda *_: None, record=last(), begin=HOUR, loop=False, jitter=jitter, wait=wait)
    if starts > HOUR + 1.0:
        assert trip.times("acquire") == []
        rest: Any = trip.end()
        assert rest[0] == "rest"
        assert starts - 1.0 <= rest[1] < starts
        trip = Trip(lambda *_: None, record=last(), begin=rest[1], loop=False, jitter=jitter, wait=wait)
    assert trip.end()[0] == "granted"
    assert starts - 1e-4 <= trip.now < starts + 0.1
    ends: Any = [do.arguments[0] for _, do in trip.did if do.name == "report"]
    assert trip.now < lease_times.renew_at(ends[-1], TTL)


@pytest.mark.parametrize("wishes", [{"loop": True}, {"loop": False}, {"loop": False, "wait": 0.0}])
@pytest.mark.parametrize("record", [None, last(), last(HOUR, state="failed", end=HOUR + 1.0)], ids=str)
def test_nobody_decides_to_start_later_than_the_lead(
    wishes: dict[str, Any], record: dict[str, Any] | None
) -> None:
    for jitter in (0.0, 5.0, 600.0):
        for now in range(3400, 4300, 7):
            told = decide(record, float(now), jitter=jitter, retries=3, retry_delay=60.0, ttl=TTL, **wishes)
            assert told.kind in (RUN, REST)
            if told.kind == RUN:
                assert told.at is not None
                assert told.at <= now + TTL / 6


def test_one_that_cron_calls_early_rests_too_before_it_takes_the_lock() -> None:
    assert once(None, HOUR - 20.0, cron="0 * * * *", offset=-30.0).kind == REST
