"""What a keeper decides: when to ask for the lock, to renew it, to release it, and when to kill the command.

The turn is written as one sequence of operations (see `operations`): acquire, wait, hold, renew, release.
After a keeper's death another one begins the same sequence with the grant.
"""

from __future__ import annotations

from singleton_run import lease_times
from singleton_run.api.contract import Grant, Held
from singleton_run.errors import HELD, Lost, Unavailable
from singleton_run.keeper.operations import Operation, pause, tell_granted, wait_for_lock
from singleton_run.system.messages import KeeperTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.job import Job
    from singleton_run.keeper.operations import Orders, Record, Steps, StepsToLease

WAKE_GRACE = 1.0
"""How long a front that was woken may take to kill the command after a loss of the lock, in seconds."""

_LEAST_LIMIT = 0.1
_LONGEST_PAUSE = 1.0


def turn_steps(job: Job, orders: Orders, resumed: tuple[Grant, float] | None) -> Steps:
    """All operations of one keeper. `resumed` is a grant and its lease's end (boot clock)."""
    lease = resumed or (yield from _acquire(job, orders))
    if lease is not None and job.leased:
        yield from _hold(job, orders, *lease)


def _acquire(job: Job, orders: Orders) -> StepsToLease:
    if job.plan is not None or job.once is not None:
        from singleton_run.keeper import slot_decisions

        take = slot_decisions.take_slot if job.plan is not None else slot_decisions.take_once
        return (yield from take(job, orders))
    return (yield from _take_lock(job, orders))


def _take_lock(job: Job, orders: Orders) -> StepsToLease:
    got = yield from wait_for_lock(job, orders, job.wait_until)
    if isinstance(got, tuple):
        yield from tell_granted(*got)
        return got
    if isinstance(got, Held):
        yield Operation("tell", *KeeperTells.held(got.holder, got.host, got.since))
    yield Operation("leave", lease_times.request_limit(job.ttl))
    if got is None:
        yield Operation("tell", *KeeperTells.settled(""))
    elif isinstance(got, Held):
        yield Operation("tell", *KeeperTells.gave_up(HELD, ""))
    else:
        yield Operation("tell", *KeeperTells.gave_up(got.status, str(got)))
    return None


def _hold(job: Job, orders: Orders, grant: Grant, end: float) -> Steps:
    """Renew the lease while the command runs, then release it. Kill the command if no renewal succeeds."""
    ttl = job.ttl
    due = lease_times.renew_at(end, ttl)
    failures = 0
    while not orders.over():
        if orders.orphaned():
            yield Operation("enforce")
            orders.unguarded = False
            continue
        result = yield Operation("hold", grant, due)
        if result.error is not None and not (orders.over() or orders.orphaned()):
            result = yield Operation("sleep", due)
        if orders.over() or orders.orphaned():
            continue
        yield Operation("report", end)
        enforce_at = lease_times.enforce_at(end, ttl)
        limit = min(lease_times.request_limit(ttl), max(_LEAST_LIMIT, enforce_at - result.now))
        result = yield Operation("renew", grant, limit)
        if result.error is None:
            end = result.began + ttl
            due = lease_times.renew_at(end, ttl)
            failures = 0
            yield Operation("report", end)
            continue
        if isinstance(result.error, Lost):
            yield Operation("tell", *KeeperTells.lost(str(result.error)))
            yield from _lost(orders, result.now)
            return
        failures += 1
        due = result.now + lease_times.back_off(failures, _LONGEST_PAUSE)
        yield Operation("report", end)
        yield Operation("tell", *KeeperTells.trouble(str(result.error)))
        if result.now >= enforce_at:
            yield Operation("enforce")
            return
        if result.now >= lease_times.stop_at(end, ttl):
            yield Operation("wake")
    yield from _release(job, orders, grant, end)


def _lost(orders: Orders, now: float) -> Steps:
    """The lock is lost, so the front has to kill the command. Wake it; if it doesn't, kill from here."""
    until = now + WAKE_GRACE
    yield Operation("wake")
    while not orders.over():
        result = yield Operation("sleep", until)
        if result.now >= until or orders.orphaned():
            yield Operation("enforce")
            return


def _release(job: Job, orders: Orders, grant: Grant, end: float) -> Steps:
    # A keeper that was asked to leave has started nothing, and front and guard may have died before the
    # start. In both cases the attempt that was written down is taken back.
    unstarted = job.unstarted if orders.leaving or orders.never_started else None
    record = orders.record or unstarted or ("interrupted" if orders.leaving else "crashed")
    limit = lease_times.request_limit(job.ttl)
    failures = 0
    if job.once is not None and isinstance(record, dict) and record["state"] == "succeeded":
        yield from _mark_done(job, grant, record, end)
    while True:
        yield Operation("report", end)
        result = yield Operation("release", grant, record, limit)
        if result.error is None or not isinstance(result.error, Unavailable) or result.now >= end:
            yield Operation("tell", *KeeperTells.settled("" if result.error is None else str(result.error)))
            return
        failures += 1
        yield Operation("tell", *KeeperTells.trouble(str(result.error)))
        yield Operation("sleep", min(end, result.now + lease_times.back_off(failures, _LONGEST_PAUSE)))


def _mark_done(job: Job, grant: Grant, record: Record, end: float) -> Steps:
    """Mark the key of --once as done, before another can have the lock."""
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
