"""A choice of the faults at each site, none of which may end in an overlap; and that an overlap is seen.

`make faults ROUNDS=n` plays all of them, and those that need root.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest

from tests.faults import check, results, slots
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
    "redis": ["kill front + keeper", "stop keeper", "server killed", "memory full", "scripts flushed"],
    "redis+sentinel": ["kill keeper", "leader killed"],
    "redis+cluster": ["slot moved", "leader stopped"],
    "redis+quorum": [
        "kill front + keeper",
        "2 of 5 killed",
        "2 of 5 stopped",
        "3 of 5 black-holed",
        "memory of 3 of 5 full",
        "lock deleted on 2 of 5",
    ],
}


SLOTS_AND_KEYS = [
    ("slots", "file", "kill front"),
    ("retried slots", "etcd", "kill front + keeper"),
    ("keys", "postgres", "kill front + guard"),
]


def line(turn: str, what: str, when: float, process: int = 1) -> str:
    return f"{turn} {process} 5 {what} {when}\n"


def turns(*lines: str) -> list[check.Turn]:
    return check.turns(check.lines("".join(lines)))


def test_one_after_the_other_is_no_overlap() -> None:
    found = turns(
        line("a", "start:0.0:7::", 1.0),
        line("a", "beat", 1.2, 2),
        line("a", "end", 1.5),
        line("b", "start:1.0:8::", 2.0),
    )
    assert (check.overlaps(found), check.orphans(found), check.backward(found)) == (0, 0, 0)
    assert [turn.ended for turn in found] == [True, False]


def test_a_process_that_is_seen_after_the_next_start_is_an_overlap_and_an_orphan() -> None:
    found = turns(
        line("a", "start:0.0:7::", 1.0),
        line("b", "start:1.0:8::", 2.0),
        line("a", "beat", 2.25, 2),
        line("a", "beat", 2.5, 2),
    )
    assert (check.overlaps(found), check.orphans(found)) == (1, 1)
    assert check.longest_overlap(found) == 0.5


@pytest.mark.parametrize("what", ["taken:lock", "taken:port"])
def test_what_another_command_still_holds_is_an_overlap(what: str) -> None:
    found = turns(line("a", "start:0.0:7::", 1.0), line("b", "start:1.0:8::", 2.0), line("b", what, 2.0))
    assert (check.overlaps(found), check.orphans(found)) == (1, 1)


def test_a_line_that_is_not_whole_is_no_line() -> None:
    assert len(check.lines(line("a", "start:0.0:7::", 1.0) + "a 1 5 be")) == 1


def test_a_token_that_does_not_grow_is_counted() -> None:
    tokens = (7, 9, 9, 8)
    found = turns(*(line(f"t{at}", f"start:0.{at}:{token}::", at) for at, token in enumerate(tokens)))
    assert check.backward(found) == 2


def test_the_time_in_which_nobody_ran_begins_with_the_end_or_with_what_was_mended() -> None:
    log = [
        line("a", "start:0.0:1::", 1.0),
        line("a", "end", 2.0),
        line("b", "start:1.0:2::", 9.0),
        line("b", "end", 10.0),
    ]
    assert check.idle(turns(*log), after=1.5, healed=1.7) == 7.0
    assert check.idle(turns(*log), after=1.5, healed=6.0) == 3.0
    assert check.idle(turns(*log), after=9.5, healed=9.6) == 0.0


# Slots: one each two seconds from START on, which is 100 by the boot clock, and a fault from 109 to 115.

START = 1_790_000_000
AHEAD = START - 100.0
FAULT = slots.Span(109.0, 115.0)


def slot(at: float, attempt: int = 1, what: str = "end", length: float = 0.5) -> list[check.Turn]:
    """A turn for the slot that is due then; it begins a tenth of a second later."""
    due = at // 2 * 2
    name = f"{datetime.fromtimestamp(AHEAD + due, UTC):%FT%TZ}"
    turn, start = f"{at}-{attempt}-{what}", max(at, due + 0.1)
    return turns(line(turn, f"start:0.0:0:{attempt}:{name}", start), line(turn, what, start + length))


def told(*of: list[check.Turn], retries: int = 0) -> dict[str, int]:
    """What is found in a log of these, but for zeros."""
    found = [turn for turns in of for turn in turns]
    counts = {
        "doubled": slots.doubled(found, retries, FAULT),
        "back": slots.backward(found),
        "missing": len(slots.missing(found, AHEAD)),
        "lost": slots.lost(found, AHEAD, FAULT),
        "unseen": slots.unseen(found, FAULT),
        "not retried": slots.unretried(found, retries, AHEAD, FAULT),
    }
    return {word: count for word, count in counts.items() if count}


def test_slots_in_their_order_are_as_they_should_be() -> None:
    assert told(slot(100), slot(102), slot(104), slot(106)) == {}
    assert (
        told(slot(100), slot(102, 1, "fail"), slot(103, 2, "fail"), slot(103.7, 3), slot(104), retries=2)
        == {}
    )


def test_a_slot_that_nobody_started_is_lost() -> None:
    assert told(slot(100), slot(104), slot(106)) == {"missing": 1, "lost": 1}
    assert told(slot(100), slot(108)) == {"missing": 3, "lost": 3}


def test_a_slot_that_the_fault_or_a_long_command_explains_is_only_missing() -> None:
    assert told(slot(100), slot(102), slot(104), slot(106), slot(108), slot(116)) == {"missing": 3}
    assert told(slot(100, length=3.5), slot(104)) == {"missing": 1}
    assert told(slot(100, length=2.8), slot(104)) == {"missing": 1, "lost": 1}


def test_a_slot_is_doubled_that_starts_too_often_or_again_after_a_success() -> None:
    assert told(slot(100), slot(101)) == {"doubled": 1}
    assert told(slot(100, what="beat"), slot(101, 2)) == {"doubled": 1}
    assert told(slot(100, what="beat"), slot(101, 2), retries=1) == {}
    assert told(slot(100, what="beat"), slot(101, 2, "fail"), slot(101.7, 3), retries=1) == {"doubled": 1}
    assert told(slot(100), slot(101, 2), retries=1) == {"doubled": 1}
    assert told(slot(110), slot(111, 2), retries=1) == {}  # the fault came between the success and its record


def test_slots_that_go_back_are_counted() -> None:
    assert told(slot(100), slot(104), slot(102), slot(106)) == {"back": 1}


def test_an_attempt_that_nobody_saw_or_made_is_counted_unless_the_fault_explains_it() -> None:
    assert told(slot(100, 2), slot(102), retries=2) == {"unseen": 1}
    assert told(slot(110, 2), slot(112), retries=2) == {}
    assert told(slot(100, 1, "fail"), slot(102), retries=1) == {"not retried": 1}
    assert told(slot(110, 1, "fail"), slot(112), retries=1) == {}
    assert told(slot(100, 1, "fail", length=1.5), slot(102), retries=1) == {}  # there was no time for it


def test_a_key_is_done_once() -> None:
    found = turns(line("a", "start:0.0:1::0", 1.0), line("a", "end", 2.0), line("b", "start:1.0:2::0", 3.0))
    assert slots.keys_again(found, {"0": 3.5}) == 0
    assert slots.keys_again(found, {"0": 2.5}) == 1
    assert slots.keys_lost(found, {"0": 2.5}) == 0
    assert slots.keys_lost(found, {"0": 2.5, "1": 4.0}) == 1


def test_every_name_that_is_used_is_that_of_a_fault() -> None:
    used = {name for names in CHOSEN.values() for name in names} | set(ANYBODYS)
    used |= {fault for _, _, fault in SLOTS_AND_KEYS}
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


def test_slots_without_a_lock_are_caught() -> None:
    found = rounds("file", [NAMES["stop front"]], TOOLS["slots, no lock"], 20, SEED)
    assert any(result["doubled"] for result in found)


@pytest.mark.parametrize(("tool", "site", "fault"), SLOTS_AND_KEYS)
def test_no_fault_doubles_or_loses_a_slot(tool: str, site: str, fault: str) -> None:
    (result,) = rounds(site, [NAMES[fault]], TOOLS[tool], 1, SEED)
    assert (result["seed"], results.wrong(result)) == (result["seed"], [])
