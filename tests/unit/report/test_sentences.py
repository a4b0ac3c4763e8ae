"""Each event that is said has its sentence, and one without is said all the same."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import singleton_run
from singleton_run.report.fields import as_object, name_of
from singleton_run.report.sentences import SENTENCES, sentence
from singleton_run.report.telling import fields, word
from singleton_run.reporter.translation import translated
from tests.support import schemas

if TYPE_CHECKING:
    from collections.abc import Iterator

CORE = Path(singleton_run.__file__).parent


def said() -> Iterator[str]:
    """The events in the source: the second word that `say` is given, and the first of a note."""
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr="say"), args=[_, ast.Constant(value=str(event)), *_]):
                    yield event
                case ast.Call(
                    func=ast.Attribute(attr="append", value=ast.Attribute(attr="notes")),
                    args=[ast.Tuple(elts=[ast.Constant(value=str(event)), *_])],
                ):
                    yield event


def test_every_event_that_is_said_has_a_sentence() -> None:
    events = set(said())
    assert {"held", "acquired", "gave up", "behind"} <= events
    assert events <= SENTENCES.keys()


def test_an_event_without_a_sentence_is_a_plain_line() -> None:
    facts = {"event": "brand new", "level": "error", "name": "job", "pid": 7, "text": "all of it"}
    assert sentence(facts, None) == "lock 'job': brand new (pid 7, text all of it)"


FACTS = {
    "text": "no",
    "number": 60.0,
    "status": 1,
    "pid": 7,
    "by": "ada",
    "command": "x",
    "verb": "",
    "key": "k",
}
SLOT = {"slot": 60.0, "token": 3, "line": "l", "since": 1.5, "paused_since": 1.5}


@pytest.mark.parametrize("event", SENTENCES)
def test_each_event_is_an_object_for_programs_as_the_schema_says(event: str) -> None:
    line = as_object({"event": event, "level": "info", "name": "job", **FACTS, **SLOT}, 1.23456, "said")
    schemas.check("log", line)
    assert line["waited"] == 1.235
    assert line["since"] == "1970-01-01T00:00:01.500Z"


def test_a_lock_that_was_not_waited_for_is_no_field() -> None:
    line = as_object({"event": "started", "level": "info", "name": "job", "pid": 7}, None, "said")
    schemas.check("log", line)
    assert "waited" not in line


@pytest.mark.parametrize(("number", "said"), [(1, "1 was missed"), (2, "2 were missed")])
def test_missed_slots_are_counted_in_words_that_fit(number: float, said: str) -> None:
    facts = {"event": "missed", "level": "warning", "name": "job", "number": float(number)}
    assert sentence(facts, None) == f"before this slot of 'job' {said}"


@pytest.mark.parametrize("event", SENTENCES)
def test_an_event_has_one_name_in_the_log_and_for_hooks(event: str) -> None:
    told = translated(event, {**FACTS, **SLOT})
    assert not told or name_of(event) == word(told[0][0])
    assert bool(told) or name_of(event) == word(event)
    line = as_object({"event": event, "level": "info", "name": "job", **FACTS, **SLOT}, None, "")
    for field in {"slot", "reason"} & set(told[0][1] if told else {}):
        assert line[field] == fields(told[0][1])[field]
