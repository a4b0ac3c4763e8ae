"""What the keeper does: wait until the lock may be free, try, hold and renew, release.

It is written as one sequence, and does nothing by itself: each `yield` hands an operation to
whoever runs it (the process in `keeping`, a simulation in the tests) and gets back how it went.
Resuming after a keeper's death is the same sequence begun with the grant.
"""

from __future__ import annotations

from singleton_run import lease
from singleton_run.contract import Grant, Held, Job
from singleton_run.errors import HELD, Failure, Lost, Refused, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Any

    Record = Mapping[str, Any]
    Steps = Generator["Do", "Done", None]
    StepsToGrant = Generator["Do", "Done", "tuple[Grant, float] | None"]

FOREVER = float("inf")
WAKE_GRACE = 1.0


class Do:
    """One operation: its name and arguments.

    acquire limit · wait held until · leave limit · renew grant limit · hold grant until ·
    release grant record-or-its-state limit · sleep until · report end · tell message… · wake · enforce
    """

    __slots__ = ("arguments", "name")

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name = name
        self.arguments = arguments


class Done:
    """How it went: when it was begun and is over (boot clock), what it gave or raised."""

    __slots__ = ("began", "error", "now", "result")

    def __init__(self, began: float, now: float, result: object = None, error: Failure | None = None) -> None:
        self.began = began
        self.now = now
        self.result = result
        self.error = error


class Orders:
    """What the keeper was told, by the front or by a death; brought up to date after every operation.

    An operation that waits (wait, hold, sleep) returns at once when an order comes, or has come.
    """

    __slots__ = ("leave", "no_front", "nothing_runs", "settle", "unguarded")

    def __init__(self) -> None:
        self.leave = False
        self.settle: Record | None = None
        self.no_front = False
        self.unguarded = False
        self.nothing_runs = False

    def over(self) -> bool:
        """Nobody wants the lock any more, and the command was never started or is proved gone."""
        return self.leave or self.settle is not None or (self.no_front and self.nothing_runs)

    def orphaned(self) -> bool:
        """Front and guard are both dead, and nothing is proved."""
        return self.no_front and self.unguarded


def keep(job: Job, orders: Orders, resumed: tuple[Grant, float] | None) -> Steps:
    """The whole of a keeper's life. `resumed` is a grant and its lease's end."""
    got = resumed or (yield from _take(job, orders))
    if got is not None:
        yield from _keep(job, orders, *got)


def _take(job: Job, orders: Orders) -> StepsToGrant:
    limit = lease.request_limit(job.ttl)
    failures = 0
    while True:
        done = yield Do("acquire", limit)
        if orders.over():
            break
        last = done.now >= job.wait_until
        result = done.result
        if isinstance(result, Grant) and _is_late(done, job.ttl):
            # Not given back: a release that the network kept back could undo what came later.
            done = yield Do("renew", result, limit)
            if orders.over():
                break
            if done.error is None and _is_late(done, job.ttl):
                done.error = Unavailable("the server gave the lock too late to use it")
        if isinstance(result, Grant) and done.error is None:
            end = done.began + job.ttl
            yield Do("report", end)
            yield Do("tell", "granted", result.as_dict(), end)
            return result, end
        error = done.error
        if isinstance(result, Held):
            held = result
            yield Do("tell", "held", held.holder, held.host, held.since)
            if last:
                yield from _give_up(limit, HELD, "")
                return None
            done = yield Do("wait", held, job.wait_until)
            error = done.error
        if error is None:
            failures = 0
        elif last or isinstance(error, Refused):
            yield from _give_up(limit, error.status, str(error))
            return None
        else:
            failures += 1
            yield Do("tell", "trouble", str(error))
            pause = max(0.1, lease.back_off(failures, 5.0))
            yield Do("sleep", min(done.now + pause, job.wait_until))
        if orders.over():
            break
    yield Do("leave", limit)
    yield Do("tell", "settled", "")
    return None


def _is_late(done: Done, ttl: float) -> bool:
    """Whether a lease that was given or renewed by that request is too old to start with."""
    return done.now >= lease.stop_at(done.began + ttl, ttl)


def _give_up(limit: float, status: int, text: str) -> Steps:
    yield Do("leave", limit)
    yield Do("tell", "gave up", status, text)


def _keep(job: Job, orders: Orders, grant: Grant, end: float) -> Steps:
    ttl = job.ttl
    due = lease.renew_at(end, ttl)
    failures = 0
    while not orders.over():
        if orders.orphaned():
            yield Do("enforce")
            orders.unguarded = False
            continue
        done = yield Do("hold", grant, due)
        if done.error is not None and not (orders.over() or orders.orphaned()):
            done = yield Do("sleep", due)
        if orders.over() or orders.orphaned():
            continue
        yield Do("report", end)
        enforce_at = lease.enforce_at(end, ttl)
        limit = min(lease.request_limit(ttl), max(0.1, enforce_at - done.now))
        done = yield Do("renew", grant, limit)
        if done.error is None:
            end = done.began + ttl
            due = lease.renew_at(end, ttl)
            failures = 0
            yield Do("report", end)
            continue
        if isinstance(done.error, Lost):
            yield Do("tell", "lost", str(done.error))
            yield from _lost(orders, done.now)
            return
        failures += 1
        due = done.now + lease.back_off(failures, 1.0)
        yield Do("report", end)
        yield Do("tell", "trouble", str(done.error))
        if done.now >= enforce_at:
            yield Do("enforce")
            return
        if done.now >= lease.stop_at(end, ttl):
            yield Do("wake")
    yield from _settle(orders, grant, end, ttl)


def _lost(orders: Orders, now: float) -> Steps:
    """The front kills the command. If it is stopped it is woken, and if that is no help, we do it."""
    until = now + WAKE_GRACE
    yield Do("wake")
    while not orders.over():
        done = yield Do("sleep", until)
        if done.now >= until or orders.orphaned():
            yield Do("enforce")
            return


def _settle(orders: Orders, grant: Grant, end: float, ttl: float) -> Steps:
    record = orders.settle or ("interrupted" if orders.leave else "crashed")
    limit = lease.request_limit(ttl)
    failures = 0
    while True:
        yield Do("report", end)
        done = yield Do("release", grant, record, limit)
        if done.error is None or not isinstance(done.error, Unavailable) or done.now >= end:
            yield Do("tell", "settled", "" if done.error is None else str(done.error))
            return
        failures += 1
        yield Do("tell", "trouble", str(done.error))
        yield Do("sleep", min(end, done.now + lease.back_off(failures, 1.0)))
