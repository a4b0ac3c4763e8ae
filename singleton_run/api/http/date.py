"""The Date of an HTTP answer, without importing datetime or email."""

from __future__ import annotations

from singleton_run.api.timestamps import days

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def seconds(date: str) -> int | None:
    """The Unix time of a Date header in the form that servers send (RFC 9110); None for any other text."""
    try:
        _, day, month, year, clock, zone = date.split()
        hour, minute, second = (int(part) for part in clock.split(":"))
        if zone != "GMT":
            return None
        since = days(int(year), _MONTHS.index(month) + 1, int(day))
    except ValueError:
        return None
    return since * 86400 + hour * 3600 + minute * 60 + second
