"""A choice of the faults at each site, none of which may end in an overlap; and that an overlap is seen.

`make faults ROUNDS=n` plays all of them, and those that need root.
"""

from __future__ import annotations

import os

import pytest

from tests.faults import check, results
from tests.faults.__main__ import rounds
from tests.faults.table import ANYBODYS, FAULTS, NAMES
from tests.faults.tools import OURS, TOOLS

SEED = int(os.environ.get("FAULTS_SEED", "1"))
CHOSEN = {
    "file": [
        "kill front",
        "kill guard",
        "kill command's group",
        "no descriptors",
        "stderr a full pipe, one of ours killed",
        "stderr closed, one of ours killed",
        "stop front + guard",
    ],
    "etcd": [
        "kill front + guard",
        "kill front + keeper",
        "stop keeper",
        "black hole both ways",
        "reset",
        "server killed",
        "leader killed",
    ],
    "etcd+grpc": ["kill keeper", "half-open"],
    "postgres": ["kill guard + keeper", "server stopped", "sessions ended", "a byte a second", "read-only"],
    "pgbouncer": ["kill wrapper's group", "pooler killed"],
    "k8s-lease": ["kill front + guard", "stop keeper", "black hole both ways"],
}


def line(turn: str, what: str, when: float, process: int = 1) -> str:
    return f"{turn} {process} 5 {what} {when}\n"


def turns(*lines: str) -> list[check.Turn]:
    return check.turns(check.lines("".join(lines)))


def test_one_after_the_other_is_no_overlap() -> None:
    found = turns(
        line("a", "start:0.0:7", 1.0),
        line("a", "beat", 1.2, 2),
        line("a", "end", 1.5),
        line("b", "start:1.0:8", 2.0),
    )
    assert (check.overlaps(found), check.orphans(found), check.backward(found)) == (0, 0, 0)
    assert [turn.ended for turn in found] == [True, False]


def test_a_process_that_is_seen_after_the_next_start_is_an_overlap_and_an_orphan() -> None:
    found = turns(
        line("a", "start:0.0:7", 1.0),
        line("b", "start:1.0:8", 2.0),
        line("a", "beat", 2.25, 2),
        line("a", "beat", 2.5, 2),
    )
    assert (check.overlaps(found), check.orphans(found)) == (1, 1)
    assert check.longest_overlap(found) == 0.5


@pytest.mark.parametrize("what", ["taken:lock", "taken:port"])
def test_what_another_command_still_holds_is_an_overlap(what: str) -> None:
    found = turns(line("a", "start:0.0:7", 1.0), line("b", "start:1.0:8", 2.0), line("b", what, 2.0))
    assert (check.overlaps(found), check.orphans(found)) == (1, 1)


def test_a_line_that_is_not_whole_is_no_line() -> None:
    assert len(check.lines(line("a", "start:0.0:7", 1.0) + "a 1 5 be")) == 1


def test_a_token_that_does_not_grow_is_counted() -> None:
    tokens = (7, 9, 9, 8)
    found = turns(*(line(f"t{at}", f"start:0.{at}:{token}", at) for at, token in enumerate(tokens)))
    assert check.backward(found) == 2


def test_the_time_in_which_nobody_ran_begins_with_the_end_or_with_what_was_mended() -> None:
    log = [
        line("a", "start:0.0:1", 1.0),
        line("a", "end", 2.0),
        line("b", "start:1.0:2", 9.0),
        line("b", "end", 10.0),
    ]
    assert check.idle(turns(*log), after=1.5, healed=1.7) == 7.0
    assert check.idle(turns(*log), after=1.5, healed=6.0) == 3.0
    assert check.idle(turns(*log), after=9.5, healed=9.6) == 0.0


def test_every_name_that_is_used_is_that_of_a_fault() -> None:
    used = {name for names in CHOSEN.values() for name in names} | set(ANYBODYS)
    assert used <= set(NAMES)
    assert set(CHOSEN) == set(OURS.sites)


@pytest.mark.parametrize(("tool", "fault"), [("none", "kill command"), ("flock -o", "kill front")])
def test_a_lock_that_lets_go_too_early_is_caught(tool: str, fault: str) -> None:
    found = rounds("file", [NAMES[fault]], TOOLS[tool], 20, SEED)
    assert any(result["overlaps"] and result["orphans"] for result in found)


@pytest.mark.parametrize("site", CHOSEN)
def test_no_fault_ends_in_an_overlap(site: str) -> None:
    chosen = [fault for fault in FAULTS if fault.name in CHOSEN[site] and (not fault.on or site in fault.on)]
    assert len(chosen) == len(CHOSEN[site])
    played = list(rounds(site, chosen, OURS, 1, SEED))
    assert len(played) == len(chosen)
    assert [(result["seed"], wrong) for result in played if (wrong := results.wrong(result))] == []
