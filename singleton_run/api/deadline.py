"""Waiting for a descriptor, for as long as a call may take and nobody wants us for something else."""

from __future__ import annotations

import os
import select

from singleton_run.system import calls

READ, WRITE = select.POLLIN, select.POLLOUT
_AT_FIRST = 20
"""Milliseconds in which most answers come, so that few need a timer."""


class Late(Exception):
    """The time was up before the descriptor was ready."""


class Woken(Exception):
    """The caller is wanted for something else."""


class Patience:
    """Waits until `until`, a reading of the boot clock, or until descriptor `wake` is readable."""

    __slots__ = ("until", "wake")

    def __init__(self, until: float, wake: int = -1) -> None:
        self.until = until
        self.wake = wake

    def share(self, parts: int) -> Patience:
        """The first of that many equal parts of the time that is left."""
        now = calls.now()
        return Patience(now + (self.until - now) / parts, self.wake)

    def wait(self, descriptor: int, mask: int) -> None:
        """Return when `descriptor` is ready for `mask`, or broken. Raises Late, Woken."""
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
            raise Woken
        raise Late("no answer in time")

    def _wait_long(self, poll: select.poll) -> list[tuple[int, int]]:
        """By a timer of the boot clock: poll's own time-out sleeps on while the machine is suspended."""
        timer = calls.Timer()
        try:
            timer.set(self.until)
            poll.register(timer.descriptor, READ)
            return poll.poll()
        finally:
            os.close(timer.descriptor)
