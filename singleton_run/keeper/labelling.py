"""When the keeper labels our pod as the holder's (--label-pod), and when it takes the label away.

The label is away before anybody else can have the lock from us: it is taken away before the lock is given
back, and as soon as we see that it is lost. A container that was killed and restarted in place still bears
it, so it is taken away at the start, too. While a pause keeps the command from starting, there is no label.
"""

from __future__ import annotations

from singleton_run import lease_times
from singleton_run.errors import UNUSABLE
from singleton_run.keeper.acquiring import retry
from singleton_run.keeper.operations import Operation
from singleton_run.lease_times import FOREVER
from singleton_run.system.messages import KeeperTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from singleton_run.job import Job
    from singleton_run.keeper.operations import Orders, Result, Steps

    StepsToAnswer = Generator[Operation, Result, bool]

SOON = 0.2
"""Seconds that the label may take while the front has to be told that the lock is lost."""
_SHORT = 1.0
_LONGEST_PAUSE = 5.0


def labelled(job: Job, orders: Orders, steps: Steps, *, resumed: bool) -> Steps:
    """The keeper's `steps`, with those for the label in between. `resumed`: a keeper before had the lock."""
    if not resumed and not (yield from _begin_without(job, orders)):
        return
    label = _Label(job, orders, granted=resumed)
    try:
        operation = next(steps)
        while True:
            yield from label.before(operation)
            result = yield operation
            label.now = result.now
            operation = steps.send(result)
    except StopIteration:
        return


def _begin_without(job: Job, orders: Orders) -> StepsToAnswer:
    """Take a label away that the pod still has from before. False if the turn is over, which is told."""
    result = yield from retry(
        _operation(lease_times.request_limit(job.ttl), on=False), orders, job.wait_until
    )
    if result is None:
        yield Operation("tell", *KeeperTells.settled(""))
        return False
    if result.error is not None:
        yield Operation("tell", *KeeperTells.gave_up(result.error.status, str(result.error)))
        return False
    return True


class _Label:
    """The label while the lock is ours, or may be.

    `now` is the boot clock's reading after the last operation. `_due` is when to try to set the label. `_end`
    is the lease's end.
    """

    def __init__(self, job: Job, orders: Orders, *, granted: bool) -> None:
        self.now = 0.0
        self._orders = orders
        self._limit = min(lease_times.request_limit(job.ttl), _SHORT)
        self._due = 0.0 if granted else FOREVER
        self._end = 0.0
        self._failures = 0
        self._may_be_set = granted

    def before(self, operation: Operation) -> Steps:
        """What has to be done about the label before this operation is."""
        if operation.name == "report":
            self._end = operation.arguments[0]
        elif operation.name == "tell" and operation.arguments[0] == "granted":
            self._due = 0.0
        elif operation.name == "tell" and operation.arguments[0] == "lost" and self._may_be_set:
            yield _operation(SOON, on=False)
        elif operation.name == "hold":
            grant, until = operation.arguments
            known = self._heard()
            if self.now >= self._due:
                yield from self._set()
            # What was heard meanwhile wakes nobody any more.
            operation.arguments = grant, min(until, self._due) if self._heard() == known else 0.0
        elif operation.name == "release" and self._may_be_set:
            yield from self._take_away()

    def _heard(self) -> tuple[object, ...]:
        """The orders that end a wait."""
        orders = self._orders
        return orders.over(), orders.orphaned(), orders.running_record

    def _set(self) -> Steps:
        """Set it. After a failure it is tried again, with growing pauses."""
        self._may_be_set = True
        result = yield _operation(self._limit, on=True)
        self._due = FOREVER
        if result.error is not None:
            self._failures += 1
            self._due = result.now + max(0.1, lease_times.back_off(self._failures, _LONGEST_PAUSE))
            yield Operation("tell", *KeeperTells.trouble(str(result.error)))

    def _take_away(self) -> Steps:
        """Take it away before the lock is given back; at its end the lease ends by itself."""
        failures = 0
        while True:
            yield Operation("report", self._end)
            result = yield _operation(self._limit, on=False)
            if result.error is None:
                self._may_be_set = False
                return
            yield Operation("tell", *KeeperTells.trouble(str(result.error)))
            # A refusal of the login or the permission (77) may be over in a moment, as after a restart.
            if result.error.status == UNUSABLE or result.now >= self._end:
                return
            failures += 1
            yield Operation("sleep", min(self._end, result.now + lease_times.back_off(failures, 1.0)))


def _operation(limit: float, *, on: bool) -> Operation:
    return Operation("label", on, limit)
