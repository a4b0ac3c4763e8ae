"""What the keeper does: wait until the lock may be free, try, hold and renew, release.

It is written as one sequence, and does nothing by itself: see `operations`. After a keeper's death the next
one resumes with the grant, in the middle of the same sequence.
"""

from __future__ import annotations

from singleton_run import lease_times
from singleton_run.api.contract import Held
from singleton_run.errors import HELD, Lost, Unavailable
from singleton_run.keeper.acquiring import acquire, leave, pause, tell_granted
from singleton_run.keeper.operations import Operation
from singleton_run.system.messages import KeeperTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.api.contract import Grant
    from singleton_run.job import Job
    from singleton_run.keeper.operations import Leased, Orders, Record, Steps, StepsToGrant, StepsToResult

WAKE_GRACE = 1.0
"""Seconds that front and guard have to kill the command, once woken, before the keeper does."""


def lifecycle(job: Job, orders: Orders, resumed: Leased | None) -> Steps:
    """The whole of a keeper's life. `resumed` is the grant to go on with, and its lease's end."""
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
    outcome = yield from acquire(job, orders, job.wait_until)
    if isinstance(outcome, tuple):
        yield from tell_granted(*outcome)
        return outcome
    if isinstance(outcome, Held):
        yield Operation("tell", *KeeperTells.held(outcome.holder, outcome.host, outcome.since))
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
        result = yield from _wait_as_holder(orders, grant, due)
        if orders.over() or orders.orphaned():
            continue
        yield Operation("report", end)
        enforce_at = lease_times.enforce_at(end, ttl)
        limit = min(lease_times.request_limit(ttl), max(0.1, enforce_at - result.now))
        result = yield Operation("renew", grant, limit)
        if result.error is None:
            end = result.began + ttl
            due = lease_times.renew_at(end, ttl)
            failures = 0
            yield Operation("report", end)
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


def _wait_as_holder(orders: Orders, grant: Grant, until: float) -> StepsToResult:
    """Wait until a renewal is due, an order comes, or the lock may have been lost."""
    result = yield Operation("hold", grant, until)
    if result.error is not None and not (orders.over() or orders.orphaned()):
        result = yield Operation("sleep", until)
    return result


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
        result = yield Operation("release", grant, record, limit)
        if result.error is None or not isinstance(result.error, Unavailable) or result.now >= end:
            yield Operation("tell", *KeeperTells.settled("" if result.error is None else str(result.error)))
            return
        failures += 1
        yield Operation("tell", *KeeperTells.trouble(str(result.error)))
        yield Operation("sleep", min(end, result.now + lease_times.back_off(failures, 1.0)))


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
