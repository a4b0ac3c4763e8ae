"""An event as others are told of it, hooks and webhooks: one JSON object. Times are in RFC 3339."""

from __future__ import annotations

import os

from singleton_run.api.lock_address import redact
from singleton_run.api.timestamps import milli_time
from singleton_run.report.events import TOLD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.call.settings import Settings
    from singleton_run.report.events import Event

TIMES = ("since", "slot", "paused_since", "paused_until")


def word(event: str) -> str:
    """The one name of an event, for programs."""
    return event.replace(" ", "_")


def fields(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with their times as texts, and lengths of time in milliseconds at the finest."""
    return {fact: _field(fact, value) for fact, value in facts.items()}


def _field(fact: str, value: Any) -> Any:
    if fact in TIMES and isinstance(value, int | float):
        return milli_time(value)
    return round(value, 3) if isinstance(value, float) else value


def message(event: Event, settings: Settings) -> dict[str, Any]:
    """The whole of what is told of an event. `id` names it, however often it is sent."""
    return {
        "id": os.urandom(16).hex(),
        "time": milli_time(event.at),
        "event": word(event.event),
        "name": event.name,
        "lock": redact(settings.lock_address),
        "sender": os.uname().nodename,
        **fields(event.facts),
    }


class News:
    """Which events are news. That somebody still waits for the same holder is none."""

    def __init__(self) -> None:
        self._waiting: Mapping[str, Any] | None = None

    def has(self, event: Event) -> bool:
        """Whether `event`, the latest, is to be told. Each is asked about once."""
        if event.again or word(event.event) not in TOLD:
            return False
        before, self._waiting = self._waiting, event.facts if event.event == "waiting" else None
        return self._waiting is None or self._waiting != before
