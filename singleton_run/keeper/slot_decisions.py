"""How a keeper runs a slot, or a key that is done once: a sequence of operations, as in `decisions`.

A keeper first looks at a slot without the lock, ahead of its time. The keeper that gets the lock decides by
the record that it then sees, writes the attempt down and has the command started on the dot. The others wait
for the lock until shortly after that, in case that the first one dies before; then they look once more, and
leave.

Every trip takes the lock at most once and ends then: a `leave` that the network kept back could undo a later
grant to the same holder.
"""

from __future__ import annotations

from singleton_run import lease_times
from singleton_run.api import record
from singleton_run.api.contract import Held
from singleton_run.errors import HELD, Failure, Lost, Unavailable
from singleton_run.keeper.acquiring import (
    acquire,
    acquire_to_run,
    control_in,
    leave,
    pause,
    retry,
    tell_granted,
    tell_held,
)
from singleton_run.keeper.operations import Operation
from singleton_run.schedule.slot_rules import MEND, REST, taken_back
from singleton_run.system.messages import KeeperTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Any

    from singleton_run.api.contract import Grant
    from singleton_run.job import Job
    from singleton_run.keeper.operations import Leased, Orders, Result, Steps, StepsToGrant
    from singleton_run.schedule.slot_rules import Decision, Plan

    StepsToDecision = Generator[Operation, Result, "tuple[Decision, float]"]

WRITE_AHEAD = 0.05
AGAIN = 1.0
MOST_OFFSET = 1.0


def take_slot(job: Job, orders: Orders) -> StepsToGrant:
    """Get the lock for a slot that is due, or tell the front to rest, and until when."""
    limit = lease_times.request_limit(job.ttl)
    result = yield from retry(Operation("read", limit), orders, job.wait_until)
    if result is None:
        yield Operation("tell", *KeeperTells.settled(""))
        return None
    if result.error is not None:
        yield from _give_up(job, result.error)
        return None
    found: Any = result.value
    held, seen = found
    decision, ahead = yield from _decide(job, seen, held=held is not None)
    if decision.kind == REST:
        yield from _rest(decision, ahead)
        return None
    until, deadline = (min(at + ahead, job.wait_until) for at in (decision.until, decision.deadline))
    got = yield from acquire(job, orders, until, deadline, silent=decision.briefly)
    if isinstance(got, tuple):
        return (yield from _run(job, orders, got))
    yield from leave(job, got)
    if got is None:
        yield Operation("tell", *KeeperTells.settled(""))
    elif isinstance(got, Held):
        yield from _was_held(job, got, decision)
    else:
        yield from _give_up(job, got)
    return None


def _was_held(job: Job, held: Held, decision: Decision) -> Steps:
    """Another had the lock all the time: have the front look again, at once where we have waited."""
    result = yield Operation("sleep", 0.0)
    plan: Plan = job.plan  # type: ignore[assignment] # there is one, or we would not be here
    in_time = result.now < job.wait_until or not job.waits
    if plan.loops or (in_time and not plan.second_look):
        yield Operation(
            "tell", *KeeperTells.rest(result.now + (0.0 if decision.waits() else AGAIN), 0.0, "held")
        )
        return
    yield from tell_held(held)
    yield Operation("tell", *KeeperTells.gave_up(HELD, ""))


def _run(job: Job, orders: Orders, got: Leased) -> StepsToGrant:
    """Decide under the lock, write the attempt down, and have the command started when it is time."""
    grant, end = got
    limit = lease_times.request_limit(job.ttl)
    decision, ahead = yield from _decide(job, grant.record, held=False)
    start = (decision.at or 0.0) + ahead
    if decision.kind == MEND:
        yield from _mend(job, orders, grant, decision)
        return None
    if decision.kind == REST:
        yield Operation("leave", limit)
        yield from _rest(decision, ahead)
        return None
    if decision.missed:
        yield Operation("tell", *KeeperTells.note("missed", decision.missed, decision.slot))
    result = yield Operation("sleep", start - WRITE_AHEAD)
    if not orders.over() and result.now >= lease_times.renew_at(end, job.ttl):
        result = yield Operation("renew", grant, limit)
        end = result.began + job.ttl
        grant.control = control_in(result)
    if orders.over() or result.error is not None:
        yield Operation("leave", limit)
        yield from _over(job, orders, result)
        return None
    at = max(start, result.now) - ahead
    if grant.control is not None and (yield from _skipped(job, orders, grant, decision, at)):
        return None
    earlier = grant.record
    run = _started(job, grant, decision, at)
    result = yield Operation("write", grant, run, limit)
    if result.error is None:
        grant.record = run
        job.unstarted = taken_back(run, earlier)
        yield from _tell_following(job, decision, at, ahead)
        yield Operation("tell", *KeeperTells.ready(None if job.leased else job.unstarted))
        result = yield Operation("sleep", start)
    if orders.over() or result.error is not None or result.now >= lease_times.stop_at(end, job.ttl):
        # Not started after all: take back what was written, if that can be done.
        yield from _take_back(grant, taken_back(run, earlier), orders, end, limit)
        yield from _over(job, orders, result)
        return None
    yield from tell_granted(job, grant, end)
    return grant, end


def _tell_following(job: Job, decision: Decision, at: float, ahead: float) -> Steps:
    """Tell the front when the next slot starts, where that concerns a run that still goes on then."""
    plan: Plan = job.plan  # type: ignore[assignment] # there is one, or we would not be here
    if plan.overlap != "queue":
        slot, start = plan.following(decision, at)
        yield Operation("tell", *KeeperTells.following(start + ahead, slot))


def _skipped(
    job: Job, orders: Orders, grant: Grant, decision: Decision, at: float
) -> Generator[Operation, Result, bool]:
    """Whether a pause is in force `at` the slot's start. Then write down that nobody starts the slot."""
    from singleton_run.api.control import facts, pause_of

    pause_then = pause_of(grant.control, at)
    if pause_then is None:
        return False
    plan: Plan = job.plan  # type: ignore[assignment] # there is one, or we would not be here
    yield Operation("tell", *KeeperTells.paused(facts(pause_then), decision.slot))
    run = plan.skipped(_run_of(job, grant, at), decision, at)
    result = yield Operation("release", grant, run, lease_times.request_limit(job.ttl))
    if orders.over() or result.error is not None:
        yield from _over(job, orders, result)
    elif plan.loops:
        yield Operation("tell", *KeeperTells.rest(result.now, decision.slot, "paused"))
    else:
        yield Operation("tell", *KeeperTells.gave_up(HELD, ""))
    return True


def _mend(job: Job, orders: Orders, grant: Grant, decision: Decision) -> Steps:
    """Replace a damaged record: the slot that is due may have been started. Then look again."""
    plan: Plan = job.plan  # type: ignore[assignment] # there is one, or we would not be here
    yield Operation("tell", *KeeperTells.note("unreadable", decision.slot))
    run = _run_of(job, grant, decision.at or 0.0)
    result = yield Operation("release", grant, plan.mended(run, decision), lease_times.request_limit(job.ttl))
    if orders.over() or result.error is not None:
        yield from _over(job, orders, result)
    else:
        yield Operation("tell", *KeeperTells.rest(result.now, decision.slot, "mended"))


def _started(job: Job, grant: Grant, decision: Decision, start: float) -> Mapping[str, Any]:
    run = _run_of(job, grant, start)
    return run if job.plan is None else job.plan.started(run, decision, start)


def _run_of(job: Job, grant: Grant, start: float) -> Mapping[str, Any]:
    return record.started(grant.record, grant.name, grant.holder, grant.token, start, job.command)


def _take_back(grant: Grant, run: Mapping[str, Any], orders: Orders, end: float, limit: float) -> Steps:
    """Give the lock back with that record, as long as it is ours: else the slot counts as attempted."""
    failures = 0
    while True:
        result = yield Operation("release", grant, run, limit)
        if not isinstance(result.error, Unavailable) or result.now >= end:
            return
        failures += 1
        yield from pause(result, result.error, failures, end)


def _over(job: Job, orders: Orders, result: Result) -> Steps:
    """End a trip that had the lock and started nothing: look again soon, unless we were asked to leave."""
    plan: Plan = job.plan  # type: ignore[assignment] # there is one, or we would not be here
    if orders.over():
        yield Operation("tell", *KeeperTells.settled(""))
        return
    if result.error is not None:
        in_time = isinstance(result.error, Unavailable) and result.now < job.wait_until
        if not (plan.loops or in_time or isinstance(result.error, Lost)):
            yield from _give_up(job, result.error)
            return
        yield Operation("tell", *KeeperTells.trouble(str(result.error)))
    yield Operation("tell", *KeeperTells.rest(result.now, 0.0, "not started"))


def _decide(job: Job, seen: Mapping[str, Any] | None, *, held: bool) -> StepsToDecision:
    """The decision, and how far the boot clock is ahead of the time of slots, in seconds."""
    result = yield Operation("clock")
    told: Any = result.value
    now, offset = told
    if offset is not None and abs(offset) > MOST_OFFSET:
        yield Operation("tell", *KeeperTells.note("offset", offset))
    plan: Plan = job.plan  # type: ignore[assignment] # there is one, or we would not be here
    plan.offset = offset or 0.0
    decision = plan.decide(seen, now, held=held, exact=offset is not None)
    for event, number in decision.notes:
        yield Operation("tell", *KeeperTells.note(event, number))
    return decision, result.now - now


def _rest(decision: Decision, ahead: float) -> Steps:
    wake = None if decision.at is None else decision.at + ahead
    yield Operation("tell", *KeeperTells.rest(wake, decision.slot, decision.why))


def _give_up(job: Job, error: Failure) -> Steps:
    """Tell why the lock can't be had, and when the next slot is due: the front may try again until then."""
    result = yield Operation("clock")
    told: Any = result.value
    now, _ = told
    following = job.plan.blind(now) if job.plan is not None else now
    yield Operation("tell", *KeeperTells.gave_up(error.status, str(error), result.now + following - now))


def take_once(job: Job, orders: Orders) -> StepsToGrant:
    """Get the lock unless the key is done, now or once the lock is ours: then the front rests for ever."""
    limit = lease_times.request_limit(job.ttl)
    look = Operation("done", job.once, limit)
    result = yield from retry(look, orders, job.wait_until)
    got: Leased | Held | Failure | None = None
    if result is not None and result.error is not None:
        got = result.error
    elif result is not None and result.value is None:
        got = yield from acquire_to_run(job, orders, job.wait_until)
        if isinstance(got, tuple):
            result = yield from retry(look, orders, lease_times.renew_at(got[1], job.ttl))
            if result is not None and result.error is None and result.value is None:
                yield from tell_granted(job, *got)
                return got
        yield from leave(job, got)
    if isinstance(got, Failure):
        yield Operation("tell", *KeeperTells.gave_up(got.status, str(got)))
    elif isinstance(got, Held):
        yield from tell_held(got)
        yield Operation("tell", *KeeperTells.gave_up(HELD, ""))
    elif result is None or orders.over():
        yield Operation("tell", *KeeperTells.settled(""))
    elif result.error is not None:
        yield Operation("tell", *KeeperTells.gave_up(result.error.status, str(result.error)))
    else:
        yield Operation("tell", *KeeperTells.rest(None, 0.0, "done"))
    return None
