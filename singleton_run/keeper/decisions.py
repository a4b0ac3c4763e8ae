"""What the keeper does: wait until the lock may be free, try, hold and renew, release.

It is written as one sequence, and does nothing by itself: see `operations`. After a keeper's death the next
one resumes with the grant, in the middle of the same sequence.
"""

from __future__ import annotations

from singleton_run import lease_times
from singleton_run.api.contract import Held
from singleton_run.api.record import with_earlier
from singleton_run.errors import HELD, Lost, Unavailable
from singleton_run.keeper.acquiring import (
    acquire_to_run,
    control_in,
    leave,
    pause,
    tell_granted,
    tell_held,
    wait_as_holder,
)
from singleton_run.keeper.operations import Operation
from singleton_run.system.messages import KeeperTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Any

    from singleton_run.api.contract import Grant
    from singleton_run.job import Job
    from singleton_run.keeper.operations import (
        Leased,
        Orders,
        Record,
        Result,
        Steps,
        StepsToGrant,
        StepsToResult,
    )

WAKE_GRACE = 1.0
"""Seconds that front and guard have to kill the command, once woken, before the keeper does."""
WRITE_AFTER = 0.05
"""Seconds after the command's start at which it is written down that it runs."""
_SHORT = 0.5
"""Seconds that this may take: whoever waits for the lock must not wait for it."""


def lifecycle(job: Job, orders: Orders, resumed: Leased | None) -> Steps:
    """The whole of a keeper's life. `resumed` is the grant to go on with, and its lease's end."""
    steps = _lifecycle(job, orders, resumed)
    if job.label_pod:
        from singleton_run.keeper import labelling

        steps = labelling.labelled(job, orders, steps, resumed=resumed is not None)
    return steps


def _lifecycle(job: Job, orders: Orders, resumed: Leased | None) -> Steps:
    leased = resumed or (yield from _acquire(job, orders))
    if leased is not None and job.leased:
        yield from _hold(job, orders, *leased)


def _acquire(job: Job, orders: Orders) -> StepsToGrant:
    if job.plan is not None or job.once is not None:
        from singleton_run.keeper import slot_decisions

        take = slot_decisions.take_slot if job.plan is not None else slot_decisions.take_once
        return (yield from take(job, orders))
    return (yield from _take(job, orders))


def _take(job: Job, orders: Orders) -> StepsToGrant:
    """Get the lock for a plain turn, or tell why not."""
    outcome = yield from acquire_to_run(job, orders, job.wait_until)
    if isinstance(outcome, tuple):
        yield from tell_granted(job, *outcome)
        return outcome
    if isinstance(outcome, Held):
        yield from tell_held(outcome)
    yield from leave(job, outcome)
    if outcome is None:
        yield Operation("tell", *KeeperTells.settled(""))
    elif isinstance(outcome, Held):
        yield Operation("tell", *KeeperTells.gave_up(HELD, ""))
    else:
        yield Operation("tell", *KeeperTells.gave_up(outcome.status, str(outcome)))
    return None


def _hold(job: Job, orders: Orders, grant: Grant, end: float) -> Steps:
    """Renew the lease until the command is gone, then settle; or tell that the lock is lost."""
    ttl = job.ttl
    due = lease_times.renew_at(end, ttl)
    failures = 0
    while not orders.over():
        if orders.orphaned():
            yield Operation("enforce")
            orders.unguarded = False
            continue
        now = yield from _hold_until(job, orders, grant, due)
        if orders.over() or orders.orphaned():
            continue
        yield Operation("report", end)
        enforce_at = lease_times.enforce_at(end, ttl)
        limit = min(lease_times.request_limit(ttl), max(0.1, enforce_at - now))
        result = yield Operation("renew", grant, limit)
        if result.error is None:
            end = result.began + ttl
            due = lease_times.renew_at(end, ttl)
            failures = 0
            yield Operation("report", end)
            yield from _obey(control_in(result), job, grant)
            continue
        if isinstance(result.error, Lost):
            yield Operation("tell", *KeeperTells.lost(str(result.error)))
            yield from _see_killed(orders, result.now)
            return
        failures += 1
        due = result.now + lease_times.back_off(failures, 1.0)
        yield Operation("report", end)
        yield Operation("tell", *KeeperTells.trouble(str(result.error)))
        if result.now >= enforce_at:
            yield Operation("enforce")
            return
        if result.now >= lease_times.stop_at(end, ttl):
            yield Operation("wake")
    yield from _settle(job, orders, grant, end)


def _obey(control: Mapping[str, Any] | None, job: Job, grant: Grant) -> Steps:
    """Have the command stopped if somebody orders that the lock be given back.

    This is said after every renewal while the order stands, and wakes a front that was stopped meanwhile. The
    lock is renewed until nothing of the command runs. A pause is told where the next slot would else stop the
    command.
    """
    if control is None:
        return
    from singleton_run.api.control import release_order

    order = release_order(control, grant)
    if order is not None:
        yield Operation("tell", *KeeperTells.revoked(order["by"]))
        yield Operation("wake")
    if job.plan is not None and job.plan.overlap == "replace":
        from singleton_run.keeper import pausing

        yield from pausing.tell_suspended(control)


def _hold_until(job: Job, orders: Orders, grant: Grant, due: float) -> Generator[Operation, Result, float]:
    """Wait until a renewal is due, or an order comes, and write on the way that the command runs.

    Returns when that was, and `due` at the latest.
    """
    while True:
        if orders.running_record is not None:
            yield from _write_running(job, orders, grant, due)
            if orders.over() or orders.orphaned():  # what was heard already wakes nobody
                return due
        had = orders.running_record
        result = yield from wait_as_holder(orders, grant, due)
        if orders.over() or orders.orphaned() or orders.running_record is had or result.now >= due:
            return result.now


def _write_running(job: Job, orders: Orders, grant: Grant, due: float) -> Steps:
    """Write that the command runs, unless it ends at once, or a renewal is due.

    It is for people alone: an error changes nothing.
    """
    limit = min(lease_times.request_limit(job.ttl), _SHORT)
    result = yield Operation("sleep", 0.0)
    if orders.over() or result.now + WRITE_AFTER + limit > due:
        return
    yield Operation("sleep", result.now + WRITE_AFTER)
    if orders.over() or orders.orphaned():
        return
    if not _knows_earlier(grant):
        result = yield from _read_earlier(grant, limit)
        if result.now + limit > due or orders.over() or orders.orphaned():
            return
    run, orders.running_record = orders.running_record, None
    if run is None or not _knows_earlier(grant):
        return
    whole = with_earlier(run, grant.record)
    result = yield Operation("write", grant, whole, limit)
    if result.error is None:
        grant.record = whole


def _see_killed(orders: Orders, now: float) -> Steps:
    """The front kills the command of a lost lock. Wake it if it is stopped; kill where that doesn't help."""
    until = now + WAKE_GRACE
    yield Operation("wake")
    while not orders.over():
        result = yield Operation("sleep", until)
        if result.now >= until or orders.orphaned():
            yield Operation("enforce")
            return


def _settle(job: Job, orders: Orders, grant: Grant, end: float) -> Steps:
    """Give the lock back, with the record of the run, as long as it is ours."""
    # A keeper that leaves has started nothing, and others may have died before: what was written is taken
    # back.
    unstarted = job.unstarted if orders.leaving or orders.never_started else None
    record = orders.record or unstarted or ("interrupted" if orders.leaving else "crashed")
    limit = lease_times.request_limit(job.ttl)
    failures = 0
    if job.once is not None and isinstance(record, dict) and record["state"] == "succeeded":
        yield from _mark(job, grant, record, end)
    while True:
        yield Operation("report", end)
        result = yield from _release(orders, grant, record, limit)
        if result.error is None or not isinstance(result.error, Unavailable) or result.now >= end:
            yield Operation("tell", *KeeperTells.settled("" if result.error is None else str(result.error)))
            return
        failures += 1
        yield Operation("tell", *KeeperTells.trouble(str(result.error)))
        yield Operation("sleep", min(end, result.now + lease_times.back_off(failures, 1.0)))


def _release(orders: Orders, grant: Grant, record: Record | str, limit: float) -> StepsToResult:
    """Give the lock back with that record. The front sends it without the earlier runs."""
    if not _knows_earlier(grant):
        result = yield from _read_earlier(grant, limit)
        if isinstance(result.error, Unavailable):
            return result
    if orders.record is not None:
        record = with_earlier(orders.record, grant.record)
    return (yield Operation("release", grant, record, limit))


def _knows_earlier(grant: Grant) -> bool:
    """Whether the grant has the earlier runs. That of a later keeper comes from the front, without them."""
    return grant.record is None or "runs" in grant.record


def _read_earlier(grant: Grant, limit: float) -> StepsToResult:
    result = yield Operation("read", limit)
    if result.error is None:
        found: Any = result.value
        grant.record = found[1]
    return result


def _mark(job: Job, grant: Grant, record: Record, end: float) -> Steps:
    """Write down that the key is done, before anybody else has the lock."""
    limit = lease_times.request_limit(job.ttl)
    failures = 0
    while True:
        yield Operation("report", end)
        result = yield Operation("mark", grant, job.once, record, limit)
        if not isinstance(result.error, Unavailable) or result.now >= end:
            break
        failures += 1
        yield from pause(result, result.error, failures, end)
    if result.error is not None:
        text = f"that {job.once!r} is done could not be written down: {result.error}"
        yield Operation("tell", *KeeperTells.trouble(text))
