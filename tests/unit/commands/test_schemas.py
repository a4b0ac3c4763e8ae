"""What --json prints has a schema, and no field of it is ever taken away."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from singleton_run.api.contract import Held, Look
from singleton_run.api.control import ordered, paused
from singleton_run.api.record import unreadable
from singleton_run.commands import facts
from tests.support import schemas
from tests.unit.commands.samples import EARLIER, HOLDER, NOW, TOKEN, held, record, seen, slot_of

RUN = ["slot", "attempt", "start", "end", "duration", "state", "status", "holder", "host", "pid", "token"]
SCHEDULE = ["text", "slot", "attempt", "state", "start", "end", "next", "missed", "note", "overlap"]
PAUSE = ["by", "at", "until", "reason"]
# The fields that scripts may rely on. A field is added here when it is added there, and none is removed.
GOLDEN = {
    "status": {
        *("name", "lock", "at", "state", "holder", "host", "pid", "since", "until", "token", "command"),
        *("slot", "attempt", "release", "release.by", "release.at", "pause", "waiting", "waiting.holder"),
        *("waiting.host", "waiting.pid", "waiting.since", "schedule", "last", "runs", "notes", "error"),
        *(f"pause.{word}" for word in PAUSE),
        *(f"schedule.{word}" for word in SCHEDULE),
        *(f"{place}.{word}" for place in ("last", "runs") for word in RUN),
    },
    "list": {
        *("lock", "at", "locks", "locks.name", "locks.state", "locks.holder", "locks.since", "locks.pause"),
        *("locks.schedule", "locks.last", "locks.notes", "locks.stale"),
        *(f"locks.pause.{word}" for word in PAUSE),
        *(f"locks.schedule.{word}" for word in SCHEDULE),
        *(f"locks.last.{word}" for word in RUN),
    },
    "history": {"name", "lock", "at", "runs", "notes", *(f"runs.{word}" for word in RUN)},
}

CONTROL = {
    **ordered(None, holder=HOLDER, token=TOKEN, by="me@here", at=NOW),
    "pause": paused(None, by="me@here", at=NOW, until=NOW + 5, reason="moving")["pause"],
}
FULL = seen(Look.HELD, held(), record(slot=slot_of()), control=CONTROL, waiting=[Held(EARLIER, since=NOW)])
SEEN = {
    "full": FULL,
    "free": seen(Look.FREE),
    "damaged": seen(Look.FREE, None, unreadable(), steered=False),
    "a foreign holder": seen(Look.HELD, Held("")),
    "a zone that is unknown": seen(
        Look.FREE, None, record("failed", slot=slot_of("cron * * * * * No/Where"))
    ),
    "numbers that are none": seen(Look.FREE, None, {**record("failed"), "token": True, "status": False}),
}


def printed(command: str, look: Any) -> dict[str, Any]:
    if command == "status":
        return facts.status(look, "job", "etcd")
    if command == "history":
        return facts.history(look, "job", "etcd", 20)
    return {"lock": "etcd", "at": "2026-11-28T14:00:00Z", "locks": [facts.listed(look, "job")]}


@pytest.mark.parametrize("command", GOLDEN)
def test_a_schema_is_one_and_describes_each_field_that_there_ever_was(command: str) -> None:
    schema = schemas.schema(command)
    Draft202012Validator.check_schema(schema)
    assert set(schemas.described(schema, schema)) == GOLDEN[command]


@pytest.mark.parametrize("command", GOLDEN)
@pytest.mark.parametrize("what", SEEN)
def test_what_is_printed_is_as_the_schema_says(command: str, what: str) -> None:
    schemas.check(command, printed(command, SEEN[what]))


@pytest.mark.parametrize("command", GOLDEN)
def test_each_field_is_printed(command: str) -> None:
    assert set(schemas.fields(printed(command, FULL))) == GOLDEN[command]


def test_a_server_that_is_away_is_as_the_schema_says() -> None:
    schemas.check("status", facts.unavailable("job", "etcd", NOW, "no answer"))


@pytest.mark.parametrize(
    "change", [{"state": "gone"}, {"pid": "5"}, {"since": "yesterday"}, {"runs": [None]}, {"more": 1}]
)
def test_what_is_not_as_the_schema_says_is_seen(change: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, AssertionError)):
        schemas.check("status", {**printed("status", FULL), **change})
