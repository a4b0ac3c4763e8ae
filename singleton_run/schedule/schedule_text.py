"""From the text that names a schedule in a record back to the times of its slots."""

from __future__ import annotations

from singleton_run import durations
from singleton_run.errors import USAGE, Failure
from singleton_run.schedule import slot_times

# A shorter interval is none of ours, and arithmetic on it would not end.
_LEAST_INTERVAL = 1.0


def slots_of(text: str, grid: float) -> slot_times.Cron | slot_times.Grid:
    """The slots of the schedule `text`; those of --every go through the point `grid` (Unix seconds).

    Raises Failure: USAGE for a text that names no schedule, UNUSABLE for a time zone that isn't known here.
    """
    kind, _, rest = text.partition(" ")
    if kind == "every":
        try:
            interval = durations.seconds(rest)
        except ValueError:
            interval = 0.0
        if interval >= _LEAST_INTERVAL:
            return slot_times.Grid(interval, grid)
    elif kind == "cron":
        expression, _, zone = rest.rpartition(" ")
        if expression:
            return slot_times.Cron(expression, zone)
    raise Failure(USAGE, f"{text!r} is no schedule that this version knows")
