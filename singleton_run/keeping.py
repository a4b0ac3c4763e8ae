"""The keeper's process: carries out, one after the other, the operations of `keeper.keep`."""

from __future__ import annotations

import gc
import os
import select
import time

from singleton_run import keeper, processes, registry, system
from singleton_run.channel import Reader, Writer
from singleton_run.errors import Failure
from singleton_run.keeper import Do, Done, Orders
from singleton_run.log import last_words
from singleton_run.record import begun, ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Mapping
    from typing import Any

    from singleton_run.contract import Backend, Grant, Job
    from singleton_run.page import Page
else:
    import _signal

ENFORCE_LIMIT = 5.0


def run(
    lock: str,
    job: Job,
    page: Page,
    orders: int,
    tell: int,
    proof: int,
    *,
    guard: int,
    resumed: tuple[Grant, float] | None,
) -> None:
    """Be the keeper of one turn, in a process forked for it.

    `guard` is the guard's process id if it is our child, else 0.
    """
    gc.enable()
    system.set_title(f"singleton-run: keeper of {job.name}")
    front = Writer(tell)
    try:
        backend = registry.open_backend(lock, os.environ)
    except Failure as failure:
        front.send("gave up", failure.status, str(failure))
        return
    process = _Keeper(backend, job, page, Reader(orders), front, Reader(proof), guard)
    steps = keeper.keep(job, process.orders, resumed, {})
    try:
        step = next(steps)
        while True:
            step = steps.send(process.carry_out(step))
    except StopIteration:
        backend.close()
    while not front.flush():
        system.wait_to_write(tell)


class _Keeper:
    """The descriptors of a keeper, and how it does each operation."""

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
        self.start = time.time()
        self.wake = select.epoll()
        self.wake.register(front.descriptor, select.EPOLLIN)
        self.wake.register(proof.descriptor, select.EPOLLIN)

    def carry_out(self, do: Do) -> Done:
        """Do one operation, and hear what was ordered meanwhile."""
        began = system.now()
        result: object = None
        error: Failure | None = None
        work: Callable[..., object] = getattr(self, f"_{do.name}")
        try:
            result = work(*do.arguments)
        except Failure as failure:
            error = failure
        self._listen()
        self.tell.flush()
        return Done(began, system.now(), result, error)

    def _listen(self) -> None:
        for message in self.front.read():
            if message[0] == "leave":
                self.orders.leave = True
            else:
                self.orders.settle = message[1]
        for _gone in self.proof.read():
            self.orders.nothing_runs = True
        if self.front.closed and not self.orders.no_front:
            self.orders.no_front = True
            self.wake.unregister(self.front.descriptor)
        if self.proof.closed and not self.all_dead:
            self.all_dead = True
            self.wake.unregister(self.proof.descriptor)
            self.orders.nothing_runs = self.orders.nothing_runs or not self.page.started
            self.orders.unguarded = not self.orders.nothing_runs

    def _acquire(self, limit: float) -> object:
        return self.backend.acquire(self.job.name, self.job.holder, self.job.ttl, limit)

    def _wait(self, held: Any, until: float) -> None:
        self.backend.wait(held, until, self.wake.fileno())

    def _leave(self, limit: float) -> None:
        self.backend.leave(limit)

    def _renew(self, grant: Grant, limit: float) -> None:
        self.backend.renew(grant, limit)

    def _hold(self, grant: Grant, until: float) -> None:
        self.backend.hold(grant, until, self.wake.fileno())

    def _release(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        if not record:
            run = begun(grant.record, grant.name, grant.holder, grant.token, self.start)
            record = ended(run, "crashed", None, None)
        self.backend.release(grant, record, limit)

    def _sleep(self, until: float) -> None:
        system.wait(until, [self.wake.fileno()])

    def _report(self, end: float) -> None:
        self.page.end = max(self.page.end, end)
        self.page.reported = system.now()

    def _tell(self, *message: object) -> None:
        if message[0] == "trouble":
            if message[1] == self.told_trouble:
                return
            self.told_trouble = str(message[1])
        self.tell.send(*message)

    def _wake(self) -> None:
        for process in (os.getppid() if not self.orders.no_front else 0, self.page.guard):
            if process > 1:
                processes.send(process, int(_signal.SIGCONT))

    def _enforce(self) -> None:
        """Kill what front and guard should have killed; a child subreaper gets what they leave."""
        last_words(f"the keeper of {self.job.name!r} kills the command, for nobody else does")
        children = system.Signals({int(_signal.SIGCHLD)})
        ours = self.guard and self.guard == self.page.guard
        if self.page.guard and not self.all_dead:
            processes.send(self.page.guard, int(_signal.SIGKILL))
        if self.page.command:
            processes.send(self.page.command, int(_signal.SIGKILL))
        until = system.now() + ENFORCE_LIMIT
        none_left = processes.reap()[1]
        while not none_left and system.now() < until:
            for process in processes.children():
                processes.send(process, int(_signal.SIGKILL))
            system.wait(until, [children.descriptor])
            children.read()
            none_left = processes.reap()[1]
        os.close(children.descriptor)
        if ours and none_left and self.orders.orphaned():
            self.orders.nothing_runs = True
        elif self.orders.orphaned():
            last_words(f"lock {self.job.name!r} is kept: nothing proves that its command is gone")
