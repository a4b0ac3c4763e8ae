"""Who held a lock over the last minutes, as bars of text. Times are in Unix seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run.api.timestamps import unix_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Facts = Mapping[str, Any]

WINDOW = 600.0
"""Seconds that are shown."""
MOST = 8
"""Holders that are shown."""
_HELD, _FREE = "█", "·"


class Turn:
    """One holder's turn, from `start` to `end`."""

    __slots__ = ("end", "holder", "start", "state")

    def __init__(self, holder: str, start: float, end: float, state: str) -> None:
        self.holder = holder
        self.start = start
        self.end = end
        self.state = state


class Timeline:
    """The turns that were seen, or that the record tells."""

    def __init__(self) -> None:
        self._turns: dict[tuple[object, object], Turn] = {}

    def add(self, told: Facts) -> None:
        """Take in what `status` tells now."""
        now = unix_time(told["at"]) or 0.0
        for run in reversed(told["runs"]):
            self._take_run(run, now)
        if told["state"] == "held" and told["holder"] is not None:
            since = unix_time(told["since"])
            self._take((told["holder"], told["token"]), now if since is None else since, now, "running")
        self._turns = {key: turn for key, turn in self._turns.items() if turn.end >= now - WINDOW}

    def shown(self) -> list[Turn]:
        """The latest turns in the window, the earliest of them first."""
        return sorted(self._turns.values(), key=lambda turn: turn.start)[-MOST:]

    def _take_run(self, run: Facts, now: float) -> None:
        start, end = unix_time(run["start"]), unix_time(run["end"])
        key = (run["holder"], run["token"])
        known = self._turns.get(key)
        if run["state"] == "running":
            end = now
        elif end is None and known is not None:  # it crashed: its end is when it was seen last
            end = known.end
        if start is not None and end is not None:
            self._take(key, start, end, run["state"])

    def _take(self, key: tuple[object, object], start: float, end: float, state: str) -> None:
        known = self._turns.get(key)
        begin = start if known is None else min(start, known.start)
        self._turns[key] = Turn(str(key[0]), begin, end, state)


def bar(start: float, end: float, now: float, width: int) -> str:
    """The window that ends `now` in `width` characters, those from `start` to `end` filled."""
    scale = width / WINDOW
    first = max(0, int((start - now + WINDOW) * scale))
    last = min(width, max(first + 1, round((end - now + WINDOW) * scale)))
    first = min(first, width - 1)
    return _FREE * first + _HELD * (last - first) + _FREE * (width - last)


def gauge(left: float, whole: float, width: int) -> str:
    """The part `left` of `whole` seconds as a bar of `width` characters."""
    full = round(width * min(max(left / whole, 0.0), 1.0)) if whole > 0 else 0
    return _HELD * full + _FREE * (width - full)
