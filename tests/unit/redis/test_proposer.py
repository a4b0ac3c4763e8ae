"""Those who change the control of a quorum at the same time, message by message in an order by chance."""

from __future__ import annotations

import random
from threading import Semaphore, Thread
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run.api.deadline import Deadline
from singleton_run.errors import Unavailable
from singleton_run_redis import votes
from singleton_run_redis.steering import Proposer

if TYPE_CHECKING:
    from collections.abc import Callable

SERVERS, NEED = 3, 2


class Control:
    """The script's two steps on one server."""

    def __init__(self) -> None:
        self.promise = 0
        self.version: str | None = None
        self.text: str | None = None

    def serve(self, operation: str, values: list[str]) -> list[Any]:
        """Promise or accept."""
        _, ballot, text, *version = values
        if int(ballot) < self.promise or (operation == "prepare" and int(ballot) == self.promise):
            return ["", "changed", str(self.promise)]
        self.promise = int(ballot)
        if operation == "accept":
            self.text, self.version = text, version[0]
        return ["", "done", self.version, self.text]


class Round:
    """Some who all replace the version `expected`; the dice say whose message comes next, or is lost."""

    def __init__(self, controls: list[Control], seed: int) -> None:
        self.need = NEED
        self._controls = controls
        self._dice = random.Random(seed)  # noqa: S311 - no secret
        self._back = Semaphore(0)

    def time(self) -> int:
        """Clocks that stand still: ballots meet."""
        return 0

    def go_on(self, _over: Callable[[], bool], _deadline: Deadline) -> bool:
        """No pause."""
        return False

    def play(self, expected: int, people: int) -> list[bool]:
        """What each of them was told."""
        turns = [Semaphore(0) for _ in range(people)]
        told: dict[int, bool | Exception] = {}
        threads = [
            Thread(target=self._steer, args=(number, expected, turns[number], told), daemon=True)
            for number in range(people)
        ]
        for thread in threads:
            thread.start()
            self._back.acquire()
        while left := [number for number in range(people) if number not in told]:
            turns[self._dice.choice(left)].release()
            self._back.acquire()
        return [bool(told[number]) for number in range(people) if told[number] in (True, False)]

    def _steer(self, number: int, expected: int, turn: Semaphore, told: dict[int, bool | Exception]) -> None:
        def step() -> None:
            self._back.release()
            turn.acquire()

        def ask(operation: str, values: Callable[[], list[str]]) -> list[list[Any] | None]:
            answers: list[list[Any] | None] = [None] * SERVERS
            for at in self._dice.sample(range(SERVERS), SERVERS):
                step()
                answers[at] = self._controls[at].serve(operation, values())
                said = [answer[1] == "done" for answer in answers if answer is not None]
                is_over = said.count(True) >= NEED or said.count(False) > SERVERS - NEED
                if is_over and self._dice.random() < 0.7:  # nobody waits for the rest: it is lost
                    break
            return answers

        masters: Any = self
        proposer = Proposer(expected, f"{number}", masters, ask, lambda: Unavailable("too few"))
        try:
            told[number] = proposer.steer(Deadline.after(60.0))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            told[number] = error
        self._back.release()


@pytest.mark.parametrize("people", [2, 3, 4])
def test_of_those_who_steer_at_once_exactly_one_wins(people: int) -> None:
    for seed in range(60):
        controls = [Control() for _ in range(SERVERS)]
        version = 0
        for number in range(5):
            told = Round(controls, 100 * seed + number).play(version, people)
            assert len(told) == people, (seed, number)
            assert told.count(True) == 1, (seed, number, told)
            text, found = votes.latest((one.text, one.version) for one in controls)
            assert text == str(told.index(True)), (seed, number, told)
            assert int(found or "") > version
            version = int(found or "")


def test_who_was_followed_by_another_has_won_all_the_same() -> None:
    ours = votes.Accepted(5, 5, [3])
    assert votes.outcome(ours.replaced(9), 3, {5}) is True
    assert votes.outcome(ours.replaced(9), 3, {4}) is False
    assert votes.outcome(ours, 2, set()) is False


def test_what_became_of_ours_is_not_known_after_many_changes() -> None:
    last = votes.Accepted(5, 5, [3])
    for ballot in range(10, 60):
        last = last.replaced(ballot)
    assert votes.outcome(last, 3, {5}) is None
    assert votes.outcome(last, 3, set()) is False


def test_the_latest_is_by_ballot_and_has_the_version_of_who_began_it() -> None:
    assert votes.latest([("old", "7 7 3"), ("finished", "9 5 3"), (None, None)]) == ("finished", "5")
    assert votes.latest([("alone", "4")]) == ("alone", "4")
    assert votes.latest([("damaged", None), (None, "x")]) == (None, None)
    assert votes.Accepted.of("9 5 3").stored(12) == "12 5 3"
