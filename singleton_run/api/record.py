"""The record: the runs of a lock's holders, written beside the lock.

Version 1 is a JSON object: version, name, state (running, succeeded, failed, interrupted, crashed, lost,
skipped: a slot that a pause kept from starting),
token, holder, start and end (Unix seconds, UTC; end null while it runs), status (the exit status, null if
unknown), command (the program's name, without its arguments, which may have secrets), and in runs the earlier
runs, the latest first, at most 50, with the words state, token, holder, start, end and status, and for a run
of a schedule also slot (its time) and attempt. `slot` has the last slot of a schedule
(see `schedule.slot_rules`); a turn without a slot hands it on. A `slot` that can't be read means that nobody
knows which slot was started last.
"""

from __future__ import annotations

from singleton_run.errors import UNUSABLE, Refused
from singleton_run.system import calls, fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Record = dict[str, Any]

VERSION = 1
LONGEST = 20_000
"""Characters of a record. A longer text is no record of ours, and would not fit through a pipe."""

LONGEST_WORD = 1000
"""Characters of a text in a record, such as a schedule."""
UNREADABLE = "unreadable"
SKIPPED = "skipped"
"""The state of a slot that nobody starts, because it was due during a pause."""

_EARLIER = 50
# What is before the earlier runs. No text has it inside: JSON writes a backslash before a quotation mark.
_RUNS = ',"runs":['
_LONGEST_COMMAND = 100
_ROOM_FOR_SLOT = 3000
_DEEPEST = 4
_YEAR_10000 = 253_402_300_800
_OF_A_RUN = ("state", "token", "holder", "start", "end", "status")


def started(
    previous: Mapping[str, Any] | None, name: str, holder: str, token: int, start: float, command: str = ""
) -> Record:
    """The record of a run that starts at `start` (Unix seconds); `previous` becomes one of its earlier runs.

    Where `previous` is of this very run, written before the start, it is returned.
    """
    return with_earlier(begun(previous, name, holder, token, start, command), previous)


def begun(
    previous: Mapping[str, Any] | None, name: str, holder: str, token: int, start: float, command: str = ""
) -> Record:
    """The same without the earlier runs, which `with_earlier` adds."""
    if previous is not None and previous.get("token") == token:
        return without_earlier(previous)
    slot = {"slot": previous["slot"]} if previous is not None and "slot" in previous else {}
    return {
        **slot,
        "version": VERSION,
        "name": name,
        "state": "running",
        "token": token,
        "holder": holder,
        "start": start,
        "end": None,
        "status": None,
        "command": command.rpartition("/")[2][:_LONGEST_COMMAND],
    }


def without_earlier(record: Mapping[str, Any]) -> Record:
    """`record` without the earlier runs: for a message, as they are much and change nothing in a turn."""
    return {word: value for word, value in record.items() if word != "runs"}


def with_earlier(run: Mapping[str, Any], previous: Mapping[str, Any] | None) -> Record:
    """The record of `run` with the earlier runs: `previous`, and those that `previous` has.

    Where `previous` is of this very run, only those that it has. One that has them already is returned. The
    earliest are left out until the record is short enough to be read again.
    """
    if "runs" in run:
        return dict(run)
    if previous is not None and previous.get("token") == run["token"]:
        return {**run, "runs": previous.get("runs", [])}
    runs: list[Any] = []
    if previous is not None and previous.get("state") != UNREADABLE:
        last = {**{word: previous.get(word) for word in _OF_A_RUN}, **slot_of_run(previous)}
        if last["state"] == "running":
            last["state"] = "crashed"
        runs = [last, *previous.get("runs", [])][:_EARLIER]
    record = {**run, "runs": runs}
    while len(fastjson.dumps(record)) > LONGEST - _ROOM_FOR_SLOT:
        if not runs:
            return {**record, "slot": None}
        runs.pop()
    return record


def slot_of_run(record: Mapping[str, Any]) -> Record:
    """The time and attempt of the slot that the record's run was of; empty for a run without a slot."""
    slot = record.get("slot")
    if isinstance(slot, dict) and slot.get("start") == record.get("start"):
        return {"slot": slot.get("slot"), "attempt": slot.get("attempt")}
    return {}


def ended(record: Mapping[str, Any], state: str, status: int | None, end: float | None) -> Record:
    """`record` after the run has ended, at `end` (Unix seconds), with that exit `status`; None: unknown."""
    over = {**record, "state": state, "status": status, "end": end}
    if slot_of_run(record):
        over["slot"] = {**record["slot"], "state": state, "end": end}
    return over


def mark_of(record: Mapping[str, Any]) -> Record:
    """The mark of a key: those fields of its run's record that are kept with it."""
    return {word: record[word] for word in ("holder", "token", "start", "end")}


def parsed_mark(text: str, where: str, field: str = "") -> Record:
    """The mark in `text`, or in a `field` of the object in `text`.

    Raises Refused (78) for a damaged one, which `where` names: nobody knows whether its key is done, so a
    person has to decide.
    """
    try:
        mark = fastjson.loads(text)
        mark = mark[field] if field else mark
    except (ValueError, TypeError, LookupError):
        mark = None
    if isinstance(mark, dict):
        return mark
    raise Refused(f"{where} is damaged: delete it if what it marks shall be done again", UNUSABLE)


def keep_left(keep: float, began: float) -> float:
    """Seconds left of --lock-at-least-for (`keep`), counted from the command's start.

    `began` is the boot clock's reading at that start; 0.0 if there was none.
    """
    return max(0.0, began + keep - calls.now()) if keep and began else 0.0


def parsed(text: str) -> Record:
    """The record in `text`; `unreadable()` where there is none that this version can use."""
    if len(text) > LONGEST:
        return unreadable()
    try:
        return readable(fastjson.loads(text)) or unreadable()
    except ValueError:
        return unreadable()


def parsed_last(text: str) -> Record:
    """The same without the earlier runs. A damage among them doesn't show here."""
    last, found, rest = text.partition(_RUNS)
    if found and rest.rstrip().endswith("]}") and len(text) <= LONGEST:
        try:
            value = fastjson.loads(last + _RUNS + "]}")
        except ValueError:
            value = None
        if (record := readable(value)) is not None:
            return without_earlier(record)
    return without_earlier(parsed(text))


def unreadable() -> Record:
    """The record in place of a damaged one: it is of no run, and nobody knows its slot."""
    run = dict.fromkeys(_OF_A_RUN)
    return {
        **run,
        "version": VERSION,
        "state": UNREADABLE,
        "token": 0,
        "holder": "",
        "runs": [],
        "slot": None,
    }


def readable(value: object) -> Record | None:
    """`value` if it is a record that this version can use, else None."""
    if not isinstance(value, dict) or value.get("version") != VERSION or not _is_plain(value):
        return None
    runs = value.get("runs")
    whole = isinstance(runs, list) and len(runs) <= _EARLIER and all(_is_run(run) for run in runs)
    return value if whole and _is_run(value) else None


def moment(value: object) -> float | None:
    """`value` if it is a Unix time in the years 1970 to 9999, else None."""
    return value if isinstance(value, _NUMBER) and 0 <= value < _YEAR_10000 else None


# A turn reads 50 runs before its command starts: the two functions below are written for speed.
_NUMBER = (int, float)


def _is_run(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    word = value.get
    start, end, status = word("start"), word("end"), word("status")
    texts = isinstance(word("state"), str) and isinstance(word("holder"), str)
    times = (start is None or moment(start) is not None) and (end is None or moment(end) is not None)
    return texts and times and isinstance(word("token"), int) and (status is None or isinstance(status, int))


def _is_plain(value: object) -> bool:
    """Whether `value` can be written again and shown: no infinite number, no long text, no deep nesting.

    It looks at level after level. The None below each object and list shows these where they are too deep.
    """
    parts = [value]
    for _ in range(_DEEPEST + 1):
        deeper: list[object] = []
        for part in parts:
            if isinstance(part, str):
                if len(part) > LONGEST_WORD:
                    return False
            elif isinstance(part, dict):
                deeper += [*part, *part.values(), None]
            elif isinstance(part, list):
                deeper += [*part, None]
            elif isinstance(part, _NUMBER) and not abs(part) < 1 << 63:
                return False
        parts = deeper
    return not parts
