"""Each event that is said has its sentence, and one without is said all the same."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import singleton_run
from singleton_run.report.sentences import SENTENCES, sentence

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
