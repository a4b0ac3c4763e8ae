"""How a keeper acquires the lock, and repeats operations that failed. Every kind of turn begins with this."""

from __future__ import annotations

from singleton_run import lease_times
from singleton_run.api.contract import Grant, Held
from singleton_run.errors import Unavailable
from singleton_run.keeper.operations import Operation
from singleton_run.system.messages import KeeperTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.errors import Failure
    from singleton_run.job import Job
    from singleton_run.keeper.operations import (
        Orders,
        Result,
        Steps,
        StepsToLastResult,
        StepsToOutcome,
        StepsToResult,
    )

_SILENT_LIMIT = 0.5


def acquire(
    job: Job, orders: Orders, until: float, answers_by: float | None = None, *, silent: bool = False
) -> StepsToOutcome:
    """Acquire the lock by `until` (boot clock). Returns the grant and the end of its lease.

    Without the lock it returns the holder at that time (Held), the error, or None if nobody wants the lock
    any more. Then the caller has to `leave`. A server that can't be reached is asked again until
    `answers_by` (default: `until`). With `silent` the log doesn't mention the wait.
    """
    limit = lease_times.request_limit(job.ttl)
    answers_by = until if answers_by is None else answers_by
    failures = 0
    while True:
        result = yield Operation("acquire", limit)
        if orders.over():
            return None
        last = result.now >= until
        answer = result.value
        if isinstance(answer, Grant):
            if answer.renewed is not None:
                result.began = min(result.began, answer.renewed)
            result = yield from _in_time(answer, result, job.ttl, limit)
            if orders.over():
                return None
            if result.error is None:
                return answer, result.began + job.ttl
        elif isinstance(answer, Held):
            if last:
                return answer
            if not silent:
                yield from tell_held(answer)
            result = yield Operation("wait", answer, until)
        error = result.error
        if error is None:
            failures = 0
        elif result.now >= answers_by or not isinstance(error, Unavailable):
            return error
        else:
            failures += 1
            yield from pause(result, error, failures, answers_by)
        if orders.over():
            return None


def acquire_to_run(job: Job, orders: Orders, until: float) -> StepsToOutcome:
    """As `acquire`, and with a pause in force keep the lock until that is over. Nothing is started before.

    If the pause outlasts `until`, the front is told of it, and the outcome is an error without a text (HELD).
    """
    got = yield from acquire(job, orders, until)
    if isinstance(got, tuple) and got[0].control is not None:
        from singleton_run.keeper import pausing

        got = yield from pausing.wait_out(job, orders, got, until)
    return got


def tell_held(held: Held) -> Steps:
    """Tell who has the lock, and the pause in force where the server has told it."""
    pause = None
    if held.control is not None:
        from singleton_run.keeper import pausing

        pause = yield from pausing.facts_in_force(held.control)
    yield Operation("tell", *KeeperTells.held(held.holder, held.host, held.since, pause))


def _in_time(grant: Grant, result: Result, ttl: float, limit: float) -> StepsToResult:
    """The result that proves that the grant has enough time left: `result` itself, or that of a renewal.

    A late grant is not given back: the network could delay the release until it undoes a later grant.
    """
    if not is_late(result, ttl):
        return result
    result = yield Operation("renew", grant, limit)
    if result.error is None:
        grant.control = control_in(result)
    if result.error is None and is_late(result, ttl):
        result.error = Unavailable("the server gave the lock too late to use it")
    return result


def leave(job: Job, outcome: object) -> Steps:
    """Give up the place in the queue, after `acquire` ended with that outcome.

    A server that didn't answer gets only half a second: the front waits for the reason, and gives a keeper
    one second more than a request may take. Our lease ends by itself.
    """
    limit = lease_times.request_limit(job.ttl)
    yield Operation("leave", min(limit, _SILENT_LIMIT) if isinstance(outcome, Unavailable) else limit)


def retry(operation: Operation, orders: Orders, until: float) -> StepsToLastResult:
    """Repeat an operation until it succeeds, is refused, or `until` has passed. Returns the last result.

    Returns None if nobody wants the lock any more.
    """
    failures = 0
    while True:
        result = yield operation
        if orders.over():
            return None
        if not isinstance(result.error, Unavailable) or result.now >= until:
            return result
        failures += 1
        yield from pause(result, result.error, failures, until)
        if orders.over():
            return None


def pause(result: Result, error: Failure, failures: int, until: float) -> Steps:
    """Tell the error, the last of `failures` in a row, and wait longer than after the one before."""
    yield Operation("tell", *KeeperTells.trouble(str(error)))
    seconds = max(0.1, lease_times.back_off(failures, 5.0))
    yield Operation("sleep", min(result.now + seconds, until))


def wait_as_holder(orders: Orders, grant: Grant, until: float) -> StepsToResult:
    """Wait until a renewal is due, an order comes, or the lock or its control may have changed."""
    result = yield Operation("hold", grant, until)
    if result.error is not None and not (orders.over() or orders.orphaned()):
        result = yield Operation("sleep", until)
    return result


def control_in(result: Result) -> Mapping[str, Any] | None:
    """The control that a renewal has told, None without one: a stranger's backend may return anything."""
    return result.value if isinstance(result.value, dict) else None


def is_late(result: Result, ttl: float) -> bool:
    """Whether the lease that this request gave or renewed is too old to start a command."""
    return result.now >= lease_times.stop_at(result.began + ttl, ttl)


def tell_granted(job: Job, grant: Grant, end: float) -> Steps:
    """Tell the front that the lock is ours until `end`: it starts the command.

    It gets the earlier runs only where it writes the record itself.
    """
    told = {**grant.without_record(), "record": grant.last_run()} if job.leased else grant.as_dict()
    yield Operation("report", end)
    yield Operation("tell", *KeeperTells.granted(told))
    if job.leased:
        yield Operation("prepare", grant)
