"""How a keeper that has the lock waits for the end of a pause. Loaded only when there is a control."""

from __future__ import annotations

from singleton_run import lease_times
from singleton_run.api.control import facts, pause_of, release_order
from singleton_run.errors import HELD, LOST, Failure
from singleton_run.keeper.acquiring import acquire, control_in, wait_as_holder
from singleton_run.keeper.operations import Operation
from singleton_run.lease_times import FOREVER
from singleton_run.system.messages import KeeperTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Any

    from singleton_run.job import Job
    from singleton_run.keeper.operations import Leased, Orders, Result, Steps, StepsToOutcome

    StepsToSeen = Generator[Operation, Result, "_Seen"]
    StepsToFacts = Generator[Operation, Result, "dict[str, Any] | None"]

_HAIR = 0.01
"""Seconds after a pause's end at which we look: the clocks that tell it differ that much."""


class _Seen:
    """What a control says at `now` (boot clock): the `pause` in force, or None, and when it `ends`."""

    def __init__(self, pause: Mapping[str, Any] | None, now: float, ends: float) -> None:
        self.pause = pause
        self.now = now
        self.ends = ends


def wait_out(job: Job, orders: Orders, got: Leased, until: float) -> StepsToOutcome:
    """Hold and renew the lock until no pause is in force; see `acquiring.acquire_to_run`.

    If a renewal fails, the lock is acquired anew: that finds out who has it.
    """
    limit = lease_times.request_limit(job.ttl)
    told: Mapping[str, Any] | None = None
    while True:
        grant, end = got
        seen = yield from _see(grant.control)
        order = release_order(grant.control, grant)
        if order is not None:
            by = order["by"]
            return Failure(LOST, f"lock {job.name!r} is taken away by {by}, so the command is not started")
        if seen.pause is None and seen.now < lease_times.stop_at(end, job.ttl):
            return got
        if seen.pause is not None:
            if seen.pause != told:
                told = seen.pause
                yield Operation("tell", *KeeperTells.paused(facts(told), None))
            if seen.now >= until:
                return Failure(HELD, "")
        if orders.over():  # what was heard already wakes nobody
            return None
        if seen.pause is not None:
            yield from wait_as_holder(
                orders, grant, min(lease_times.renew_at(end, job.ttl), until, seen.ends)
            )
        if orders.over():
            return None
        result = yield Operation("renew", grant, limit)
        if orders.over():
            return None
        if result.error is None:
            grant.control = control_in(result)
            got = grant, result.began + job.ttl
            continue
        again = yield from acquire(job, orders, until)
        if not isinstance(again, tuple):
            return again
        got, told = again, None


def facts_in_force(control: Mapping[str, Any]) -> StepsToFacts:
    """The pause in force, as the facts of a message; None without one."""
    seen = yield from _see(control)
    return None if seen.pause is None else facts(seen.pause)


def tell_suspended(control: Mapping[str, Any]) -> Steps:
    """Tell a front whose command runs whether a pause is in force, and until when."""
    seen = yield from _see(control)
    pause = None if seen.pause is None else facts(seen.pause)
    until = None if seen.ends == FOREVER else seen.ends
    yield Operation("tell", *KeeperTells.suspended(pause, until))


def _see(control: Mapping[str, Any] | None) -> StepsToSeen:
    """What a control says now, by the clock of the server where that tells its time."""
    result = yield Operation("clock")
    told: Any = result.value
    now, _ = told
    pause = pause_of(control, now)
    ends = FOREVER if pause is None or pause["until"] is None else result.now + pause["until"] - now + _HAIR
    return _Seen(pause, result.now, ends)
