"""`resume NAME`: commands start again under a lock that was paused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run.api import control
from singleton_run.call.output import show
from singleton_run.commands import steering
from singleton_run.commands.connection import checked_name, opened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from singleton_run.api.contract import Look
    from singleton_run.api.control import Control
    from singleton_run.call.fast_parser import Value


def run(given: Mapping[str, Value], environ: Mapping[str, str]) -> NoReturn:
    """Take the pause away, say what it was, and end. A lock that isn't paused is no error."""
    with opened(given, environ) as backend:
        name = checked_name(given)
        steering.check_steerable(backend)
        seen = steering.change(backend, name, _without_pause)
        pause = seen.control["pause"] if seen.control is not None else None
        if pause is None:
            show(f"{name} is not paused\n")
        over = "" if control.pause_of(seen.control, steering.time_of(backend)) else ", which is over"
        show(f"resumed: {name}. It was paused {steering.paused(pause)}{over}\n")


def _without_pause(seen: Look) -> Control | None:
    """The control without its pause; None where there is none."""
    is_paused = seen.control is not None and seen.control["pause"] is not None
    return control.resumed(seen.control) if is_paused else None
