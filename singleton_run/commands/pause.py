"""`pause NAME`: nobody starts a command under the lock until somebody resumes, or until a time."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from datetime import time as time_of_day
from typing import TYPE_CHECKING

from singleton_run import durations
from singleton_run.api import control
from singleton_run.api.contract import Look
from singleton_run.api.timestamps import rfc3339
from singleton_run.call.output import show
from singleton_run.commands import steering
from singleton_run.commands.connection import checked_name, opened
from singleton_run.errors import one_line
from singleton_run.system import fastjson

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from singleton_run.api.control import Control
    from singleton_run.call.fast_parser import Value

_LONGEST_AS_JSON = 1500
"""Leaves room for an order in the same object."""


def run(given: Mapping[str, Value], environ: Mapping[str, str]) -> NoReturn:
    """Pause the lock, say until when and who goes on, and end."""
    with opened(given, environ) as backend:
        name = checked_name(given)
        at, length = end_of(given, time.time())
        reason = checked_reason(str(given.get("reason") or ""))
        steering.check_steerable(backend)
        made: Control = {}

        def with_pause(seen: Look) -> Control:
            now = steering.time_of(backend)
            until = at if length is None else now + length
            if until is not None and until <= now:
                raise ValueError(f"the pause is over at once: by the server it is {rfc3339(int(now))}")
            made.update(
                control.paused(seen.control, by=steering.ourselves(), at=now, until=until, reason=reason)
            )
            return made

        seen = steering.change(backend, name, with_pause)
        before = control.pause_of(seen.control, made["pause"]["at"])
        show(said(name, seen, made["pause"]["until"], before))


def end_of(given: Mapping[str, Value], now: float) -> tuple[float | None, float | None]:
    """When the pause ends (Unix seconds), or how long it lasts (seconds); two None: until somebody resumes.

    Raises ValueError with a sentence for the user.
    """
    until, length = given.get("until"), given.get("for")
    if until is not None and length is not None:
        raise ValueError("--until and --for contradict each other: give one of them")
    if length is not None:
        try:
            return None, durations.seconds(str(length))
        except ValueError as error:
            raise ValueError(f"--for: {error}") from None
    return (None if until is None else instant(str(until), now)), None


def instant(text: str, now: float) -> float:
    """The time that `text` names, in Unix seconds: it must be after `now`.

    It is RFC 3339, or by this machine's clock: `2026-12-01 08:00`, or `08:00`, which is the next one. Raises
    ValueError with a sentence for the user.
    """
    try:
        if "-" in text[:8]:
            found = datetime.fromisoformat(text if ":" in text else "").timestamp()
        else:
            clock = time_of_day.fromisoformat(text if ":" in text else "")
            today = datetime.fromtimestamp(now).astimezone()
            days = (datetime.combine(today + timedelta(days=days), clock) for days in (0, 1))
            found = next(at for day in days if (at := day.timestamp()) > now)
    except (ValueError, OverflowError):
        forms = "2026-12-01T08:00:00Z, '2026-12-01 08:00' or 08:00"
        raise ValueError(f"--until: {text!r} is no time such as {forms}") from None
    if found <= now:
        raise ValueError(f"--until: {text!r} is over")
    return found


def checked_reason(text: str) -> str:
    """`text` on one line. Raises ValueError if it is too long to be kept beside a lock."""
    reason = one_line(text)
    if len(reason) > control.LONGEST_REASON or len(fastjson.dumps(reason)) > _LONGEST_AS_JSON:
        raise ValueError(
            f"--reason is too long: at most {control.LONGEST_REASON} characters, fewer of those outside ASCII"
        )
    return reason


def said(name: str, seen: Look, until: float | None, before: Mapping[str, object] | None) -> str:
    """What the user is told after the pause of a lock that was as `seen` before, with a pause or without."""
    end = f" until {rfc3339(int(until))}" if until is not None else ""
    lines = [f"paused: {name}{end}. Nobody starts before that, or before: singleton-run resume {name}"]
    if until is None:
        lines = [f"paused: {name}. Nobody starts before: singleton-run resume {name}"]
    if before is not None:
        lines.append(f"It was paused already, {steering.paused(before)}: this pause takes its place")
    if (seen.holder, seen.record, seen.control) == (None, None, None):
        lines.append("There is no lock and no run of that name yet")
    if seen.state == Look.HELD and seen.holder is not None:
        lines.append(f"It is held by {steering.holder(seen.holder)}: that goes on until it ends")
    return "".join(f"{line}\n" for line in lines)
