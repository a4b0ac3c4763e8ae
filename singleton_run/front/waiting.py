"""The wait for the lock: how long it goes on, and whether it is over."""

from __future__ import annotations

from singleton_run.lease_times import FOREVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LEAVE_LIMIT = 2.0
_LEAVE_LIMIT_IN_TROUBLE = 0.5


class Wait:
    """One wait. Times are readings of the boot clock, `seconds` are those of --wait, None for no limit.

    `slack` is how long after its end, in seconds, a keeper may still answer.
    """

    def __init__(self, seconds: float | None, now: float, slack: float) -> None:
        self.until = FOREVER if seconds is None else now + seconds
        self.slack = slack
        self.is_wanted = seconds != 0
        self.leave_by = FOREVER
        self.guard_decides = False
        self.deferred_signals: list[int] = []
        self.holder: dict[str, Any] = {}

    @property
    def is_left(self) -> bool:
        """Whether the keeper was asked to give up waiting."""
        return self.leave_by != FOREVER

    @property
    def is_decided(self) -> bool:
        """Whether the wait is over: we have left, or a guard has the lock and is about to say so."""
        return self.guard_decides or self.is_left

    def is_over(self, now: float) -> bool:
        """Whether it is time to give up."""
        return not self.is_decided and now >= self.until + self.slack

    def defer(self, number: int) -> None:
        """Keep a signal for the command: a guard has the lock and is about to start it."""
        self.guard_decides = True
        self.deferred_signals.append(number)

    def leave(self, now: float, *, in_trouble: bool) -> None:
        """The keeper was asked to give up waiting: it has a moment, a shorter one if the server is silent."""
        self.leave_by = now + (_LEAVE_LIMIT_IN_TROUBLE if in_trouble else _LEAVE_LIMIT)

    def next_look(self) -> float:
        """When something is due."""
        return min(self.leave_by, FOREVER if self.is_decided else self.until + self.slack)
