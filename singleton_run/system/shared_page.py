"""A page of memory that front, guard and keeper share: the lease's end, process ids, and what was started.

It is written without a lock and read without a wait, so no full pipe and no stopped reader can delay a
renewal. Each value has 8 aligned bytes, which the processor writes as a whole.
"""

from __future__ import annotations

import mmap


class Values:
    """Memory that processes share: each value has a place in it, counted in values of 8 bytes.

    It is a page of its own, or `memory`.
    """

    def __init__(self, memory: memoryview | None = None) -> None:
        if memory is None:
            memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE))
        self.seconds = memory.cast("d")
        self.numbers = memory.cast("q")


class Seconds:
    """A time among `Values`, in seconds."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __get__(self, values: Values, owner: type) -> float:
        return values.seconds[self._place]

    def __set__(self, values: Values, value: float) -> None:
        values.seconds[self._place] = value


class Number:
    """A whole number among `Values`."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __get__(self, values: Values, owner: type) -> int:
        return values.numbers[self._place]

    def __set__(self, values: Values, value: int) -> None:
        values.numbers[self._place] = value


class Flag:
    """A yes or no among `Values`."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __get__(self, values: Values, owner: type) -> bool:
        return bool(values.numbers[self._place])

    def __set__(self, values: Values, value: bool) -> None:
        values.numbers[self._place] = value


class Page(Values):
    """The shared values. Make it before the first fork: each process that is forked later shares it.

    `end` is when the lease ends (0.0 before the first grant), `reported` when the keeper last began or
    ended a request, `started_at` when the command was started (0.0 before), all by the boot clock. `guard`
    is the guard's process id, 0 before there is one. `command` is the command's; 0 before its start, and
    again from just before it is reaped. `start_begun` says that a guard has begun to start the command:
    false proves that nothing ran. `orders_read` counts the orders that the guard has read. `over` says that
    the front has ended the turn, or a keeper in its place: nothing may be started any more.
    """

    end = Seconds(0)
    reported = Seconds(1)
    guard = Number(2)
    command = Number(3)
    start_begun = Flag(4)
    over = Flag(5)
    started_at = Seconds(6)
    orders_read = Number(7)
