"""Changes the control of a quorum: a register with compare and swap, by Paxos.

An attempt has a ballot. A majority promises it and tells what it has accepted. Under the new ballot it then
accepts what was found, as another may not have finished that, or ours in its place. Who is outvoted knows
nothing yet, and tries again with a greater ballot.
"""

from __future__ import annotations

import os

from singleton_run.errors import Unavailable
from singleton_run_redis import votes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from singleton_run.api.deadline import Deadline
    from singleton_run.errors import Failure
    from singleton_run_redis.masters import Masters

    Answer = list[Any]
    Values = Callable[[], list[str]]
    Ask = Callable[[str, Values], list[Answer | None]]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5


class _Outvoted(Exception):
    """Somebody else has a greater ballot."""


class Proposer:
    """One who replaces the control of version `expected` by `text`.

    `ask` sends an operation to all servers; `trouble` says why too few answered it.
    """

    def __init__(
        self, expected: int, text: str, masters: Masters, ask: Ask, trouble: Callable[[], Failure]
    ) -> None:
        self._expected = expected
        self._text = text
        self._masters = masters
        self._ask = ask
        self._trouble = trouble
        self._least = expected + 1
        self._own: set[int] = set()

    def steer(self, deadline: Deadline) -> bool:
        """Whether ours took the place of `expected`. Raises Unavailable where that isn't known, Refused."""
        pause = _FIRST_PAUSE
        while True:
            try:
                done = self._attempt()
            except _Outvoted:
                share = int.from_bytes(os.urandom(4), "big") / 2**32
                self._masters.go_on(lambda: False, deadline.within(pause * share))
                pause = min(2 * pause, _LONGEST_PAUSE)
                deadline.check("redis: others change the control of this lock all the time: try again")
                continue
            if done is None:
                raise Unavailable("redis: others have changed the control of this lock often: look at it")
            return done

    def _attempt(self) -> bool | None:
        """One ballot. None if what became of ours can't be known any more."""
        numbers: list[int] = []

        def ballot() -> str:
            if not numbers:  # only now is the time of a server known
                numbers.append(max(self._masters.time(), self._least))
            return str(numbers[0])

        promises = self._majority("prepare", lambda: ["", ballot(), "", ""])
        told = [(votes.Accepted.of(answer[2]), answer[3]) for answer in promises]
        last, text = max(told, key=lambda pair: pair[0].ballot)
        mine = last.version == self._expected
        if mine:
            last, text = last.replaced(numbers[0]), self._text
            self._own.add(last.version)
        if mine or sum(other.ballot == last.ballot for other, _ in told) < self._masters.need:
            stored = last.stored(numbers[0])
            self._majority("accept", lambda: ["", ballot(), text or "", stored])
        return votes.outcome(last, self._expected, self._own)

    def _majority(self, operation: str, values: Values) -> list[Answer]:
        """The answers of a majority that did it. Raises _Outvoted, or why too few answered."""
        answers = [answer for answer in self._ask(operation, values) if answer is not None]
        done = [answer for answer in answers if answer[1] == "done"]
        if len(done) >= self._masters.need:
            return done
        promised = [votes.number(answer[2]) for answer in answers if answer[1] == "changed"]
        if not promised:
            raise self._trouble()
        self._least = max(self._least, *(number + 1 for number in promised))
        raise _Outvoted
