"""A page of memory that tells the reporter how we are, at any moment and however much its pipe has lost.

Front and keeper write it, the reporter reads it: without a lock and without a wait. Each value has 8 aligned
bytes, which the processor writes as a whole. It lasts as long as the front, over all its turns.
"""

from __future__ import annotations

import mmap

_PHASE, _REACHED, _LEASED, _END, _REPORTED, _KEEPER, _DROPPED, _SINCE, _RUNNING = range(9)

BEGINNING, WAITING, HOLDING, LOST, RESTING = range(5)


SIZE = 128
"""The bytes of shared memory that the values take at most."""


class Vitals:
    """The shared values, in a page of their own or in SIZE bytes of `memory`.

    Make it, or have that memory, before the reporter is forked.
    """

    def __init__(self, memory: memoryview | None = None) -> None:
        if memory is None:
            memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE))
        self._seconds = memory.cast("d")
        self._numbers = memory.cast("q")

    @property
    def phase(self) -> int:
        """BEGINNING before the first news of the lock, then WAITING, HOLDING, LOST or RESTING.

        LOST lasts until the command that is ended for it is gone.
        """
        return self._numbers[_PHASE]

    @phase.setter
    def phase(self, value: int) -> None:
        self._numbers[_PHASE] = value

    @property
    def reached(self) -> bool:
        """Whether we have had an answer about the lock, ever."""
        return bool(self._numbers[_REACHED])

    @reached.setter
    def reached(self, value: bool) -> None:
        self._numbers[_REACHED] = value

    @property
    def leased(self) -> bool:
        """Whether the lock is a lease, which has to be renewed."""
        return bool(self._numbers[_LEASED])

    @leased.setter
    def leased(self, value: bool) -> None:
        self._numbers[_LEASED] = value

    @property
    def running(self) -> bool:
        """Whether the command runs."""
        return bool(self._numbers[_RUNNING])

    @running.setter
    def running(self, value: bool) -> None:
        self._numbers[_RUNNING] = value

    @property
    def since(self) -> float:
        """When the lock became ours, in Unix seconds."""
        return self._seconds[_SINCE]

    @since.setter
    def since(self, value: float) -> None:
        self._seconds[_SINCE] = value

    @property
    def end(self) -> float:
        """When the lease ends, by the boot clock; 0.0 before the first grant of a turn."""
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
    def keeper(self) -> int:
        """The keeper's process id, 0 without one."""
        return self._numbers[_KEEPER]

    @keeper.setter
    def keeper(self, value: int) -> None:
        self._numbers[_KEEPER] = value

    @property
    def dropped(self) -> int:
        """How many events didn't fit into the pipe."""
        return self._numbers[_DROPPED]

    @dropped.setter
    def dropped(self, value: int) -> None:
        self._numbers[_DROPPED] = value
