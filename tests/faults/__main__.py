"""`python -m tests.faults`: play rounds, a line of JSON each; `table FILE…`: what they came to."""

from __future__ import annotations

import argparse
import fnmatch
import json
import random
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults import results, scene, sites
from tests.faults.table import ANYBODYS, FAULTS, is_of_time
from tests.faults.tools import ALL_OURS, TOOLS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.fault import Fault
    from tests.faults.tools import Tool

KEEP = Path(tempfile.gettempdir(), "faults-kept")


def chosen(patterns: list[str], site: str, tool: Tool) -> list[Fault]:
    """The faults whose names match one of the patterns, and that can happen at a site and to a tool."""
    return [
        fault
        for fault in FAULTS
        if any(fnmatch.fnmatchcase(fault.name, pattern) for pattern in patterns)
        and (not fault.on or site in fault.on)
        and (tool.has_records or fault.name in ANYBODYS)
        and not (tool.loops and is_of_time(fault, site))
    ]


def rounds(site: str, faults: list[Fault], tool: Tool, count: int, seed: int) -> Iterator[results.Result]:
    """Play `count` rounds of each fault: those of the plain world first, each other in a world of its own."""
    plain = [fault for fault in faults if fault.world == sites.PLAIN]
    others = [fault for fault in faults if fault.world != sites.PLAIN]
    number = 0
    with ExitStack() as stack:
        place = stack.enter_context(sites.opened(site, sites.PLAIN)) if plain else None
        for turn in range(count):
            for fault in (*plain, *others):
                number += 1
                words = f"{seed}:{site}:{fault.name}:{turn}" + (tool.loops or tool.has_keys) * f":{tool.name}"
                try:
                    if fault.world == sites.PLAIN:
                        yield play(place, fault, tool, words, number)
                    else:
                        with sites.opened(site, fault.world) as own:
                            yield play(own, fault, tool, words, number)
                except pytest.skip.Exception as skipped:
                    print(f"{site}, {fault.name}: skipped: {skipped}", file=sys.stderr)


def play(site: Any, fault: Fault, tool: Tool, seed: str, number: int) -> results.Result:
    """One round; what it left is kept if something is wrong with it."""
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        chance = random.Random(seed)  # noqa: S311 - to be repeatable is what is asked of it
        played = scene.Scene(directory, site, tool, fault, chance, number).play()
        result = {"tool": tool.name, "site": site.name, "fault": fault.name, "seed": seed, **played}
        result["excuse"] = fault.excuse(site.name)
        wrong = results.wrong(result)
        if wrong and tool.has_records:
            result["wrong"] = wrong
            result["files"] = str(KEEP / directory.name)
            scene.keep(directory, KEEP / directory.name)
    site.heal()
    return result


def main() -> int:
    """Play, print each round as it ends, and a line for each that is wrong to stderr."""
    if sys.argv[1:2] == ["table"]:
        print(results.table(results.read(sys.argv[2:])))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--site", action="append", choices=sorted(sites.SITES), help="default: the tool's")
    parser.add_argument("--fault", action="append", metavar="PATTERN", help="default: '*'")
    parser.add_argument("--tool", action="append", choices=sorted(TOOLS), help="default: all that are ours")
    parser.add_argument("--rounds", type=int, default=1, help="of each fault at each site")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # servers end with us
    bad = 0
    for tool in [TOOLS[name] for name in options.tool] if options.tool else ALL_OURS:
        for site in options.site or tool.sites:
            faults = chosen(options.fault or ["*"], site, tool)
            for result in rounds(site, faults, tool, options.rounds, options.seed):
                print(json.dumps(result), flush=True)
                if "wrong" in result:
                    bad += 1
                    what = f"{tool.name}, {site}, {result['fault']}: {', '.join(result['wrong'])}"
                    print(f"{what}: {result['files']}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
