"""The schemas of what --json prints, and whether an object is as its schema says."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator, FormatChecker

from tests.support.harness import TREE

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = FormatChecker(())
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")


@FORMATS.checks("date-time")  # type: ignore[untyped-decorator] # jsonschema has no types
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or _TIME.fullmatch(value) is not None


def schema(command: str) -> dict[str, Any]:
    """The schema of what that command prints."""
    text = TREE.joinpath("docs", "schema", f"{command}.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def check(command: str, value: object) -> None:
    """Fail unless the value is as the schema says, and has no field that the schema lacks."""
    whole = schema(command)
    Draft202012Validator(whole, format_checker=FORMATS).validate(value)
    assert set(fields(value)) <= set(described(whole, whole))


def fields(value: object, place: str = "") -> Iterator[str]:
    """Each field of a value by its path: `runs.slot`. An array counts as what is in it."""
    if isinstance(value, list):
        for each in value:
            yield from fields(each, place)
    elif isinstance(value, dict):
        for word, inner in value.items():
            yield f"{place}{word}"
            yield from fields(inner, f"{place}{word}.")


def described(part: dict[str, Any], whole: dict[str, Any], place: str = "") -> Iterator[str]:
    """Each field that a schema describes, by the same paths."""
    if "$ref" in part:
        yield from described(whole["$defs"][part["$ref"].rpartition("/")[2]], whole, place)
    for inner in [*([part["items"]] if "items" in part else []), *part.get("anyOf", [])]:
        yield from described(inner, whole, place)
    for word, inner in part.get("properties", {}).items():
        yield f"{place}{word}"
        yield from described(inner, whole, f"{place}{word}.")
