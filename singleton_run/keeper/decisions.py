"""What the keeper does: wait until the lock may be free, try, hold and renew, release.

It is written as one sequence, and does nothing by itself: each `yield` hands an operation to
whoever runs it (the process in `keeping`, a simulation in the tests) and gets back how it went.
Resuming after a keeper's death is the same sequence begun with the grant.
"""

from __future__ import annotations

from singleton_run import lease_times
from singleton_run.api.contract import Grant, Held
from singleton_run.errors import HELD, Failure, Lost, Unavailable
from singleton_run.system.messages import KeeperTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Any

    from singleton_run.job import Job

    Record = Mapping[str, Any]
    Got = tuple[Grant, float]
    Steps = Generator["Do", "Done", None]
    StepsToDone = Generator["Do", "Done", "Done | None"]
    StepsToGrant = Generator["Do", "Done", "Got | None"]
    StepsToOutcome = Generator["Do", "Done", "Got | Held | Failure | None"]

WAKE_GRACE = 1.0


class Do:
    """One operation: its name and arguments.

    acquire limit · wait held until · leave limit · renew grant limit · hold grant until ·
    release grant record-or-its-state limit · sleep until · report end · tell message… · wake · enforce;
    for slots also clock · read limit · write grant record limit · done key limit ·
    mark grant key record limit
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

    __slots__ = (
        "leaving",
        "never_started",
        "no_front",
        "not_understood",
        "nothing_runs",
        "record",
        "unguarded",
    )

    def __init__(self) -> None:
        self.leaving = False
        self.record: Record | None = None
        self.not_understood = ""
        self.no_front = False
        self.unguarded = False
        self.nothing_runs = False
        self.never_started = False

    def leave(self) -> None:
        """Give up waiting."""
        self.leaving = True

    def settle(self, record: Record) -> None:
        """The command is gone: give the lock back, with this record of the run."""
        self.record = record

    def unknown(self, name: str) -> None:
        """An order that this version does not know."""
        self.not_understood = name

    def over(self) -> bool:
        """Nobody wants the lock any more, and the command was never started or is proved gone."""
        return self.leaving or self.record is not None or (self.no_front and self.nothing_runs)

    def orphaned(self) -> bool:
        """Front and guard are both dead, and nothing is proved."""
        return self.no_front and self.unguarded


def keep(job: Job, orders: Orders, resumed: tuple[Grant, float] | None) -> Steps:
    """The whole of a keeper's life. `resumed` is a grant and its lease's end."""
    got = resumed or (yield from _come_by(job, orders))
    if got is not None and job.leased:
        yield from _keep(job, orders, *got)


def _come_by(job: Job, orders: Orders) -> StepsToGrant:
    if job.plan is not None or job.once is not None:
        from singleton_run.keeper import slot_decisions

        take = slot_decisions.take_slot if job.plan is not None else slot_decisions.take_once
        return (yield from take(job, orders))
    return (yield from _take(job, orders))


def _take(job: Job, orders: Orders) -> StepsToGrant:
    got = yield from get(job, orders, job.wait_until)
    if isinstance(got, tuple):
        yield from grant_told(*got)
        return got
    if isinstance(got, Held):
        yield Do("tell", *KeeperTells.held(got.holder, got.host, got.since))
    yield Do("leave", lease_times.request_limit(job.ttl))
    if got is None:
        yield Do("tell", *KeeperTells.settled(""))
    elif isinstance(got, Held):
        yield Do("tell", *KeeperTells.gave_up(HELD, ""))
    else:
        yield Do("tell", *KeeperTells.gave_up(got.status, str(got)))
    return None


def grant_told(grant: Grant, end: float) -> Steps:
    """Tell the front that the lock is ours until `end`: it starts the command."""
    yield Do("report", end)
    yield Do("tell", *KeeperTells.granted(grant.as_dict()))


def get(
    job: Job, orders: Orders, until: float, answers_by: float | None = None, *, silent: bool = False
) -> StepsToOutcome:
    """Get the lock by `until`: the grant and its lease's end.

    Or who holds it; or why it can't be had; or None if nobody wants it any more. Unless it was got
    the caller has to `leave`. A server that can't be reached is asked again until `answers_by`, or `until`.
    `silent` is for a wait that is of no interest to the user.
    """
    limit = lease_times.request_limit(job.ttl)
    answers_by = until if answers_by is None else answers_by
    failures = 0
    while True:
        done = yield Do("acquire", limit)
        if orders.over():
            return None
        last = done.now >= until
        result = done.result
        if isinstance(result, Grant) and is_late(done, job.ttl):
            # Not given back: a release that the network kept back could undo what came later.
            done = yield Do("renew", result, limit)
            if orders.over():
                return None
            if done.error is None and is_late(done, job.ttl):
                done.error = Unavailable("the server gave the lock too late to use it")
        if isinstance(result, Grant) and done.error is None:
            return result, done.began + job.ttl
        error = done.error
        if isinstance(result, Held):
            if last:
                return result
            if not silent:
                yield Do("tell", *KeeperTells.held(result.holder, result.host, result.since))
            done = yield Do("wait", result, until)
            error = done.error
        if error is None:
            failures = 0
        elif done.now >= answers_by or not isinstance(error, Unavailable):
            return error
        else:
            failures += 1
            yield from pause(done, error, failures, answers_by)
        if orders.over():
            return None


def persist(do: Do, orders: Orders, until: float) -> StepsToDone:
    """Do one operation until it succeeds, is refused, or `until` has passed: the last outcome.

    None if nobody wants it any more.
    """
    failures = 0
    while True:
        done = yield do
        if orders.over():
            return None
        if not isinstance(done.error, Unavailable) or done.now >= until:
            return done
        failures += 1
        yield from pause(done, done.error, failures, until)
        if orders.over():
            return None


def pause(done: Done, error: Failure, failures: int, until: float) -> Steps:
    """After so many failures in a row tell the last, and wait a little longer than before."""
    yield Do("tell", *KeeperTells.trouble(str(error)))
    yield Do("sleep", min(done.now + max(0.1, lease_times.back_off(failures, 5.0)), until))


def is_late(done: Done, ttl: float) -> bool:
    """Whether a lease that was given or renewed by that request is too old to start with."""
    return done.now >= lease_times.stop_at(done.began + ttl, ttl)


def _keep(job: Job, orders: Orders, grant: Grant, end: float) -> Steps:
    ttl = job.ttl
    due = lease_times.renew_at(end, ttl)
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
        enforce_at = lease_times.enforce_at(end, ttl)
        limit = min(lease_times.request_limit(ttl), max(0.1, enforce_at - done.now))
        done = yield Do("renew", grant, limit)
        if done.error is None:
            end = done.began + ttl
            due = lease_times.renew_at(end, ttl)
            failures = 0
            yield Do("report", end)
            continue
        if isinstance(done.error, Lost):
            yield Do("tell", *KeeperTells.lost(str(done.error)))
            yield from _lost(orders, done.now)
            return
        failures += 1
        due = done.now + lease_times.back_off(failures, 1.0)
        yield Do("report", end)
        yield Do("tell", *KeeperTells.trouble(str(done.error)))
        if done.now >= enforce_at:
            yield Do("enforce")
            return
        if done.now >= lease_times.stop_at(end, ttl):
            yield Do("wake")
    yield from _settle(job, orders, grant, end)


def _lost(orders: Orders, now: float) -> Steps:
    """The front kills the command. If it is stopped it is woken, and if that is no help, we do it."""
    until = now + WAKE_GRACE
    yield Do("wake")
    while not orders.over():
        done = yield Do("sleep", until)
        if done.now >= until or orders.orphaned():
            yield Do("enforce")
            return


def _settle(job: Job, orders: Orders, grant: Grant, end: float) -> Steps:
    # Who leaves has started nothing, and others may have died before: what was written down is taken back.
    unstarted = job.unstarted if orders.leaving or orders.never_started else None
    record = orders.record or unstarted or ("interrupted" if orders.leaving else "crashed")
    limit = lease_times.request_limit(job.ttl)
    failures = 0
    if job.once is not None and isinstance(record, dict) and record["state"] == "succeeded":
        yield from _mark(job, grant, record, end)
    while True:
        yield Do("report", end)
        done = yield Do("release", grant, record, limit)
        if done.error is None or not isinstance(done.error, Unavailable) or done.now >= end:
            yield Do("tell", *KeeperTells.settled("" if done.error is None else str(done.error)))
            return
        failures += 1
        yield Do("tell", *KeeperTells.trouble(str(done.error)))
        yield Do("sleep", min(end, done.now + lease_times.back_off(failures, 1.0)))


def _mark(job: Job, grant: Grant, record: Record, end: float) -> Steps:
    """Write down that the key is done, before the lock is anybody else's."""
    limit = lease_times.request_limit(job.ttl)
    failures = 0
    while True:
        yield Do("report", end)
        done = yield Do("mark", grant, job.once, record, limit)
        if not isinstance(done.error, Unavailable) or done.now >= end:
            break
        failures += 1
        yield from pause(done, done.error, failures, end)
    if done.error is not None:
        text = f"that {job.once!r} is done could not be written down: {done.error}"
        yield Do("tell", *KeeperTells.trouble(text))
