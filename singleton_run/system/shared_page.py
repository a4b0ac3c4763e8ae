"""A page of memory that front, guard and keeper share: the lease's end and who is who.

It is written without a lock and read without a wait, so that no full pipe can stall a renewal.
Each word is 8 aligned bytes, which the machine writes whole.
"""

from __future__ import annotations

import mmap

_END, _REPORTED, _GUARD, _COMMAND, _START_BEGUN, _OVER, _STARTED_AT, _ORDERS_READ = range(8)


class Page:
    """Made before the first fork; every process forked later sees the same words."""

    def __init__(self) -> None:
        memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE))
        self._seconds = memory.cast("d")
        self._numbers = memory.cast("q")

    @property
    def end(self) -> float:
        """Boot-clock reading at which the lease lapses; 0.0 before the first grant."""
        return self._seconds[_END]

    @end.setter
    def end(self, value: float) -> None:
        self._seconds[_END] = value

    @property
    def reported(self) -> float:
        """Boot-clock reading at which the keeper last began or ended a request."""
        return self._seconds[_REPORTED]

    @reported.setter
    def reported(self, value: float) -> None:
        self._seconds[_REPORTED] = value

    @property
    def started_at(self) -> float:
        """Boot-clock reading at which the command was started, 0.0 before."""
        return self._seconds[_STARTED_AT]

    @started_at.setter
    def started_at(self, value: float) -> None:
        self._seconds[_STARTED_AT] = value

    @property
    def guard(self) -> int:
        """Process id of the guard."""
        return self._numbers[_GUARD]

    @guard.setter
    def guard(self, value: int) -> None:
        self._numbers[_GUARD] = value

    @property
    def command(self) -> int:
        """Process id of the command, 0 before its start and from just before it is reaped."""
        return self._numbers[_COMMAND]

    @command.setter
    def command(self, value: int) -> None:
        self._numbers[_COMMAND] = value

    @property
    def start_begun(self) -> bool:
        """Whether the guard has begun to start the command: false proves that nothing ran."""
        return bool(self._numbers[_START_BEGUN])

    @start_begun.setter
    def start_begun(self, value: bool) -> None:
        self._numbers[_START_BEGUN] = value

    @property
    def orders_read(self) -> int:
        """How many orders the guard has read."""
        return self._numbers[_ORDERS_READ]

    @orders_read.setter
    def orders_read(self, value: int) -> None:
        self._numbers[_ORDERS_READ] = value

    @property
    def over(self) -> bool:
        """Whether the front has ended the turn: nothing may be started any more."""
        return bool(self._numbers[_OVER])

    @over.setter
    def over(self, value: bool) -> None:
        self._numbers[_OVER] = value
