"""Looks at a lock: by the backend's `look`, or by `read` for a backend that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from singleton_run.api import toolbox
from singleton_run.api.contract import Look
from singleton_run.commands.steering import time_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.api.contract import Backend, Held


class Seen(NamedTuple):
    """A look, and when it was: `now` in Unix seconds by the server's clock, `boot` by the boot clock.

    `steered` says whether the backend's locks can be paused, and their release ordered.
    """

    look: Look
    now: float
    boot: float
    steered: bool


def look_at(backend: Backend, name: str, limit: float) -> Seen:
    """What the server tells of `name`. Raises Unavailable or Refused."""
    has_look = hasattr(backend, "look")
    look = backend.look(name, limit) if has_look else by_reading(*backend.read(name, limit))
    return Seen(look, time_of(backend), toolbox.now(), hasattr(backend, "steer"))


def by_reading(held: Held | None, record: Mapping[str, Any] | None) -> Look:
    """The look that an answer of `read` allows. It shows no control, and nobody who waits."""
    if held is None:
        return Look(Look.FREE, None, record)
    ended = record is not None and record["state"] != "running" and record["holder"] == held.holder
    return Look(Look.KEPT if ended and held.holder else Look.HELD, held, record)
