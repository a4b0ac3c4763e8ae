"""The time that a server tells with its answers, without importing datetime or email."""

from __future__ import annotations

import time

from singleton_run.api.timestamps import days
from singleton_run.system import calls

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def seconds(date: str) -> int | None:
    """The Unix time of a Date header (RFC 9110, the form that is sent); None if it isn't one."""
    try:
        _, day, month, year, clock, zone = date.split()
        hour, minute, second = (int(part) for part in clock.split(":"))
        if zone != "GMT":
            return None
        since = days(int(year), _MONTHS.index(month) + 1, int(day))
    except ValueError:
        return None
    return since * 86400 + hour * 3600 + minute * 60 + second


def ahead(date: str, sent: float, heard: float) -> tuple[float, float] | None:
    """How far the server's clock is ahead of our wall clock now, and how exact that is, in seconds.

    By the Date of an answer, and the boot clock's readings when its request was sent and when it was
    heard. A Date is cut to the second, so the time was anything up to the next. None without one.
    """
    told = seconds(date)
    if told is None:
        return None
    now = told + 0.5 + calls.now() - (sent + heard) / 2
    return now - time.time(), 0.5 + (heard - sent) / 2
