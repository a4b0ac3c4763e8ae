"""The two ways in which Kubernetes writes a time, without the 10 ms of datetime and its friends."""

from __future__ import annotations

import time

from singleton_run.api.http.date import days


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
        hour, minute, second = clock.split(":")
        return days(year, month, day) * 86400 + int(hour) * 3600 + int(minute) * 60 + float(second)
    except ValueError:
        return None
