"""Which slot is started, decided from a record and a time: each rule as a case.

All times are written as seconds after noon, NOON, of an hourly job, if nothing else is said.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from singleton_run.api.contract import Held
from singleton_run.api.record import started, unreadable
from singleton_run.call.settings import Settings
from singleton_run.job import Job
from singleton_run.keeper import slot_decisions
from singleton_run.keeper.operations import Orders, Result
from singleton_run.schedule import slot_rules, slot_times
from singleton_run.schedule.slot_rules import MEND, QUEUE, REST, RUN, Decision, Plan

HOUR = 3600.0
DAY = 24 * HOUR
NOON = 1_790_000_000.0 // HOUR * HOUR
LEAD = 5.0
CRON = "0 * * * *"


def asked(**wishes: Any) -> Settings:
    """Settings of a call with a schedule."""
    fields: dict[str, Any] = dict.fromkeys(Settings.__slots__)
    fields.update(
        name="lock",
        ttl=30.0,
        wait=None,
        jitter=0.0,
        loop=True,
        retries=0,
        retry_delay=10.0,
        retry_backoff=1.0,
        retry_interrupted=False,
        lock_at_least_for=0.0,
        overlap="queue",
        scheduled=True,
    )
    return Settings(**{**fields, **wishes})


def last(slot: float = 0.0, state: str = "succeeded", **changes: Any) -> dict[str, Any]:
    """The record of an hourly job whose last slot this was."""
    end = None if state == "running" else NOON + changes.pop("end", slot + 1.0)
    words = {
        "schedule": "every 1h",
        "grid": NOON - DAY,
        "slot": NOON + slot,
        "attempt": 1,
        "state": state,
        "start": NOON + changes.pop("start", slot),
        "end": end,
        "missed": 0,
    }
    return {"version": 1, "slot": {**words, **changes}}


def by_cron(*words: Any, **changes: Any) -> dict[str, Any]:
    """The same of a job by CRON."""
    return last(*words, schedule=f"cron {CRON} UTC", grid=0.0, **changes)


class Told:
    """A decision in seconds after noon."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.kind = decision.kind
        self.slot = round(decision.slot - NOON, 6)
        self.at = None if decision.at is None else round(decision.at - NOON, 6)
        self.deadline = round(decision.deadline - NOON, 6)
        self.attempt = decision.attempt
        self.notes = decision.notes

    def starts(self, slot: float, at: float, attempt: int = 1) -> bool:
        """Whether that slot is started then."""
        return (self.kind, self.slot, self.at, self.attempt) == (RUN, slot, round(at, 6), attempt)

    def rests(self, slot: float) -> bool:
        """Whether there is nothing to do until that slot, which is looked at a little ahead."""
        early = slot - LEAD <= (self.at or 0.0) < slot
        return self.kind == REST and self.slot == slot and early

    def queues(self, slot: float, deadline: float) -> bool:
        """Whether the lock is waited for until then."""
        found = self.kind, self.slot, self.deadline, self.decision.until
        return found == (QUEUE, slot, deadline, NOON + deadline) and not self.decision.briefly

    def waits_briefly(self, slot: float, until: float) -> bool:
        """Whether the lock is waited for until then, in case that who is about to start goes away."""
        found = round(self.decision.until - NOON, 6)
        return (self.kind, self.slot, found, self.decision.briefly) == (QUEUE, slot, until, True)

    def ends(self, why: str) -> bool:
        """Whether there is nothing to do at all."""
        return (self.kind, self.at, self.decision.why) == (REST, None, why)


def decide(
    record: dict[str, Any] | None,
    now: float,
    *,
    held: bool = False,
    exact: bool = True,
    since: float | None = None,
    chance: float = 0.5,
    offset: float = 0.0,
    **wishes: Any,
) -> Told:
    """What is decided at a time, by a call that was made then (or `since`) for an hourly job."""
    if "cron" in wishes:
        wishes["zone"] = "UTC"
    else:
        wishes.setdefault("every", HOUR)
    begin = NOON + (now if since is None else since)
    plan = slot_rules.Plan(asked(**wishes), begin, lambda: chance)
    plan.offset = offset
    return Told(plan.decide(record, NOON + now, held=held, exact=exact))


def once(record: dict[str, Any] | None, now: float, **wishes: Any) -> Told:
    """The same for a call with --no-loop."""
    return decide(record, now, loop=False, **wishes)


# The first.


def test_the_first_of_an_interval_is_at_once_and_sets_the_grid() -> None:
    told = decide(None, 100.7)
    assert told.starts(100.0, 100.7)
    assert told.decision.grid == NOON + 100.0
    assert told.deadline == 100.0 + HOUR


def test_the_first_by_cron_is_at_its_next_time() -> None:
    assert decide(None, 100.0, cron=CRON).rests(HOUR)
    assert decide(None, HOUR - 4.0, cron=CRON).starts(HOUR, HOUR)


def test_by_cron_nothing_is_started_that_was_due_before_the_first_call() -> None:
    assert decide(None, HOUR + 5.0, since=HOUR + 1.0, cron=CRON).rests(2 * HOUR)
    assert decide(None, HOUR + 5.0, since=HOUR, cron=CRON).starts(HOUR, HOUR + 5.0)
    assert decide(None, HOUR + 5.0, since=HOUR - 1.0, cron=CRON).starts(HOUR, HOUR + 5.0)
    assert decide(None, HOUR + 5.0, since=HOUR - 1.0, offset=2.0, cron=CRON).rests(2 * HOUR)
    assert decide(None, HOUR + 5.0, since=HOUR + 1.0, offset=-2.0, cron=CRON).starts(HOUR, HOUR + 5.0)


# The next.


def test_between_slots_there_is_a_rest_until_shortly_before_the_next() -> None:
    told = decide(last(), 10.0, chance=0.0)
    assert told.rests(HOUR)
    assert told.at == HOUR - 0.3 * LEAD
    assert decide(last(), 10.0, chance=1.0).at == HOUR - LEAD
    assert decide(by_cron(), 10.0, cron=CRON).rests(HOUR)


def test_shortly_before_its_time_a_slot_is_started_on_the_dot() -> None:
    assert decide(last(), HOUR - LEAD - 0.1).rests(HOUR)
    told = decide(last(), HOUR - LEAD)
    assert told.starts(HOUR, HOUR)
    assert told.deadline == 2 * HOUR
    assert decide(last(), HOUR).starts(HOUR, HOUR)


def test_a_short_ttl_is_taken_less_ahead() -> None:
    assert decide(last(), HOUR - 2.0, ttl=6.0).rests(HOUR)
    assert decide(last(), HOUR - 1.0, ttl=6.0).starts(HOUR, HOUR)


def test_a_slot_that_is_overdue_is_started_at_once() -> None:
    told = decide(last(), HOUR + 100.0)
    assert told.starts(HOUR, HOUR + 100.0)
    assert told.deadline == 2 * HOUR
    assert told.decision.missed == 0


def test_of_missed_slots_only_the_latest_is_started() -> None:
    told = decide(last(), 3 * HOUR + 100.0)
    assert told.starts(3 * HOUR, 3 * HOUR + 100.0)
    assert told.decision.missed == 2
    told = decide(by_cron(), 3 * HOUR + 100.0, cron=CRON)
    assert told.starts(3 * HOUR, 3 * HOUR + 100.0)
    assert told.decision.missed == 2


def test_missed_slots_are_counted_up_to_a_thousand() -> None:
    assert decide(last(), 5000 * HOUR).decision.missed == 1000


def test_a_slot_is_started_only_if_it_is_later_than_the_last_one() -> None:
    for now in (HOUR - 3.0, HOUR, HOUR + 0.5, HOUR + 1000.0):
        assert decide(last(HOUR), now).rests(2 * HOUR)
        assert decide(by_cron(HOUR), now, cron=CRON).rests(2 * HOUR)


@pytest.mark.parametrize("state", ["succeeded", "failed", "interrupted", "crashed", "lost", "running"])
def test_however_the_last_one_ended_it_is_not_started_again(state: str) -> None:
    assert decide(last(state=state), 100.0).rests(HOUR)
    assert decide(last(state=state), HOUR).starts(HOUR, HOUR)


def test_a_slot_at_the_very_limit_of_what_was_run_is_not_another() -> None:
    assert decide(last(grid=NOON + 0.0005), HOUR + 0.0005).starts(HOUR + 0.0005, HOUR + 0.0005)
    assert decide(last(HOUR, grid=NOON + 0.0005), HOUR + 1.0).rests(2 * HOUR + 0.0005)


# The deadline.


def test_a_slot_past_its_start_deadline_is_skipped_and_said_to_be() -> None:
    assert decide(last(), HOUR + 60.0, start_deadline=60.0).starts(HOUR, HOUR + 60.0)
    assert decide(last(), HOUR + 10.0, start_deadline=60.0).deadline == HOUR + 60.0
    told = decide(last(), HOUR + 60.1, start_deadline=60.0)
    assert told.rests(2 * HOUR)
    assert told.notes == [("skipped", NOON + HOUR)]


def test_a_slot_that_was_run_is_not_called_skipped() -> None:
    assert decide(last(HOUR), HOUR + 60.1, start_deadline=60.0).notes == []


def test_what_is_skipped_is_counted_among_the_missed() -> None:
    told = decide(last(), 2 * HOUR - 1.0, start_deadline=60.0)
    assert told.starts(2 * HOUR, 2 * HOUR)
    assert told.deadline == 2 * HOUR + 60.0
    assert told.decision.missed == 1


# Jitter.


def test_jitter_is_the_same_for_everybody_and_moves_start_and_deadline() -> None:
    late = slot_times.jitter("lock", NOON + HOUR, 600.0)
    later = slot_times.jitter("lock", NOON + 2 * HOUR, 600.0)
    assert late > 2 * LEAD
    assert decide(last(), HOUR, jitter=600.0).at == round(HOUR + late - 0.65 * LEAD, 6)
    told = decide(last(), HOUR + late - 1.0, jitter=600.0)
    assert told.starts(HOUR, HOUR + late)
    assert told.deadline == round(2 * HOUR + later, 6)
    assert decide(last(), HOUR + late + 1.0, jitter=600.0).starts(HOUR, HOUR + late + 1.0)
    told = decide(last(), HOUR + late, jitter=600.0, start_deadline=60.0)
    assert told.deadline == round(HOUR + late + 60.0, 6)
    assert decide(last(HOUR), HOUR + late, jitter=600.0).slot == 2 * HOUR


def test_before_its_jitter_is_over_the_slot_before_may_still_be_started() -> None:
    told = decide(last(-HOUR), HOUR + 0.1, jitter=600.0)
    assert told.starts(0.0, HOUR + 0.1)
    assert told.deadline == round(HOUR + slot_times.jitter("lock", NOON + HOUR, 600.0), 6)


# Retries.


def test_what_failed_is_tried_again_after_the_delay() -> None:
    failed = last(state="failed", end=20.0)
    told = decide(failed, 20.0, retries=1, chance=0.0)
    assert (told.kind, told.slot, told.at) == (REST, 0.0, 30.0)
    assert decide(failed, 20.0, retries=1, chance=1.0).at == 30.0 - LEAD
    told = decide(failed, 25.0, retries=1)
    assert told.starts(0.0, 30.0, attempt=2)
    assert told.deadline == HOUR
    assert decide(failed, 500.0, retries=1).starts(0.0, 500.0, attempt=2)


def test_delays_grow_by_the_backoff() -> None:
    for attempt, delay in ((1, 10.0), (2, 30.0), (3, 90.0)):
        failed = last(state="failed", end=20.0, attempt=attempt)
        told = decide(failed, 20.0 + delay - 1.0, retries=3, retry_backoff=3.0)
        assert told.starts(0.0, 20.0 + delay, attempt + 1)


def test_when_the_retries_are_used_up_the_next_slot_is_next() -> None:
    assert decide(last(state="failed", attempt=2), 100.0, retries=2).attempt == 3
    assert decide(last(state="failed", attempt=3), 100.0, retries=2).rests(HOUR)


def test_a_retry_that_would_come_when_the_next_slot_is_due_is_not_made() -> None:
    assert decide(last(state="failed", end=HOUR - 11.0), HOUR - 3.0, retries=1).starts(0.0, HOUR - 1.0, 2)
    assert decide(last(state="failed", end=HOUR - 10.0), HOUR - 3.0, retries=1).starts(HOUR, HOUR)
    assert decide(last(state="failed"), HOUR, retries=1).starts(HOUR, HOUR)


@pytest.mark.parametrize("state", ["running", "crashed", "lost"])
def test_what_ended_without_a_word_is_tried_again_at_once(state: str) -> None:
    assert decide(last(state=state), 5.0, retries=1).starts(0.0, 5.0, attempt=2)
    assert decide(last(state=state, attempt=2), 5.0, retries=1).rests(HOUR)


def test_what_succeeded_is_not_tried_again() -> None:
    assert decide(last(), 500.0, retries=5).rests(HOUR)


def test_what_was_interrupted_is_tried_again_only_if_that_is_asked_for() -> None:
    assert decide(last(state="interrupted"), 5.0, retries=1).rests(HOUR)
    told = decide(last(state="interrupted"), 5.0, retries=1, retry_interrupted=True)
    assert told.starts(0.0, 5.0, attempt=2)


def test_a_retry_waits_for_another_that_runs_it() -> None:
    running = last(state="running")
    assert decide(running, 100.0, held=True, retries=1).queues(0.0, HOUR)
    assert decide(running, 100.0, held=True).rests(HOUR)


def test_a_retry_that_another_is_about_to_make_is_left_to_it() -> None:
    failed = last(state="failed", end=20.0)
    assert decide(failed, 30.0, held=True, retries=1).waits_briefly(0.0, 31.0)
    told = once(failed, 30.0, held=True, retries=1, wait=0.0)
    assert (told.kind, told.slot, told.at) == (REST, 0.0, 31.0)


# Another has the lock.


def test_a_slot_is_left_to_another_that_took_the_lock_for_it_unless_that_goes_away() -> None:
    assert decide(last(), HOUR - 2.0, held=True).waits_briefly(HOUR, HOUR + 1.0)
    assert decide(last(), HOUR + 0.4, held=True).waits_briefly(HOUR, HOUR + 1.4)
    assert decide(last(), HOUR - 2.0, held=True, chance=0.0).waits_briefly(HOUR, HOUR + 0.5)
    told = decide(last(), HOUR - 2.0, held=True, start_deadline=0.2)
    assert told.waits_briefly(HOUR, HOUR + 0.2)


def test_who_loses_the_race_for_the_lock_waits_as_briefly() -> None:
    told = decide(last(), HOUR - 2.0)
    assert (told.kind, told.decision.until, told.decision.briefly) == (RUN, NOON + HOUR + 1.0, True)
    assert not once(last(), HOUR - 2.0).decision.waits()


def test_of_a_short_interval_the_lock_is_taken_a_quarter_ahead_at_most() -> None:
    short = last(0.0, schedule="every 4s")
    assert decide(short, 0.9, every=4.0, chance=1.0).at == 3.0
    assert decide(short, 2.9, every=4.0).kind == REST
    assert decide(short, 3.0, every=4.0).starts(4.0, 4.0)
    seconds = "*/4 * * * * *"
    short = last(0.0, schedule=f"cron {seconds} UTC", grid=0.0)
    assert decide(short, 0.9, cron=seconds, chance=1.0).at == 3.0


def test_who_has_the_lock_and_does_not_start_the_slot_is_waited_for() -> None:
    assert decide(last(), HOUR + 0.6, held=True).queues(HOUR, 2 * HOUR)
    failed = last(state="failed", end=20.0)
    assert decide(failed, 30.6, held=True, retries=1).queues(0.0, HOUR)
    assert decide(last(state="lost"), 100.0, held=True, retries=1).queues(0.0, HOUR)


def test_a_slot_waits_for_the_one_before_that_runs_too_long() -> None:
    running = last(state="running")
    assert decide(running, HOUR + 0.1, held=True).kind == QUEUE
    told = decide(running, HOUR - 3.0, held=True, start_deadline=60.0)
    assert told.queues(HOUR, HOUR + 60.0)
    told = decide(running, HOUR + 61.0, held=True, start_deadline=60.0)
    assert told.rests(2 * HOUR)
    assert told.notes == [("skipped", NOON + HOUR)]


# A slot that is due while the last one still runs.


def test_by_default_and_with_queue_the_newest_slot_waits_for_the_run_before() -> None:
    running = last(state="running")
    assert decide(running, HOUR + 100.0, held=True).queues(HOUR, 2 * HOUR)
    assert decide(last(end=2 * HOUR + 99.0), 2 * HOUR + 100.0).starts(2 * HOUR, 2 * HOUR + 100.0)
    assert decide(running, HOUR + 100.0, held=True, overlap="replace").queues(HOUR, 2 * HOUR)
    assert once(running, HOUR + 100.0, held=True).queues(HOUR, 2 * HOUR)


def test_with_skip_a_slot_is_passed_over_if_the_last_run_went_on_at_its_start() -> None:
    told = decide(last(end=HOUR + 0.2), HOUR + 0.3, overlap="skip")
    assert told.rests(2 * HOUR)
    assert told.notes == [("overlapped", NOON + HOUR)]
    assert decide(last(end=HOUR - 0.1), HOUR + 0.3, overlap="skip").starts(HOUR, HOUR + 0.3)
    told = decide(last(end=HOUR + 0.2), 2 * HOUR + 0.3, overlap="skip")
    assert told.starts(2 * HOUR, 2 * HOUR + 0.3)
    told = decide(last(end=HOUR + 0.2), 2 * HOUR - 1.0, overlap="skip")
    assert told.starts(2 * HOUR, 2 * HOUR)
    assert told.decision.missed == 1
    late = slot_times.jitter("lock", NOON + HOUR, 600.0)
    told = decide(last(end=HOUR + late - 1.0), HOUR + late + 1.0, overlap="skip", jitter=600.0)
    assert told.starts(HOUR, HOUR + late + 1.0)


def test_with_skip_a_run_that_ended_in_our_future_is_one_that_went_on() -> None:
    ended = last(end=HOUR + 900.0)
    for now in (100.0, HOUR - 1.0, HOUR + 1.0):
        assert decide(ended, now, overlap="skip").rests(2 * HOUR)
    assert decide(ended, HOUR - 1.0).starts(HOUR, HOUR)


def test_with_skip_another_waits_only_as_long_as_the_run_may_end_before_the_start() -> None:
    running = last(state="running")
    assert decide(running, HOUR - 2.0, held=True, overlap="skip").waits_briefly(HOUR, HOUR + 1.0)
    assert decide(running, HOUR + 0.4, held=True, overlap="skip").waits_briefly(HOUR, HOUR + 1.4)
    told = decide(running, HOUR + 0.6, held=True, overlap="skip")
    assert told.rests(2 * HOUR)
    assert told.notes == [("overlapped", NOON + HOUR)]
    assert decide(running, 2 * HOUR - 2.0, held=True, overlap="skip").waits_briefly(2 * HOUR, 2 * HOUR + 1)


def test_with_skip_a_run_that_crashed_keeps_no_slot_from_its_start() -> None:
    assert decide(last(state="running"), HOUR + 9.0, overlap="skip").starts(HOUR, HOUR + 9.0)


def test_with_skip_who_holds_the_lock_for_another_reason_is_waited_for() -> None:
    assert decide(last(), HOUR + 9.0, held=True, overlap="skip").queues(HOUR, 2 * HOUR)


def test_with_skip_what_failed_is_not_tried_again_after_the_next_slot() -> None:
    failed = last(state="failed", end=HOUR + 5.0)
    assert decide(failed, HOUR + 6.0, retries=3, overlap="skip").rests(2 * HOUR)
    failed = last(state="failed", end=20.0)
    assert decide(failed, 500.0, retries=1, overlap="skip").starts(0.0, 500.0, attempt=2)


def test_one_that_comes_once_passes_its_slot_over_with_skip() -> None:
    running = last(state="running")
    assert once(running, HOUR + 0.6, held=True, overlap="skip").ends("overlapped")
    assert once(running, HOUR + 0.6, held=True, overlap="skip", wait=0.0).ends("overlapped")
    assert once(last(end=HOUR + 5.0), HOUR + 6.0, overlap="skip").ends("overlapped")
    assert once(last(end=HOUR - 1.0), HOUR + 6.0, overlap="skip").starts(HOUR, HOUR + 6.0)
    assert once(running, HOUR, held=True, overlap="skip").waits_briefly(HOUR, HOUR + 1.0)
    assert once(running, 100.0, held=True, overlap="skip").queues(0.0, HOUR)
    # The nearest slot may be due in half an interval: the second look decides.
    assert once(running, 0.7 * HOUR, held=True, overlap="skip").waits_briefly(HOUR, 0.7 * HOUR + 1.0)
    plan = slot_rules.Plan(asked(every=HOUR, loop=False, overlap="skip"), NOON, lambda: 0.5, second_look=True)
    assert Told(plan.decide(running, NOON + 0.7 * HOUR, held=True, exact=True)).ends("overlapped")


def test_the_record_has_the_overlap_where_it_is_not_the_default() -> None:
    for overlap, written in (("queue", None), ("skip", "skip"), ("replace", "replace")):
        plan = slot_rules.Plan(asked(every=HOUR, overlap=overlap), NOON, lambda: 0.5)
        decision = plan.decide(None, NOON, held=False, exact=True)
        assert plan.started({}, decision, NOON)["slot"].get("overlap") == written


def test_what_follows_a_slot() -> None:
    plan = slot_rules.Plan(asked(every=HOUR), NOON, lambda: 0.5)
    decision = plan.decide(last(), NOON + HOUR - 1.0, held=False, exact=True)
    assert plan.following(decision, NOON + HOUR) == (NOON + 2 * HOUR, NOON + 2 * HOUR)
    assert plan.following(decision, NOON + 3 * HOUR) == (NOON + 4 * HOUR, NOON + 4 * HOUR)
    plan = slot_rules.Plan(asked(cron=CRON, zone="UTC", jitter=600.0), NOON, lambda: 0.5)
    decision = plan.decide(by_cron(), NOON + HOUR, held=False, exact=True)
    late = slot_times.jitter("lock", NOON + 2 * HOUR, 600.0)
    assert plan.following(decision, NOON + HOUR) == (NOON + 2 * HOUR, NOON + 2 * HOUR + late)


def test_far_from_a_slot_it_does_not_matter_who_has_the_lock() -> None:
    assert decide(last(state="running"), 100.0, held=True).rests(HOUR)


# Another's schedule, and clocks.


def test_another_schedule_is_said_and_its_last_slot_begins_our_grid() -> None:
    other = last(600.0, schedule="every 30m")
    told = decide(other, 700.0)
    assert told.rests(600.0 + HOUR)
    assert told.decision.grid == NOON + 600.0
    assert told.notes == [("other schedule", NOON + 600.0)]
    told = decide(other, 5 * HOUR)
    assert told.slot == 600.0 + 4 * HOUR
    assert told.decision.missed == 0


def test_by_another_cron_schedule_nothing_is_made_up_for() -> None:
    other = last(600.0, schedule="cron 10 * * * * UTC", grid=0.0)
    told = decide(other, 2 * HOUR + 100.0, cron=CRON)
    assert told.rests(3 * HOUR)
    assert told.notes == [("other schedule", NOON + 600.0)]
    assert decide(other, 2 * HOUR + 1.0, since=2 * HOUR, cron=CRON).starts(2 * HOUR, 2 * HOUR + 1.0)


def test_the_same_schedule_is_made_up_for_by_a_call_that_comes_later() -> None:
    told = decide(by_cron(), HOUR + 100.0, since=HOUR + 50.0, cron=CRON)
    assert told.starts(HOUR, HOUR + 100.0)
    assert told.notes == []


def test_a_clock_that_is_behind_is_said_where_nobody_knows_better() -> None:
    assert decide(last(HOUR), HOUR - 30.0, exact=False).notes == []
    told = decide(last(HOUR), HOUR - 31.0, exact=False)
    assert told.notes == [("behind", 31.0)]
    assert told.rests(2 * HOUR)
    assert decide(last(HOUR), HOUR - 31.0, exact=True).notes == []


def test_of_a_short_interval_half_is_much() -> None:
    short = last(0.0, schedule="every 10s")
    assert decide(short, -5.0, exact=False, every=10.0).notes == []
    assert decide(short, -6.0, exact=False, every=10.0).notes == [("behind", 6.0)]
    seconds = "*/10 * * * * *"
    short = last(0.0, schedule=f"cron {seconds} UTC", grid=0.0)
    assert decide(short, -6.0, exact=False, cron=seconds).notes == [("behind", 6.0)]


# --no-loop.


def test_one_that_comes_once_takes_the_nearest_slot_of_a_grid() -> None:
    assert once(last(), HOUR / 2 - 1.0).ends("succeeded")
    assert once(last(), HOUR / 2).starts(HOUR, HOUR / 2)
    assert once(last(), HOUR - 20.0).starts(HOUR, HOUR - 20.0)
    assert once(last(), HOUR + 20.0).starts(HOUR, HOUR + 20.0)
    assert once(last(HOUR), HOUR + 20.0).ends("succeeded")
    assert once(last(HOUR), HOUR - 20.0).ends("succeeded")


def test_one_that_comes_once_takes_the_latest_slot_by_cron() -> None:
    assert once(by_cron(), HOUR - 1.0, cron=CRON).ends("succeeded")
    assert once(by_cron(), HOUR + 1.0, cron=CRON).starts(HOUR, HOUR + 1.0)
    assert once(None, HOUR + 1.0, cron=CRON).starts(HOUR, HOUR + 1.0)


def test_one_that_cron_calls_too_early_waits_for_its_slot() -> None:
    assert once(by_cron(), HOUR - 1.9, cron=CRON, offset=-2.0).starts(HOUR, HOUR)
    assert once(by_cron(), HOUR - 29.0, cron=CRON, offset=-30.0).rests(HOUR)
    assert once(by_cron(), HOUR - 4.9, cron=CRON, offset=-30.0).starts(HOUR, HOUR)
    assert once(by_cron(), HOUR + 1.0, cron=CRON, offset=-2.0).starts(HOUR, HOUR + 1.0)
    assert once(by_cron(), HOUR - 2.1, cron=CRON, offset=-2.0).ends("succeeded")
    assert once(by_cron(), HOUR - 29.0, cron=CRON, offset=-31.0).ends("succeeded")
    assert once(by_cron(), HOUR - 1.9, cron=CRON, offset=2.0).ends("succeeded")


def test_one_that_comes_once_and_first_sets_the_grid() -> None:
    told = once(None, 100.7)
    assert told.starts(100.0, 100.7)
    assert told.decision.grid == NOON + 100.0


def test_one_that_comes_once_says_how_the_slot_ended() -> None:
    for state, why in (("failed", "failed"), ("running", "crashed"), ("interrupted", "interrupted")):
        assert once(last(state=state), 100.0).ends(why)


def test_one_that_comes_once_waits_for_the_slot_elsewhere_unless_told_not_to() -> None:
    running = last(state="running")
    told = once(running, 100.0, held=True)
    assert told.queues(0.0, HOUR)
    assert once(running, 100.0, held=True, wait=0.0).ends("elsewhere")


def test_one_that_comes_once_waits_for_the_lock_of_a_new_slot() -> None:
    for state in ("running", "succeeded"):
        assert once(last(state=state), HOUR, held=True).queues(HOUR, 2 * HOUR)
        assert once(last(state=state), HOUR, held=True, wait=0.0).starts(HOUR, HOUR)


def test_one_that_comes_once_retries_too() -> None:
    assert once(last(state="failed"), 8.0, retries=1).starts(0.0, 11.0, attempt=2)
    assert once(last(state="running"), 8.0, retries=1).starts(0.0, 8.0, attempt=2)
    assert once(last(state="failed", attempt=2), 8.0, retries=1).ends("failed")


def test_one_that_comes_once_and_late_skips() -> None:
    assert once(last(), HOUR + 60.0, start_deadline=60.0).starts(HOUR, HOUR + 60.0)
    assert once(last(), HOUR + 60.1, start_deadline=60.0).ends("skipped")


def test_one_that_comes_once_waits_for_its_jitter() -> None:
    late = slot_times.jitter("lock", NOON + HOUR, 600.0)
    rests = once(last(), HOUR - 20.0, jitter=600.0)
    assert (rests.kind, rests.slot, rests.at) == (REST, HOUR, round(HOUR + late - 0.65 * LEAD, 6))
    assert once(last(), HOUR + late - LEAD, jitter=600.0).starts(HOUR, HOUR + late)
    assert once(last(), HOUR + late + 1.0, jitter=600.0).starts(HOUR, HOUR + late + 1.0)


def test_a_clock_before_all_slots_has_nothing_to_do() -> None:
    assert once(None, 100.0 - NOON, cron=CRON).ends("none")


# The record.


@pytest.mark.parametrize(
    "damage",
    [
        {"slot": None},
        {"slot": "noon"},
        {"slot": True},
        {"slot": float("inf")},
        {"slot": float("nan")},
        {"slot": -1e11},
        {"grid": None},
        {"start": []},
        {"end": "never"},
        {"schedule": 3},
        {"state": None},
        {"attempt": "1"},
        {"attempt": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("wishes", [{}, {"cron": CRON}, {"loop": False}, {"cron": CRON, "loop": False}])
def test_a_slot_that_cannot_be_read_is_never_run(damage: dict[str, Any], wishes: dict[str, Any]) -> None:
    for record in ({"slot": {**last()["slot"], **damage}}, {"slot": None}, unreadable()):
        assert slot_rules.last_slot(record) is None
        for now in (0.0, 100.0, HOUR - 1.0):
            assert decide(record, now, **wishes).kind == MEND


@pytest.mark.parametrize("wishes", [{}, {"cron": CRON}, {"loop": False}, {"cron": CRON, "loop": False}])
def test_what_is_mended_leaves_out_the_slot_that_is_due_and_no_other(wishes: dict[str, Any]) -> None:
    schedule = {"cron": wishes["cron"], "zone": "UTC"} if "cron" in wishes else {"every": HOUR}
    plan = Plan(asked(**{**schedule, "retries": 100, "retry_interrupted": True}), NOON, lambda: 0.5)
    decision = plan.decide(unreadable(), NOON + 100.0, held=False, exact=True)
    record = plan.mended(started(unreadable(), "lock", "me", 7, NOON + 100.0), decision)
    slot = 0.0 if "cron" in wishes else 100.0
    told = decide(record, 101.0, retries=100, retry_interrupted=True, **wishes)
    assert told.kind == REST
    if wishes.get("loop", True):
        assert told.slot == slot + HOUR
    else:
        assert told.ends("unreadable")
    assert decide(record, slot + HOUR, **wishes).starts(slot + HOUR, slot + HOUR)


def test_a_record_without_a_slot_counts_as_none() -> None:
    empty: dict[str, Any] = {}
    for record in (None, empty):
        assert slot_rules.last_slot(record) is None
        assert decide(record, 100.0).starts(100.0, 100.0)
    assert slot_rules.last_slot(last(state="running")) == last(state="running")["slot"]


def test_what_is_written_down_before_the_start() -> None:
    plan = slot_rules.Plan(asked(every=HOUR, retries=1), NOON, lambda: 0.5)
    decision = plan.decide(last(-2 * HOUR), NOON + 3.0, held=False, exact=True)
    assert plan.started({"token": 7}, decision, NOON + 3.5) == {
        "token": 7,
        "slot": {
            "schedule": "every 1h",
            "grid": NOON - DAY,
            "slot": NOON,
            "attempt": 1,
            "state": "running",
            "start": NOON + 3.5,
            "end": None,
            "missed": 1,
        },
    }


def test_what_was_not_started_is_taken_back() -> None:
    run = {"token": 7, "state": "running", "slot": {}}
    earlier = {"token": 6}
    assert slot_rules.taken_back(run, earlier) is earlier
    assert slot_rules.taken_back(run, None) == {"token": 7, "state": "interrupted"}


def test_when_nothing_can_be_read_the_next_slot_is_guessed() -> None:
    assert slot_rules.Plan(asked(every=HOUR), NOON, lambda: 0.5).blind(NOON + 100.0) == NOON + 100.0 + HOUR
    plan = slot_rules.Plan(asked(cron=CRON, zone="UTC"), NOON, lambda: 0.5)
    assert plan.blind(NOON + 100.0) == NOON + HOUR


def test_replicas_are_spread() -> None:
    numbers = {slot_rules.chance() for _ in range(100)}
    assert len(numbers) > 90
    assert all(0.0 <= number < 1.0 for number in numbers)


@pytest.mark.parametrize(("loop", "ends"), [(True, "rest"), (False, "gave_up")])
def test_a_loop_goes_on_though_another_was_quicker_twice(*, loop: bool, ends: str) -> None:
    plan = Plan(asked(every=3600.0, loop=loop), NOON, lambda: 0.5, second_look=True)
    job = Job("lock", "me", 30.0, float("inf"), plan=plan, waits=False)
    answers = {"read": (None, None), "clock": (NOON, None), "acquire": Held()}
    steps = slot_decisions.take_slot(job, Orders())
    told = []
    now = 0.0
    do = next(steps)
    with contextlib.suppress(StopIteration):
        while True:
            if do.name == "tell":
                told.append(do.arguments[0])
            now = do.arguments[1] if do.name == "wait" else now
            do = steps.send(Result(now, now, answers.get(do.name)))
    assert told[-1] == ends
