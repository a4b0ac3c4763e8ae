"""The three ways in which Kubernetes writes a time, without the 10 ms of datetime and its friends."""

from __future__ import annotations

import time

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_EPOCH = 719468


def written(moment: float) -> str:
    """A Unix time as a Lease has it (MicroTime): always six digits after the point, in UTC."""
    micros = round(moment * 1e6)
    year, month, day, hour, minute, second, *_ = time.gmtime(micros // 1_000_000)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros % 1_000_000:06}Z"


def read(text: object) -> float | None:
    """The Unix time of `2026-11-22T05:46:15Z`, with or without a fraction; None for anything else."""
    if not isinstance(text, str) or not text.endswith("Z"):
        return None
    date, _, clock = text[:-1].partition("T")
    try:
        year, month, day = map(int, date.split("-"))
        return _seconds(year, month, day, clock)
    except ValueError:
        return None


def read_http(text: str) -> float | None:
    """The Unix time of a `Date` header, `Sun, 22 Nov 2026 05:46:15 GMT`; None for anything else."""
    try:
        _, day, month, year, clock, zone = text.split()
        if zone != "GMT":
            return None
        return _seconds(int(year), _MONTHS.index(month) + 1, int(day), clock)
    except ValueError:
        return None


def _seconds(year: int, month: int, day: int, clock: str) -> float:
    hour, minute, second = clock.split(":")
    return _days(year, month, day) * 86400 + int(hour) * 3600 + int(minute) * 60 + float(second)


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01, counted in years that begin in March, so that a leap day is the last."""
    year -= month < 3
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + of_year - _EPOCH
