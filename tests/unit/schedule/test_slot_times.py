"""When slots are: against Debian's cron (a model of it), against cronsim, and by properties."""

from __future__ import annotations

import os
import subprocess
import sys
import zoneinfo
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from singleton_run.errors import UNUSABLE, USAGE, Failure
from singleton_run.schedule import slot_times, time_zones
from tests.support import debian_cron

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = Path(__file__).parents[3]
START, END = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2025, 2030))
DAY = 86_400
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
FIXED = (
    "30 2 * * *",
    "0,30 2 * * *",
    "0 3 * * *",
    "59 1 * * *",
    "15 1,2,3 * * *",
    "45 1-3 * * *",
    "5,35 0-4 * * 0,6",
    "0 2 * * sun",
    "0 0 1,15 * mon",
    "0 0 */2 * mon",
)
WILDCARD = (
    "*/30 2 * * *",
    "* 2 * * *",
    "*/7 * * * *",
    "0 * * * *",
    "0 */2 * * *",
    "17 */5 * * *",
    "*/20 */3 * * 0-6",
)


def slots(line: str, zone: str, start: float, end: float) -> Iterator[int]:
    """The slots in (start, end]."""
    cron = slot_times.Cron(line, zone)
    at = cron.next(start)
    while at <= end:
        yield int(at)
        at = cron.next(at)


def changes(zone: str) -> list[int]:
    """When the clocks are changed, found by looking at every quarter of an hour."""
    info = zoneinfo.ZoneInfo(zone)
    offsets = [
        (at, datetime.fromtimestamp(at, info).utcoffset())
        for day in range(START, END, DAY)
        if datetime.fromtimestamp(day, info).utcoffset()
        != datetime.fromtimestamp(day + DAY, info).utcoffset()
        for at in range(day, day + DAY + 1, 900)
    ]
    return [later for (_, old), (later, new) in pairwise(offsets) if old != new and later % DAY != 0]


@pytest.mark.parametrize("zone", ZONES)
def test_around_every_change_in_five_years_it_is_debian_s_cron(zone: str) -> None:
    lines = FIXED + WILDCARD
    entries = [debian_cron.Entry(line) for line in lines]
    assert len(changes(zone)) == (0 if zone == "Asia/Kathmandu" else 10)
    for change in changes(zone):
        start = (change // DAY - 1) * DAY
        model = debian_cron.runs(entries, zoneinfo.ZoneInfo(zone), start, start + 3 * DAY)
        for line, expected in zip(lines, model, strict=True):
            assert list(slots(line, zone, start, start + 3 * DAY)) == expected, line
            cron = slot_times.Cron(line, zone)
            for before, after in pairwise(expected):
                assert [cron.latest(at) for at in (before, after - 1)] == [before, before]


@pytest.mark.parametrize("zone", ZONES)
def test_on_other_days_it_is_debian_s_cron_too(zone: str) -> None:
    info = zoneinfo.ZoneInfo(zone)
    near = {change // DAY + days for change in changes(zone) for days in (-1, 0, 1)}
    compared = 0
    for number in range(START // DAY, END // DAY, 41):
        if number in near:
            continue
        noon = datetime.fromtimestamp(number * DAY + DAY // 2, info)
        offset = noon.utcoffset() or timedelta()
        begin = int(
            datetime(noon.year, noon.month, noon.day, tzinfo=UTC).timestamp() - offset.total_seconds()
        )
        for line in FIXED + WILDCARD:
            expected = list(debian_cron.quiet_day(debian_cron.Entry(line), noon.date(), offset))
            assert list(slots(line, zone, begin - 1, begin + DAY - 1)) == expected, (line, noon)
            compared += len(expected)
    assert compared > 1000


@pytest.mark.parametrize("zone", ZONES)
def test_a_daily_job_in_the_small_hours_runs_once_a_day_for_five_years(zone: str) -> None:
    info = zoneinfo.ZoneInfo(zone)
    days = [datetime.fromtimestamp(at, info).date() for at in slots("30 2 * * *", zone, START, END)]
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(days))
    assert len(days) == (END - START) // DAY


# cronsim 2.8 is right where clocks change by an hour, and for fixed times everywhere. It is wrong for
# wildcard jobs after the half-hour changes of Lord Howe, and when asked from inside a repeated hour: so
# it is asked from the day before, and goes on by itself.
@pytest.mark.parametrize(
    ("zone", "lines"),
    [
        ("Europe/Berlin", FIXED + WILDCARD),
        ("America/New_York", FIXED + WILDCARD),
        ("Australia/Lord_Howe", FIXED),
    ],
)
def test_cronsim_agrees(zone: str, lines: tuple[str, ...]) -> None:
    for change in changes(zone)[:4]:
        start = (change // DAY - 1) * DAY
        for line in lines:
            expected = list(slots(line, zone, start, start + 3 * DAY))
            other = CronSim(line, datetime.fromtimestamp(start, zoneinfo.ZoneInfo(zone)))
            asked = list(dict.fromkeys(int(at.timestamp()) for at in islice(other, 2 * len(expected) + 1)))
            assert [at for at in asked if at <= start + 3 * DAY] == expected, line


# By hand. The source of each: (8) cron(8): a fixed time that is skipped is made up for at once, one that
# comes again isn't run again, and wildcards go by the clock; (5) crontab(5): what the fields mean; (m) the
# model, for what the manual leaves open; (s) our own, for cron has no seconds: they follow the same rules.
TABLE = [
    ("Europe/Berlin", "30 2 * * *", "2026-03-28", "28 02:30+0100, 29 03:00+0200, 30 02:30+0200", "8"),
    ("Europe/Berlin", "0 3 * * *", "2026-03-28", "28 03:00+0100, 29 03:00+0200, 30 03:00+0200", "8"),
    ("Europe/Berlin", "0,30 2 * * *", "2026-03-29", "29 03:00+0200, 30 02:00+0200, 30 02:30+0200", "m"),
    ("Europe/Berlin", "*/30 2 * * *", "2026-03-29", "30 02:00+0200, 30 02:30+0200, 31 02:00+0200", "8"),
    ("Europe/Berlin", "30 * * * *", "2026-03-29", "29 00:30+0100, 29 01:30+0100, 29 03:30+0200", "8"),
    ("Europe/Berlin", "30 2 * * *", "2026-10-25", "25 02:30+0200, 26 02:30+0100, 27 02:30+0100", "8"),
    ("Europe/Berlin", "*/30 2 * * *", "2026-10-25", "25 02:00+0200, 25 02:30+0200, 25 02:00+0100", "8"),
    ("Europe/Berlin", "0 11 * * *", "2026-10-24", "24 11:00+0200, 25 11:00+0100, 26 11:00+0100", "5"),
    ("America/New_York", "30 2 8 3 *", "2026-01-01", "08 03:00-0400, 08 02:30-0500, 08 02:30-0500", "8"),
    ("America/New_York", "0 1,2 * * *", "2026-11-01", "01 01:00-0400, 01 02:00-0500, 02 01:00-0500", "8"),
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-04", "04 02:30+1100, 05 02:15+1100, 06 02:15+1100", "8"),
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-05", "05 01:45+1100, 06 01:45+1030, 07 01:45+1030", "8"),
    ("Asia/Kathmandu", "0 0 1 * *", "2026-03-31", "01 00:00+0545, 01 00:00+0545, 01 00:00+0545", "5"),
    ("Asia/Kathmandu", "0 0 13 * 5", "2026-02-10", "13 00:00+0545, 20 00:00+0545, 27 00:00+0545", "5"),
    ("Pacific/Apia", "0 12 * * *", "2011-12-29", "29 12:00-1000, 31 12:00+1400, 01 12:00+1400", "8"),
    ("UTC", "0 8 */100,1-7 * 1", "2026-06-01", "01 08:00+0000, 06 08:00+0000, 03 08:00+0000", "m"),
    ("UTC", "0 8 1-7 * */7", "2026-06-01", "07 08:00+0000, 05 08:00+0000, 02 08:00+0000", "m"),
    ("UTC", "0 8 1-7 * 1", "2026-06-07", "07 08:00+0000, 08 08:00+0000, 15 08:00+0000", "5"),
    ("UTC", "0 0 29 2 *", "2026-01-01", "29 00:00+0000, 29 00:00+0000, 29 00:00+0000", "5"),
    ("Europe/Berlin", "0 30 2 * * *", "2026-03-29", "29 03:00+0200, 30 02:30+0200, 31 02:30+0200", "s"),
    ("Europe/Berlin", "30 0 11 * * *", "2026-10-25", "25 11:00+0100, 26 11:00+0100, 27 11:00+0100", "s"),
    ("Europe/Berlin", "*/20 59 1 * * *", "2026-03-29", "29 01:59+0100, 29 01:59+0100, 29 01:59+0100", "s"),
    ("Europe/Berlin", "15,45 30 2 * * *", "2026-03-29", "29 03:00+0200, 30 02:30+0200, 30 02:30+0200", "s"),
]


@pytest.mark.parametrize(("zone", "line", "day", "expected", "source"), TABLE)
def test_the_table(zone: str, line: str, day: str, expected: str, source: str) -> None:
    info = zoneinfo.ZoneInfo(zone)
    start = datetime.fromisoformat(day).replace(tzinfo=info).timestamp() - 1
    first = islice(slots(line, zone, start, inf), 3)
    assert ", ".join(datetime.fromtimestamp(at, info).strftime("%d %H:%M%z") for at in first) == expected


NUMBERS = {"minute": (0, 59), "hour": (0, 23), "date": (1, 31), "month": (1, 12), "day": (0, 7)}
DAYS = (NUMBERS["date"], NUMBERS["day"])


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> str:
    def item() -> str:
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        return draw(
            st.sampled_from(
                [
                    "*",
                    f"*/{draw(st.integers(1, min(high - low, 6)))}",
                    *(["*/100"] if (low, high) in DAYS else []),
                    str(first),
                    f"{first}-{last}",
                    f"{first}-{last}/{draw(st.integers(1, max(last - first, 1)))}",
                ]
            )
        )

    return ",".join(item() for _ in range(draw(st.integers(1, 2))))


lines = st.tuples(*(fields(low, high) for low, high in NUMBERS.values())).map(" ".join)


@settings(max_examples=150)
@given(lines, st.integers(START, END))
def test_any_expression_means_what_cron_reads_in_it(line: str, at: int) -> None:
    entry = debian_cron.Entry(line)
    try:
        cron = slot_times.Cron(line, "UTC")
    except Failure as failure:
        assert "never comes" in str(failure)  # noqa: PT017 - that is the only reason to refuse these
        return
    after, before = cron.next(at), cron.latest(at)
    assert before is not None
    assert entry.matches(int(after) // 60)
    assert entry.matches(int(before) // 60)
    assert before <= at < after
    near = range(int(max(before, at - 2 * DAY)) // 60 + 1, int(-(-min(after, at + 2 * DAY) // 60)))
    assert not any(map(entry.matches, near))


@given(st.sampled_from(ZONES), st.sampled_from(FIXED + WILDCARD + ("15 */9 2 * * *",)), st.floats(START, END))
def test_latest_and_next_meet(zone: str, line: str, at: float) -> None:
    cron = slot_times.Cron(line, zone)
    before, after = cron.latest(at), cron.next(at)
    assert before is not None
    assert before <= at < after
    assert cron.next(before) == after
    assert cron.latest(after) == after
    assert cron.latest(after - 1e-3) == before
    assert cron.next(before - 1e-3) == before
    assert before.is_integer()


def test_a_date_that_comes_once_in_eight_years_is_found() -> None:
    cron = slot_times.Cron("0 0 29 2 *", "UTC")
    century = datetime(2096, 3, 1, tzinfo=UTC).timestamp()
    assert cron.next(century) == datetime(2104, 2, 29, tzinfo=UTC).timestamp()
    assert cron.latest(century + 5 * 366 * DAY) == datetime(2096, 2, 29, tzinfo=UTC).timestamp()


def test_beyond_the_calendar_there_is_no_slot() -> None:
    cron = slot_times.Cron("0 0 * * *", "UTC")
    assert cron.next(1e12) == inf
    assert cron.latest(0) is None
    assert cron.latest(-inf) is None
    assert cron.next(inf) == inf
    assert cron.next(-inf) == datetime(1971, 1, 2, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("line", "zone", "name"),
    [
        ("0 11 * * *", "Europe/Berlin", "cron 0 11 * * * Europe/Berlin"),
        ("0 0  11 ? * *", "Europe/Berlin", "cron 0 11 * * * Europe/Berlin"),
        ("30 0 11 * * *", "UTC", "cron 30 0 11 * * * UTC"),
        ("@Midnight", "Etc/UTC", "cron 0 0 * * * UTC"),
        ("0 0 * * MON-FRI", "UTC", "cron 0 0 * * 1-5 UTC"),
    ],
)
def test_a_schedule_has_one_name(line: str, zone: str, name: str) -> None:
    assert slot_times.Cron(line, zone).text == name


def test_what_a_slot_at_a_change_stands_for() -> None:
    cron = slot_times.Cron("30 2 * * *", "Europe/Berlin")
    change = datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp()
    assert cron.next(change - DAY // 2) == change
    assert cron.skipped(change) == datetime(2026, 3, 29, 2, 30, tzinfo=UTC).timestamp()
    assert cron.skipped(cron.next(change)) is None
    assert slot_times.Cron("0 3 * * *", "Europe/Berlin").skipped(change) is None
    assert slot_times.Cron("0 * * * *", "Europe/Berlin").skipped(change) is None


# The grid.

intervals = st.one_of(st.sampled_from([1.0, 60.0, 3600.0, 0.1 + 1, 1e7]), st.floats(1, 1e8))
times = st.floats(1e9, 3e9)


@given(intervals, times, times)
def test_the_grid_s_slots_surround_any_time(interval: float, anchor: float, at: float) -> None:
    grid = slot_times.Grid(interval, anchor)
    before, after, nearest = grid.latest(at), grid.next(at), grid.nearest(at)
    assert after > at
    if before is None:
        assert at < anchor == after == nearest
        return
    assert anchor <= before <= at
    assert grid.next(before) == after
    assert grid.latest(after) == after
    assert after - before == pytest.approx(interval, rel=1e-6)
    assert abs(nearest - at) == min(at - before, after - at)


def test_the_grid_begins_with_its_anchor() -> None:
    grid = slot_times.Grid(3600, 1_800_000_005.25)
    assert grid.latest(1_800_000_005) is None
    assert grid.next(0) == grid.nearest(0) == grid.latest(1_800_000_006) == 1_800_000_005.25
    assert grid.nearest(1_800_001_805.25) == 1_800_003_605.25
    assert grid.nearest(1_800_001_805) == 1_800_000_005.25


def test_a_grid_s_name_is_its_interval() -> None:
    assert slot_times.Grid(3600, 1).text == slot_times.Grid(3600.0, 2).text == "every 1h"
    assert slot_times.Grid(5400, 1).text == "every 1h30m"
    assert slot_times.Grid(1.0001, 1).text == "every 1.0001s"


# The jitter.


@given(st.text(max_size=20), times, st.one_of(st.just(0.0), st.floats(1e-3, 1e6)))
def test_the_jitter_is_the_same_for_everyone(name: str, slot: float, most: float) -> None:
    value = slot_times.jitter(name, slot, most)
    assert value == slot_times.jitter(name, slot, most)
    assert 0 <= value < most or value == most == 0


def test_the_jitter_spreads() -> None:
    values = [slot_times.jitter("job", slot, 10.0) for slot in range(1000)]
    assert {int(value) for value in values} == set(range(10))
    assert slot_times.jitter("job", 1.0, 10.0) == slot_times.jitter("job", 1, 10.0) == values[1]
    assert slot_times.jitter("other", 1, 10.0) != values[1]


# Time zones.


def test_a_wrong_expression_is_a_failure_that_names_the_field() -> None:
    with pytest.raises(Failure, match="the hour '24'") as failure:
        slot_times.Cron("0 24 * * *", "UTC")
    assert failure.value.status == USAGE


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("Europe/Atlantis", UNUSABLE),
        ("Europe", UNUSABLE),
        ("", USAGE),
        ("/etc/passwd", USAGE),
        ("../x", USAGE),
        ("CET-1CEST,M3.5.0", USAGE),
        ("ü", USAGE),
    ],
)
def test_a_zone_that_is_not_there(name: str, status: int) -> None:
    with pytest.raises(Failure) as failure:
        slot_times.Cron("0 0 * * *", name)
    assert failure.value.status == status
    assert repr(name) in str(failure.value) or name in str(failure.value)


@pytest.mark.process
def test_without_any_zones_it_says_what_to_install() -> None:
    code = """if True:
        from singleton_run import errors
        from singleton_run.schedule import time_zones
        time_zones._DIRECTORIES = ()
        assert time_zones.find("UTC") == "UTC"
        try:
            time_zones.find("Europe/Berlin")
        except errors.Failure as failure:
            print(failure.status, failure)
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],  # -S: without the package tzdata
        cwd=TREE, env={**os.environ, "PYTHONTZPATH": "", "PYTHONPATH": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(f"{UNUSABLE} ")
    assert "pip install tzdata" in done.stdout


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        (":Europe/Berlin", "Europe/Berlin"),
        ("/usr/share/zoneinfo/posix/Asia/Kathmandu", "Asia/Kathmandu"),
        ("", "UTC"),
        ("Etc/UTC", "UTC"),
    ],
)
def test_the_local_zone_is_the_variable_s(text: str, name: str) -> None:
    assert time_zones.local({"TZ": text}) == name


@pytest.mark.parametrize("text", ["CET-1CEST", "Europe/Atlantis", "/etc/passwd", "a b"])
def test_a_variable_that_is_no_zone_is_a_failure(text: str) -> None:
    with pytest.raises(Failure, match="--tz") as failure:
        time_zones.local({"TZ": text})
    assert failure.value.status == UNUSABLE


def test_the_local_zone_is_the_machine_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    localtime = tmp_path / "localtime"
    monkeypatch.setattr(time_zones, "_LOCALTIME", str(localtime))
    assert time_zones.local({}) == "UTC"
    localtime.symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    assert time_zones.local({}) == "Europe/Berlin"
    localtime.unlink()
    localtime.write_text("a copy of some zone")
    with pytest.raises(Failure, match="--tz") as failure:
        time_zones.local({})
    assert failure.value.status == UNUSABLE


@pytest.mark.parametrize("text", ["{}", ":{}", ":localtime", "/usr/share/zoneinfo/localtime"])
def test_a_variable_that_names_the_machine_s_zone_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    localtime = tmp_path / "localtime"
    monkeypatch.setattr(time_zones, "_LOCALTIME", str(localtime))
    environ = {"TZ": text.format(localtime)}
    assert time_zones.local(environ) == "UTC"
    localtime.symlink_to("/usr/share/zoneinfo/Asia/Kathmandu")
    assert time_zones.local(environ) == "Asia/Kathmandu"


def test_a_copy_of_a_zone_is_known_by_the_name_that_stands_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    localtime, timezone = tmp_path / "localtime", tmp_path / "timezone"
    monkeypatch.setattr(time_zones, "_LOCALTIME", str(localtime))
    monkeypatch.setattr(time_zones, "_TIMEZONE", str(timezone))
    localtime.write_bytes(Path("/usr/share/zoneinfo/Asia/Kathmandu").read_bytes())
    timezone.write_text("Asia/Kathmandu\n")
    assert time_zones.local({}) == "Asia/Kathmandu"
    timezone.write_text("Europe/Berlin\n")
    with pytest.raises(Failure, match="--tz"):
        time_zones.local({})
