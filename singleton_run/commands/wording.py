"""How facts are written for people: texts that change no terminal, lengths of time, points in time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from singleton_run.api.timestamps import unix_time
from singleton_run.errors import Failure, one_line
from singleton_run.schedule import time_zones

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo
    from typing import Any

NONE = "-"
"""What stands for a fact that nobody knows, or that isn't there."""
_UNITS = (("s", 1), ("m", 60), ("h", 3600), ("d", 86_400))


def plain(value: object) -> str:
    """A fact as a text on one line, in which nothing is an escape for a terminal; NONE for None.

    Names, holders and reasons are written by anybody.
    """
    return NONE if value is None or value == "" else one_line(str(value))


def zone_of(environ: Mapping[str, str]) -> tzinfo:
    """The time zone of whoever reads; UTC where it can't be told."""
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(time_zones.local(environ))
    except (Failure, OSError, ValueError, KeyError):
        return UTC


def length(seconds: float) -> str:
    """A length of time in one unit, rounded down: `95s`, `3m`, `30h`, `4d`."""
    whole = int(max(seconds, 0))
    unit, size = next((each for each in reversed(_UNITS) if whole >= 2 * each[1]), _UNITS[0])
    return f"{whole // size}{unit}"


def took(seconds: float) -> str:
    """How long a run took: `0.24s`, `95s`, `3m`."""
    return f"{seconds:.2g}s" if seconds < 1 else length(seconds)


def distance(at: str | None, now: str) -> str:
    """How far a time is from now: `3m ago`, `in 5m`; empty for None."""
    there, here = unix_time(at), unix_time(now)
    if there is None or here is None:
        return ""
    return f"in {length(there - here)}" if there > here else f"{length(here - there)} ago"


def local(at: str | None, zone: tzinfo) -> str:
    """A time, exact to the second, by the clock of a zone: `2026-11-28 14:05:19 +0100`; NONE for None."""
    there = unix_time(at)
    if there is None:
        return NONE
    try:
        return f"{datetime.fromtimestamp(there, UTC).astimezone(zone):%Y-%m-%d %H:%M:%S %z}"
    except (OverflowError, ValueError):
        return str(at)


def clock(at: str | None, zone: tzinfo) -> str:
    """The time of the day in a zone, `14:05:19`; NONE for None."""
    return NONE if at is None else local(at, zone)[11:19]


def when(at: str | None, now: str, zone: tzinfo) -> str:
    """A time as people want it: `3m ago (2026-11-28 14:05:19 +0100)`; NONE for None."""
    return NONE if at is None else f"{distance(at, now)} ({local(at, zone)})"


def result(run: Mapping[str, Any] | None) -> str:
    """The state of a run, with its exit status if that isn't 0: `succeeded`, `failed (3)`; NONE for None."""
    if run is None:
        return NONE
    return plain(run["state"]) + (f" ({run['status']})" if run["status"] else "")


def pause(facts: Mapping[str, Any], until: str) -> str:
    """A pause: who, since when, until when (`until` is how that is written), why."""
    by = f" by {plain(facts['by'])}" if facts["by"] else ""
    end = f"until {until}" if facts["until"] else "until somebody resumes it"
    why = f": {plain(facts['reason'])}" if facts["reason"] else ""
    return f"paused{by} {end}{why}"
