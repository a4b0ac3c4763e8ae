"""What a round's log says of slots and of keys: pure, as `check` is.

`fault` is a span of the boot clock, `ahead` how far the clock of the slots is ahead of that one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.faults.check import Turn

INTERVAL = 2.0


@dataclass(frozen=True)
class Span:
    """The time in which the fault explains that a slot is missing, or was left half done."""

    begin: float
    end: float

    def has(self, when: float) -> bool:
        """Whether that moment is in it."""
        return self.begin <= when <= self.end


def due(turn: Turn) -> float:
    """When a turn's slot was due, in Unix seconds."""
    return datetime.fromisoformat(turn.slot).timestamp()


def by_slot(found: Iterable[Turn]) -> dict[str, list[Turn]]:
    """The turns of each slot or key, in the order of their starts."""
    slots: dict[str, list[Turn]] = {}
    for turn in found:
        slots.setdefault(turn.slot, []).append(turn)
    return slots


def doubled(found: Iterable[Turn], retries: int, fault: Span) -> int:
    """How many starts there are of slots that had had all of their attempts, that one, or a success."""
    count = 0
    for turns in by_slot(found).values():
        for at, turn in enumerate(turns):
            repeated = any(earlier.attempt >= turn.attempt for earlier in turns[:at])
            # The fault may strike between a success and its record.
            done = any(
                earlier.ended and not earlier.failed and not fault.has(earlier.last) for earlier in turns[:at]
            )
            count += turn.attempt > 1 + retries or repeated or done
    return count


def backward(found: Iterable[Turn]) -> int:
    """How many starts were for an earlier slot than the start before."""
    return sum(second.slot < first.slot for first, second in pairwise(found))


def unseen(found: Iterable[Turn], fault: Span) -> int:
    """How many attempts are not in the log, though their number was given and the fault explains nothing."""
    count = 0
    for turns in by_slot(found).values():
        numbers = [0, *(turn.attempt for turn in turns)]
        for turn, (first, second) in zip(turns, pairwise(numbers), strict=True):
            count += second > first + 1 and not fault.has(turn.start)
    return count


def missing(found: Sequence[Turn], ahead: float) -> list[float]:
    """When the slots between the first and the last were due that nobody started, by the boot clock."""
    started = sorted({due(turn) - ahead for turn in found})
    slots = []
    for first, second in pairwise(started):
        slots += [first + step * INTERVAL for step in range(1, round((second - first) / INTERVAL))]
    return slots


def lost(found: Sequence[Turn], ahead: float, fault: Span) -> int:
    """How many slots are missing though neither the fault nor a command that took longer explains it."""
    middles = [slot + INTERVAL / 2 for slot in missing(found, ahead) if not fault.has(slot)]
    return sum(not any(turn.start < middle <= turn.last for turn in found) for middle in middles)


def unretried(found: Sequence[Turn], retries: int, ahead: float, fault: Span) -> int:
    """How many slots failed, had an attempt left, and didn't get it in the time until the next."""
    last = found[-1].slot if found else ""
    count = 0
    for slot, turns in by_slot(found).items():
        start = due(turns[0]) - ahead
        early = turns[-1].last < start + INTERVAL / 2
        left = turns[-1].failed and turns[-1].attempt <= retries
        count += left and early and slot != last and not fault.has(start)
    return count


def keys_again(found: Iterable[Turn], done: Mapping[str, float]) -> int:
    """How many commands were started for a key after that moment, when somebody knew it to be done."""
    return sum(turn.start > done.get(turn.slot, turn.start) for turn in found)


def keys_lost(found: Iterable[Turn], done: Iterable[str]) -> int:
    """How many keys are done without a command that has ended well."""
    ended = {turn.slot for turn in found if turn.ended}
    return len(set(done) - ended)
