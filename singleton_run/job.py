"""What a turn is to lock, as front, guard and keeper are told it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.schedule.slot_rules import Plan


class Job:
    """What is to be locked, and how long to try: `wait_until` is a reading of the boot clock.

    `plan` says which slots there are, `once` is the key of what is done once; None without. `keep` is how
    long the lock is kept from the command's start on, in seconds. `leased` is false for a lock that lapses
    with its last holder. `unstarted` is the record to leave where a slot was granted and is not started.
    """

    __slots__ = (
        "holder",
        "keep",
        "leased",
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
        plan: Plan | None = None,
        once: str | None = None,
        keep: float = 0.0,
        waits: bool = True,
        leased: bool = True,
    ) -> None:
        self.name = name
        self.holder = holder
        self.ttl = ttl
        self.wait_until = wait_until
        self.plan = plan
        self.unstarted: Mapping[str, Any] | None = None
        self.once = once
        self.keep = keep
        self.waits = waits
        self.leased = leased
