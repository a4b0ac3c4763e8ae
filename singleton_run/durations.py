"""Durations as people write them: `90`, `1m30s`, `1.5h`, `500ms`, `PT5M` (ISO 8601).

The parts are added as exact fractions, and divided once. So the result is the float nearest to the text.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Units = Sequence[tuple[str, int]]

# Each unit in milliseconds, in the order in which units may follow one another.
_UNITS: Units = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_ISO_DATE: Units = (("W", 604_800_000), ("D", 86_400_000))
_ISO_TIME: Units = (("H", 3_600_000), ("M", 60_000), ("S", 1000))

# A timer that counts nanoseconds in 64 bits ends after 292 years. A float has no use for more digits.
_LONGEST = 100 * 366 * 86_400.0
_LONGEST_TEXT = 60


def seconds(text: str) -> float:
    """Read a duration, in seconds: zero or more, at most about a hundred years.

    A bare number is in seconds. Raises ValueError with one sentence for the user.
    """
    if not text:
        raise ValueError("a duration is missing")
    if len(text) > _LONGEST_TEXT:
        raise ValueError("a duration is at most 60 characters long")
    if text[0] == "-":
        raise ValueError(f"{text!r} is negative")
    if text[0] == "P":
        amount, scale = _iso(text)
    elif text[-1].isdigit() or text[-1] == ".":
        amount, scale = _number(text, text)
        amount *= 1000
    else:
        amount, scale = _sum(text, text, _UNITS)
    result = amount / (1000 * scale)
    if result > _LONGEST:
        raise ValueError(f"{text!r} is longer than a hundred years")
    return result


def text(seconds: float) -> str:
    """Write a duration in seconds in its short form, rounded to milliseconds: `1m30s`, `350ms`, `0s`."""
    rest = round(seconds * 1000)
    if rest < 1000:
        return f"{rest}ms" if rest else "0s"
    parts = []
    for unit, size in _UNITS[:3]:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    if rest:
        whole, thousandths = divmod(rest, 1000)
        digits = f"{whole}.{thousandths:03}".rstrip("0").rstrip(".")
        parts.append(f"{digits}s")
    return "".join(parts)


def _iso(whole: str) -> tuple[int, int]:
    """Read an ISO 8601 duration: weeks, days, and after a T hours, minutes, seconds."""
    date, letter, time = whole[1:].partition("T")
    if not (date or time) or (letter and not time):
        raise ValueError(f"{whole!r} has no number")
    if "Y" in date or "M" in date:
        raise ValueError(f"{whole!r} has years or months, which have no fixed length")
    days, days_scale = _sum(date, whole, _ISO_DATE)
    hours, hours_scale = _sum(time, whole, _ISO_TIME)
    return days * hours_scale + hours * days_scale, days_scale * hours_scale


def _sum(part: str, whole: str, units: Units) -> tuple[int, int]:
    """Add numbers with their units, each unit at most once and the longest first: (ms * scale, scale)."""
    amount, scale = 0, 1
    names = [name for name, _ in units]
    following = 0
    while part:
        digits, name, part = _first(part)
        number, number_scale = _number(digits, whole)
        if name not in names:
            listed = ", ".join(names)
            raise ValueError(f"{whole!r} has {name!r} where one of the units {listed} is expected")
        place = names.index(name)
        if place < following:
            raise ValueError(f"{whole!r} has a unit twice or out of order: the longest comes first")
        following = place + 1
        amount = amount * number_scale + number * units[place][1] * scale
        scale *= number_scale
    return amount, scale


def _first(part: str) -> tuple[str, str, str]:
    """Split `1h30m` into its first number, the unit after it, and what follows."""
    start = 0
    while start < len(part) and (part[start].isdigit() or part[start] == "."):
        start += 1
    end = start
    while end < len(part) and not (part[end].isdigit() or part[end] == "."):
        end += 1
    return part[:start], part[start:end], part[end:]


def _number(digits: str, whole: str) -> tuple[int, int]:
    """Read `1.25` as (125, 100). Raises ValueError for anything but ASCII digits and one point."""
    integer, point, fraction = digits.partition(".")
    both = integer + fraction
    if not (both.isascii() and both.isdigit() and integer) or (point and not fraction):
        raise ValueError(f"{whole!r} is not a duration such as 90, 90s, 1m30s, 1.5h or PT5M")
    return int(both), 10 ** len(fraction)
