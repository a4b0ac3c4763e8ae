"""What the answers of several servers mean together.

An answer is that of the script (see `scripts`), its texts decoded; None is a server without one. Texts that
change are stored with a stamp before them, `STAMP TEXT`, and the greatest stamp of a majority counts: any two
majorities have a server in common, so it is the last that a majority has stored.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet
    from typing import Any

    Answer = Sequence[Any]

_FOREVER = float("inf")
_REMEMBERED = 16


def stamped(stamp: int, text: str) -> str:
    """`text` with its stamp."""
    return f"{stamp} {text}"


def newest(values: Iterable[str | None]) -> tuple[int, str | None]:
    """The text with the greatest stamp, and the stamp; 0 and None without one. One without a stamp has 0."""
    best: tuple[int, str | None] = (0, None)
    for value in values:
        if value is None:
            continue
        stamp, space, text = value.partition(" ")
        is_stamped = bool(space) and stamp.isascii() and stamp.isdigit()
        found = (int(stamp), text) if is_stamped else (0, value)
        if best[1] is None or found[0] > best[0]:
            best = found
    return best


class Accepted:
    """What a server has accepted as the control: under which `ballot`, its `version`, and those `before` it.

    It is kept as these numbers, `BALLOT VERSION BEFORE...`. Who finishes what another began leaves its
    version as it is, so the ballot says which control is the latest. Of those before only the last are kept.
    """

    __slots__ = ("ballot", "before", "version")

    def __init__(self, ballot: int, version: int, before: Sequence[int] = ()) -> None:
        self.ballot = ballot
        self.version = version
        self.before = before

    @classmethod
    def of(cls, stored: str | None) -> Accepted:
        """By what is kept; zeros where there is nothing."""
        numbers = [number(word) for word in (stored or "").split()] or [0]
        return cls(numbers[0], numbers[min(1, len(numbers) - 1)], numbers[2:])

    def replaced(self, ballot: int) -> Accepted:
        """The control that follows this one, under that ballot, which is also its version."""
        return Accepted(ballot, ballot, [*self.before, self.version][-_REMEMBERED:])

    def stored(self, ballot: int) -> str:
        """What is kept when it is accepted under that ballot."""
        return " ".join(map(str, [ballot, self.version, *self.before]))


def outcome(accepted: Accepted, expected: int, own: AbstractSet[int]) -> bool | None:
    """Whether one of our `own` versions followed `expected`, by what a majority has accepted.

    None if so many came after that nobody knows.
    """
    if any(version in own for version in (accepted.version, *accepted.before)):
        return True
    return False if expected in accepted.before or not own else None


def latest(pairs: Iterable[tuple[str | None, str | None]]) -> tuple[str | None, str | None]:
    """The text and the version of the control that was accepted last; Nones without one.

    A pair is a text, and what is kept as its version (see `Accepted`).
    """
    best: tuple[str | None, str | None] = (None, None)
    last = 0
    for text, stored in pairs:
        accepted = Accepted.of(stored)
        if accepted.ballot > last:
            last, best = accepted.ballot, (text, str(accepted.version))
    return best


def number(text: str | None) -> int:
    """The number in a text; 0 where there is none."""
    return int(text) if text and text.isascii() and text.isdigit() else 0


def holder(seen: Sequence[tuple[str, str] | None], silent: int, need: int) -> tuple[str, str] | None:
    """Who has a majority, or may have one with the servers that are silent: name and token.

    `seen` has, for each server that answered, whom the lock names there.
    """
    named = [who for who in seen if who is not None]
    most = max(named, key=named.count, default=None)
    return most if most is not None and named.count(most) + silent >= need else None


def free_in(left: Iterable[float | None], servers: int, need: int) -> float | None:
    """In how many seconds a majority may be free; None if nobody knows.

    `left` has, for each server that answered, how long it is taken still: 0 for a free one, None for one
    that doesn't say. A server that is silent counts as taken for ever.
    """
    times = sorted(_FOREVER if time is None else time for time in left)
    times += [_FOREVER] * (servers - len(times))
    found = times[need - 1]
    return None if found == _FOREVER else found
