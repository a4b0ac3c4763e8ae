"""What a keeper does to run a slot, or what is done once: like `keeper`, as one sequence of operations.

A slot is first looked at without the lock, ahead of its time. The one that gets the lock decides by the
record that it then sees, writes the attempt down and starts on the dot. The others wait for the lock until
shortly after that, in case that it goes away before; then they look once more, and leave.

Every trip takes the lock once at most and ends then: a `leave` that the network kept back could undo
a later grant to the same holder.
"""

from __future__ import annotations

from singleton_run import lease_times
from singleton_run.api import record
from singleton_run.api.contract import Held
from singleton_run.errors import HELD, Failure, Lost, Unavailable
from singleton_run.keeper.decisions import Do, get, grant_told, pause, persist
from singleton_run.schedule.slot_rules import MEND, REST, taken_back
from singleton_run.system.messages import KeeperTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Any

    from singleton_run.api.contract import Grant
    from singleton_run.job import Job
    from singleton_run.keeper.decisions import Done, Got, Orders, Steps, StepsToGrant
    from singleton_run.schedule.slot_rules import Decision, Plan

    StepsToDecision = Generator[Do, Done, "tuple[Decision, float]"]

WRITE_AHEAD = 0.05
AGAIN = 1.0
MOST_OFFSET = 1.0


def take_slot(job: Job, orders: Orders) -> StepsToGrant:
    """Get the lock for a slot that is due, or tell "rest" and when to look again."""
    limit = lease_times.request_limit(job.ttl)
    done = yield from persist(Do("read", limit), orders, job.wait_until)
    if done is None:
        yield Do("tell", *KeeperTells.settled(""))
        return None
    if done.error is not None:
        yield from _give_up(job, done.error)
        return None
    found: Any = done.result
    held, seen = found
    decision, ahead = yield from _decide(job, seen, held=held is not None)
    if decision.kind == REST:
        yield from _rest(decision, ahead)
        return None
    until, deadline = (min(at + ahead, job.wait_until) for at in (decision.until, decision.deadline))
    got = yield from get(job, orders, until, deadline, silent=decision.briefly)
    if isinstance(got, tuple):
        return (yield from _run(job, orders, got))
    yield Do("leave", limit)
    if got is None:
        yield Do("tell", *KeeperTells.settled(""))
    elif isinstance(got, Held):
        yield from _was_held(job, got, decision)
    else:
        yield from _give_up(job, got)
    return None


def _was_held(job: Job, held: Held, decision: Decision) -> Steps:
    """Another has had it all the time: look again what it does, at once where we have waited."""
    done = yield Do("sleep", 0.0)
    plan: Plan = job.plan  # type: ignore[assignment] # there is one, or we would not be here
    in_time = done.now < job.wait_until or not job.waits
    if plan.loops or (in_time and not plan.second_look):
        yield Do("tell", *KeeperTells.rest(done.now + (0.0 if decision.waits() else AGAIN), 0.0, "held"))
        return
    yield Do("tell", *KeeperTells.held(held.holder, held.host, held.since))
    yield Do("tell", *KeeperTells.gave_up(HELD, ""))


def _run(job: Job, orders: Orders, got: Got) -> StepsToGrant:
    """Decide under the lock; write the attempt down, and tell "granted" when it is time."""
    grant, end = got
    limit = lease_times.request_limit(job.ttl)
    decision, ahead = yield from _decide(job, grant.record, held=False)
    start = (decision.at or 0.0) + ahead
    if decision.kind == MEND:
        yield from _mend(job, orders, grant, decision)
        return None
    if decision.kind == REST:
        yield Do("leave", limit)
        yield from _rest(decision, ahead)
        return None
    if decision.missed:
        yield Do("tell", *KeeperTells.note("missed", decision.missed, decision.slot))
    done = yield Do("sleep", start - WRITE_AHEAD)
    if not orders.over() and done.now >= lease_times.renew_at(end, job.ttl):
        done = yield Do("renew", grant, limit)
        end = done.began + job.ttl
    if orders.over() or done.error is not None:
        yield Do("leave", limit)
        yield from _over(job, orders, done)
        return None
    earlier = grant.record
    run = _started(job, grant, decision, max(start, done.now) - ahead)
    done = yield Do("write", grant, run, limit)
    if done.error is None:
        grant.record = run
        job.unstarted = taken_back(run, earlier)
        yield Do("tell", *KeeperTells.ready(job.unstarted))
        done = yield Do("sleep", start)
    if orders.over() or done.error is not None or done.now >= lease_times.stop_at(end, job.ttl):
        # Not started after all: what was written is taken back, if it can be.
        yield from _take_back(grant, taken_back(run, earlier), orders, end, limit)
        yield from _over(job, orders, done)
        return None
    yield from grant_told(grant, end)
    return grant, end


def _mend(job: Job, orders: Orders, grant: Grant, decision: Decision) -> Steps:
    """Write down what is known: the slot that is due may have been started. Then decide anew."""
    plan: Plan = job.plan  # type: ignore[assignment] # there is one, or we would not be here
    yield Do("tell", *KeeperTells.note("unreadable", decision.slot))
    run = record.started(grant.record, grant.name, grant.holder, grant.token, decision.at or 0.0)
    done = yield Do("release", grant, plan.mended(run, decision), lease_times.request_limit(job.ttl))
    if orders.over() or done.error is not None:
        yield from _over(job, orders, done)
    else:
        yield Do("tell", *KeeperTells.rest(done.now, decision.slot, "mended"))


def _started(job: Job, grant: Grant, decision: Decision, start: float) -> Mapping[str, Any]:
    run = record.started(grant.record, grant.name, grant.holder, grant.token, start)
    return run if job.plan is None else job.plan.started(run, decision, start)


def _take_back(grant: Grant, run: Mapping[str, Any], orders: Orders, end: float, limit: float) -> Steps:
    """Give the lock back with that record: as long as it is ours, for what is written is an attempt."""
    failures = 0
    while True:
        done = yield Do("release", grant, run, limit)
        if not isinstance(done.error, Unavailable) or done.now >= end:
            return
        failures += 1
        yield from pause(done, done.error, failures, end)


def _over(job: Job, orders: Orders, done: Done) -> Steps:
    """The end of a trip that had the lock and did not start: look again soon, unless asked to leave."""
    plan: Plan = job.plan  # type: ignore[assignment] # there is one, or we would not be here
    if orders.over():
        yield Do("tell", *KeeperTells.settled(""))
        return
    if done.error is not None:
        in_time = isinstance(done.error, Unavailable) and done.now < job.wait_until
        if not (plan.loops or in_time or isinstance(done.error, Lost)):
            yield from _give_up(job, done.error)
            return
        yield Do("tell", *KeeperTells.trouble(str(done.error)))
    yield Do("tell", *KeeperTells.rest(done.now, 0.0, "not started"))


def _decide(job: Job, seen: Mapping[str, Any] | None, *, held: bool) -> StepsToDecision:
    """What to do, and how far the boot clock is ahead of the time of slots."""
    done = yield Do("clock")
    told: Any = done.result
    now, offset = told
    if offset is not None and abs(offset) > MOST_OFFSET:
        yield Do("tell", *KeeperTells.note("offset", offset))
    plan: Plan = job.plan  # type: ignore[assignment] # there is one, or we would not be here
    plan.offset = offset or 0.0
    decision = plan.decide(seen, now, held=held, exact=offset is not None)
    for event, number in decision.notes:
        yield Do("tell", *KeeperTells.note(event, number))
    return decision, done.now - now


def _rest(decision: Decision, ahead: float) -> Steps:
    wake = None if decision.at is None else decision.at + ahead
    yield Do("tell", *KeeperTells.rest(wake, decision.slot, decision.why))


def _give_up(job: Job, error: Failure) -> Steps:
    """Nothing can be had: say why, and when the next slot would be; until then it may be tried again."""
    done = yield Do("clock")
    told: Any = done.result
    now, _ = told
    following = job.plan.blind(now) if job.plan is not None else now
    yield Do("tell", *KeeperTells.gave_up(error.status, str(error), done.now + following - now))


def take_once(job: Job, orders: Orders) -> StepsToGrant:
    """Get the lock unless the key is done, now or when the lock is ours: then tell "rest" for ever."""
    limit = lease_times.request_limit(job.ttl)
    look = Do("done", job.once, limit)
    done = yield from persist(look, orders, job.wait_until)
    got: Got | Held | Failure | None = None
    if done is not None and done.error is not None:
        got = done.error
    elif done is not None and done.result is None:
        got = yield from get(job, orders, job.wait_until)
        if isinstance(got, tuple):
            done = yield from persist(look, orders, lease_times.renew_at(got[1], job.ttl))
            if done is not None and done.error is None and done.result is None:
                yield from grant_told(*got)
                return got
        yield Do("leave", limit)
    if isinstance(got, Failure):
        yield Do("tell", *KeeperTells.gave_up(got.status, str(got)))
    elif isinstance(got, Held):
        yield Do("tell", *KeeperTells.held(got.holder, got.host, got.since))
        yield Do("tell", *KeeperTells.gave_up(HELD, ""))
    elif done is None or orders.over():
        yield Do("tell", *KeeperTells.settled(""))
    elif done.error is not None:
        yield Do("tell", *KeeperTells.gave_up(done.error.status, str(done.error)))
    else:
        yield Do("tell", *KeeperTells.rest(None, 0.0, "done"))
    return None
