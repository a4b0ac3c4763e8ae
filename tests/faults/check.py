"""What a round's log says: pure, from the lines that the commands wrote.

The log is written by O_APPEND, so the order of its lines is the order of what happened. A command's
*tree* is all of its processes, those that it left behind included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass
class Line:
    """A line of a log. `when` is a reading of the boot clock, in seconds."""

    turn: str
    process: int
    born: str
    what: str
    when: float


@dataclass
class Turn:
    """A command, from its start to the last sign of any of its processes.

    `run` says which call of the wrapper it belongs to, `slot` and `attempt` what the wrapper told it, or
    which key it was for; it `failed` if it ended, but with another status than 0. `late` are those of its
    processes that were seen after another command had begun; `taken` is true if another's process was
    there at its start.
    """

    run: str
    token: int
    start: float
    last: float
    attempt: int = 0
    slot: str = ""
    ended: bool = False
    failed: bool = False
    taken: bool = False
    late: set[int] = field(default_factory=set)
    overlapped: float = 0.0


def lines(text: str) -> list[Line]:
    """Every whole line of a log."""
    whole = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [Line(turn, int(process), born, what, float(when)) for turn, process, born, what, when in whole]


def turns(log: Iterable[Line]) -> list[Turn]:
    """The commands, in the order of their starts."""
    found: dict[str, Turn] = {}
    newest: Turn | None = None
    for line in log:
        if line.what.startswith("start:"):
            _, run, token, attempt, slot = line.what.split(":", 4)
            newest = found[line.turn] = Turn(run, int(token), line.when, line.when, int(attempt or 0), slot)
        turn = found[line.turn]
        turn.last = line.when
        turn.ended = turn.ended or line.what in ("end", "fail")
        turn.failed = turn.failed or line.what == "fail"
        turn.taken = turn.taken or line.what.startswith("taken:")
        if newest is not None and turn is not newest:
            turn.late.add(line.process)
            newest.taken = True
            turn.overlapped = line.when - newest.start
    return list(found.values())


def overlaps(found: Iterable[Turn]) -> int:
    """How many commands ran while a process of another one was still there."""
    return sum(turn.taken for turn in found)


def longest_overlap(found: Iterable[Turn]) -> float:
    """How long at most a command's process was seen after the next command's start, in seconds."""
    return max((turn.overlapped for turn in found), default=0.0)


def orphans(found: Iterable[Turn]) -> int:
    """How many processes were there when the lock was already another command's.

    Those that never wrote a line, or were stopped, are known by the lock or port that they hold, and
    counted as one.
    """
    every = list(found)
    seen = sum(len(turn.late) for turn in every)
    return seen or sum(turn.taken for turn in every)


def backward(found: Iterable[Turn]) -> int:
    """How many commands were given a fencing token that isn't above the one before."""
    tokens = [turn.token for turn in found]
    return sum(second <= first for first, second in pairwise(tokens) if second)


def idle(found: Iterable[Turn], after: float, healed: float) -> float:
    """The longest time in which nobody ran, of those that ended after the fault, in seconds.

    It is counted from the last sign of a command, or from `healed` if that came later and nobody
    ran in between. `after` and `healed` are when the fault began and ended.
    """
    longest, last = 0.0, 0.0
    for turn in found:
        if last and turn.start > after:
            since = max(last, healed) if turn.start > healed else last
            longest = max(longest, turn.start - since)
        last = max(last, turn.last)
    return longest
