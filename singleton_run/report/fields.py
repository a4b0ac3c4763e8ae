"""A line of the log as an object for programs: one field for each fact, and the names that all events have.

The names are those of `events`, as hooks, webhooks and metrics have them. What only the log tells has its own
word, with `_` in the place of each blank. `docs/schema/log.json` has every field.
"""

from __future__ import annotations

import time

from singleton_run.api.timestamps import milli_time
from singleton_run.report.log import TRACE
from singleton_run.report.telling import fields, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Facts = dict[str, Any]

_NAMES = {
    "held": "waiting",
    "not renewed": "lost",
    "timeout": "killed",
    "rest": "resting",
    "missed": "skipped",
    "unreadable": "skipped",
    "slot paused": "skipped",
}
_REASONS = {
    "lost": "lost",
    "not renewed": "not renewed",
    "timeout": "timeout",
    "skipped": "deadline",
    "missed": "missed",
    "unreadable": "unreadable",
    "slot paused": "paused",
}
_SLOTS = ("skipped", "unreadable", "other schedule")
"""Their number is the time of a slot; that of `_LENGTHS` is in seconds."""
_LENGTHS = ("offset", "behind", "line died")
_OF_SENTENCES = ("verb",)


def name_of(event: str) -> str:
    """The name of an event of the log, for programs."""
    return word(_NAMES.get(event, event))


def as_object(facts: Facts, waited: float | None, message: str) -> Facts:
    """The line for `facts`. `waited` is how long the lock was waited for, in seconds, None if it wasn't."""
    event = facts["event"]
    told = {fact: value for fact, value in facts.items() if fact not in _OF_SENTENCES}
    if facts["level"] != TRACE:
        if event in _SLOTS:
            told["slot"] = told.pop("number", told.get("slot"))
        elif event in _LENGTHS:
            told["seconds"] = told.pop("number")
        if event in _REASONS:
            told["reason"] = _REASONS[event]
        told = {**fields(told), "event": name_of(event)}
    length = {} if waited is None else {"waited": round(waited, 3)}
    return {"time": milli_time(time.time()), **told, **length, "message": message}
