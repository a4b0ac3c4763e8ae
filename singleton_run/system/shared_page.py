"""A page of memory that front, guard and keeper share: the lease's end, process ids, and what was started.

It is written without a lock and read without a wait, so no full pipe and no stopped reader can delay a
renewal. Each value has 8 aligned bytes, which the processor writes as a whole.
"""

from __future__ import annotations

import mmap

_END, _REPORTED, _GUARD, _COMMAND, _START_BEGUN, _OVER, _STARTED_AT, _ORDERS_READ = range(8)


class Page:
    """The shared values. Make it before the first fork: each process that is forked later shares it."""

    def __init__(self) -> None:
        memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE))
        self._seconds = memory.cast("d")
        self._numbers = memory.cast("q")

    @property
    def end(self) -> float:
        """When the lease ends, by the boot clock; 0.0 before the first grant."""
        return self._seconds[_END]

    @end.setter
    def end(self, value: float) -> None:
        self._seconds[_END] = value

    @property
    def reported(self) -> float:
        """When the keeper last began or ended a request, by the boot clock."""
        return self._seconds[_REPORTED]

    @reported.setter
    def reported(self, value: float) -> None:
        self._seconds[_REPORTED] = value

    @property
    def started_at(self) -> float:
        """When the command was started, by the boot clock; 0.0 before."""
        return self._seconds[_STARTED_AT]

    @started_at.setter
    def started_at(self, value: float) -> None:
        self._seconds[_STARTED_AT] = value

    @property
    def guard(self) -> int:
        """The guard's process id, 0 before there is one."""
        return self._numbers[_GUARD]

    @guard.setter
    def guard(self, value: int) -> None:
        self._numbers[_GUARD] = value

    @property
    def command(self) -> int:
        """The command's process id; 0 before its start, and again from just before it is reaped."""
        return self._numbers[_COMMAND]

    @command.setter
    def command(self, value: int) -> None:
        self._numbers[_COMMAND] = value

    @property
    def start_begun(self) -> bool:
        """Whether a guard has begun to start the command. False proves that nothing ran."""
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
        """Whether the front has ended the turn, so that nothing may be started any more."""
        return bool(self._numbers[_OVER])

    @over.setter
    def over(self, value: bool) -> None:
        self._numbers[_OVER] = value
