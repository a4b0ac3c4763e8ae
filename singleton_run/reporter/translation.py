"""From the log's words to the events of `report.events`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Facts = dict[str, Any]

_SKIPPED = {"skipped": "deadline", "missed": "missed", "unreadable": "unreadable", "slot paused": "paused"}


def translated(event: str, facts: Facts) -> list[tuple[str, Facts]]:
    """The events, with their fields, that a word of the log stands for: none, one or two."""
    if event == "held":
        return [("waiting", facts)]
    if event in ("paused", "acquired", "trouble", "gave up"):
        return [(event, facts)]
    if event == "started":
        return [("started", {"pid": facts["pid"]})]
    if event in ("lost", "not renewed"):
        told = {"reason": event, "text": facts.get("text", "")}
        return [("lost", told), ("killed", {"reason": "lost"})]
    if event == "revoked":
        return [("revoked", {"by": facts["by"]}), ("killed", {"reason": "revoked"})]
    if event == "timeout":
        return [("killed", {"reason": "timeout"})]
    if event == "rest":
        return [("resting", {"slot": facts["slot"]})]
    if event in _SKIPPED:
        slot = facts.get("slot") or (facts["number"] if event != "missed" else None)
        number = facts["number"] if event == "missed" else 1
        return [("skipped", {"slot": slot, "reason": _SKIPPED[event], "number": number})]
    return []
