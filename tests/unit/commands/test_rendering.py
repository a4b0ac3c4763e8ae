"""Facts as lines, tables, pictures: whatever anybody wrote in them, and however narrow the terminal is."""

from __future__ import annotations

import io
import re
from datetime import UTC
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from singleton_run.api.contract import Held, Look
from singleton_run.api.control import paused
from singleton_run.api.timestamps import rfc3339
from singleton_run.commands import facts, lines, tables, wording
from singleton_run.commands.picture import Picture
from singleton_run.commands.timeline import WINDOW, Timeline, bar, gauge
from singleton_run.commands.watching import seen_change
from tests.unit.commands.samples import EARLIER, HOLDER, NOW, held, record, seen, slot_of

if TYPE_CHECKING:
    from rich.console import RenderableType

HOSTILE = "[red]\x1b[2J\t\r\n\x07\u202e\udc80[/red] :boom: "
WIDTHS = (200, 80, 40, 20)


def hostile() -> Any:
    """A look in which each text that anybody can write is hostile."""
    holder = Held(HOSTILE, HOSTILE, NOW - 60, token=7)
    run = {**record(slot=slot_of(HOSTILE)), "holder": HOSTILE, "command": HOSTILE}
    run["runs"] = [{**run["runs"][0], "state": HOSTILE, "holder": HOSTILE}]
    control = paused(None, by=HOSTILE, at=NOW - 100, until=NOW + 100, reason=HOSTILE)
    return seen(Look.HELD, holder, run, control=control, waiting=[holder, Held(HOSTILE)])


def told(look: Any) -> Any:
    return facts.status(look, "job", "etcd://host")


def listing(*looks: Any) -> Any:
    return {"lock": HOSTILE, "at": rfc3339(NOW), "locks": [facts.listed(look, "job") for look in looks]}


def drawn(renderable: RenderableType, width: int, *, terminal: bool = False) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=terminal, markup=False, highlight=False, emoji=False
    )
    console.print(renderable)
    return stream.getvalue()


def all_drawn(look: Any, width: int, *, terminal: bool = False) -> str:
    picture = Picture(UTC)
    picture.add(told(look))
    parts = [
        tables.status(told(look), UTC, width),
        tables.listed(listing(look), UTC, width),
        tables.history(facts.history(look, "job", "x", 20), UTC, width),
        picture.drawn(width),
    ]
    return "".join(drawn(part, width, terminal=terminal) for part in parts)


# Lines.


def test_a_lock_is_one_line_of_columns_and_its_facts_a_line_each() -> None:
    look = seen(Look.HELD, held(), record(slot=slot_of()))
    row = lines.listed(listing(look)["locks"])
    start = rfc3339(NOW - 500)
    assert row == f"job\theld\t{HOLDER}\t{start}\tfailed\t3\t{rfc3339(NOW + 3540)}\t-\n"
    found = [line.split("\t") for line in lines.status(told(look)).splitlines()]
    assert found[:3] == [["name", "job"], ["lock", "etcd://host"], ["state", "held"]]
    assert ["waiting", facts.NO_QUEUE] in found
    assert [line[0] for line in found].count("run") == 2
    (first, *_) = lines.history(facts.history(look, "job", "x", 9)).splitlines()
    slot = rfc3339(NOW - 60)
    assert first == f"{slot}\t60.0\trunning\t-\t{slot}\t1\t{HOLDER}\t7"


def test_a_change_is_a_line() -> None:
    look = seen(Look.HELD, held(), record(), waiting=[Held(EARLIER)])
    assert lines.change(told(look)) == f"{rfc3339(NOW)}\theld\t{HOLDER}\t7\t{rfc3339(NOW - 60)}\t-\t-\t1\t-\n"
    control = paused(None, by="me@here", at=NOW, until=None, reason="moving")
    (line,) = lines.change(told(seen(Look.FREE, control=control, waiting=[]))).splitlines()
    assert line.split("\t")[-2:] == ["0", "paused by me@here until somebody resumes it: moving"]
    (line,) = lines.change(facts.unavailable("job", "x", NOW, "no answer")).splitlines()
    assert line.split("\t") == [rfc3339(NOW), "unavailable", *["-"] * 6, "no answer"]


def test_whatever_anybody_wrote_a_line_is_a_line_and_a_column_a_column() -> None:
    look = hostile()
    for text, columns in (
        (lines.listed(listing(look)["locks"]), 8),
        (lines.history(facts.history(look, "job", "x", 9)), 8),
        (lines.change(told(look)), 9),
    ):
        for line in text.splitlines():
            assert line.replace("\t", "").isprintable()
            assert line.count("\t") == columns - 1
    for line in lines.status(told(look)).splitlines():
        assert line.replace("\t", "").isprintable()
        assert line.partition("\t")[0] in {*facts.FIELDS, "next", "missed", "overlap", "run", "note"}


# Tables.


@pytest.mark.parametrize("width", WIDTHS)
def test_no_table_is_wider_than_its_terminal_and_nothing_is_left_out(width: int) -> None:
    look = seen(Look.HELD, held(), record(slot=slot_of()), waiting=[Held(EARLIER)])
    text = all_drawn(look, width)
    assert max(map(cell_len, text.splitlines())) <= width
    without_folds = re.sub(r"\s", "", text)
    for word in (HOLDER, EARLIER, "job.sh", "etcd://host", "every1h", "failed(3)"):
        assert re.sub(r"\s", "", word) in without_folds


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("terminal", [True, False])
def test_whatever_anybody_wrote_a_terminal_gets_no_orders_from_it(width: int, terminal: bool) -> None:
    text = all_drawn(hostile(), width, terminal=terminal)
    ours = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert ours.replace("\n", "").isprintable()
    flat = re.sub(r"\s", "", ours)
    assert "[red]\\x1b[2J\\t" in flat
    assert ":boom:" in flat


def test_no_locks_and_no_runs_are_said_to_be_none() -> None:
    assert drawn(tables.listed({**listing(), "lock": "etcd"}, UTC, 80), 80) == "no locks at etcd\n"
    empty = facts.history(seen(Look.FREE), "job", "x", 20)
    assert drawn(tables.history(empty, UTC, 80), 80) == "no runs of job are known\n"


def test_a_missed_slot_stands_beside_the_next() -> None:
    look = seen(Look.FREE, None, record("succeeded", slot=slot_of(at=NOW - 7300), ago=7300))
    assert re.search("missed 61m ago, in 58m", drawn(tables.listed(listing(look), UTC, 100), 100))
    assert re.search(r"missed +61m ago \(", drawn(tables.status(told(look), UTC, 100), 100))


# Times.


def test_times_are_relative_and_exact_in_the_reader_s_zone() -> None:
    zone = ZoneInfo("Europe/Berlin")
    now = rfc3339(NOW)
    assert wording.when(rfc3339(NOW - 200), now, zone) == "3m ago (2027-01-15 08:56:40 +0100)"
    assert wording.distance(rfc3339(NOW + 5), now) == "in 5s"
    assert wording.when(None, now, zone) == "-"
    assert wording.local("9999-12-31T23:59:59Z", zone) == "9999-12-31T23:59:59Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (-5, "0s"), (119.9, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (200_000, "2d")],
)
def test_a_length_is_in_one_unit(seconds: float, text: str) -> None:
    assert wording.length(seconds) == text


@given(st.text())
def test_a_text_on_a_line_is_printable(text: str) -> None:
    assert wording.plain(text).isprintable()
    assert wording.plain(text)


def test_the_zone_of_a_reader_who_has_none_is_utc() -> None:
    assert wording.zone_of({"TZ": "Nowhere/At/All"}) is UTC
    assert str(wording.zone_of({"TZ": "Europe/Berlin"})) == "Europe/Berlin"


# The watch.


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9), st.integers(1, 300))
def test_a_bar_fills_its_width_and_shows_each_turn(start: float, lasts: float, width: int) -> None:
    text = bar(start, start + lasts, 1000.0, width)
    assert len(text) == width
    assert "█" in text


def test_a_bar_is_where_the_turn_was() -> None:
    assert bar(NOW - WINDOW / 2, NOW, NOW, 10) == "·····█████"
    assert bar(NOW - WINDOW, NOW - WINDOW / 2, NOW, 10) == "█████·····"
    assert bar(NOW - 1, NOW, NOW, 10) == "·········█"
    assert (gauge(5, 10, 4), gauge(99, 10, 4), gauge(0, 0, 4)) == ("██··", "████", "····")


def test_the_timeline_keeps_what_it_saw_of_a_holder_that_crashed() -> None:
    line = Timeline()
    line.add(told(seen(Look.HELD, held(), record())))
    later = seen(Look.FREE, None, record())._replace(now=NOW + 30)
    line.add(told(later))
    shown = [(turn.holder, turn.start, turn.end, turn.state) for turn in line.shown()]
    assert shown[-1] == (HOLDER, NOW - 60, NOW, "crashed")
    assert shown[0][0] == EARLIER
    line.add(told(later._replace(now=NOW + WINDOW + 1)))
    assert line.shown() == []


def test_the_timeline_knows_a_stranger_that_leaves_no_record() -> None:
    line = Timeline()
    line.add(told(seen(Look.HELD, Held("stranger"))))
    line.add(told(seen(Look.HELD, Held("stranger"))._replace(now=NOW + 9)))
    (turn,) = line.shown()
    assert (turn.holder, turn.start, turn.end) == ("stranger", NOW, NOW + 9)


def test_the_picture_has_a_gauge_of_the_lease_and_goes_on_without_a_server() -> None:
    picture = Picture(UTC)
    picture.add(told(seen(Look.HELD, held(), record(), waiting=[Held(EARLIER)])))
    text = drawn(picture.drawn(80), 80)
    assert re.search(r"lease  █+ 20s of 20s", text)
    assert re.search(rf"waiting\n +{EARLIER}", text)
    picture.add(told(seen(Look.HELD, held(), record())._replace(now=NOW + 10, boot=5010.0)))
    assert re.search(r"lease  █+·+ 10s of 20s", drawn(picture.drawn(80), 80))
    picture.add(facts.unavailable("job", "x", NOW + 20, "etcd is out of reach"))
    text = drawn(picture.drawn(80), 80)
    assert "job: unavailable" in text
    assert "etcd is out of reach" in text
    assert HOLDER in text


def test_a_renewal_and_time_are_no_change_and_all_else_is() -> None:
    look = seen(Look.HELD, held(), record(), waiting=[])
    first = told(look)
    assert seen_change(None, first)
    assert not seen_change(first, told(look._replace(now=NOW + 9)))
    for other in (
        seen(Look.HELD, held(token=8), record(), waiting=[]),
        seen(Look.FREE, None, record("succeeded"), waiting=[]),
        seen(Look.HELD, held(), record(), waiting=[Held(EARLIER)]),
        seen(
            Look.HELD, held(), record(), waiting=[], control=paused(None, by="", at=1, until=None, reason="")
        ),
    ):
        assert seen_change(first, told(other))
    assert seen_change(first, facts.unavailable("job", "x", NOW, "no"))
