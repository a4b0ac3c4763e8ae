"""What the answers of several servers mean together.

An answer is that of the script (see `scripts`), its texts decoded; None is a server without one. Texts that
change are stored with a stamp before them, `STAMP TEXT`, and the greatest stamp of a majority counts: any two
majorities have a server in common, so it is the last that a majority has stored.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Answer = Sequence[Any]

_FOREVER = float("inf")


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


def latest(pairs: Iterable[tuple[str | None, str | None]]) -> tuple[str | None, str | None]:
    """The control with the greatest version among pairs of text and version; Nones without one."""
    best: tuple[str | None, str | None] = (None, None)
    for text, version in pairs:
        if version is not None and number(version) > number(best[1]):
            best = text, version
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
