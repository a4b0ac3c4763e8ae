"""Facts as tables for a terminal. A narrow terminal gets the same facts, a line for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from singleton_run.commands import wording
from singleton_run.commands.facts import NO_QUEUE
from singleton_run.commands.wording import NONE, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import tzinfo
    from typing import Any

    from rich.console import RenderableType

    Facts = Mapping[str, Any]
    Row = tuple[str, str | Text]

WIDE = 70
"""Columns from which on a table of columns is readable."""
STYLES = {
    "held": "cyan",
    "running": "cyan",
    "free": "green",
    "succeeded": "green",
    "kept": "yellow",
    "paused": "yellow",
    "skipped": "yellow",
    "interrupted": "yellow",
    "expired": "red",
    "unavailable": "red",
    "failed": "red",
    "crashed": "red",
    "lost": "red",
}


def status(told: Facts, zone: tzinfo, width: int) -> RenderableType:
    """All facts of one lock, and its last runs below."""
    parts: list[RenderableType] = [headline(told), rows(facts_of(told, zone))]
    if told["runs"]:
        parts += [Text("\nlast runs", "bold"), runs(told, zone, width)]
    return Group(*parts)


def headline(told: Facts) -> Text:
    """The lock's name and its state."""
    return Text.assemble((plain(told["name"]), "bold"), ": ", styled(told["state"]))


def facts_of(told: Facts, zone: tzinfo) -> list[Row]:
    """The facts that there are, each with its name."""
    return [row for row in (*_of_holder(told, zone), *_of_others(told, zone)) if row[1] != NONE]


def _of_holder(told: Facts, zone: tzinfo) -> Iterable[Row]:
    where = f"host {plain(told['host'])}, process {plain(told['pid'])}"
    yield "lock", plain(told["lock"])
    yield "holder", plain(told["holder"])
    yield "", where if told["pid"] is not None else NONE
    yield "since", wording.when(told["since"], told["at"], zone)
    yield "until", wording.when(told["until"], told["at"], zone)
    yield "token", plain(told["token"])
    yield "command", plain(told["command"])
    if told["slot"]:
        yield "slot", f"{wording.local(told['slot'], zone)}, attempt {plain(told['attempt'])}"
    if told["release"]:
        by = f" by {plain(told['release']['by'])}" if told["release"]["by"] else ""
        yield "release", f"ordered{by} {wording.when(told['release']['at'], told['at'], zone)}"
    if told["pause"]:
        pause = told["pause"]
        yield "paused", wording.pause(pause, wording.when(pause["until"], told["at"], zone))
        yield "", f"since {wording.when(pause['at'], told['at'], zone)}" if pause["at"] else NONE


def _of_others(told: Facts, zone: tzinfo) -> Iterable[Row]:
    yield "waiting", waiting(told["waiting"])
    schedule = told["schedule"]
    if schedule is not None:
        yield "schedule", plain(schedule["text"])
        if schedule["overlap"] != "queue":
            yield "overlap", plain(schedule["overlap"])
        slot = f"{wording.local(schedule['slot'], zone)}, {plain(schedule['state'])}"
        yield "last slot", Text(slot, STYLES.get(schedule["state"], ""))
        if schedule["missed"]:
            yield "missed", Text(wording.when(schedule["missed"], told["at"], zone), "red")
        yield "next slot", wording.when(schedule["next"], told["at"], zone)
        yield "", plain(schedule["note"])
    for note in told["notes"]:
        yield "note", NONE if note == NO_QUEUE else plain(note)


def waiting(who: Sequence[Facts] | None) -> str:
    """Who waits, the next one first."""
    if who is None:
        return NO_QUEUE
    return ", ".join(plain(each["holder"]) for each in who) or "nobody"


def listed(told: Facts, zone: tzinfo, width: int) -> RenderableType:
    """A row for each lock."""
    locks = told["locks"]
    if not locks:
        return Text(f"no locks at {plain(told['lock'])}")
    if width < WIDE:
        blocks = [part for lock in locks for part in _block(lock, told["at"])]
        return Group(*blocks)
    table = _columns("name", "state", "holder", "last run", "result", "next slot")
    for lock in locks:
        start, result, following = _last_and_next(lock, told["at"])
        table.add_row(
            plain(lock["name"]), styled(lock["state"]), plain(lock["holder"]), start, result, following
        )
    return table


def _block(lock: Facts, now: str) -> list[RenderableType]:
    start, result, following = _last_and_next(lock, now)
    found: list[Row] = [("holder", plain(lock["holder"])), ("last run", Text.assemble(start, " ", result))]
    if lock["last"] is None:
        found.pop()
    found.append(("next slot", following))
    return [headline(lock), rows([row for row in found if row[1] != NONE])]


def _last_and_next(lock: Facts, now: str) -> tuple[str, Text, str | Text]:
    """When the last run was, how it ended, and when the next slot is: or that one was missed."""
    last, schedule = lock["last"], lock["schedule"] or {"missed": None, "next": None}
    start = NONE if last is None else wording.distance(last["start"], now) or NONE
    result = Text(wording.result(last), STYLES.get(last["state"], "") if last else "")
    following = wording.distance(schedule["next"], now) or NONE
    if schedule["missed"]:
        missed = f"missed {wording.distance(schedule['missed'], now)}"
        return start, result, Text.assemble((missed, "red"), "" if following == NONE else f", {following}")
    return start, result, following


def history(told: Facts, zone: tzinfo, width: int) -> RenderableType:
    """A row for each run."""
    notes = [Text(plain(note)) for note in told["notes"]]
    if not told["runs"]:
        return Group(Text(f"no runs of {plain(told['name'])} are known"), *notes)
    return Group(runs(told, zone, width), *notes)


def runs(told: Facts, zone: tzinfo, width: int) -> RenderableType:
    """The runs, the latest first."""
    if width < WIDE:
        return Group(*(part for run in told["runs"] for part in _run_block(run, told["at"], zone)))
    slots = any(run["slot"] for run in told["runs"])
    table = _columns("start", "took", "result", *(["slot", "attempt"] if slots else []), "holder", "token")
    for run in told["runs"]:
        slot = [wording.local(run["slot"], zone)[:19], plain(run["attempt"])] if slots else []
        start = f"{wording.local(run['start'], zone)[:19]}\n{wording.distance(run['start'], told['at'])}"
        table.add_row(
            start.rstrip(), _took(run), _result(run), *slot, plain(run["holder"]), plain(run["token"])
        )
    return table


def _run_block(run: Facts, now: str, zone: tzinfo) -> list[RenderableType]:
    found: list[Row] = [
        ("took", _took(run)),
        (
            "slot",
            f"{wording.local(run['slot'], zone)}, attempt {plain(run['attempt'])}" if run["slot"] else NONE,
        ),
        ("holder", plain(run["holder"])),
        ("token", plain(run["token"])),
    ]
    head = Text.assemble(wording.when(run["start"], now, zone), ": ", _result(run))
    return [head, rows([row for row in found if row[1] != NONE])]


def _took(run: Facts) -> str:
    return NONE if run["duration"] is None else wording.took(run["duration"])


def _result(run: Facts) -> Text:
    return Text(wording.result(run), STYLES.get(run["state"], ""))


def styled(state: str) -> Text:
    """A state in its colour."""
    return Text(plain(state), STYLES.get(state, ""))


def rows(found: Sequence[Row]) -> Table:
    """Facts below each other: their names, and their values."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for word, value in found:
        grid.add_row(f"  {word}", value)
    return grid


def _columns(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    return table
