"""Prints the next slots of a schedule: --plan."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from singleton_run import durations
from singleton_run.api import registry
from singleton_run.api.record import readable
from singleton_run.call.output import say
from singleton_run.errors import USAGE, Failure
from singleton_run.schedule import slot_times, time_zones
from singleton_run.schedule.slot_rules import last_slot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from singleton_run.call.settings import Settings
    from singleton_run.schedule.slot_times import Cron, Grid

_LIMIT = 10.0
_MOST = 1000


def count(text: str) -> int:
    """The number of slots to print. Raises Failure(USAGE) if `text` is not a number from 1 to 1000."""
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= _MOST):
        raise Failure(USAGE, f"--plan: {text!r} is not a number from 1 to {_MOST}")
    return int(text)


def show(settings: Settings, number: int, environ: Mapping[str, str]) -> None:
    """Print the next slots to stdout: as a table at a terminal, else one on each line.

    With --every it reads the record from the server, because the grid is in the record. Raises Failure, and
    OSError if stdout can't be written.
    """
    slots, title = _slots(settings, environ)
    if settings.overlap != "queue":
        title = f"{title}, --overlap {settings.overlap}"
    show_rows(
        title, ("local time", "UTC", ""), list(_rows(settings, slots, number, _zone(settings, environ)))
    )


def show_of_all(all_settings: Sequence[Settings], number: int, environ: Mapping[str, str]) -> None:
    """Print the next slots of several schedules together, each with the lock's name; see `show`."""
    schedules = [
        [(*row, settings.name) for row in _rows(settings, slots, number, _zone(settings, environ))]
        for settings in all_settings
        for slots, _ in [_slots(settings, environ)]
    ]
    first = sorted((row for rows in schedules for row in rows), key=itemgetter(1))[:number]
    rows = [(local, utc, name, note) for local, utc, note, name in first]
    show_rows("the next times of all lines", ("local time", "UTC", "name", ""), rows)


def show_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows to stdout: as a table with a title at a terminal, else one on each line."""
    if os.isatty(1):
        _table(title, columns, rows)
        return
    widths = [max((len(row[place]) for row in rows), default=0) for place in range(len(columns))]
    text = "".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
        for row in rows
    )
    say(text)


def _slots(settings: Settings, environ: Mapping[str, str]) -> tuple[Cron | Grid, str]:
    """The schedule's slots, and a title that says what they come from."""
    if settings.cron is not None and settings.zone is not None:
        slots = slot_times.Cron(settings.cron, settings.zone)
        return slots, slots.text
    if settings.every is None:
        raise Failure(USAGE, "--plan is for a schedule: give --every or --cron too")
    now = time.time()
    text = slot_times.Grid(settings.every, now).text
    backend = registry.open_backend(settings.lock_address, environ)
    try:
        last = last_slot(readable(backend.read(settings.name, _LIMIT)[1]))
    finally:
        backend.close()
    if last is None:
        return slot_times.Grid(settings.every, now), f"{text}, if it begins now"
    anchor = last["grid"] if last["schedule"] == text else last["slot"]
    return slot_times.Grid(settings.every, anchor), f"{text}, by the record of {settings.name}"


def _zone(settings: Settings, environ: Mapping[str, str]) -> ZoneInfo:
    """The time zone in which slots are shown: the schedule's, else this machine's, else UTC."""
    try:
        return ZoneInfo(settings.zone or time_zones.local(environ))
    except Failure:
        return ZoneInfo("UTC")


def _rows(
    settings: Settings, slots: Cron | Grid, number: int, zone: ZoneInfo
) -> Iterator[tuple[str, str, str]]:
    """For each slot: its local time with the offset, its time in UTC, and a note."""
    # A schedule that begins now has a slot now.
    at = slots.next(time.time() - 1 if isinstance(slots, slot_times.Grid) else time.time())
    for _ in range(number):
        if at == inf:
            return
        local = datetime.fromtimestamp(at, zone)
        notes = [_change(slots, at, local)]
        if settings.jitter:
            later = slot_times.jitter(settings.name, at, settings.jitter)
            notes.append(f"starts {durations.text(later)} later")
        utc = datetime.fromtimestamp(at, UTC)
        yield f"{local:%a %Y-%m-%d %H:%M:%S %z}", f"{utc:%Y-%m-%dT%H:%M:%SZ}", ", ".join(filter(None, notes))
        at = slots.next(at)


def _change(slots: Cron | Grid, at: float, local: datetime) -> str:
    """The note on what a change of the clocks does to the slot; '' if nothing."""
    if isinstance(slots, slot_times.Grid):
        return ""
    skipped = slots.skipped(at)
    if skipped is not None:
        return f"skipped {datetime.fromtimestamp(skipped, UTC):%H:%M} → {local:%H:%M}"
    if local.replace(fold=1 - local.fold).utcoffset() == local.utcoffset():
        return ""
    if slots.fixed:
        return "repeated hour: once"
    return f"repeated hour: {'second' if local.fold else 'first'} time"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(file=sys.stdout).print(table)
