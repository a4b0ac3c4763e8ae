"""The lock that a turn is for, as front, guard and keeper are told it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.schedule.slot_rules import Plan


class Job:
    """The lock `name`, and for whom and for how long it is asked for.

    `ttl` is the lease's length in seconds. `wait_until` is the boot clock's reading at which the wait ends;
    `waits` is false if there is no wait at all. `lock_at_least_for` is how long the lock is kept, in seconds
    from the command's start. `leased` is false for a lock that the kernel frees when its last holder is gone.

    `plan` has the slots of a schedule, `once` the key of --once; each is None if there is none. `unstarted`
    is the record to write when a slot was granted, but its command was not started. `command` is the name of
    the program that is run. `label_pod` is the label that our pod has while the lock is ours, as KEY=VALUE;
    empty for none.
    """

    __slots__ = (
        "command",
        "holder",
        "label_pod",
        "leased",
        "lock_at_least_for",
        "name",
        "once",
        "plan",
        "ttl",
        "unstarted",
        "wait_until",
        "waits",
    )

    def __init__(
        self,
        name: str,
        holder: str,
        ttl: float,
        wait_until: float,
        *,
        command: str = "",
        plan: Plan | None = None,
        once: str | None = None,
        lock_at_least_for: float = 0.0,
        waits: bool = True,
        label_pod: str = "",
        leased: bool = True,
    ) -> None:
        self.name = name
        self.holder = holder
        self.ttl = ttl
        self.wait_until = wait_until
        self.command = command
        self.plan = plan
        self.unstarted: Mapping[str, Any] | None = None
        self.once = once
        self.lock_at_least_for = lock_at_least_for
        self.waits = waits
        self.label_pod = label_pod
        self.leased = leased
