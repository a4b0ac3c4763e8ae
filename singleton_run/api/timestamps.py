"""Times in RFC 3339's form, without the 10 ms of importing datetime."""

from __future__ import annotations

import time


def rfc3339(seconds: float) -> str:
    """Unix seconds as UTC, with milliseconds where there are any: `2026-11-22T05:46:15Z`."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    fraction = f".{thousandths:03}" if thousandths else ""
    return _to_the_second(whole) + fraction + "Z"


def milli_time(seconds: float) -> str:
    """Unix seconds as UTC, always with three digits after the point: `2026-11-22T05:46:15.000Z`."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{_to_the_second(whole)}.{thousandths:03}Z"


def micro_time(seconds: float) -> str:
    """Unix seconds as UTC with six digits after the point: Kubernetes' MicroTime."""
    micros = round(seconds * 1e6)
    return f"{_to_the_second(micros // 1_000_000)}.{micros % 1_000_000:06}Z"


def unix_time(text: object) -> float | None:
    """The Unix time of a text as `2026-11-22T05:46:15Z`, with or without a fraction; None for any other."""
    if not isinstance(text, str) or not text.endswith("Z"):
        return None
    date, _, clock = text[:-1].partition("T")
    try:
        year, month, day = map(int, date.split("-"))
        hour, minute, second = clock.split(":")
        return days(year, month, day) * 86400 + int(hour) * 3600 + int(minute) * 60 + float(second)
    except ValueError:
        return None


def days(year: int, month: int, day: int) -> int:
    """The days from 1970-01-01 to a date in the Gregorian calendar."""
    year -= month < 3  # count years from March, so that a leap day is a year's last
    era, of_era = divmod(year, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def _to_the_second(whole: int) -> str:
    # Not strftime("%Y"): some C libraries write the year 33 with two digits.
    year, month, day, hour, minute, second, *_ = time.gmtime(whole)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
