"""The operations that a keeper's turn consists of, and the sequences that all turns share.

A sequence is a generator that does nothing by itself. Each `yield` gives an `Operation` to the caller:
the keeper's process, or a simulation in the tests. The caller carries it out and sends back a `Result`.
So the same sequence runs on real servers and through millions of simulated histories.
"""

from __future__ import annotations

from singleton_run import lease_times
from singleton_run.api.contract import Grant, Held
from singleton_run.errors import Failure, Unavailable
from singleton_run.system.messages import KeeperTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Any

    from singleton_run.job import Job

    Record = Mapping[str, Any]
    Lease = tuple[Grant, float]
    Steps = Generator["Operation", "Result", None]
    StepsToResult = Generator["Operation", "Result", "Result | None"]
    StepsToLease = Generator["Operation", "Result", "Lease | None"]
    StepsToOutcome = Generator["Operation", "Result", "Lease | Held | Failure | None"]

_LEAST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Operation:
    """One operation: its name and arguments.

    These ask the server: acquire limit · wait held until · leave limit · renew grant limit ·
    hold grant until · release grant record-or-its-state limit · read limit · write grant record limit ·
    done key limit · mark grant key record limit. These don't: sleep until · clock · report end ·
    tell message… · wake · enforce.

    A limit is in seconds; `until` and `end` are readings of the boot clock.
    """

    __slots__ = ("arguments", "name")

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name = name
        self.arguments = arguments


class Result:
    """The result of an operation: the value that it returned, or the error that it raised.

    `began` and `now` are the boot clock's readings before and after the operation.
    """

    __slots__ = ("began", "error", "now", "value")

    def __init__(self, began: float, now: float, value: object = None, error: Failure | None = None) -> None:
        self.began = began
        self.now = now
        self.value = value
        self.error = error


class Orders:
    """The front's orders, and the deaths that the keeper has seen. Receives `messages.KeeperOrders`.

    They are brought up to date after each operation. An operation that waits (wait, hold, sleep) returns
    at once when an order or a death comes, or has come before.

    `no_front` says that the front is dead; `unguarded`, that the guard is dead too and nothing is proved;
    `nothing_runs`, that no process of the command is left, by proof; `never_started`, that the command was
    never started. `not_understood` is the name of an order that this version does not know.
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
        """Give the lock back with this record of the run: the command is gone."""
        self.record = record

    def unknown(self, name: str) -> None:
        """Note an order that this version does not know."""
        self.not_understood = name

    def over(self) -> bool:
        """Whether nobody wants the lock any more, and no process of the command can be left."""
        return self.leaving or self.record is not None or (self.no_front and self.nothing_runs)

    def orphaned(self) -> bool:
        """Whether front and guard are both dead, and nothing is proved."""
        return self.no_front and self.unguarded


def wait_for_lock(
    job: Job, orders: Orders, until: float, answers_by: float | None = None, *, silent: bool = False
) -> StepsToOutcome:
    """Try to acquire the lock until the boot clock reads `until`.

    Returns the grant with its lease's end; or `Held` if another has the lock; or the error; or None if
    nobody wants the lock any more. In the last three cases the caller has to `leave`.

    A server that can't be reached is asked again until `answers_by`, by default until `until`. With
    `silent` the user is not told who holds the lock.
    """
    limit = lease_times.request_limit(job.ttl)
    answers_by = until if answers_by is None else answers_by
    failures = 0
    while True:
        result = yield Operation("acquire", limit)
        if orders.over():
            return None
        last = result.now >= until
        got = result.value
        if isinstance(got, Grant) and is_late(result, job.ttl):
            # It is not given back: the network could delay the release until it undoes a later grant.
            result = yield Operation("renew", got, limit)
            if orders.over():
                return None
            if result.error is None and is_late(result, job.ttl):
                result.error = Unavailable("the server gave the lock too late to use it")
        if isinstance(got, Grant) and result.error is None:
            return got, result.began + job.ttl
        error = result.error
        if isinstance(got, Held):
            if last:
                return got
            if not silent:
                yield Operation("tell", *KeeperTells.held(got.holder, got.host, got.since))
            result = yield Operation("wait", got, until)
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


def retry(operation: Operation, orders: Orders, until: float) -> StepsToResult:
    """Repeat an operation while it raises Unavailable and the boot clock is before `until`.

    Returns the last result, or None if nobody wants the lock any more.
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
    """Tell the user of the error, and sleep: longer after each failure in a row, until `until` at most."""
    yield Operation("tell", *KeeperTells.trouble(str(error)))
    seconds = max(_LEAST_PAUSE, lease_times.back_off(failures, _LONGEST_PAUSE))
    yield Operation("sleep", min(result.now + seconds, until))


def tell_granted(grant: Grant, end: float) -> Steps:
    """Tell the front that the lock is ours until `end` (boot clock). The front then starts the command."""
    yield Operation("report", end)
    yield Operation("tell", *KeeperTells.granted(grant.as_dict()))


def is_late(result: Result, ttl: float) -> bool:
    """Whether the lease that this request was given is too old to start a command under it."""
    return result.now >= lease_times.stop_at(result.began + ttl, ttl)
