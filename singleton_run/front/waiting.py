"""The wait for the lock: how long it lasts, and whether it is over."""

from __future__ import annotations

from singleton_run.lease_times import FOREVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LEAVE_LIMIT = 2.0
_LEAVE_LIMIT_IN_TROUBLE = 0.5


class Wait:
    """One wait for the lock. `seconds` is the time of --wait, None for no limit; `now` is by the boot clock.

    `slack` is how long after the wait's end a keeper may still answer, in seconds. `leave_by` is when we end
    without an answer of a keeper that was asked to leave. `guard_decides` says that a guard has the lock and
    is about to say so; signals that come then are in `deferred_signals`, for the command. `holder` has what
    is known of the lock's holder, and `is_for_ourselves` says that it is a call around us.
    """

    def __init__(self, seconds: float | None, now: float, slack: float) -> None:
        self.until = FOREVER if seconds is None else now + seconds
        self.slack = slack
        self.is_wanted = seconds != 0
        self.leave_by = FOREVER
        self.guard_decides = False
        self.deferred_signals: list[int] = []
        self.holder: dict[str, Any] = {}
        self.is_for_ourselves = False

    @property
    def is_left(self) -> bool:
        """Whether the keeper was asked to give up waiting."""
        return self.leave_by != FOREVER

    @property
    def is_decided(self) -> bool:
        """Whether it is decided how the wait ends: the keeper leaves, or a guard starts the command."""
        return self.guard_decides or self.is_left

    def is_over(self, now: float) -> bool:
        """Whether it is time to give up, at `now` (boot clock)."""
        return not self.is_decided and (self.is_for_ourselves or now >= self.until + self.slack)

    def defer(self, number: int) -> None:
        """Keep a signal for the command, which a guard is about to start."""
        self.guard_decides = True
        self.deferred_signals.append(number)

    def leave(self, now: float, *, in_trouble: bool) -> None:
        """The keeper was asked to leave: it has 2 s for its answer, or 0.5 s if the server is silent."""
        self.leave_by = now + (_LEAVE_LIMIT_IN_TROUBLE if in_trouble else _LEAVE_LIMIT)

    def next_look(self) -> float:
        """When something is due, by the boot clock."""
        due = 0.0 if self.is_for_ourselves else self.until + self.slack
        return min(self.leave_by, FOREVER if self.is_decided else due)
