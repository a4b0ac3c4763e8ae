"""What keeper and front decide about a slot that is due while the last one still runs."""

from __future__ import annotations

from signal import SIGTERM
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run.lease_times import FOREVER
from singleton_run.report.sentences import sentence
from tests.unit.schedule.test_slot_rules import HOUR, NOON, last
from tests.unit.schedule.test_slot_trips import Trip
from tests.unit.test_lease_times import Hands, fronting

if TYPE_CHECKING:
    from singleton_run.front import decisions as front_decisions

ASKED_TO_END = ("guard", "signal", SIGTERM)
KILLED = ("guard", "kill")


def running(overlap: str, *options: str) -> tuple[front_decisions.Turn, Hands]:
    """A turn whose command runs since 0, and whose next slot is due at 5."""
    one, hands = fronting("--every", "5s", "--overlap", overlap, *options)
    one.ending.is_followed(5.0, NOON)
    one.guard_started(1, 0.0)
    one.ending.started(0.0)
    return one, hands


def does_nothing(*_: Any) -> None:
    """A server that answers as usual."""


@pytest.mark.parametrize("overlap", ["skip", "replace"])
def test_the_front_is_told_when_the_next_slot_is_due_before_it_starts_one(overlap: str) -> None:
    trip = Trip(does_nothing, record=last(), begin=HOUR - 1.0, overlap=overlap)
    told = [message[0] for message in trip.told()]
    assert ("following", 2 * HOUR, NOON + 2 * HOUR) in trip.told()
    assert told.index("following") < told.index("granted")


def test_where_the_next_slot_waits_the_front_need_not_know_of_it() -> None:
    trip = Trip(does_nothing, record=last(), begin=HOUR - 1.0)
    assert "following" not in [message[0] for message in trip.told()]


def test_with_replace_the_command_is_asked_to_end_at_the_next_slot_and_killed_after_its_grace() -> None:
    one, hands = running("replace")
    assert one.next_look() == 5.0
    one.look(4.9)
    assert hands.done == []
    one.look(5.0)
    assert ("say", "replaced") in hands.done
    assert ASKED_TO_END in hands.done
    one.look(14.9)
    assert KILLED not in hands.done
    one.look(15.0)
    assert KILLED in hands.done
    one.guard_ended(-9)
    assert one.ending.outcome == "interrupted"
    assert ("settle",) not in hands.done, "the lock is kept until nothing is left"
    one.guard_gone(proved=True)
    assert ("settle",) in hands.done


def test_what_ends_well_when_it_is_replaced_has_succeeded() -> None:
    one, _ = running("replace")
    one.look(5.0)
    one.guard_ended(0)
    assert (one.ending.outcome, one.ending.replaced) == ("succeeded", True)


def test_with_replace_a_command_that_was_asked_to_end_before_is_killed_in_time_for_the_next_slot() -> None:
    one, hands = running("replace")
    one.signal(SIGTERM, 1.0)
    one.look(5.0)
    assert hands.done.count(ASKED_TO_END) == 1
    assert not one.ending.replaced
    one.look(15.0)
    assert KILLED in hands.done


def test_with_replace_what_the_command_left_behind_is_ended_too() -> None:
    one, hands = running("replace", "--leftovers", "wait")
    one.guard_ended(3)
    one.look(5.0)
    assert ASKED_TO_END in hands.done
    assert one.ending.outcome == "failed"
    one.look(15.0)
    assert KILLED in hands.done


def test_with_skip_the_slot_is_said_to_be_passed_over_and_the_command_goes_on() -> None:
    one, hands = running("skip")
    one.look(5.0)
    assert hands.done == [("say", "overlapped")]
    one.look(100.0 if one.next_look() == FOREVER else 6.0)
    assert hands.done.count(("say", "overlapped")) == 1
    assert ASKED_TO_END not in hands.done


PAUSE = {"paused_by": "root@vm", "paused_since": 1.0, "paused_until": None, "reason": ""}


def test_with_replace_a_command_goes_on_during_a_pause_and_gives_way_to_the_first_slot_after_it() -> None:
    one, hands = running("replace")
    one.ending.suspended(PAUSE, 12.0)
    one.look(5.0)
    one.look(10.0)
    assert hands.done == [("say", "not replaced")] * 2
    assert one.next_look() == 15.0
    one.look(15.0)
    assert ASKED_TO_END in hands.done


def test_with_replace_a_pause_that_is_over_or_taken_back_keeps_nothing() -> None:
    one, hands = running("replace")
    one.ending.suspended(PAUSE, None)
    one.ending.suspended(None, None)
    one.look(5.0)
    assert ASKED_TO_END in hands.done


def test_with_replace_a_pause_is_read_where_the_kernel_has_the_lock() -> None:
    one, hands = running("replace")
    hands.read_pause = PAUSE
    one.look(5.0)
    assert hands.done == [("say", "not replaced")]
    hands.read_pause = None
    one.look(10.0)
    assert ASKED_TO_END in hands.done


def test_a_command_that_ends_before_the_next_slot_is_left_alone() -> None:
    one, hands = running("replace")
    one.guard_ended(0)
    one.guard_gone(proved=True)
    one.look(5.0)
    assert ASKED_TO_END not in hands.done


def test_the_sentences() -> None:
    facts = {"event": "overlapped", "name": "x", "number": 1_790_000_000.0}
    assert sentence(facts, None) == (
        "slot 2026-09-21T14:13:20Z of 'x' is passed over: the last run still went on when it was due"
    )
    assert "so the last run, which still goes on, is stopped" in sentence(
        {**facts, "event": "replaced"}, None
    )
