"""The lease's table, and decisions of guard, keeper and front that no real process can be brought to."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from signal import SIGINT, SIGKILL, SIGTERM
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleton_run import lease_times
from singleton_run.api.contract import Grant, Held
from singleton_run.call import fast_parser, settings
from singleton_run.errors import HELD, LOST, UNAVAILABLE, Failure, Lost, Refused, Unavailable
from singleton_run.front import decisions as front_decisions
from singleton_run.guard.decisions import GONE, LEFTOVERS, MOST_NAMED, Guard
from singleton_run.job import Job
from singleton_run.keeper import decisions as keeper_decisions
from singleton_run.keeper import operations
from singleton_run.lease_times import FOREVER
from singleton_run.system.messages import GuardOrders

if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run.keeper.operations import Operation, Result
    from singleton_run.system.messages import Message

TTL = 30.0


# The table.


@pytest.mark.parametrize(
    ("ttl", "limit", "renew", "hangs", "stop", "kill"),
    [(6, 1, 2, 3.5, 4, 5), (12, 2, 4, 7, 8, 10.8), (30, 5, 10, 16, 20, 27), (600, 5, 200, 206, 400, 540)],
)
def test_the_table(ttl: float, limit: float, renew: float, hangs: float, stop: float, kill: float) -> None:
    assert lease_times.request_limit(ttl) == pytest.approx(limit)
    assert lease_times.renew_at(ttl, ttl) == pytest.approx(renew)
    assert lease_times.hangs_at(ttl, ttl, 0.0) == pytest.approx(hangs)
    assert lease_times.stop_at(ttl, ttl) == pytest.approx(stop)
    assert lease_times.kill_at(ttl, ttl) == pytest.approx(kill)


@given(st.floats(lease_times.LEAST_TTL, 1e7), st.floats(0, 1e9))
def test_one_thing_after_the_other_and_all_before_the_lease_is_over(ttl: float, end: float) -> None:
    moments = [
        end - ttl,
        lease_times.renew_at(end, ttl),
        lease_times.hangs_at(end, ttl, end - ttl),
        lease_times.stop_at(end, ttl),
        lease_times.kill_at(end, ttl),
        lease_times.enforce_at(end, ttl),
        end,
    ]
    assert all(earlier < later for earlier, later in pairwise(moments))
    assert lease_times.renew_at(end, ttl) + lease_times.request_limit(ttl) < lease_times.hangs_at(
        end, ttl, end - ttl
    )


def test_pauses_grow_up_to_a_limit() -> None:
    assert [lease_times.back_off(failures, 1.0) for failures in range(8)] == [0, 0, 0.1, 0.2, 0.4, 0.8, 1, 1]
    assert lease_times.back_off(10**6, 2.0) == 2.0


# The guard.


class Family:
    """A command and its descendants: `alive` are children, each on the list signalled so far."""

    def __init__(self, end: float = FOREVER, *, spawned: int = 1, error: int = 0) -> None:
        self.end = end
        self.error = error
        self.spawned = spawned
        self.alive: set[int] = set()
        self.ended: list[tuple[int, int]] = []
        self.sent: list[tuple[int, int]] = []
        self.foreign: set[int] = set()

    def spawn(self) -> int:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.alive.add(self.spawned)
        return self.spawned

    def reap(self) -> list[tuple[int, int]]:
        ended, self.ended = self.ended, []
        self.alive -= {process for process, _ in ended}
        return ended

    def empty(self) -> bool:
        return not self.alive

    def children(self) -> list[int]:
        return sorted(self.alive)

    def signal(self, process: int, number: int) -> bool:
        self.sent.append((process, number))
        return process not in self.foreign

    def signal_command(self, number: int) -> bool:
        return self.signal(self.spawned, number)

    def name(self, process: int) -> str:
        return f"name of {process}"

    def lease_end(self) -> float:
        return self.end


class Told(list[tuple[object, ...]]):
    """What was told."""

    def __call__(self, message: Message) -> None:
        self.append(message)


def guarding(family: Family, *, leftovers: str = "kill", ttl: float | None = TTL) -> tuple[Guard, Told]:
    """A guard of that family, and what it tells."""
    told = Told()
    guard = Guard(family, told, ttl=ttl, stop_signal=SIGTERM, grace=10.0, leftovers=leftovers)
    return guard, told


def test_a_guard_starts_nothing_under_a_lease_that_is_nearly_over() -> None:
    guard, told = guarding(Family(end=100.0))
    guard.start(lease_times.stop_at(100.0, TTL))
    assert told == [("late",)]
    guard, told = guarding(Family(end=100.0))
    guard.start(lease_times.stop_at(100.0, TTL) - 0.001)
    assert told == [("started", 1)]


def test_a_guard_starts_a_command_once() -> None:
    guard, told = guarding(Family())
    guard.start(0.0)
    guard.start(0.0)
    assert told == [("started", 1)]


def test_a_guard_tells_why_nothing_started() -> None:
    guard, told = guarding(Family(error=errno.EACCES))
    guard.start(0.0)
    assert told == [("failed", errno.EACCES)]


def test_a_guard_kills_at_the_lease_s_end_and_does_not_stop_killing() -> None:
    family = Family(end=100.0)
    guard, told = guarding(family)
    guard.start(0.0)
    family.alive.add(2)
    kill_at = lease_times.kill_at(100.0, TTL)
    guard.look(kill_at - 0.001)
    assert family.sent == []
    assert guard.next_look(0.0) == kill_at
    for now in (kill_at, kill_at + 0.1, kill_at + 0.2):
        family.sent.clear()
        guard.look(now)
        assert {(1, SIGKILL), (2, SIGKILL)} <= set(family.sent)
        assert guard.next_look(now) <= now + 0.5
    family.ended = [(1, -SIGKILL), (2, -SIGKILL)]
    guard.children(kill_at + 1)
    assert told[-2:] == [("ended", -SIGKILL), ("gone", True)]
    assert guard.next_look(0.0) == FOREVER


def test_a_renewal_in_time_is_seen_by_the_guard() -> None:
    family = Family(end=100.0)
    guard, _ = guarding(family)
    guard.start(0.0)
    family.end = 130.0
    guard.look(100.0)
    assert family.sent == []


def test_nothing_is_gone_before_the_kernel_says_so() -> None:
    family = Family()
    guard, told = guarding(family)
    guard.start(0.0)
    family.alive.add(2)
    family.ended = [(1, 0)]
    guard.children(1.0)
    assert ("gone", True) not in told
    assert (2, SIGTERM) in family.sent
    guard.look(10.9)
    assert (2, SIGKILL) not in family.sent
    guard.look(11.0)
    assert (2, SIGKILL) in family.sent
    assert guard.state == LEFTOVERS
    family.ended = [(2, -SIGKILL)]
    guard.children(11.1)
    assert guard.state == GONE


def test_a_leftover_is_asked_and_named_once_and_a_new_one_too() -> None:
    family = Family()
    guard, told = guarding(family)
    guard.start(0.0)
    family.alive |= {2, 3}
    family.ended = [(1, 0)]
    guard.children(1.0)
    family.ended = [(3, 0)]
    family.alive.add(4)
    guard.children(2.0)
    named = [message[1] for message in told if message[0] == "leftover"]
    assert named == [2, 3, 4]
    assert [process for process, _ in family.sent] == [2, 3, 4]


def test_of_very_many_leftovers_not_all_are_named() -> None:
    family = Family()
    guard, told = guarding(family)
    guard.start(0.0)
    family.alive |= set(range(2, 500))
    family.ended = [(1, 0)]
    guard.children(1.0)
    assert [message[0] for message in told].count("leftover") < MOST_NAMED + 1
    assert [message[0] for message in told].count("more_leftovers") == 1
    assert len(family.sent) == 498


def test_a_process_that_may_not_be_signalled_is_told_once_and_waited_for() -> None:
    family = Family(end=100.0)
    family.foreign.add(1)
    guard, told = guarding(family)
    guard.start(0.0)
    for now in (90.0, 98.0, 99.0, 101.0):
        guard.signal(SIGTERM)
        guard.look(now)
    assert [message for message in told if message[0] == "forbidden"] == [("forbidden", 1, "name of 1")]
    assert ("gone", True) not in told


def test_with_ignore_nothing_is_proved_and_this_is_told() -> None:
    family = Family()
    guard, told = guarding(family, leftovers="ignore")
    guard.start(0.0)
    family.alive.add(2)
    family.ended = [(1, 3)]
    guard.children(1.0)
    assert told[-2:] == [("ended", 3), ("gone", False)]
    assert family.sent == []


# The keeper: its operations one by one, each answered by hand.


class History:
    """Runs a keeper's steps against answers in a row, and keeps what it asked for."""

    def __init__(self, *, resumed: tuple[Grant, float] | None = None, wait_until: float = FOREVER) -> None:
        self.now = 0.0
        self.orders = operations.Orders()
        self.steps = keeper_decisions.lifecycle(Job("x", "me", TTL, wait_until), self.orders, resumed)
        self.did: Operation | None = next(self.steps)
        self.reported = 0.0
        self.told: list[tuple[Any, ...]] = []

    def answer(self, result: object = None, error: Failure | None = None, took: float = 0.0) -> None:
        """Answer the operation under way; those that are told or reported pass by."""
        began = self.now
        self.now += took
        self._send(operations.Result(began, self.now, result, error))

    def _send(self, done: Result) -> None:
        try:
            self.did = self.steps.send(done)
            while self.did.name in ("tell", "report"):
                if self.did.name == "tell":
                    self.told.append(self.did.arguments)
                else:
                    self.reported = self.did.arguments[0]
                self.did = self.steps.send(operations.Result(self.now, self.now))
        except StopIteration:
            self.did = None

    @property
    def next(self) -> str:
        """The operation that it wants done."""
        return "" if self.did is None else self.did.name


def grant() -> Grant:
    """A grant."""
    return Grant("x", "me", 7, TTL, {})


def test_a_grant_that_comes_too_late_is_renewed_and_not_run_before() -> None:
    history = History()
    history.answer(grant(), took=lease_times.stop_at(TTL, TTL))
    assert history.next == "renew"
    assert not history.told
    renewed_at = history.now
    history.answer(took=1.0)
    assert [message[0] for message in history.told] == ["granted"]
    assert history.reported == renewed_at + TTL


def test_a_grant_that_is_late_twice_is_not_run() -> None:
    history = History(wait_until=1.0)
    for _ in range(2):
        history.answer(grant(), took=lease_times.stop_at(TTL, TTL))
    while history.next:
        history.answer()
    assert [message[:2] for message in history.told] == [("gave_up", UNAVAILABLE)]


def test_the_lease_is_counted_from_before_the_request() -> None:
    history = History()
    history.now = 100.0
    history.answer(grant(), took=4.0)
    assert [message[0] for message in history.told] == ["granted"]
    assert history.reported == 100.0 + TTL
    assert history.next == "prepare"
    history.answer()
    assert history.did is not None
    assert (history.next, history.did.arguments[1]) == ("hold", lease_times.renew_at(100.0 + TTL, TTL))


def test_whoever_resumes_renews_the_grant_and_never_asks_for_another() -> None:
    history = History(resumed=(grant(), 20.0))
    assert history.next == "hold"
    history.answer()
    assert history.next == "renew"
    history.answer()
    assert history.next == "hold"


def test_a_loss_wakes_whoever_should_kill_and_then_kills() -> None:
    history = History(resumed=(grant(), 20.0))
    history.answer()
    history.answer(error=Lost("another has it"))
    assert history.told == [("lost", "another has it")]
    assert history.next == "wake"
    history.answer()
    assert history.next == "sleep"
    history.answer(took=keeper_decisions.WAKE_GRACE)
    assert history.next == "enforce"
    history.answer()
    assert history.next == ""


def test_a_failed_renewal_is_tried_again_until_the_keeper_kills_by_itself() -> None:
    history = History(resumed=(grant(), TTL))
    tries = 0
    while history.next != "enforce":
        assert history.now < TTL
        if history.next == "renew":
            tries += 1
            history.answer(error=Unavailable("no answer"), took=2.0)
        else:
            history.answer(took=0.1)
    assert tries > 5
    assert history.now >= lease_times.enforce_at(TTL, TTL)


def test_a_refusal_while_waiting_is_final_and_the_place_is_left() -> None:
    history = History()
    history.answer(error=Refused("no"))
    assert history.next == "leave"
    history.answer()
    assert history.told == [("gave_up", 77, "no", None)]


def test_the_time_for_waiting_ends_with_who_holds_it() -> None:
    history = History(wait_until=5.0)
    history.answer(Held("them", "there", 1.0))
    assert history.next == "wait"
    history.answer(took=5.0)
    history.answer(Held("them", "there", 1.0))
    assert history.next == "leave"
    history.answer()
    assert [message[0] for message in history.told] == ["held", "held", "gave_up"]
    assert history.told[-1][1] == HELD


def test_an_order_to_leave_takes_back_what_may_have_been_granted() -> None:
    history = History()
    history.orders.leaving = True
    history.answer(grant())
    assert history.next == "leave"


def test_a_release_is_tried_until_the_lease_is_over() -> None:
    history = History(resumed=(grant(), 20.0))
    history.orders.record = {"state": "failed"}
    history.answer()
    releases = 0
    while history.next:
        if history.next == "release":
            releases += 1
            history.answer(error=Unavailable("no answer"), took=3.0)
        else:
            history.answer(took=0.5)
    assert releases > 2
    assert history.told[-1] == ("settled", "no answer")
    assert history.now >= 20.0


def test_nothing_is_released_while_nothing_is_proved() -> None:
    history = History(resumed=(grant(), TTL))
    history.orders.no_front = history.orders.unguarded = True
    history.answer()
    assert history.next == "enforce"
    for _ in range(20):
        assert history.next not in ("release", "")
        history.answer(took=1.0 if history.next == "hold" else 0.0)
    history.orders.nothing_runs = True
    history.answer()
    while history.next and history.next != "release":
        history.answer()
    assert history.next == "release"


# The front's decisions.


class Hands:
    """What the front was told to do, by name."""

    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []
        self.end = 1e9
        self.reported = 0.0
        self.has_begun = True
        self.can_withdraw = True
        self.is_heard = True
        self.can_adopt = True
        self.is_scarce = False
        self.read_pause: Mapping[str, Any] | None = None

    def acquire(self, grant: Grant | None) -> None:
        if self.is_scarce:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        self.done.append(("acquire", grant is not None))

    def kill_keeper(self) -> None:
        self.done.append(("kill_keeper",))

    def settle(self) -> None:
        self.done.append(("settle",))

    def running(self) -> None:
        self.done.append(("running",))

    def leave(self) -> None:
        self.done.append(("leave",))

    def withdraw(self) -> bool:
        return self.can_withdraw

    def guard_has_read_all(self) -> bool:
        return self.is_heard

    def tell_guard(self, message: Message) -> None:
        self.done.append(("guard", *message))

    def new_guard(self) -> None:
        self.done.append(("new_guard",))

    def kill_guard(self) -> None:
        self.done.append(("kill_guard",))

    def adopt(self) -> bool:
        self.done.append(("adopt",))
        return self.can_adopt

    def lease(self) -> tuple[float, float]:
        return self.end, self.reported

    def start_begun(self) -> bool:
        return self.has_begun

    def pause(self) -> Mapping[str, Any] | None:
        return self.read_pause

    def say(self, level: str, event: str, **facts: object) -> None:
        self.done.append(("say", event))


def fronting(*options: str, environ: Mapping[str, str] | None = None) -> tuple[front_decisions.Turn, Hands]:
    """A turn whose command runs since 0, under a lease that is over at TTL."""
    values = fast_parser.read([*options, "--name", "x", "--ttl", "30s", "--", "true"], environ or {})
    assert values is not None
    hands = Hands()
    asked = settings.check(values, {})
    one = front_decisions.Turn(asked, hands, leased=True, now=0.0, kill_grace=10.0)
    one.begin()
    one.granted(grant(), 0.0)
    one.guard_started(1, 0.0)
    hands.end = TTL
    hands.done.clear()
    return one, hands


def test_there_are_never_two_keepers() -> None:
    one, hands = fronting()
    one.look(lease_times.hangs_at(TTL, TTL, 0.0))
    assert ("kill_keeper",) in hands.done
    for now in (17.0, 18.0, 19.0):
        one.look(now)
        assert not [done for done in hands.done if done[0] == "acquire"], (
            "another before the first was waited for"
        )
    one.keeper_died(19.5)
    one.look(19.5)
    assert [done for done in hands.done if done[0] == "acquire"] == [("acquire", True)]


def test_a_keeper_that_hangs_in_the_release_is_replaced_and_told_again() -> None:
    one, hands = fronting()
    hands.reported = 0.9
    one.guard_ended(0)
    one.guard_gone(proved=True)
    assert hands.done.count(("settle",)) == 1
    one.look(1.0)
    due = one.next_look()
    one.look(due - 0.001)
    assert ("kill_keeper",) not in hands.done
    hands.reported = due - 0.001
    one.look(due)
    assert ("kill_keeper",) not in hands.done, "it has just tried again"
    due = one.next_look()
    one.look(due)
    assert ("kill_keeper",) in hands.done
    one.keeper_died(due)
    one.look(due)
    assert hands.done.count(("settle",)) == 2


def test_a_keeper_that_can_not_be_forked_is_tried_again_until_the_lease_is_over() -> None:
    one, hands = fronting()
    hands.is_scarce = True
    one.keeper_died(1.0)
    one.look(one.next_look())
    assert hands.done.count(("say", "trouble")) == 1
    hands.is_scarce = False
    one.look(one.next_look())
    assert ("acquire", True) in hands.done
    hands.is_scarce = True
    one.keeper_died(one.next_look())
    one.look(lease_times.kill_at(TTL, TTL))
    assert ("guard", "kill") in hands.done


def test_a_keeper_that_can_not_be_waited_for_costs_the_command() -> None:
    one, hands = fronting()
    for now in range(31):
        one.look(float(now))
    assert not [done for done in hands.done if done[0] == "acquire"]
    assert ("guard", "signal", SIGTERM) in hands.done
    assert ("guard", "kill") in hands.done
    assert ("kill_guard",) in hands.done
    assert hands.done.index(("guard", "signal", SIGTERM)) < hands.done.index(("guard", "kill"))


def test_a_late_renewal_lifts_the_kill_but_not_the_stop() -> None:
    one, hands = fronting()
    one.look(lease_times.stop_at(TTL, TTL))
    hands.end, hands.reported = 2 * TTL, 20.0
    one.look(lease_times.kill_at(TTL, TTL))
    assert ("guard", "signal", SIGTERM) in hands.done
    assert ("guard", "kill") not in hands.done
    one.guard_ended(0)
    one.guard_gone(proved=True)
    assert one.ending.status == LOST


@pytest.mark.parametrize("number", [SIGINT, SIGTERM])
def test_a_signal_between_the_guard_s_death_and_its_adoption_is_passed_on(number: int) -> None:
    one, hands = fronting()
    one.guard_died(1.0)
    one.signal(number, 1.01)
    assert ("guard", "signal", number) not in hands.done
    one.look(one.next_look())
    assert ("kill_keeper",) in hands.done
    one.keeper_died(1.3)
    adopted = hands.done.index(("adopt",))
    assert ("guard", "signal", number) in hands.done[adopted:]


def test_the_keeper_outlives_the_guard_for_a_moment() -> None:
    one, hands = fronting()
    one.guard_died(1.0)
    one.look(1.0)
    assert ("kill_keeper",) not in hands.done
    assert 1.0 < one.next_look() < 1.5


@pytest.mark.parametrize("number", [1, 2, 3, 10, 12, 15])
@pytest.mark.parametrize("to", [None, 0, 10, 15])
def test_what_stops_us_is_what_was_sent_and_not_what_the_command_would_get(
    number: int, to: int | None
) -> None:
    rewrite = [] if to is None else ["--rewrite-signal", f"{number}:{to}"]
    values = fast_parser.read([*rewrite, "--name", "x", "--", "true"], {})
    assert values is not None
    asked, hands = settings.check(values, {}), Hands()
    one = front_decisions.Turn(asked, hands, leased=True, now=0.0, kill_grace=10.0)
    one.begin()
    one.signal(number, 1.0)
    stops = number in (1, 2, 3, 15) and to != 0
    assert (("leave",) in hands.done, one.stop_requested) == (stops, stops)
    assert front_decisions.stops_us(number, asked.rewrite) == stops


def test_a_grant_after_the_decision_to_leave_starts_nothing() -> None:
    values = fast_parser.read(["--name", "x", "--", "true"], {})
    assert values is not None
    hands = Hands()
    one = front_decisions.Turn(settings.check(values, {}), hands, leased=True, now=0.0, kill_grace=10.0)
    one.begin()
    one.signal(SIGTERM, 1.0)
    one.granted(grant(), 1.1)
    assert ("leave",) in hands.done
    assert not [done for done in hands.done if done[0] == "guard"]
    assert one.next_look() < 10.0
    one.look(one.next_look())
    assert (one.phase, one.ending.status) == (front_decisions.OVER, 128 + SIGTERM)


def test_the_timeout_counts_from_the_start_and_not_from_when_we_hear_of_it() -> None:
    values = fast_parser.read(["--name", "x", "--timeout", "5s", "--", "true"], {})
    assert values is not None
    hands = Hands()
    one = front_decisions.Turn(settings.check(values, {}), hands, leased=False, now=0.0, kill_grace=10.0)
    one.begin()
    one.granted(grant(), 7.0)
    one.guard_started(1, 1.0)
    one.look(7.0)
    assert one.ending.imposed == 124


@pytest.mark.parametrize("heard", ["ended", "seen to have ended"])
def test_a_command_that_has_ended_runs_into_no_timeout(heard: str) -> None:
    one, hands = fronting("--timeout", "5s")
    if heard == "ended":
        one.guard_ended(3)
    else:
        one.command_ended(6.0)
    one.look(6.0)
    assert one.ending.imposed == 0
    assert ("say", "timeout") not in hands.done


def test_a_guard_that_reads_no_order_is_woken_and_then_replaced() -> None:
    one, hands = fronting()
    one.signal(SIGTERM, 1.0)
    hands.is_heard = False
    one.look(1.0)
    one.look(1.5)
    assert ("guard", "wake") not in hands.done
    one.look(one.next_look())
    assert ("guard", "wake") in hands.done
    assert ("kill_guard",) not in hands.done
    one.look(one.next_look())
    assert ("kill_guard",) in hands.done
    one.look(one.next_look())
    assert ("say", "guard frozen") in hands.done


def test_a_guard_that_answers_late_is_left_alone() -> None:
    one, hands = fronting()
    one.signal(SIGTERM, 1.0)
    hands.is_heard = False
    one.look(1.0)
    hands.is_heard = True
    one.look(one.next_look())
    assert ("guard", "wake") not in hands.done
    assert one.guard.next_look() == lease_times.FOREVER


def test_a_guard_that_died_before_it_started_anything_is_replaced() -> None:
    values = fast_parser.read(["--name", "x", "--", "true"], {})
    assert values is not None
    hands = Hands()
    hands.can_adopt = False
    one = front_decisions.Turn(settings.check(values, {}), hands, leased=False, now=0.0, kill_grace=10.0)
    one.begin()
    one.granted(grant(), 0.0)
    one.guard_died(1.0)
    assert hands.done[-2:] == [("new_guard",), ("guard", *GuardOrders.start(grant().token))]
    one.guard_started(1, 1.1)
    one.guard_ended(0)
    one.guard_gone(proved=True)
    assert one.ending.status == 0


def test_a_wait_whose_end_the_guard_has_forestalled_goes_on_until_it_says_so() -> None:
    values = fast_parser.read(["--name", "x", "--wait", "2s", "--", "true"], {})
    assert values is not None
    hands = Hands()
    hands.can_withdraw = False
    one = front_decisions.Turn(settings.check(values, {}), hands, leased=False, now=0.0, kill_grace=10.0)
    one.begin()
    one.look(2.0)
    assert (one.phase, one.next_look()) == (front_decisions.WAITING, lease_times.FOREVER)
    one.signal(SIGTERM, 2.1)
    one.granted(grant(), 2.2)
    to_guard = [done for done in hands.done if done[0] == "guard"]
    assert to_guard == [("guard", *GuardOrders.start(grant().token)), ("guard", "signal", SIGTERM)]


@pytest.mark.parametrize(("number", "status"), [(2, 127), (8, 126), (13, 126), (11, 78), (12, 78), (24, 78)])
def test_a_command_that_did_not_start_is_its_own_fault_or_the_machine_s(number: int, status: int) -> None:
    values = fast_parser.read(["--name", "x", "--", "true"], {})
    assert values is not None
    one = front_decisions.Turn(settings.check(values, {}), Hands(), leased=True, now=0.0, kill_grace=10.0)
    one.begin()
    one.granted(grant(), 0.1)
    one.guard_failed(number, "")
    one.settled("")
    assert (one.phase, one.ending.status) == (front_decisions.OVER, status)


@pytest.mark.parametrize("told", [True, False])
def test_a_keeper_that_answers_too_late_is_asked_to_give_the_lock_back(*, told: bool) -> None:
    """It is held only if somebody said so: else the server gave no answer."""
    values = fast_parser.read(["--name", "x", "--wait", "2s", "--ttl", "6s", "--", "true"], {})
    assert values is not None
    hands = Hands()
    one = front_decisions.Turn(settings.check(values, {}), hands, leased=True, now=0.0, kill_grace=10.0)
    one.begin()
    if told:
        one.held("them", "there", 1.0)
    one.look(one.next_look())
    assert hands.done[-2:] == [("say", "gave up"), ("leave",)]
    one.granted(grant(), 5.0)
    assert one.phase == front_decisions.WAITING
    one.settled("")
    status = HELD if told else UNAVAILABLE
    assert (one.phase, one.ending.status, one.conflict) == (front_decisions.OVER, status, told)
