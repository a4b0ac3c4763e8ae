"""What a look says, as facts: state, holder, runs, and what is not known."""

from __future__ import annotations

from typing import Any

import pytest

from singleton_run.api.contract import Held, Look
from singleton_run.api.control import ordered, parsed, paused
from singleton_run.api.record import unreadable
from singleton_run.api.timestamps import rfc3339
from singleton_run.commands import facts
from singleton_run.commands.looking import by_reading
from tests.unit.commands.samples import BOOT, EARLIER, HOLDER, NOW, TOKEN, held, record, seen, slot_of

PAUSE = paused(None, by="me@here", at=NOW - 100, until=None, reason="moving house")
OVER = paused(None, by="me@here", at=NOW - 100, until=NOW - 1, reason="moving house")
STRANGER = held("an election of client-go", token=None)


@pytest.mark.parametrize(
    ("state", "holder", "recorded", "control", "expected"),
    [
        (Look.FREE, None, None, None, "free"),
        (Look.FREE, None, None, OVER, "free"),
        (Look.FREE, None, None, PAUSE, "paused"),
        (Look.FREE, None, None, parsed("{"), "paused"),
        (Look.KEPT, held(), record("succeeded"), None, "kept"),
        (Look.KEPT, held(), record("succeeded"), PAUSE, "paused"),
        (Look.EXPIRED, held(), record(), None, "expired"),
        (Look.EXPIRED, held(), record(), PAUSE, "paused"),
        (Look.HELD, held(), record(), None, "held"),
        (Look.HELD, held(), record(), PAUSE, "held"),
        # One of our calls holds the lock, and is held back itself.
        (Look.HELD, held(), None, PAUSE, "paused"),
        (Look.HELD, held(token=8), record(), PAUSE, "paused"),
        (Look.HELD, held(EARLIER, token=None), record(), PAUSE, "paused"),
        (Look.HELD, held(), record("succeeded"), PAUSE, "paused"),
        (Look.HELD, Held(token=8), record("succeeded"), PAUSE, "paused"),
        # A stranger knows no pause.
        (Look.HELD, Held(), record("succeeded"), PAUSE, "held"),
        (Look.HELD, STRANGER, None, PAUSE, "held"),
    ],
)
def test_the_state_is_paused_where_a_pause_is_in_force_and_nothing_runs(
    state: str, holder: Held | None, recorded: Any, control: Any, expected: str
) -> None:
    told = facts.status(seen(state, holder, recorded, control=control), "job", "etcd")
    assert told["state"] == expected
    assert (told["pause"] is not None) == (control not in (None, OVER))


def test_a_lock_that_is_held_tells_all_of_its_holder() -> None:
    told = facts.status(seen(Look.HELD, held(), record(slot=slot_of())), "job", "etcd://x")
    words = ("name", "lock", "holder", "host", "pid", "token", "command", "attempt")
    assert [told[word] for word in words] == ["job", "etcd://x", HOLDER, "host-1", 123, TOKEN, "job.sh", 1]
    assert told["since"] == rfc3339(NOW - 60)
    assert told["until"] == rfc3339(NOW + 20)
    assert told["slot"] == rfc3339(NOW - 60)
    assert [run["state"] for run in told["runs"]] == ["running", "failed"]
    assert told["runs"][0]["duration"] == 60
    assert told["last"] == told["runs"][1]
    assert (told["last"]["status"], told["last"]["duration"], told["last"]["holder"]) == (3, 100, EARLIER)
    assert tuple(told) == facts.FIELDS


def test_what_the_server_does_not_tell_is_taken_from_the_record_of_that_very_run() -> None:
    told = facts.status(seen(Look.HELD, Held(HOLDER), record()), "job", "file")
    assert (told["since"], told["token"], told["until"]) == (rfc3339(NOW - 60), TOKEN, None)
    told = facts.status(seen(Look.HELD, Held(EARLIER), record()), "job", "file")
    assert (told["since"], told["token"], told["command"]) == (None, None, None)


@pytest.mark.parametrize("until", [float("inf"), 1e300, -1e300, float("nan")])
def test_a_lease_without_a_sensible_end_has_none(until: float) -> None:
    assert facts.status(seen(Look.HELD, Held(HOLDER, until=until)), "job", "x")["until"] is None


@pytest.mark.parametrize(
    ("state", "holder"),
    [
        (Look.FREE, None),
        (Look.HELD, held(EARLIER, token=8)),
        (Look.HELD, held(token=8)),
        (Look.EXPIRED, held()),
    ],
)
def test_a_run_that_nobody_ended_and_nobody_holds_the_lock_for_has_crashed(
    state: str, holder: Held | None
) -> None:
    told = facts.status(seen(state, holder, record(slot=slot_of())), "job", "etcd")
    assert (told["last"]["state"], told["last"]["duration"]) == ("crashed", None)
    assert told["schedule"]["state"] == "crashed"
    assert told["command"] is None
    assert facts.listed(seen(state, holder, record(slot=slot_of())), "job")["stale"]


def test_a_damaged_record_is_said_to_be_one() -> None:
    told = facts.status(seen(Look.FREE, None, unreadable()), "job", "etcd")
    assert (told["runs"], told["last"], told["schedule"]) == ([], None, None)
    assert facts.NO_RECORD in told["notes"]
    told = facts.history(seen(Look.FREE, None, unreadable()), "job", "etcd", 20)
    assert (told["runs"], told["notes"]) == ([], [facts.NO_RECORD])


def test_who_waits_is_told_or_said_not_to_be_known() -> None:
    told = facts.status(seen(Look.HELD, held(), waiting=[Held(EARLIER, since=NOW - 5)]), "job", "etcd")
    assert told["waiting"] == [{"holder": EARLIER, "host": "host-2", "pid": 456, "since": rfc3339(NOW - 5)}]
    assert told["notes"] == []
    assert facts.status(seen(Look.FREE, waiting=[]), "job", "etcd")["waiting"] == []
    told = facts.status(seen(Look.FREE, steered=False), "job", "x")
    assert told["waiting"] is None
    assert told["notes"] == [facts.NO_QUEUE, facts.NO_CONTROL]


@pytest.mark.parametrize(
    ("holder", "token", "told"),
    [(HOLDER, TOKEN, True), (HOLDER, 6, False), (EARLIER, TOKEN, False)],
)
def test_an_order_to_an_earlier_holder_is_not_shown(holder: str, token: int, told: bool) -> None:
    control = ordered(None, holder=holder, token=token, by="me@here", at=NOW - 3)
    found = facts.status(seen(Look.HELD, held(), control=control), "job", "etcd")["release"]
    assert found == ({"by": "me@here", "at": rfc3339(NOW - 3)} if told else None)


@pytest.mark.parametrize(
    ("holder", "process"),
    [
        (HOLDER, 123),
        ("", None),
        ("a", None),
        ("a:1", None),
        ("a:1:", None),
        (":1:ab", None),
        ("a:x:ab", None),
        ("a:²:ab", None),
        ("a:1:xyz", None),
        ("a:1:ab:c", None),
        ("a:" + "9" * 5000 + ":ab", None),
    ],
)
def test_a_process_is_told_only_of_a_name_that_is_one_of_ours(holder: str, process: int | None) -> None:
    assert facts.process_of(holder) == process


def test_history_is_as_long_as_asked_for() -> None:
    whole = seen(Look.FREE, None, record("succeeded"))
    assert [run["token"] for run in facts.history(whole, "job", "x", 20)["runs"]] == [TOKEN, 6]
    assert [run["token"] for run in facts.history(whole, "job", "x", 1)["runs"]] == [TOKEN]


def test_a_backend_without_look_is_read() -> None:
    assert by_reading(None, record()).state == Look.FREE
    assert by_reading(Held(HOLDER), record()).state == Look.HELD
    assert by_reading(Held(HOLDER), None).state == Look.HELD
    assert by_reading(Held(EARLIER), record("succeeded")).state == Look.HELD
    assert by_reading(Held(), record("succeeded")).state == Look.HELD
    kept = by_reading(Held(HOLDER, until=BOOT + 5), record("succeeded"))
    assert (kept.state, kept.waiting, kept.control) == (Look.KEPT, None, None)
