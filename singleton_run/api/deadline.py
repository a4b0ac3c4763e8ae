"""Waiting for a descriptor until a deadline, or until the caller is wanted elsewhere."""

from __future__ import annotations

import posix as os
import select

from singleton_run.errors import Unavailable
from singleton_run.system import calls

READ, WRITE = select.POLLIN, select.POLLOUT
_AT_FIRST = 20
"""Milliseconds in which most answers come, so that few waits need a timer."""


class Timeout(Exception):
    """The deadline passed before the descriptor was ready."""


class Interrupted(Exception):
    """The descriptor `wake` became readable: the caller is wanted for something else."""


class Deadline:
    """The time by which a call must end: `until`, a reading of the boot clock in seconds.

    A wait also ends when the descriptor `wake` is readable; -1 means that nothing interrupts it.
    """

    __slots__ = ("until", "wake")

    def __init__(self, until: float, wake: int = -1) -> None:
        self.until = until
        self.wake = wake

    @classmethod
    def after(cls, seconds: float, wake: int = -1) -> Deadline:
        """The deadline that many seconds from now."""
        return cls(calls.now() + seconds, wake)

    def earlier(self, until: float) -> Deadline:
        """This deadline, or `until` (boot clock) where that comes first; interrupted by the same."""
        return Deadline(min(self.until, until), self.wake)

    def within(self, seconds: float) -> Deadline:
        """This deadline, but at most so many seconds from now."""
        return self.earlier(calls.now() + seconds)

    def share(self, parts: int) -> Deadline:
        """The first of that many equal parts of the time left."""
        return self.within((self.until - calls.now()) / parts)

    def passed(self) -> bool:
        """Whether the time is up."""
        return calls.now() >= self.until

    def check(self, why: str) -> None:
        """Raise Unavailable(`why`) if the time is up: a loop calls it before it tries again."""
        if self.passed():
            raise Unavailable(why)

    def wait(self, descriptor: int, mask: int) -> None:
        """Return when `descriptor` is ready for `mask` (READ, WRITE or both) or broken.

        Raises Timeout, Interrupted.
        """
        poll = select.poll()
        poll.register(descriptor, mask)
        if self.wake >= 0:
            poll.register(self.wake, READ)
        left = self.until - calls.now()
        ready = poll.poll(min(_AT_FIRST, max(0.0, left * 1000)))
        if not ready and left > 0:
            ready = self._wait_long(poll)
        numbers = [number for number, _ in ready]
        if descriptor in numbers:
            return
        if self.wake in numbers:
            raise Interrupted
        raise Timeout("no answer in time")

    def _wait_long(self, poll: select.poll) -> list[tuple[int, int]]:
        """Poll with a timer of the boot clock: poll's own stands still while the machine is suspended."""
        timer = calls.Timer()
        try:
            timer.set(self.until)
            poll.register(timer.descriptor, READ)
            return poll.poll()
        finally:
            os.close(timer.descriptor)
