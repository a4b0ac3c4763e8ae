"""What a trace tells of each message and request, and what of them it never tells."""

from __future__ import annotations

import inspect
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from singleton_run.api import toolbox
from singleton_run.api.contract import Grant
from singleton_run.errors import Unavailable
from singleton_run.report import trace
from singleton_run.system import calls, messages, pipes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from singleton_run.call.settings import Settings

CANARY = "sEcReT7f"
MESSAGES = [
    (direction, name)
    for direction in messages.DIRECTIONS
    for name in vars(direction)
    if not name.startswith("_")
]


@pytest.fixture
def tracer() -> Iterator[trace.Tracer]:
    lock = f"etcd://me:{CANARY}@h.invalid"
    made = trace.Tracer(
        cast("Settings", SimpleNamespace(name="job", lock_address=lock, scheme="etcd", ttl=30.0))
    )
    yield made
    os.close(made.source)
    os.close(made.descriptor)


def told(tracer: trace.Tracer) -> list[Any]:
    """The lines that came since."""
    return tracer.news().read()


@pytest.mark.parametrize(("direction", "name"), MESSAGES)
def test_a_message_is_told_by_its_name_and_fields(tracer: trace.Tracer, direction: type, name: str) -> None:
    make = getattr(direction, name)
    fields = dict.fromkeys(inspect.signature(make).parameters, 7)
    tracer.message("sent", make(**fields))
    (line,) = told(tracer)
    assert (line["process"], line["event"], line["what"]) == ("front", "sent", name)
    assert line.get("facts", {}) == fields
    words = [f"{field}=7" for field in fields]
    assert trace.text(line).split()[1:] == ["front", "sent", name, *words]


def test_a_message_that_nobody_knows_is_told_too(tracer: trace.Tracer) -> None:
    tracer.message("heard", ["__init__", 5, float("nan"), object()])
    assert trace.text(told(tracer)[0]).split()[2:] == [
        "heard",
        "__init__",
        "field0=5",
        "field1=null",
        "field2=object",
    ]


def test_of_a_grant_and_a_record_only_known_fields_are_told(tracer: trace.Tracer) -> None:
    """What a backend keeps in them is its own."""
    record = {"state": "failed", CANARY: CANARY, "slot": {"slot": 5, "password": CANARY}, "runs": [CANARY]}
    grant = Grant("job", "vm:1:ab", 42, 30.0, {"login": CANARY}, record)
    tracer.message("sent", messages.KeeperTells.granted(grant.as_dict()))
    tracer.message("heard", list(messages.KeeperOrders.settle(record)))
    first, second = told(tracer)
    assert first["facts"]["grant"]["token"] == 42
    assert second["facts"]["record"] == {"state": "failed", "slot": {"slot": 5}}
    assert CANARY not in str(first) + str(second)


def test_of_a_process_that_was_left_behind_only_its_program_is_told(tracer: trace.Tracer) -> None:
    tracer.message("sent", messages.GuardTells.leftover(7, f"mysql -p {CANARY}"))
    assert told(tracer)[0]["facts"] == {"process": 7, "command": "mysql"}


def test_a_text_has_the_address_without_its_password(tracer: trace.Tracer) -> None:
    tracer.message("sent", messages.KeeperTells.trouble(f"etcd://me:{CANARY}@h.invalid: no answer"))
    assert told(tracer)[0]["facts"] == {"text": "etcd://me:***@h.invalid: no answer"}


def test_times_of_the_boot_clock_count_from_the_beginning(tracer: trace.Tracer) -> None:
    tracer.message("sent", messages.KeeperTells.rest(calls.now() + 100, 5.0, "later"))
    tracer.message("sent", messages.KeeperTells.rest(calls.FOREVER, 5.0, "done"))
    first, second = told(tracer)
    assert 99 < first["facts"]["until"] < 101
    assert second["facts"]["until"] is None


def test_the_lease_is_told_when_it_changes(tracer: trace.Tracer) -> None:
    now = calls.now()
    for end, reported in (
        (0.0, 0.0),
        (now + 30, now),
        (now + 30, now),
        (now + 30, now + 1),
        (now + 40, now + 1),
    ):
        tracer.lease(end, reported)
    lines = told(tracer)
    assert [line["facts"]["renewed"] for line in lines] == [True, False, True]
    facts = lines[0]["facts"]
    order = ["renew", "keeper_answers_by", "stop", "kill", "enforce", "end"]
    assert sorted(order, key=lambda name: facts[name]) == order


def test_what_finds_no_room_is_counted_for_each_process(tracer: trace.Tracer) -> None:
    sent = 0
    while not tracer.news()._lost[1]:  # noqa: SLF001 - what nobody has read yet
        tracer.process = ("guard", "front")[sent % 2]
        tracer.write("decides", "x" * 1000)
        sent += 1
    tracer.process = "guard"
    tracer.write("decides", "x" * 1000)
    lines = told(tracer)
    dropped = {line["process"]: line["facts"]["lines"] for line in lines if line["event"] == "dropped"}
    assert sum(dropped.values()) + sum(line["event"] == "decides" for line in lines) == sent + 1
    assert dropped["guard"] > 1
    assert trace.text(lines[-1]) == f"guard dropped lines={dropped['guard']}"
    assert told(tracer) == []


def test_a_line_that_is_too_long_is_told_without_its_facts(tracer: trace.Tracer) -> None:
    tracer.write("did", "acquire", **{f"fact{number}": "x" * 290 for number in range(20)})
    (line,) = told(tracer)
    assert (line["what"], line.get("facts")) == ("acquire", None)


def test_a_request_is_told_by_kind_key_time_and_answer(
    tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "tracer", tracer)
    assert toolbox.request(lambda: 5, "get", lambda: "job", lambda found: f"found {found}") == 5
    for error in (Unavailable("no answer"), ValueError(CANARY)):

        def fail(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            toolbox.request(fail, "put", lambda: "job", lambda _: "done")
    assert toolbox.request(lambda: 5, "get", lambda: "job", lambda found: str(found / 0)) == 5
    lines = told(tracer)
    assert [line["what"] for line in lines] == ["get", "put", "put", "get"]
    answers = ["found 5", "Unavailable: no answer", "ValueError", "ZeroDivisionError"]
    assert [line["facts"]["answer"] for line in lines] == answers
    assert all(line["facts"]["key"] == "job" and line["facts"]["ms"] >= 0 for line in lines)


def test_without_a_trace_nothing_is_asked_for_it() -> None:
    def never(*_: object) -> str:
        raise AssertionError

    assert pipes.tracer is None
    assert toolbox.request(lambda: 5, "get", never, never) == 5
