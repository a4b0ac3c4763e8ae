"""What a record says of a schedule: its last slot, the next one, and one that was missed."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from singleton_run.api.record import moment
from singleton_run.api.timestamps import rfc3339
from singleton_run.errors import Failure
from singleton_run.schedule.schedule_text import slots_of
from singleton_run.schedule.slot_rules import last_slot

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.schedule.slot_times import Cron, Grid

LONGEST_DELAY = 300.0
"""Seconds after which a slot without a start is missed, if half its interval isn't less.

A start may be late: --jitter delays it, and the machine that would start it may be down for a moment.
"""
_HAIR = 0.001


def schedule_of(record: Mapping[str, Any] | None, now: float, *, runs: bool) -> dict[str, Any] | None:
    """The schedule in a record, at `now`; None for a record without one. `runs`: its last run still runs."""
    last = last_slot(record)
    if record is None or last is None:
        return None
    runs = runs and last["start"] == record.get("start")
    upcoming, missed, note = _around(last, now)
    return {
        "text": last["schedule"],
        "slot": _time(last["slot"]),
        "attempt": int(last["attempt"]),
        "state": "crashed" if last["state"] == "running" and not runs else last["state"],
        "start": _time(last["start"]),
        "end": _time(last.get("end")),
        "next": _time(upcoming),
        "missed": _time(missed),
        "note": note,
        "overlap": _overlap(last),
    }


def _around(last: Mapping[str, Any], now: float) -> tuple[float | None, float | None, str | None]:
    """The slot after `now`, the last one before it if it was missed, and why nobody can tell."""
    try:
        slots = slots_of(last["schedule"], last["grid"])
    except Failure as failure:
        return None, None, f"the next slot can't be told here: {failure}"
    upcoming = slots.next(now)
    missed = _missed(slots, last["slot"], now, upcoming)
    return upcoming if isfinite(upcoming) else None, missed, None


def _missed(slots: Cron | Grid, last: float, now: float, upcoming: float) -> float | None:
    """The latest slot after `last` that should have been started by now; None without one."""
    due = slots.latest(now)
    if due is None:
        return None
    due = slots.latest(now - min((upcoming - due) / 2, LONGEST_DELAY))
    return due if due is not None and due > last + _HAIR else None


def _overlap(last: Mapping[str, Any]) -> str:
    """What happens if a slot is due while the last one still runs, as the word of --overlap."""
    word = last.get("overlap")
    return word if isinstance(word, str) and word else "queue"


def _time(value: float | None) -> str | None:
    at = moment(value)
    return None if at is None else rfc3339(at)
