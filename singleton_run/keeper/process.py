"""The keeper's process: carries out, one after the other, the operations of `decisions`."""

from __future__ import annotations

import gc
import posix as os
import select
import time

from singleton_run.api.record import ended, keep_left, mark_of, started
from singleton_run.errors import Failure
from singleton_run.keeper import decisions as keeper_decisions
from singleton_run.keeper.operations import Operation, Orders, Result
from singleton_run.system import calls, pipes, processes
from singleton_run.system.messages import KeeperOrders, KeeperTells, deliver
from singleton_run.system.pipes import Reader, Writer
from singleton_run.system.stderr import last_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Mapping
    from typing import Any

    from singleton_run.api.contract import Backend, Grant, InPods
    from singleton_run.job import Job
    from singleton_run.schedule.slot_rules import Plan
    from singleton_run.system.shared_page import Page
else:
    import _signal

ENFORCE_LIMIT = 5.0
_AGAIN = 0.1
_KILL = 9


def run(
    open_backend: Callable[[], Backend],
    job: Job,
    page: Page,
    orders: int,
    tell: int,
    proof: int,
    *,
    guard: int,
    resumed: tuple[Grant, float] | None,
    plan: Callable[[], Plan] | None = None,
) -> None:
    """Be the keeper of one turn, in a process forked for it.

    `guard` is the guard's process id if it is our child, else 0. `plan` makes the plan of `job`, only here.
    """
    calls.set_title(f"singleton-run: keeper of {job.name}")
    if pipes.tracer is not None:
        pipes.tracer.become("keeper")
    if pipes.reporter is not None:
        pipes.reporter.become_keeper()
    front = Writer(tell)
    try:
        backend = open_backend()
        if warning := getattr(backend, "warning", None):
            front.send(KeeperTells.insecure(*warning))
        if plan is not None:
            job.plan = plan()
    except Failure as failure:
        front.send(KeeperTells.gave_up(failure.status, str(failure)))
        return
    gc.freeze()  # what the front has made stays shared with it, and what was loaded stays
    gc.enable()
    page.reported = calls.now()  # what was loaded took its time, which is not the first attempt's
    process = _Keeper(backend, job, page, Reader(orders), front, Reader(proof), guard)
    steps = keeper_decisions.lifecycle(job, process.orders, resumed)
    try:
        step = next(steps)
        while True:
            step = steps.send(process.carry_out(step))
    except StopIteration:
        page.over = page.over or process.orders.no_front
        backend.close()
    while not front.flush():
        calls.wait_to_write(tell)


class _Keeper:
    """The descriptors of a keeper. Each operation has a method, its name after an underscore."""

    def __init__(
        self,
        backend: Backend,
        job: Job,
        page: Page,
        front: Reader,
        tell: Writer,
        proof: Reader,
        guard: int,
    ) -> None:
        self.backend = backend
        self.job = job
        self.page = page
        self.front = front
        self.tell = tell
        self.proof = proof
        self.guard = guard
        self.orders = Orders()
        self.told_trouble = ""
        self.all_dead = False
        self.children: calls.Signals | None = None
        self.start = time.time()
        self.wake = select.epoll()
        self.wake.register(front.descriptor, select.EPOLLIN)

    def carry_out(self, operation: Operation) -> Result:
        """Do one operation, and read the orders that came meanwhile."""
        if pipes.tracer is not None:
            pipes.tracer.operation(operation)
        began = calls.now()
        value: object = None
        error: Failure | None = None
        work: Callable[..., object] = getattr(self, f"_{operation.name}")
        try:
            value = work(*operation.arguments)
        except Failure as failure:
            error = failure
        result = Result(began, calls.now(), value, error)
        if pipes.tracer is not None:
            pipes.tracer.operation(operation, result)
        if pipes.reporter is not None:
            pipes.reporter.operation(operation, result)
        self._listen()
        self.tell.flush()
        result.now = calls.now()
        return result

    def _listen(self) -> None:
        for message in self.front.read():
            deliver(message, KeeperOrders, self.orders)
            if self.orders.not_understood:
                last_words(f"the keeper of {self.job.name!r} does not know {self.orders.not_understood!r}")
                self.orders.not_understood = ""
        if not self.front.closed:
            return
        if not self.orders.no_front:
            # Only now: while the front lives, it reads the proof itself.
            self.orders.no_front = True
            if self.page.guard:  # a guard that is stopped doesn't know yet
                processes.send(self.page.guard, int(_signal.SIGCONT))
            self.wake.unregister(self.front.descriptor)
            self.wake.register(self.proof.descriptor, select.EPOLLIN)
        for _gone in self.proof.read():
            self.orders.nothing_runs = True
        if self.proof.closed and not self.all_dead:
            self.all_dead = True
            self.wake.unregister(self.proof.descriptor)
            self.orders.never_started = not self.page.start_begun
            self.orders.nothing_runs = self.orders.nothing_runs or self.orders.never_started
            self.orders.unguarded = not self.orders.nothing_runs
        if self.children is not None:
            self.children.read()
            self._kill_children()

    def _acquire(self, limit: float) -> object:
        return self.backend.acquire(self.job.name, self.job.holder, self.job.ttl, limit)

    def _wait(self, held: Any, until: float) -> None:
        self.backend.wait(held, until, self.wake.fileno())

    def _leave(self, limit: float) -> None:
        self.backend.leave(limit)

    def _renew(self, grant: Grant, limit: float) -> object:
        return self.backend.renew(grant, limit)

    def _hold(self, grant: Grant, until: float) -> None:
        self.backend.hold(grant, until, self.wake.fileno())

    def _prepare(self, grant: Grant) -> None:
        """Make the record of the run that begins, while the command starts: no release waits for that."""
        who = grant.name, grant.holder, grant.token
        grant.record = started(grant.record, *who, self.start, self.job.command)

    def _release(self, grant: Grant, record: Mapping[str, Any] | str, limit: float) -> None:
        if isinstance(record, str):
            self._prepare(grant)
            record = ended(grant.record or {}, record, None, None)
        keep = keep_left(self.job.lock_at_least_for, self.page.started_at)
        self.backend.release(grant, record, limit, keep)

    def _read(self, limit: float) -> object:
        return self.backend.read(self.job.name, limit)

    def _write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        self.backend.write(grant, record, limit)

    def _done(self, key: str, limit: float) -> object:
        return self.backend.done(self.job.name, key, limit)

    def _mark(self, grant: Grant, key: str, record: Mapping[str, Any], limit: float) -> None:
        self.backend.mark(grant, key, mark_of(record), limit)

    def _label(self, on: bool, limit: float) -> None:
        backend: InPods = self.backend  # type: ignore[assignment]  # only such a backend is asked
        backend.label_pod(self.job.label_pod, limit, on=on)

    def _clock(self) -> tuple[float, float | None]:
        """The time of slots, and how far our clock is behind it, in seconds; None if no server tells."""
        offset = self.backend.offset()
        now = time.time()
        if offset is None:
            return now, None
        ahead, exact = offset
        return (now, 0.0) if abs(ahead) <= exact else (now + ahead, ahead)

    def _sleep(self, until: float) -> None:
        calls.wait(until, [self.wake.fileno()])

    def _report(self, end: float) -> None:
        self.page.end = max(self.page.end, end)
        self.page.reported = calls.now()
        if pipes.tracer is not None:
            pipes.tracer.lease(self.page.end, self.page.reported)
        if pipes.reporter is not None:
            pipes.reporter.lease(self.page.end, self.page.reported)

    def _tell(self, *message: Any) -> None:
        if message[0] == "trouble":
            if message[1] == self.told_trouble:
                return
            self.told_trouble = str(message[1])
        self.tell.send(message)

    def _wake(self) -> None:
        for process in (os.getppid() if not self.orders.no_front else 0, self.page.guard):
            if process > 1:
                processes.send(process, int(_signal.SIGCONT))

    def _enforce(self) -> None:
        """Kill the command, as front and guard should have done. Its orphans become our children."""
        last_words(f"the keeper of {self.job.name!r} kills the command, for nobody else does")
        if self.page.guard and not self.all_dead:
            processes.send(self.page.guard, _KILL)
        if self.page.command and self.children is None:
            processes.send(-self.page.command, _KILL)
            processes.send(self.page.command, _KILL)
        if self.children is None:
            self.children = calls.Signals({int(_signal.SIGCHLD)})
        until = calls.now() + min(ENFORCE_LIMIT, self.job.ttl / 6)
        while not self._kill_children() and calls.now() < until:
            calls.wait(min(until, calls.now() + _AGAIN), [self.children.descriptor])
            self.children.read()
        if self.orders.orphaned() and not self.orders.nothing_runs:
            self.wake.register(self.children.descriptor, select.EPOLLIN)
            last_words(f"lock {self.job.name!r} is kept: nothing proves that its command is gone")

    def _kill_children(self) -> bool:
        """Reap and kill our children; true if none is left, which is a proof if the guard was our child."""
        none_left = processes.reap()[1]
        for process in [] if none_left else processes.children():
            processes.send(process, _KILL)
        if none_left and self.all_dead and self.guard and self.guard == self.page.guard:
            self.orders.nothing_runs = True
        return none_left
