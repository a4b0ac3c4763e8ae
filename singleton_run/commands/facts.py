"""What a look at a lock says, as facts: the objects that --json prints.

Nothing is read, asked or shown here. A fact that nobody knows is None. A time is a text of RFC 3339 in UTC,
by the server's clock. docs/schema/ describes every object; fields are only ever added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run.api.contract import Look, host_of
from singleton_run.api.control import pause_of
from singleton_run.api.record import UNREADABLE, moment, slot_of_run
from singleton_run.api.timestamps import rfc3339
from singleton_run.commands.schedules import schedule_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from singleton_run.api.contract import Held
    from singleton_run.commands.looking import Seen

    Facts = dict[str, Any]

PAUSED, UNAVAILABLE = "paused", "unavailable"
NO_QUEUE = "this backend registers no waiting calls"
NO_CONTROL = "this backend's locks can't be paused, and their release can't be ordered"
NO_RECORD = "the record can't be read: the runs before the next one are not known"
_FEW = 5
_RANDOM = frozenset("0123456789abcdef")


def status(seen: Seen, name: str, lock: str) -> Facts:
    """All facts of one lock. `lock` is its address, without passwords."""
    look = seen.look
    held, run = look.holder, running(look)
    runs = runs_of(seen)
    schedule = schedule_of(look.record, seen.now, runs=run is not None)
    return {
        "name": name,
        "lock": lock,
        "at": rfc3339(seen.now),
        "state": state_of(seen),
        "holder": held.holder or None if held else None,
        "host": held.host or None if held else None,
        "pid": process_of(held.holder) if held else None,
        "since": _time(_since(held, run)),
        "until": _time(_end(seen)),
        "token": _token(held, run),
        "command": _word(run.get("command")) if run else None,
        "slot": runs[0]["slot"] if run else None,
        "attempt": runs[0]["attempt"] if run else None,
        "release": _order(look),
        "pause": _pause(seen),
        "waiting": None if look.waiting is None else [_waiter(each) for each in look.waiting],
        "schedule": schedule,
        "last": _last(runs),
        "runs": runs[:_FEW],
        "notes": notes(seen),
        "error": None,
    }


def unavailable(name: str, lock: str, now: float, error: str) -> Facts:
    """The facts while the server can't be reached: all are unknown but these."""
    known = {"name": name, "lock": lock, "at": rfc3339(now), "state": UNAVAILABLE, "error": error}
    return {**dict.fromkeys(FIELDS), "runs": [], "notes": [], **known}


FIELDS = (
    "name", "lock", "at", "state", "holder", "host", "pid", "since", "until", "token", "command", "slot",
    "attempt", "release", "pause", "waiting", "schedule", "last", "runs", "notes", "error",
)  # fmt: skip
"""The fields of `status`, in their order."""


def listed(seen: Seen, name: str) -> Facts:
    """The facts of one lock of many. `stale`: its last slot was missed, or has not succeeded."""
    whole = status(seen, name, "")
    words = ("name", "state", "holder", "since", "pause", "schedule", "last", "notes")
    return {**{word: whole[word] for word in words}, "stale": is_stale(whole["schedule"])}


def history(seen: Seen, name: str, lock: str, most: int) -> Facts:
    """The latest runs under a lock, at most `most` of them, the latest first."""
    runs = runs_of(seen)[:most]
    told = [NO_RECORD] if _is_unreadable(seen.look) else []
    return {"name": name, "lock": lock, "at": rfc3339(seen.now), "runs": runs, "notes": told}


def state_of(seen: Seen) -> str:
    """One of Look's states, or PAUSED where a pause is in force and no command runs.

    During a pause one of our calls may hold the lock without a command. A stranger that holds it is taken to
    run something.
    """
    look = seen.look
    if pause_of(look.control, seen.now) is None:
        return look.state
    if look.state == Look.HELD and (running(look) is not None or not _is_ours(look.holder)):
        return look.state
    return PAUSED


def running(look: Look) -> Mapping[str, Any] | None:
    """The record, if it is of a command that runs under the lock now."""
    held, record = look.holder, look.record
    if look.state != Look.HELD or held is None or record is None or record["state"] != "running":
        return None
    same = held.holder == record["holder"] and held.token in (None, record["token"])
    return record if same else None


def runs_of(seen: Seen) -> list[Facts]:
    """All runs that the record knows, the latest first."""
    record = seen.look.record
    if record is None or _is_unreadable(seen.look):
        return []
    runs = running(seen.look) is not None
    return [
        _run({**record, "slot": None, **slot_of_run(record)}, seen.now, runs=runs),
        *(_run(each, seen.now, runs=False) for each in record["runs"]),
    ]


def process_of(holder: str) -> int | None:
    """The process id in the name of one of our holders (HOST:PID:RANDOM); None in any other name."""
    host, _, rest = holder.partition(":")
    pid, _, random = rest.partition(":")
    ours = (
        host and pid.isascii() and pid.isdigit() and len(pid) < 10 and random and _RANDOM.issuperset(random)
    )
    return int(pid) if ours else None


def _is_ours(held: Held | None) -> bool:
    """Whether a holder is one of ours. With the lock `file` its name isn't known before its command runs."""
    if held is None:
        return False
    return process_of(held.holder) is not None or (not held.holder and held.token is not None)


def is_stale(schedule: Mapping[str, Any] | None) -> bool:
    """Whether the last slot of a schedule was missed, or has not succeeded and does not run."""
    if schedule is None:
        return False
    return schedule["missed"] is not None or schedule["state"] not in ("succeeded", "running")


def notes(seen: Seen) -> list[str]:
    """What can't be told of this lock, a sentence each."""
    told = []
    if seen.look.waiting is None:
        told.append(NO_QUEUE)
    if not seen.steered:
        told.append(NO_CONTROL)
    if _is_unreadable(seen.look):
        told.append(NO_RECORD)
    return told


def _run(run: Mapping[str, Any], now: float, *, runs: bool) -> Facts:
    """One run. A run that the record calls running, and that doesn't run, has crashed."""
    start, end = moment(run["start"]), moment(run["end"])
    until = now if runs else end
    over = {"running": "running" if runs else "crashed"}
    return {
        "slot": _time(run.get("slot")),
        "attempt": _number(run.get("attempt")),
        "start": _time(start),
        "end": _time(end),
        "duration": None if start is None or until is None else round(max(0.0, until - start), 3),
        "state": over.get(run["state"], run["state"]),
        "status": _number(run["status"]),
        "holder": run["holder"] or None,
        "host": host_of(run["holder"]) or None,
        "pid": process_of(run["holder"]),
        "token": _number(run["token"]),
    }


def _last(runs: Iterable[Facts]) -> Facts | None:
    """The last run that is over."""
    return next((run for run in runs if run["state"] != "running"), None)


def _since(held: Held | None, run: Mapping[str, Any] | None) -> object:
    if held is not None and held.since is not None:
        return held.since
    return None if run is None else run["start"]


def _end(seen: Seen) -> float | None:
    """The end of the lease, in Unix seconds by the server's clock."""
    held = seen.look.holder
    return None if held is None or held.until is None else seen.now + held.until - seen.boot


def _token(held: Held | None, run: Mapping[str, Any] | None) -> int | None:
    if held is not None and held.token is not None:
        return held.token
    return None if run is None else _number(run["token"])


def _order(look: Look) -> Facts | None:
    """The order to the present holder to give the lock back."""
    order, held = (look.control or {}).get("release"), look.holder
    if order is None or held is None or order["holder"] != held.holder:
        return None
    if held.token not in (None, order["token"]):
        return None
    return {"by": order["by"] or None, "at": _time(order["at"])}


def _pause(seen: Seen) -> Facts | None:
    """The pause that is in force."""
    pause = pause_of(seen.look.control, seen.now)
    if pause is None:
        return None
    return {
        "by": pause["by"] or None,
        "at": _time(pause["at"] or None),
        "until": _time(pause["until"]),
        "reason": pause["reason"] or None,
    }


def _waiter(held: Held) -> Facts:
    return {
        "holder": held.holder or None,
        "host": held.host or None,
        "pid": process_of(held.holder),
        "since": _time(held.since),
    }


def _is_unreadable(look: Look) -> bool:
    return look.record is not None and look.record["state"] == UNREADABLE


def _time(value: object) -> str | None:
    at = None if isinstance(value, bool) else moment(value)
    return None if at is None else rfc3339(at)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
