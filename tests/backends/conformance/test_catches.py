"""Every case of the suite can fail: for each there is a backend with a bug that it catches."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import Failure, Refused, Unavailable
from singleton_run.testing import Conformance, Crew, Fault, LeasedConformance, peer, suite
from singleton_run.testing.peer import Nursery
from tests.backends.conformance.test_leasefile import marked, site_in
from tests.example_backends import broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.process

MODULE = "tests.example_backends.broken"
WRONG = "wrong"
TRIES = 3

NOT_HAD = "the lock was never had"
NOT_LOST = "DID NOT RAISE Lost"
STUCK = "has not returned after"

# What each backend is caught by: the cases, and what they say.
CATCHES = {
    "GrantsEverybody": {"one_has_it_and_another_is_told_who": "is held, but acquire granted it"},
    "GrantsLess": {"a_grant_says_what_was_asked_and_survives_json": "shorter than what was asked for"},
    "LooksThenTakes": {"few_that_hammer_never_overlap": "two held the lock|nobody holds it|host.* holds it"},
    "ReleasesThenWrites": {"few_that_hammer_never_overlap": "the record of the turn .* was not there"},
    "ForgetsTheOrder": {"fifty_contenders_each_get_their_turn": "order of arrival"},
    "NeverWakes": {
        "a_release_wakes_a_waiter": NOT_HAD,
        "a_waiter_is_woken_by_a_deletion": NOT_HAD,
        "a_kept_lock_is_had_when_its_time_is_over": NOT_HAD,
    },
    "WatchesFromNowOn": {
        "a_release_just_before_the_wait_is_not_missed": "free before the wait began",
        "hold_notices_what_was_deleted_before_it": STUCK,
        "hold_notices_a_control_that_came_before_it": STUCK,
    },
    "Deaf": {"wait_returns_when_it_is_woken": STUCK, "hold_returns_when_it_is_woken": STUCK},
    "SpinsRound": {
        "wait_returns_at_its_time": "busy loop",
        "hold_returns_at_its_time": "busy loop",
        "a_kept_lock_is_waited_for_and_not_polled": "busy loop",
    },
    "OversleepsTheEnd": {"wait_returns_at_its_time": STUCK, "hold_returns_at_its_time": STUCK},
    "WatchesNothing": {"hold_returns_when_the_lock_is_deleted_or_taken": STUCK},
    "NeverLeaves": {"leave_gives_back_what_acquire_was_granted": NOT_HAD},
    "GivesNothingBack": {"a_late_grant_is_renewed_before_it_is_used": NOT_HAD},
    "LeavesItsPlaceBehind": {
        "leave_frees_the_place_of_a_waiter_and_nothing_else": NOT_HAD,
        "leave_gives_back_a_lock_that_came_while_nobody_looked": NOT_HAD,
    },
    "LeavesWithTheHolder": {
        "leave_frees_the_place_of_a_waiter_and_nothing_else": "holds it",
        "leave_without_anything_to_leave_is_done": "is held, but acquire granted it",
        "a_stranger_changes_nothing": "holds it",
    },
    "HoldsItselfUp": {"an_acquire_that_is_repeated_is_not_held_up_by_itself": "is free, but"},
    "RepeatsTheGrant": {"an_acquire_that_is_repeated_extends_the_lease": "too early"},
    "NeverEndsTheLease": {"a_dead_holder_is_followed": NOT_HAD},
    "KeepsThePlacesOfTheDead": {"a_dead_waiter_holds_nobody_up": NOT_HAD},
    "StartsTokensAgain": {"tokens_grow_over_release_leave_and_deletion_by_hand": "token came again"},
    "KeepsTheTokenOfTheDead": {"tokens_grow_over_expiry": "token came again"},
    "LosesTheRecord": {"a_record_is_read_back_by_all": "not what the last holder left"},
    "MakesByReading": {"a_record_is_read_back_by_all": "to look at a lock is not to make one"},
    "ReleasesOnce": {
        "a_release_done_twice_is_done": "nobody holds it",
        "a_release_that_keeps_is_done_when_it_is_done_twice": "nobody holds it",
    },
    "WritesUnseen": {
        "a_stranger_changes_nothing": NOT_LOST,
        "the_grant_of_an_earlier_turn_changes_nothing": NOT_LOST,
        "an_older_keeper_changes_nothing": NOT_LOST,
    },
    "ReleasesUnseen": {
        "a_stranger_changes_nothing": NOT_LOST,
        "the_grant_of_an_earlier_turn_changes_nothing": "is held, but acquire granted it",
        "a_lock_taken_by_hand_is_lost_within_a_renewal": NOT_LOST,
    },
    "FoldsCase": {"names_that_look_alike_are_different_locks": "is free, but"},
    "CutsNames": {"names_that_look_alike_are_different_locks": "is free, but"},
    "Impatient": {
        "what_cannot_be_used_says_so_in_time": "out of reach: must be Unavailable, was Refused",
        "during_an_outage_every_call_ends_in_its_time": "is out of reach",
    },
    "TooPatient": {"during_an_outage_every_call_ends_in_its_time": STUCK},
    "TellsSecrets": {"what_cannot_be_used_says_so_in_time": "shows the password"},
    "TellsNothing": {"what_cannot_be_used_says_so_in_time": "says nothing to the user"},
    "ExaminesByTaking": {"to_examine_a_lock_changes_nothing": "examine made the lock's name known"},
    "ExaminesInVain": {
        "to_examine_a_lock_changes_nothing": "it says of a site that works: it can't be taken"
    },
    "ClosesWithAnError": {"close_never_raises": "closed already"},
    "ClosesNothing": {"close_never_raises": "leaves a connection open"},
    "EndsTheLeaseEarly": {"a_lease_lapses_and_not_before_its_end": "too early"},
    "RenewsNothing": {"a_renewed_lease_lapses_a_ttl_after_the_last_renewal": "holds it|too early"},
    "LetsPlacesLapse": {"a_renewed_lease_lapses_a_ttl_after_the_last_renewal": NOT_HAD},
    "ObservesFirst": {"one_attempt_after_a_crash_succeeds_once_the_lease_is_over": "is free, but"},
    "TellsTheWallClock": {"until_is_the_end_of_the_lease": "not by the boot clock"},
    "RemembersInTheObject": {"a_fresh_process_keeps_the_lock_by_the_grant_alone": "never had it"},
    "ReleasesByClosing": {"close_does_not_release": "is held, but acquire granted it"},
    "ForgetsGenerations": {"an_older_keeper_changes_nothing": NOT_LOST},
    "LetsOldKeepersBack": {"an_older_keeper_changes_nothing": NOT_LOST},
    "CountsGenerationsOn": {"an_older_keeper_changes_nothing": "a later keeper"},
    "TakesBackByRenewing": {
        "a_released_lock_is_lost_to_its_holder": NOT_LOST,
        "a_grant_that_was_left_is_lost": NOT_LOST,
        "a_lock_deleted_by_hand_is_lost_within_a_renewal": NOT_LOST,
    },
    "RenewsUnseen": {
        "an_expired_lock_that_another_took_is_lost": NOT_LOST,
        "a_lock_taken_by_hand_is_lost_within_a_renewal": NOT_LOST,
        "a_renewal_by_a_stranger_is_lost": NOT_LOST,
    },
    "KeepsNothing": {
        "a_kept_lock_is_nobody_s": "is held, but acquire granted it",
        "a_kept_lock_is_nobody_s_to_renew_or_to_leave": "is held, but acquire granted it",
    },
    "KeepsNotLongEnough": {"a_kept_lock_is_had_when_its_time_is_over": "too early"},
    "KeepsForItself": {
        "a_kept_lock_is_nobody_s": "is held, but acquire granted it",
        "a_kept_lock_is_lost_to_its_holder": "is held, but acquire granted it",
        "a_kept_lock_is_nobody_s_to_renew_or_to_leave": "is held, but acquire granted it",
    },
    "KeepsWithoutATime": {"a_kept_lock_is_nobody_s": "doesn't say until when"},
    "HidesWhatIsKept": {"a_kept_lock_is_nobody_s": "read says that a kept lock is free"},
    "KeepsWhileItLives": {
        "a_kept_lock_is_kept_when_its_holder_is_gone": "is held, but acquire granted it",
        "a_kept_lock_is_nobody_s_to_renew_or_to_leave": "is held, but acquire granted it",
    },
    "ForgetsWhatItKeeps": {"a_kept_lock_is_kept_over_a_restart_of_the_server": "too early"},
    "RenewsWhatIsKept": {"a_kept_lock_is_nobody_s_to_renew_or_to_leave": NOT_LOST},
    "WritesWhereItKeeps": {"a_kept_lock_is_lost_to_its_holder": NOT_LOST},
    "MarksUnseen": {
        "a_mark_is_made_by_the_holder_alone": NOT_LOST,
        "a_kept_lock_is_lost_to_its_holder": NOT_LOST,
        "an_older_keeper_changes_nothing": NOT_LOST,
        "an_expired_lock_that_another_took_is_lost": NOT_LOST,
    },
    "MarksNothing": {
        "a_key_is_done_from_its_mark_on_until_it_is_forgotten": "assert None ==",
        "a_mark_is_made_by_the_holder_alone": "assert None ==",
    },
    "MarksLocks": {"a_key_is_done_from_its_mark_on_until_it_is_forgotten": "listed as if it were a lock"},
    "KeepsFewMarks": {"a_mark_stays_beside_many_and_after_many_turns": "assert None =="},
    "MarksForOneTurn": {"a_mark_stays_beside_many_and_after_many_turns": "assert None =="},
    "ForgetsBlindly": {"a_key_is_done_from_its_mark_on_until_it_is_forgotten": "forget says that there was"},
    "FoldsKeys": {"keys_that_look_alike_are_different_keys": "was never marked"},
    "CutsKeys": {"keys_that_look_alike_are_different_keys": "was never marked"},
    "JoinsNameAndKey": {"the_keys_of_one_name_are_not_those_of_another": "is done by another name"},
    "KnowsTheTimeAtOnce": {"the_server_s_time_is_that_of_its_answers": "before it has answered"},
    "TellsAnotherTime": {"the_server_s_time_is_that_of_its_answers": "the server is not"},
    "ListsLocksOnly": {"a_control_for_a_name_without_a_lock": "that has a control only is not listed"},
    "SteersUncompared": {"of_two_that_steer_one_wins": "not exactly one of two|by an older version is done"},
    "NamesVersionsByContent": {"no_version_comes_twice": "a version came again"},
    "ReadsTheControlEarly": {
        "grant_and_renewal_have_the_control_of_that_moment": "grant has not the control"
    },
    "RenewsWithoutControl": {
        "grant_and_renewal_have_the_control_of_that_moment": "renew doesn't return the control",
    },
    "ReleasesTheControl": {
        "grant_and_renewal_have_the_control_of_that_moment": "grant has not the control",
    },
    "SteersOverTheRecord": {
        "a_holder_that_renews_and_one_who_steers_are_not_in_each_other_s_way": "a record was lost",
    },
    "TellsNoControl": {
        "hold_returns_when_the_control_changes": STUCK,
        "hold_notices_a_control_that_came_before_it": STUCK,
    },
    "StartsInSpiteOfDamage": {
        "a_damaged_control_pauses_the_lock_and_can_be_replaced": "renew says that it is no pause",
    },
    "FoldsCaseOfControls": {"the_control_of_one_name_is_not_that_of_another": "has the control of another"},
    "MakesByLooking": {"a_look_at_a_free_lock": "to look at a lock is not to make one"},
    "LooksWithoutToken": {"a_look_at_a_held_lock": "doesn't tell the holder's token"},
    "LooksPastTheKeeping": {"a_look_at_a_kept_lock": "doesn't say that the lock is kept"},
    "TellsTheQueueBackwards": {"a_look_at_those_who_wait": "in another order"},
    "LooksAtTheDead": {"a_look_after_the_end_of_the_lease": "still says that the dead holder"},
    "FreesNothing": {"a_kept_lock_is_freed": NOT_HAD, "a_held_lock_is_freed": NOT_LOST},
    "FreesUnseen": {
        "free_by_an_outdated_look_changes_nothing": "has freed the lock",
        "a_held_lock_is_freed": "has freed the lock",
    },
    "FreesByEndingTheLease": {"a_held_lock_is_freed": NOT_LOST},
    "WantsEveryWord": {"a_record_of_an_older_version_is_read": "is not read"},
    "KeepsFewRuns": {"a_record_of_many_runs_goes_through": "only 10 of 50 runs are kept"},
    "ForgetsTheSlotsOfRuns": {"a_record_of_many_runs_goes_through": "comes back changed"},
    "NeverComesBack": {"after_an_outage_the_holder_holds_and_the_waiter_waits": "the server is back"},
}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery(MODULE)
    yield nursery
    nursery.close()


@pytest.fixture
def crew(
    request: pytest.FixtureRequest, nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Crew]:
    """Around the backend with the bug that the test names, with small crowds.

    It is given little time where the bug is that something never comes, which has to be waited for, and
    elsewhere what a busy machine may need.
    """
    said = request.node.callspec.params["said"]
    monkeypatch.setattr(peer, "LIMIT", 0.5)
    if said == STUCK:
        monkeypatch.setattr(peer, "SLACK", 0.4)
    monkeypatch.setattr(suite, "CONTENDERS", 10)
    monkeypatch.setattr(suite, "MARKS", 10)
    lock = f"leasefile://{tmp_path}?{request.param}"
    faults = [
        Fault("out of reach", Unavailable, lock, during=lambda: marked(tmp_path, "outage")),
        Fault("wrong password", Refused, lock, during=lambda: marked(tmp_path, "denied"), secret=WRONG),
    ]
    site = site_in(tmp_path, f"{MODULE}:open_backend", lock=lock, faults=faults, fifo=True, watches=True)
    site = replace(site, tells=True)
    crew = Crew(replace(site, ttl=1.0, patience=0.4 if said in (STUCK, NOT_HAD) else 4.0), nursery)
    yield crew
    crew.leave()


def caught_in(work: Callable[[], object], said: str) -> str:
    """What the suite says of the bug, at the last of its tries; empty if it says nothing.

    A slow machine can hide a busy loop once, or let a lease of a second end too early.
    """
    found = ""
    for _ in range(TRIES):
        try:
            work()
        except (AssertionError, Failure, pytest.fail.Exception) as error:
            found = str(error)
        if re.search(said, found):
            break
    return found


@pytest.mark.parametrize(
    ("crew", "case", "said"),
    [(bug, case, said) for bug, cases in CATCHES.items() for case, said in cases.items()],
    indirect=["crew"],
)
def test_the_bug_is_caught(
    crew: Crew, case: str, said: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    work = getattr(LeasedConformance(), f"test_{case}")

    def once() -> None:
        words = {"crew": crew, "steered": crew, "tmp_path": tmp_path_factory.mktemp("turns")}
        work(**{word: words[word] for word in inspect.signature(work).parameters})

    assert re.search(said, caught_in(once, said))


def test_every_case_catches_something() -> None:
    cases = {name for name in vars(LeasedConformance) | vars(Conformance) if name.startswith("test_")}
    assert {f"test_{case}" for caught in CATCHES.values() for case in caught} == cases


def test_every_bug_is_tried() -> None:
    bugs = {name for name, kind in vars(broken).items() if getattr(kind, "__module__", "") == MODULE}
    assert bugs - {"open_backend"} == set(CATCHES)
