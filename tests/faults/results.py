"""Rounds as lines of JSON, and the tables that are made of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.faults.pace import SLOW
from tests.faults.servers import FORGETS
from tests.faults.table import ANYBODYS, FAULTS
from tests.faults.tools import ALL_OURS, OURS, TOOLS

Result = dict[str, Any]

OF_SLOTS = ("doubled", "slots back", "attempts unseen")
OF_PACE = ("lost slots", "not retried")
GROUPS = {
    1: "Killed",
    2: "Stopped for longer than the ttl",
    3: "The network",
    4: "The server",
    5: "The machine",
    6: "By hand",
}


def read(files: list[str]) -> list[Result]:
    """The rounds in these files in which the fault struck something."""
    every = [json.loads(line) for file in files for line in Path(file).read_text().splitlines() if line]
    return [result for result in every if result["hit"]]


def wrong(result: Result) -> list[str]:
    """What should not be in a round's result, in words."""
    found = []
    if result["overlaps"] and not result["excuse"]:
        found.append(f"{result['overlaps']} overlaps")
    words = ["backward", "tracebacks", "silent"]
    # Who forgets the lock forgets the record too.
    words += [] if result["excuse"] == FORGETS else ["lost", *OF_SLOTS]
    words += [] if result["excuse"] else ["left"]
    words += [] if is_slow(result) else OF_PACE
    found += [f"{word}: {result[word]}" for word in words if result.get(word)]
    # A keeper that can't prove anything keeps the lock for ever: a documented end, where it may be met.
    if result["stuck"] and not (result["kept"] and result["excuse"]):
        found.append(result["stuck"])
    return found


def is_slow(result: Result) -> bool:
    """Whether the machine was too busy in that round to be judged by how soon something is done."""
    return bool(result.get("pace", 0.0) > SLOW)


def table(rounds: list[Result]) -> str:
    """All tables in Markdown: our faults by their groups, then the peers beside us."""
    own = [result for result in rounds if result["tool"] == OURS.name]
    parts = [_counts(own)]
    for group, title in GROUPS.items():
        names = list(dict.fromkeys(fault.name for fault in FAULTS if fault.group == group))
        lines = [_row(name, found) for name in names if (found := _of(own, name))]
        parts.append(f"### {title}\n\n{HEAD}\n" + "\n".join(lines))
    parts.append(_slots(rounds))
    parts.append(_beside(rounds))
    return "\n\n".join(parts)


def _of(rounds: list[Result], fault: str) -> list[Result]:
    return [result for result in rounds if result["fault"] == fault]


def _counts(own: list[Result]) -> str:
    plain = [result for result in own if not result["excuse"]]
    overlaps = sum(result["overlaps"] > 0 for result in plain)
    excused = [result for result in own if result["excuse"]]
    others = sum(result["overlaps"] > 0 for result in excused)
    commands = sum(result["turns"] for result in own)
    return (
        f"{len(own):,} rounds, in which {commands:,} commands ran. {len(plain):,} of faults that the promise "
        f"covers: **{overlaps} overlaps**. {len(excused):,} of faults that it does not: {others} with one."
    )


HEAD = """\
| fault | rounds | with overlap | orphans | nobody ran, over what is allowed (s): median, most | lost | told |
| --- | --- | --: | --: | --- | --: | --- |"""


def _row(name: str, some: list[Result]) -> str:
    sites = Counter(result["site"] for result in some)
    where = ", ".join(f"{site} {count}" for site, count in sorted(sites.items()))
    quick = [result["over"] for result in some if result["over"] is not None and not is_slow(result)]
    over = sorted(quick) or [0.0]
    lost = sum(result["lost"] for result in some)
    cells = [name, where, _overlaps(some), sum(result["orphans"] for result in some)]
    cells += [f"{over[len(over) // 2]:.1f}, {over[-1]:.1f}", lost, _told(some)]
    return f"| {' | '.join(map(str, cells))} |"


def _slots(rounds: list[Result]) -> str:
    """What became of slots and of keys: a row for each site."""
    parts = ["### Slots\n", f"| {' | '.join(SLOTS_COLUMNS)} |", f"| --- | --- {'| --: ' * 10}| --- |"]
    for tool in ALL_OURS:
        if tool.loops or tool.has_keys:
            some = [result for result in rounds if result["tool"] == tool.name]
            sites = [(site, found) for site in tool.sites if (found := _at(some, site))]
            parts += [_slots_row(tool.name, site, found) for site, found in sites]
            parts += [_slots_row(tool.name, "all", some)] if some else []
    return "\n".join(parts)


def _at(some: list[Result], site: str) -> list[Result]:
    return [result for result in some if result["site"] == site]


SLOTS_COLUMNS = (
    "of",
    "site",
    "rounds",
    "slots or keys",
    "commands",
    "doubled",
    "gone back",
    "slots lost by the fault",
    "beyond it",
    "attempts lost",
    "both on a slow machine",
    "rounds with overlap",
    "told",
)


def _slots_row(tool: str, site: str, some: list[Result]) -> str:
    slow = [result for result in some if is_slow(result)]
    quick = [result for result in some if not is_slow(result)]
    cells = [tool, site, len(some), _total(some, "slots"), _total(some, "turns")]
    cells += [_total(some, "doubled"), _total(some, "slots back")]
    cells += [max(0, _total(some, "slots missing") - _total(some, "lost slots")), _total(quick, "lost slots")]
    cells += [_total(some, "attempts unseen") + _total(quick, "not retried")]
    cells += [_total(slow, "lost slots") + _total(slow, "not retried"), _overlaps(some)]
    cells += [_told(some, "143", "-15", "1")]
    return f"| {' | '.join(map(str, cells))} |"


def _total(some: list[Result], word: str) -> int:
    return sum(result.get(word, 0) for result in some)


def _overlaps(some: list[Result]) -> str:
    """In how many rounds commands overlapped; with a star if the promise doesn't cover all of them."""
    star = " *" if any(result["excuse"] for result in some) else ""
    return f"{sum(result['overlaps'] > 0 for result in some)}{star}"


def _told(some: list[Result], *usual: str) -> str:
    """The exit statuses of the calls, without 0, those that the fault itself killed, and what is usual."""
    told: Counter[str] = Counter()
    for result in some:
        statuses = result["told"].items()
        told.update({status: count for status, count in statuses if status not in ("0", "-9", *usual)})
    return ", ".join(f"{status}: {count}" for status, count in told.most_common()) or "–"


def _beside(rounds: list[Result]) -> str:
    """The faults that can befall any wrapper: a column for each wrapper and site."""
    tools = [tool for tool in TOOLS.values() if not (tool.loops or tool.has_keys)]
    columns = [(tool.name, site) for tool in tools for site in tool.sites]
    ran = {(result["tool"], result["site"]) for result in rounds}
    columns = [column for column in columns if column in ran]
    lines = [
        "### Beside the field\n",
        f"| fault | {' | '.join(f'{tool} ({site})' for tool, site in columns)} |",
        f"| --- {'| --: ' * len(columns)}|",
    ]
    for fault in ANYBODYS:
        some = [[result for result in _of(rounds, fault) if _is_of(result, *column)] for column in columns]
        lines.append(f"| {fault} | {' | '.join(_shares(found) for found in some)} |")
    return "\n".join(lines)


def _is_of(result: Result, tool: str, site: str) -> bool:
    return bool(result["tool"] == tool and result["site"] == site)


def _shares(some: list[Result]) -> str:
    """Of a hundred rounds: those with an overlap, orphans, those after which nobody could run."""
    if not some:
        return "–"
    found = [sum(result["overlaps"] > 0 for result in some), sum(result["orphans"] for result in some)]
    found.append(sum(bool(result["stuck"]) for result in some))
    return f"{' / '.join(f'{count * 100 / len(some):.0f}' for count in found)} ({len(some)})"
