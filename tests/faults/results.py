"""Rounds as lines of JSON, and the table that is made of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def read(files: list[str]) -> list[Result]:
    """The rounds in these files."""
    return [json.loads(line) for file in files for line in Path(file).read_text().splitlines() if line]


def wrong(result: Result) -> list[str]:
    """What should not be in a round's result, in words."""
    found = []
    if result["overlaps"] and not result["excuse"]:
        found.append(f"{result['overlaps']} overlaps")
    words = ["backward", "lost", "tracebacks", "silent"] + ([] if result["excuse"] else ["left"])
    found += [f"{word}: {result[word]}" for word in words if result[word]]
    # A keeper that can't prove anything keeps the lock for ever: a documented end, where it may be met.
    if result["stuck"] and not (result["kept"] and result["excuse"]):
        found.append(result["stuck"])
    return found


def table(rounds: list[Result]) -> str:
    """The table in Markdown: a line for each fault and site."""
    lines = [
        "| fault | site | rounds | with overlap | orphans | idle: p50, most (s) | over (s) | lost | told |",
        "| --- | --- | --: | --: | --: | --- | --: | --: | --- |",
    ]
    rounds = [result for result in rounds if result["hit"]]
    keys = sorted({(result["tool"], result["fault"], result["site"]) for result in rounds})
    for key in keys:
        some = [result for result in rounds if (result["tool"], result["fault"], result["site"]) == key]
        lines.append(_line(key, some))
    return "\n".join(lines)


def _line(key: tuple[str, str, str], some: list[Result]) -> str:
    idle = sorted(result["idle"] for result in some if result["idle"] is not None) or [0.0]
    over = [result["over"] for result in some if result["over"] is not None] or [0.0]
    told: Counter[str] = Counter()
    for result in some:
        told.update(result["told"])
    words = ", ".join(
        f"{status}: {count}" for status, count in sorted(told.items(), key=lambda item: -item[1])
    )
    cells = [key[1], key[2], len(some), sum(result["overlaps"] > 0 for result in some)]
    cells += [sum(result["orphans"] for result in some), f"{idle[len(idle) // 2]:.2f}, {idle[-1]:.2f}"]
    cells += [f"{max(over):.2f}", sum(result["lost"] for result in some), words]
    return f"| {' | '.join(map(str, cells))} |"
