"""What hooks and webhooks are told, as the schema has it."""

from __future__ import annotations

import pytest

from singleton_run.call.settings import check
from singleton_run.call.told_whom import hooks
from singleton_run.report.events import EVENTS, TOLD, Event
from singleton_run.report.telling import News, message, word
from singleton_run.reporter.hooks import variables
from tests.support import schemas
from tests.unit.call.test_settings import values

NUMBERS = {"pid": 7, "token": 5, "status": 1, "attempt": 1, "number": 2}
LENGTHS = ("seconds", "waited", "late")
TIMES = ("since", "slot", "paused_since", "paused_until")


def event(name: str, *, again: bool = False, **facts: object) -> Event:
    return Event(name, "x", 1.5, facts, again=again)


def value(field: str) -> object:
    if field in TIMES:
        return 60.0
    return 1.25 if field in LENGTHS else NUMBERS.get(field, "text")


def test_those_that_are_told_are_events_and_the_schema_names_them() -> None:
    assert set(TOLD) <= {word(name) for name in EVENTS}
    assert schemas.schema("event")["properties"]["event"]["enum"] == list(TOLD)


@pytest.mark.parametrize("name", [name for name in EVENTS if word(name) in TOLD])
def test_each_event_is_as_the_schema_says(name: str) -> None:
    settings = check(values("--lock", "etcd://user:secret@host/x"), {})
    for fields in (
        dict.fromkeys(EVENTS[name].split()),
        {field: value(field) for field in EVENTS[name].split()},
    ):
        told = message(event(name, **fields), settings)
        schemas.check("event", told)
        assert told["time"] == "1970-01-01T00:00:01.500Z"
        assert "secret" not in str(told)
        assert all("\0" not in text for text in variables(told).values())


def test_a_wait_is_news_once_for_each_holder() -> None:
    news = News()
    assert news.has(event("waiting", holder="a"))
    assert not news.has(event("waiting", holder="a"))
    assert news.has(event("waiting", holder="b"))
    assert news.has(event("acquired"))
    assert news.has(event("waiting", holder="b"))
    assert not news.has(event("renewed"))
    assert not news.has(event("started", again=True))


def test_hooks_are_lines_and_a_command_may_have_several() -> None:
    text = "lost=page me\nfailed=if true\nthen x=1\nfi\nlost=again"
    assert hooks(text) == (("lost", "page me"), ("failed", "if true\nthen x=1\nfi"), ("lost", "again"))
