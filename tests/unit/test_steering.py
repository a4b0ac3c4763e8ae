"""What keeper and front decide about a pause, an order to give the lock back, and a run that goes on."""

from __future__ import annotations

from signal import SIGTERM
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run import lease_times
from singleton_run.api import control
from singleton_run.api.contract import Grant, Held
from singleton_run.call import fast_parser, settings
from singleton_run.errors import HELD, LOST, Lost, Unavailable
from singleton_run.front import decisions as front_decisions
from singleton_run.keeper import decisions as keeper_decisions
from singleton_run.lease_times import FOREVER
from singleton_run.report.sentences import sentence
from singleton_run.system.messages import GuardOrders
from tests.unit.schedule.test_slot_rules import HOUR, NOON, decide, last
from tests.unit.schedule.test_slot_trips import Trip
from tests.unit.test_lease_times import TTL, Hands, History, fronting, grant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run.keeper.operations import Operation

NOW = 1_790_000_000.0
"""What the wall clock shows when the boot clock shows 0."""
FACTS = {"paused_by": "alice", "paused_since": NOW, "paused_until": None, "reason": "why"}


def pausing(until: float | None = None) -> control.Control:
    """A control with a pause, until so many seconds after NOW."""
    return control.paused(
        None, by="alice", at=NOW, until=None if until is None else NOW + until, reason="why"
    )


def ordering(token: int = 7) -> control.Control:
    """A control with an order to the holder of that token."""
    return control.ordered(None, holder="me", token=token, by="bob", at=NOW)


def granted(asked: Mapping[str, Any] | None) -> Grant:
    """A grant with that control."""
    return Grant("x", "me", 7, TTL, {}, control=asked)


class Steered(History):
    """A keeper's history in which it is told the time."""

    def step(self, result: object = None, error: Any = None, took: float = 0.0) -> None:
        """Answer the operation under way, and then each question for the time."""
        self.answer(result, error, took)
        while self.next == "clock":
            self.answer((NOW + self.now, 0.0))

    def until(self) -> float:
        """Until when it waits."""
        assert self.did is not None
        found: float = self.did.arguments[-1]
        return found


# A pause.


def test_a_keeper_that_is_given_a_paused_lock_keeps_it_and_starts_nothing_until_it_is_resumed() -> None:
    history = Steered()
    history.step(granted(pausing()))
    assert history.told == [("paused", FACTS, None)]
    for _ in range(3):
        assert history.next == "hold"
        assert history.until() == pytest.approx(history.now + TTL / 3)
        history.step(took=TTL / 3)
        assert history.next == "renew"
        history.step(pausing())
    assert len(history.told) == 1
    history.step(took=1.0)
    history.step(control.resumed(pausing()))
    assert [message[0] for message in history.told] == ["paused", "granted"]
    assert history.reported == history.now + TTL


def test_a_pause_ends_at_its_time_and_the_lease_is_fresh_then() -> None:
    history = Steered()
    history.step(granted(pausing(4.0)))
    assert 4.0 < history.until() < 4.1
    history.step(took=history.until())
    assert history.next == "renew"
    history.step(pausing(4.0))
    assert history.told[-1][0] == "granted"


def test_who_wakes_up_too_late_after_a_pause_renews_once_more() -> None:
    history = Steered()
    history.step(granted(pausing()))
    history.step(took=TTL / 3)
    history.step(control.resumed(None), took=lease_times.stop_at(TTL, TTL))
    assert history.next == "renew"
    assert len(history.told) == 1
    history.step()
    assert history.told[-1][0] == "granted"


def test_each_change_of_a_pause_is_told() -> None:
    history = Steered()
    history.step(granted(pausing()))
    history.step()
    history.step(pausing(60.0))
    history.step()
    history.step(pausing(60.0))
    assert [message[1]["paused_until"] for message in history.told] == [None, NOW + 60.0]


def test_a_control_that_cannot_be_read_is_a_pause() -> None:
    history = Steered()
    history.step(granted(control.parsed("{")))
    assert history.next == "hold"
    assert history.told[0][1]["reason"] == "its control object can't be read"


@pytest.mark.parametrize("wait_until", [0.0, 5.0])
def test_a_pause_that_outlasts_the_wait_is_the_reason_for_its_end(wait_until: float) -> None:
    history = Steered(wait_until=wait_until)
    history.step(granted(pausing()))
    while history.next == "hold":
        history.step(took=history.until() - history.now)
        history.step(pausing())
    assert history.next == "leave"
    history.step()
    assert history.told == [("paused", FACTS, None), ("gave_up", HELD, "", None)]
    assert history.now >= wait_until


def test_who_is_asked_to_leave_during_a_pause_leaves() -> None:
    history = Steered()
    history.step(granted(pausing()))
    history.orders.leaving = True
    history.step(took=1.0)
    assert history.next == "leave"
    history.step()
    assert history.told[-1] == ("settled", "")


@pytest.mark.parametrize("error", [Lost("another's"), Unavailable("down")], ids=["lost", "unavailable"])
def test_a_renewal_that_fails_during_a_pause_has_the_lock_acquired_anew(error: Any) -> None:
    history = Steered()
    history.step(granted(pausing()))
    history.step(took=TTL / 3)
    history.step(error=error)
    assert history.next == "acquire"
    history.step(Held("them", "there", 1.0, control=pausing()))
    assert history.told[-1] == ("held", "them", "there", 1.0, FACTS)
    assert history.next == "wait"


def test_an_order_during_a_pause_ends_the_wait() -> None:
    history = Steered()
    history.step(granted(pausing()))
    history.step()
    history.step({**pausing(), "release": ordering()["release"]})
    assert history.next == "leave"
    history.step()
    assert history.told[-1][:2] == ("gave_up", LOST)
    assert "taken away by bob" in history.told[-1][2]


@pytest.mark.parametrize("asked", [None, control.resumed(None), pausing(-1.0), ordering(8)], ids=str)
def test_what_is_not_in_force_or_for_another_keeps_nobody_from_starting(asked: Any) -> None:
    history = Steered()
    history.step(granted(asked))
    assert [message[0] for message in history.told] == ["granted"]


def test_a_pause_is_told_anew_after_trouble() -> None:
    history = Steered()
    history.step(granted(pausing()))
    history.step(took=TTL / 3)
    history.step(error=Unavailable("down"))
    history.step(error=Unavailable("down"))
    assert history.told[-1:] == [("trouble", "down")]
    history.step(took=0.1)
    history.step(granted(pausing()))
    assert history.told[-1:] == [("paused", FACTS, None)]


@pytest.mark.parametrize("answer", [True, "yes", [1], 0])
def test_what_a_stranger_s_renewal_returns_asks_for_nothing(answer: object) -> None:
    history = History(resumed=(grant(), TTL))
    history.answer()
    history.answer(answer)
    assert (history.next, history.told) == ("hold", [])


# An order.


def test_an_order_is_told_after_each_renewal_and_the_lock_is_renewed_on() -> None:
    history = History(resumed=(grant(), TTL))
    for times in (1, 2, 3):
        assert history.next == "hold"
        history.answer(took=1.0)
        assert history.next == "renew"
        history.answer(ordering())
        assert history.told == times * [("revoked", "bob")]
        assert history.next == "wake"
        history.answer()


def test_an_order_to_another_token_is_none_to_us() -> None:
    history = History(resumed=(grant(), TTL))
    history.answer()
    history.answer(ordering(8))
    assert (history.next, history.told) == ("hold", [])


def test_an_order_stops_the_command_and_kills_it_after_its_grace() -> None:
    one, hands = fronting()
    one.revoked("bob", 5.0)
    one.revoked("bob", 6.0)
    assert hands.done == [("say", "revoked"), ("guard", *GuardOrders.signal(SIGTERM))]
    hands.end = 5.0 + TTL
    one.look(14.9)
    assert ("guard", "kill") not in hands.done
    assert one.next_look() == 15.0
    one.look(15.0)
    assert hands.done[-1:] == [("guard", "kill")]
    one.guard_ended(-9)
    one.guard_gone(proved=True)
    assert hands.done[-1:] == [("settle",)]
    one.settled("")
    assert (one.phase, one.ending.status, one.ending.outcome) == (front_decisions.OVER, LOST, "lost")


def test_an_order_in_the_middle_of_the_start_starts_nothing_if_the_guard_dies() -> None:
    values = fast_parser.read(["--name", "x", "--", "true"], {})
    assert values is not None
    hands = Hands()
    hands.has_begun = False
    one = front_decisions.Turn(settings.check(values, {}), hands, leased=True, now=0.0, kill_grace=10.0)
    one.begin()
    one.granted(grant(), 0.1)
    one.revoked("bob", 0.2)
    one.guard_died(0.3)
    assert ("new_guard",) not in hands.done
    assert hands.done[-1] == ("settle",)


def test_an_order_after_the_command_changes_nothing() -> None:
    one, hands = fronting()
    one.guard_ended(0)
    one.guard_gone(proved=True)
    one.revoked("bob", 1.0)
    assert hands.done == [("settle",)]
    assert one.ending.status == 0


# What the front says of a pause.


def waiting(*options: str) -> tuple[front_decisions.Turn, Hands]:
    """A turn that waits since 0."""
    values = fast_parser.read([*options, "--name", "x", "--", "true"], {})
    assert values is not None
    hands = Hands()
    one = front_decisions.Turn(settings.check(values, {}), hands, leased=True, now=0.0, kill_grace=10.0)
    one.begin()
    hands.done.clear()
    return one, hands


def test_a_pause_is_said_once_though_another_keeper_tells_it_again() -> None:
    one, hands = waiting()
    one.paused(FACTS)
    one.paused(FACTS)
    assert [*hands.done] == [("say", "paused")]
    one.paused({**FACTS, "reason": "another"})
    assert [*hands.done] == 2 * [("say", "paused")]


def test_a_keeper_that_hangs_during_a_pause_until_the_wait_is_over_leaves_the_pause_as_the_reason() -> None:
    one, _ = waiting("--wait", "1s")
    one.paused(FACTS)
    one.look(one.next_look())
    assert (one.ending.status, one.conflict, one.wait.holder) == (HELD, True, FACTS)


# A run that is written down while it goes on.


def running(history: History, **changes: Any) -> dict[str, Any]:
    """Have the front tell that the command runs; the record."""
    history.orders.running({"state": "running", "token": 1, **changes})
    assert history.orders.running_record is not None
    return dict(history.orders.running_record)


def operations(history: History, count: int) -> list[str]:
    """The next operations, each of which succeeds; those that wait take their time."""
    did = []
    for _ in range(count):
        did.append(history.next)
        do: Operation | None = history.did
        waits = do is not None and do.name in ("sleep", "hold")
        until = do.arguments[-1] if do is not None and waits else history.now
        history.answer(took=max(0.0, until - history.now))
    return did


def test_a_run_that_lasts_is_written_down_and_no_renewal_comes_early() -> None:
    history = History(resumed=(grant(), TTL))
    record = running(history)
    history.answer()
    assert operations(history, 2) == ["sleep", "sleep"]
    assert history.now == keeper_decisions.WRITE_AFTER
    assert history.did is not None
    assert (history.next, history.did.arguments[1]) == ("write", {**record, "runs": []})
    assert operations(history, 3) == ["write", "hold", "renew"]
    assert history.now == pytest.approx(lease_times.renew_at(TTL, TTL))
    assert "write" not in operations(history, 10)


def test_a_run_that_ends_at_once_is_not_written_down_before_its_end() -> None:
    history = History(resumed=(grant(), TTL))
    running(history)
    history.answer()
    history.answer()
    history.orders.settle({"state": "succeeded", "token": 1})
    history.answer(took=0.01)
    assert history.next == "release"


def test_an_end_that_is_heard_while_that_is_written_is_not_slept_through() -> None:
    history = History(resumed=(grant(), TTL))
    running(history)
    history.answer()
    history.answer()
    history.answer(took=keeper_decisions.WRITE_AFTER)
    assert history.next == "write"
    history.orders.settle({"state": "succeeded", "token": 1})
    history.answer(took=0.1)
    assert history.next == "release"


def test_a_renewal_that_is_due_comes_before_it() -> None:
    history = History(resumed=(grant(), TTL))
    history.now = lease_times.renew_at(TTL, TTL) - 0.2
    running(history)
    history.answer()
    assert operations(history, 6) == ["sleep", "hold", "renew", "sleep", "sleep", "write"]


def test_an_error_of_it_changes_nothing() -> None:
    history = History(resumed=(grant(), TTL))
    running(history)
    history.answer()
    operations(history, 2)
    history.answer(error=Unavailable("down"))
    assert (history.next, history.told) == ("hold", [])


# Slots.


def slotted(asked: Mapping[str, Any] | None, **wishes: Any) -> Trip:
    """A trip to the slot of one o'clock, under a lock with that control."""
    wishes.setdefault("record", last())

    def answer(trip: Trip, do: Operation) -> object:
        trip.granted.control = asked
        return None

    return Trip(answer, begin=HOUR - 0.5, **wishes)


def at_noon(until: float | None = None) -> control.Control:
    """A pause, until so many seconds after noon."""
    ends = None if until is None else NOON + until
    return control.paused(None, by="alice", at=NOON, until=ends, reason="why")


@pytest.mark.parametrize("retries", [0, 3])
def test_a_slot_that_is_due_during_a_pause_is_skipped_and_never_tried_again(retries: int) -> None:
    trip = slotted(at_noon(), retries=retries)
    assert trip.end()[0] == "rest"
    assert trip.end()[2:] == (NOON + HOUR, "paused")
    told: Any = next(told for told in trip.told() if told[0] == "paused")
    assert (told[1]["reason"], told[2]) == ("why", NOON + HOUR)
    assert trip.times("write") == []
    record = next(do for _, do in trip.did if do.name == "release").arguments[1]
    assert (record["state"], record["slot"]["state"]) == ("skipped", "skipped")
    assert record["slot"]["slot"] == NOON + HOUR
    for now in (HOUR + 1.0, HOUR + 1800.0):
        told = decide(record, now, retries=retries)
        assert (told.kind, told.slot) == ("rest", 2 * HOUR)
    later = decide(record, 2 * HOUR, retries=retries)
    assert (later.kind, later.slot, later.attempt) == ("run", 2 * HOUR, 1)
    assert later.decision.missed == 0


def test_a_retry_that_is_due_during_a_pause_is_skipped_too() -> None:
    failed = last(0.0, state="failed", end=HOUR - 50.0)
    assert slotted(None, record=failed, retries=3).end()[0] == "granted"
    trip = slotted(at_noon(), record=failed, retries=3)
    assert [told[2] for told in trip.told() if told[0] == "paused"] == [NOON]
    assert trip.end()[0] == "rest"


def test_a_slot_of_one_call_ends_with_the_pause_as_the_reason() -> None:
    trip = slotted(at_noon(), loop=False)
    assert [told[0] for told in trip.told()] == ["paused", "gave_up"]
    assert trip.end()[:3] == ("gave_up", HELD, "")


def test_a_pause_that_is_over_at_the_slot_s_time_skips_nothing() -> None:
    assert slotted(at_noon(HOUR - 0.01)).end()[0] == "granted"
    assert slotted(at_noon(HOUR + 0.01)).end()[0] == "rest"


# The sentences.


@pytest.mark.parametrize(
    ("event", "facts", "said"),
    [
        ("paused", {}, "waiting: lock 'x' is paused by alice since {at} until it is resumed: why"),
        (
            "slot paused",
            {"slot": 0},
            "slot 1970-01-01T00:00:00Z of 'x' is skipped: the lock is paused by alice",
        ),
        ("gave up", {"text": ""}, "lock 'x' is paused by alice since {at} until it is resumed: why"),
        (
            "gave up",
            {"text": "", "slot": 0},
            "slot 1970-01-01T00:00:00Z of 'x' is skipped: the lock is paused",
        ),
        (
            "gave up",
            {"text": "", "holder": "h:1", "host": "h", "since": 0},
            "lock 'x' is held by h:1 on h since 1970-01-01T00:00:00Z; it is paused by alice",
        ),
        ("held", {"holder": "", "host": ""}, "waiting for lock 'x'; it is paused by alice"),
    ],
)
def test_what_is_said_of_a_pause(event: str, facts: dict[str, Any], said: str) -> None:
    text = sentence({"event": event, "level": "wait", "name": "x", **FACTS, **facts}, None)
    assert text.startswith(said.format(at="2026-09-21T14:13:20Z"))


def test_what_nobody_knows_of_a_pause_is_left_out() -> None:
    pause = control.pause_of(control.parsed("?"), NOW)
    assert pause is not None
    text = sentence({"event": "paused", "level": "wait", "name": "x", **control.facts(pause)}, None)
    assert text == "waiting: lock 'x' is paused until it is resumed: its control object can't be read"
    assert FOREVER not in control.facts(pause).values()
