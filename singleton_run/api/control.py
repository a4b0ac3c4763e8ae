"""The control object: what people ask of a lock's holders and waiters. It lies beside the lock.

Version 1 is a JSON object. `pause` is null, or an object: by (USER@HOST), at, until (null: until somebody
resumes) and reason. `release` is null, or an order to a holder to end its command and give the lock back: an
object with the holder and token that it is for, by, and at. Times are in Unix seconds (UTC).

Anybody may write it, by compare and swap (`Backend.steer`), also while somebody holds the lock. A control
that can't be read counts as a pause: what can't be read never means that a command may start.
"""

from __future__ import annotations

from singleton_run.api.record import moment
from singleton_run.system import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.api.contract import Grant

    Control = dict[str, Any]

VERSION = 1
LONGEST = 3000
"""Characters of a control object. A longer text is none of ours."""
LONGEST_REASON = 500
_UNREADABLE = "its control object can't be read"


def parsed(text: str) -> Control:
    """The control in `text`; one that pauses the lock where this version can't use the text."""
    try:
        found = fastjson.loads(text) if len(text) <= LONGEST else None
    except ValueError:
        found = None
    if (
        isinstance(found, dict)
        and found.get("version") == VERSION
        and _is_pause(found.get("pause"))
        and _is_order(found.get("release"))
    ):
        return found
    return paused(None, by="", at=0.0, until=None, reason=_UNREADABLE)


def pause_of(control: Mapping[str, Any] | None, now: float) -> Mapping[str, Any] | None:
    """The pause that is in force at `now` by the server's clock (Unix seconds), None without one."""
    pause: Mapping[str, Any] | None = None if control is None else control.get("pause")
    if pause is None or (pause["until"] is not None and pause["until"] <= now):
        return None
    return pause


def facts(pause: Mapping[str, Any]) -> dict[str, Any]:
    """A pause as the facts of a message to people. What nobody knows is '' or None."""
    return {
        "paused_by": pause["by"],
        "paused_since": pause["at"] or None,
        "paused_until": pause["until"],
        "reason": pause["reason"],
    }


def release_order(control: Mapping[str, Any] | None, grant: Grant) -> Mapping[str, Any] | None:
    """The order that `grant` be given back though its command runs, None without one."""
    order: Mapping[str, Any] | None = None if control is None else control.get("release")
    if order is None or order["holder"] != grant.holder or order["token"] != grant.token:
        return None
    return order


def paused(
    control: Mapping[str, Any] | None, *, by: str, at: float, until: float | None, reason: str
) -> Control:
    """`control` with a pause from `at` to `until` (None: until somebody resumes)."""
    pause = {"by": by, "at": at, "until": until, "reason": reason[:LONGEST_REASON]}
    return {**_or_empty(control), "pause": pause}


def resumed(control: Mapping[str, Any] | None) -> Control:
    """`control` without a pause."""
    return {**_or_empty(control), "pause": None}


def ordered(control: Mapping[str, Any] | None, *, holder: str, token: int, by: str, at: float) -> Control:
    """`control` with an order to that holder, under that token, to give the lock back."""
    return {**_or_empty(control), "release": {"holder": holder, "token": token, "by": by, "at": at}}


def _or_empty(control: Mapping[str, Any] | None) -> Control:
    return dict(control) if control is not None else {"version": VERSION, "pause": None, "release": None}


def _is_pause(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or moment(value.get("at")) is None or "until" not in value:
        return False
    ends = value["until"] is None or moment(value["until"]) is not None
    return ends and _are_texts(value, "by", "reason")


def _is_order(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or moment(value.get("at")) is None:
        return False
    return isinstance(value.get("token"), int) and _are_texts(value, "by", "holder")


def _are_texts(value: Mapping[str, Any], *words: str) -> bool:
    return all(isinstance(value.get(word), str) for word in words)
