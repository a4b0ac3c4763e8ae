"""The times of slots: arithmetic on Unix seconds (UTC), without a clock and without a server.

`Grid` is for --every. `Cron` is for --cron: it goes by the local time of a zone, and does what Debian's cron
does when the clocks change. croniter only finds matches on a clock that never changes. The changes are
handled here, because croniter's answers around them differ from cron's.
"""

from __future__ import annotations

from math import floor, inf

from singleton_run import durations
from singleton_run.errors import UNUSABLE, USAGE, Failure
from singleton_run.names import hashed
from singleton_run.schedule import cron_expression, time_zones

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# cron takes a greater change for a correction of the clock: it neither catches up nor waits.
_GREATEST_CHANGE = 3 * 3600
_DAY = 86_400
# datetime has these times in every zone: the years 1971 to 9998.
_FIRST = 365 * _DAY
_LAST = 253_370_000_000


def jitter(name: str, slot: float, most: float) -> float:
    """How long after its time a slot starts, in seconds: from 0 to below `most`, the same everywhere."""
    share = (hashed(["jitter", name, repr(float(slot))]) >> 27) / 2**53
    return share * most


class Grid:
    """The slots `anchor`, `anchor + interval`, and so on: Unix seconds, and seconds.

    `text` names the schedule. It doesn't depend on the anchor.
    """

    __slots__ = ("anchor", "interval", "text")

    def __init__(self, interval: float, anchor: float) -> None:
        self.interval = interval
        self.anchor = anchor
        short = durations.text(interval)
        exact = durations.seconds(short) == interval
        self.text = f"every {short if exact else f'{interval!r}s'}"

    def latest(self, at: float) -> float | None:
        """The latest slot at or before `at`; None before the first slot."""
        number = self._number(at)
        return None if number < 0 else self._slot(number)

    def next(self, at: float) -> float:
        """The first slot after `at`."""
        return self._slot(max(self._number(at) + 1, 0))

    def nearest(self, at: float) -> float:
        """The slot nearest to `at`; the later one of two that are equally near."""
        before, after = self.latest(at), self.next(at)
        return before if before is not None and at - before < after - at else after

    def _slot(self, number: int) -> float:
        return self.anchor + number * self.interval

    def _number(self, at: float) -> int:
        """The number of the latest slot at or before `at`. Rounding errors of the quotient are corrected."""
        number = floor((at - self.anchor) / self.interval)
        while self._slot(number) > at:
            number -= 1
        while self._slot(number + 1) <= at:
            number += 1
        return number


class Cron:
    """Slots by a cron expression, in whole seconds. `text` has expression and zone in one spelling.

    The minute or hour of a *wildcard* schedule begins with `*`. It follows the clock on the wall: a time that
    the clocks skip has no slot, a time that they repeat has two. A schedule with *fixed* times has one slot
    for each time: a skipped time has it right after the change, a repeated time has it the first time. This
    holds for changes of less than three hours. The rules are those of Debian's cron.

    Raises Failure: USAGE if cron doesn't know the expression, UNUSABLE if this machine doesn't know the zone.
    """

    __slots__ = ("_croniter", "_zone", "expression", "fixed", "text", "zone")

    def __init__(self, expression: str, zone: str) -> None:
        try:
            self.expression = cron_expression.canonical(expression)
        except ValueError as error:
            raise Failure(USAGE, f"--cron: {error}") from None
        self.zone = time_zones.find(zone)
        self._zone = _load(self.zone)
        self.fixed = cron_expression.fixed(self.expression)
        self.text = f"cron {self.expression} {self.zone}"
        from croniter import croniter

        self._croniter = croniter(
            self.expression, 0, second_at_beginning=True, implement_cron_bug=True, ret_type=float
        )

    def latest(self, at: float) -> float | None:
        """The latest slot at or before `at`; None if there was none in fifty years."""
        instant = floor(min(max(at, 0), _LAST))
        while instant >= _FIRST:
            due = self._before(instant)
            if due is None:
                return None
            change = self.change_before(instant, due)
            if change is None:
                repeated = self._repeated(due)
                if repeated is None:
                    return float(due)
                instant = repeated - 1
            elif self._is_slot_at_change(change):
                return float(change)
            else:
                instant = change - 1
        return None

    def next(self, at: float) -> float:
        """The first slot after `at`; inf if there is none in fifty years."""
        instant = floor(min(max(at, _FIRST), _LAST))
        while instant < _LAST:
            due = self._after(instant)
            if due is None:
                return inf
            change = self.change_after(instant, due)
            if change is None:
                return float(due)
            if self._is_slot_at_change(change):
                return float(change)
            instant = change
        return inf

    def offset(self, instant: int) -> int:
        """How far the zone's clocks are ahead of UTC, in seconds."""
        from datetime import UTC, datetime, timedelta

        there = datetime.fromtimestamp(instant, UTC).astimezone(self._zone)
        return (there.utcoffset() or timedelta()) // timedelta(seconds=1)

    def change_after(self, instant: int, until: int) -> int | None:
        """The first change of the clocks after `instant` and up to `until`; None if there is none."""
        before = self.offset(instant)
        while instant < until:
            step = min(instant + _DAY, until)
            if self.offset(step) != before:
                return self._change_between(instant, step)
            instant = step
        return None

    def change_before(self, instant: int, after: int) -> int | None:
        """The latest change of the clocks up to `instant` and after `after`; None if there is none."""
        behind = self.offset(instant)
        while instant > after:
            step = max(instant - _DAY, after)
            if self.offset(step) != behind:
                return self._change_between(step, instant)
            instant = step
        return None

    def skipped(self, slot: float) -> int | None:
        """The skipped time that a slot stands for, as if the local time were UTC; None for other slots."""
        instant = int(slot)
        wall, old = instant + self.offset(instant), instant + self.offset(instant - 1)
        if not self.fixed or not 0 < wall - old < _GREATEST_CHANGE:
            return None
        match = self._match_after(old - 1)
        return match if match is not None and match < wall else None

    def _change_between(self, early: int, late: int) -> int:
        """The change of the clocks between two times with different offsets, by bisection."""
        before = self.offset(early)
        while late - early > 1:
            middle = (early + late) // 2
            if self.offset(middle) == before:
                early = middle
            else:
                late = middle
        return late

    def _is_slot_at_change(self, change: int) -> bool:
        """Whether there is a slot in the second in which the clocks change."""
        wall, old = change + self.offset(change), change + self.offset(change - 1)
        if not self.fixed or abs(wall - old) >= _GREATEST_CHANGE:
            return self._match_after(wall - 1) == wall
        match = self._match_after(old - 1)
        return match is not None and match <= wall

    def _repeated(self, instant: int) -> int | None:
        """The change since when the clocks repeat the time of `instant`; None if there is no such change."""
        if not self.fixed:
            return None
        change = self.change_before(instant, instant - _GREATEST_CHANGE)
        if change is None:
            return None
        old = change + self.offset(change - 1)
        back = old - change - self.offset(change)
        return change if back < _GREATEST_CHANGE and instant + self.offset(instant) < old else None

    def _after(self, instant: int) -> int | None:
        """The first match after `instant`, if the clocks don't change before it."""
        offset = self.offset(instant)
        wall = instant + offset
        repeated = self._repeated(instant)
        if repeated is not None:
            wall = repeated + self.offset(repeated - 1) - 1
        match = self._match_after(wall)
        return None if match is None else match - offset

    def _before(self, instant: int) -> int | None:
        """The latest match at or before `instant`, if the clocks haven't changed since."""
        offset = self.offset(instant)
        match = self._match("get_prev", instant + offset + 1)
        return None if match is None else match - offset

    def _match_after(self, wall: int) -> int | None:
        return self._match("get_next", wall)

    def _match(self, method: str, wall: int) -> int | None:
        from croniter import CroniterBadDateError

        try:
            return int(getattr(self._croniter, method)(float, start_time=wall))
        except CroniterBadDateError:
            return None


def _load(zone: str) -> Any:
    """The zone's rules. Raises Failure(UNUSABLE) if they can't be read."""
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(zone)
    except (OSError, ValueError, KeyError) as error:
        raise Failure(UNUSABLE, f"the time zone {zone} can't be read: {error}") from None
