"""Facts as lines for pipes: one line a thing, its parts separated by tabs, `-` for what isn't known.

Lines are for `cut`, `awk` and `grep`. There is no head, and columns are only ever added at the end. A part
has no tab and no line's end in it, whatever anybody wrote there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run.commands.facts import NO_QUEUE
from singleton_run.commands.wording import pause, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Facts = Mapping[str, Any]

_SIMPLE = (
    "name",
    "lock",
    "state",
    "holder",
    "host",
    "pid",
    "since",
    "until",
    "token",
    "command",
    "slot",
    "attempt",
)


def status(facts: Facts) -> str:
    """A line for each fact: its name and its value."""
    schedule = facts["schedule"] or {}
    rows: list[tuple[object, ...]] = [(word, facts[word]) for word in _SIMPLE]
    rows += [
        ("release", _order(facts)),
        ("pause", _pause(facts)),
        *_waiters(facts["waiting"]),
        ("schedule", schedule.get("text")),
        ("overlap", None if schedule.get("overlap") == "queue" else schedule.get("overlap")),
        ("next", schedule.get("next")),
        ("missed", schedule.get("missed")),
        *(("run", *_run(run)) for run in facts["runs"]),
        *(("note", text) for text in (*facts["notes"], schedule.get("note")) if text and text != NO_QUEUE),
    ]
    return "".join(_line(*row) for row in rows)


def change(facts: Facts) -> str:
    """The line of `status --watch`: when, and what counts then."""
    why = facts["error"] or _order(facts) or _pause(facts)
    waiting = None if facts["waiting"] is None else len(facts["waiting"])
    words = ("at", "state", "holder", "token", "since", "slot", "attempt")
    return _line(*(facts[word] for word in words), waiting, why)


def listed(locks: Sequence[Facts]) -> str:
    """A line for each lock: name, state, holder, the last run's start, state and status, next, missed."""
    rows = []
    for lock in locks:
        last, schedule = lock["last"] or {}, lock["schedule"] or {}
        words = (last.get(word) for word in ("start", "state", "status"))
        slots = (schedule.get(word) for word in ("next", "missed"))
        rows.append(_line(lock["name"], lock["state"], lock["holder"], *words, *slots))
    return "".join(rows)


def history(facts: Facts) -> str:
    """A line for each run: start, seconds, state, status, slot, attempt, holder, token."""
    return "".join(_line(*_run(run)) for run in facts["runs"])


def _run(run: Facts) -> tuple[object, ...]:
    words = ("start", "duration", "state", "status", "slot", "attempt", "holder", "token")
    return tuple(run[word] for word in words)


def _waiters(waiting: Sequence[Facts] | None) -> list[tuple[str, object]]:
    if waiting is None:
        return [("waiting", NO_QUEUE)]
    return [("waiting", each["holder"]) for each in waiting] or [("waiting", None)]


def _order(facts: Facts) -> str | None:
    order = facts["release"]
    return order and f"release ordered by {plain(order['by'])} at {plain(order['at'])}"


def _pause(facts: Facts) -> str | None:
    return facts["pause"] and pause(facts["pause"], plain(facts["pause"]["until"]))


def _joined(parts: tuple[object, ...], separator: str) -> str:
    return separator.join(map(plain, parts))


def _line(*parts: object) -> str:
    return _joined(parts, "\t") + "\n"
