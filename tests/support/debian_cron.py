"""What Debian's cron does, minute by minute, as a model to compare with.

Written from cron(8), crontab(5) and the rules of its main loop; it shares nothing with the package.
The daemon wakes up once a minute and compares the clock on the wall with a *virtual* time, the last
minute for which jobs were run, both in minutes of local time:

- one minute on: run what matches.
- up to five minutes on (it woke up late): run what matches for each of them.
- up to three hours on (the clocks were set forward): wildcard jobs for the minute that it is now, and
  the other jobs for every minute that was left out.
- up to three hours back: wildcard jobs only, and the virtual time waits until it is caught up with.
- more than that, either way: the clock was corrected. Go on from here.

A wildcard job is one whose minute or hour field begins with `*`. A job that matches two minutes that
were left out is run twice in one minute; that is one slot here, since a slot is named by its time.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from zoneinfo import ZoneInfo

EPOCH = date(1970, 1, 1).toordinal()
HOUR = 60
DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}


class Entry:
    """A crontab's line of five fields: which minutes it matches, and whether it is a wildcard job."""

    def __init__(self, line: str) -> None:
        fields = line.lower().split()
        ranges = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
        self.minutes, self.hours, self.dates, self.months, self.days = (
            frozenset(_values(field, *limits)) for field, limits in zip(fields, ranges, strict=True)
        )
        self.wildcard = fields[0].startswith("*") or fields[1].startswith("*")
        self.both_days = fields[2].startswith("*") or fields[4].startswith("*")

    def on(self, day: date) -> bool:
        """Whether it runs on that day at all."""
        a_date = day.day in self.dates
        a_day = day.isoweekday() % 7 in self.days or (day.isoweekday() == 7 and 7 in self.days)
        return day.month in self.months and (a_date and a_day if self.both_days else a_date or a_day)

    def matches(self, minute: int) -> bool:
        """Whether a minute of local time, counted from 1970, is one of its."""
        day, rest = divmod(minute, 24 * HOUR)
        in_day = rest // HOUR in self.hours and rest % HOUR in self.minutes
        return in_day and self.on(date.fromordinal(EPOCH + day))


def runs(entries: Sequence[Entry], zone: ZoneInfo, start: int, end: int) -> list[list[int]]:
    """For each entry the times in (start, end], Unix seconds of whole minutes, at which it is run."""
    found: list[list[int]] = [[] for _ in entries]
    virtual = _wall(start, zone)
    for instant in range(start + 60, end + 1, 60):
        now = _wall(instant, zone)
        wild, others, virtual = _woken(virtual, now)
        for entry, times in zip(entries, found, strict=True):
            if any(map(entry.matches, wild if entry.wildcard else others)):
                times.append(instant)
    return found


def quiet_day(entry: Entry, day: date, offset: timedelta) -> Iterator[int]:
    """What the loop comes to on a day on which the clocks are not changed."""
    if entry.on(day):
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC) - offset
        for hour in sorted(entry.hours):
            for minute in sorted(entry.minutes):
                yield int(midnight.timestamp()) + (hour * HOUR + minute) * 60


def _woken(virtual: int, now: int) -> tuple[Iterable[int], Iterable[int], int]:
    """For which minutes wildcard jobs and the others are looked for, and the virtual time after it."""
    difference = now - virtual
    missed = range(virtual + 1, now + 1)
    if difference > 3 * HOUR or difference < -3 * HOUR:
        return [now], [now], now
    if difference > 5:
        return [now], missed, now
    if difference > 0:
        return missed, missed, now
    return [now], [], virtual


def _wall(instant: int, zone: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(instant, zone).utcoffset() or timedelta()
    return (instant + int(offset.total_seconds())) // 60


def _values(field: str, low: int, high: int) -> Iterator[int]:
    for item in field.split(","):
        base, _, step = item.partition("/")
        first, _, last = base.partition("-")
        if base == "*":
            start, end = low, high
        else:
            start, end = (int(DAYS.get(word, word)) for word in (first, last or first))
        yield from range(start, end + 1, int(step or 1))
