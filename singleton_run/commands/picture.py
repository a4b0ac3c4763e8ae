"""What `status --watch` shows at a terminal: the state, the lease, who waits, and who held the lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from singleton_run.api.timestamps import unix_time
from singleton_run.commands import tables
from singleton_run.commands.timeline import WINDOW, Timeline, bar, gauge
from singleton_run.commands.wording import length, plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo
    from typing import Any

    from rich.console import RenderableType

    Facts = Mapping[str, Any]

_LEAST_BAR = 10
_LEFT_OUT = ("until", "note", "waiting", "schedule")


class Picture:
    """What was seen up to now, and its picture. Times are those of a zone."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self._timeline = Timeline()
        self._told: Facts = {}
        self._holder: object = None
        self._longest = 0.0

    def add(self, told: Facts) -> None:
        """Take in what `status` tells now."""
        self._told = told
        if told["error"] is None:
            self._timeline.add(told)
        if told["holder"] != self._holder:
            self._holder, self._longest = told["holder"], 0.0
        self._longest = max(self._longest, self._left())

    def drawn(self, width: int) -> RenderableType:
        """The picture for a terminal of so many columns."""
        told = self._told
        parts: list[RenderableType] = [tables.headline(told)]
        if told["error"] is not None:
            parts.append(Text(f"  {plain(told['error'])}", "red"))
        else:
            found = [row for row in tables.facts_of(told, self._zone) if row[0] not in _LEFT_OUT]
            parts.append(tables.rows(found))
            parts += [*self._lease(width), *self._waiting()]
        return Group(*parts, *self._held(width))

    def _left(self) -> float:
        """Seconds until the lease's end; 0.0 where nobody knows it."""
        until, now = unix_time(self._told["until"]), unix_time(self._told["at"])
        return 0.0 if until is None or now is None else max(0.0, until - now)

    def _lease(self, width: int) -> list[RenderableType]:
        """The part of the lease that is left; the whole is the longest that was seen of this holder."""
        if self._told["until"] is None:
            return []
        left = self._left()
        word = f" {length(left)} of {length(self._longest)}"
        size = max(_LEAST_BAR, min(40, width - len("  lease  ") - len(word) - 1))
        return [Text.assemble(("  lease  ", "dim"), (gauge(left, self._longest, size), "cyan"), word)]

    def _waiting(self) -> list[RenderableType]:
        """A line for each who waits, the next one first."""
        who = self._told["waiting"]
        if not who:
            return [Text(f"  waiting: {tables.waiting(who)}", "dim")]
        return [Text("  waiting", "dim"), *(Text(f"    {plain(each['holder'])}") for each in who)]

    def _held(self, width: int) -> list[RenderableType]:
        """A bar for each of the last holders."""
        turns = self._timeline.shown()
        if not turns:
            return []
        now = unix_time(self._told["at"]) or 0.0
        names = min(max(len(plain(turn.holder)) for turn in turns), width // 2)
        size = max(_LEAST_BAR, width - names - 5)
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(no_wrap=True, overflow="ellipsis", max_width=names + 2)
        grid.add_column(no_wrap=True)
        for turn in turns:
            style = tables.STYLES.get(turn.state, "")
            grid.add_row(f"  {plain(turn.holder)}", Text(bar(turn.start, turn.end, now, size), style))
        return [Text(f"\nheld in the last {length(WINDOW)}", "bold"), grid]
