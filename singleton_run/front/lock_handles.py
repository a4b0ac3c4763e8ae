"""How the front has a lock: through a keeper that it forks, or, where the kernel holds it, by itself.

All take the same orders, and answer with the same messages (see `keeper.decisions.lifecycle`).
"""

from __future__ import annotations

import os

from singleton_run.api import record
from singleton_run.api.contract import Grant, Held
from singleton_run.errors import UNUSABLE, Failure, fault, incomplete
from singleton_run.system import calls, pipes, processes
from singleton_run.system.forked import forked
from singleton_run.system.messages import KeeperOrders, KeeperTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from singleton_run.api.contract import Backend, KernelLock
    from singleton_run.api.record import Record
    from singleton_run.front.decisions import Turn
    from singleton_run.front.guard_link import GuardLink, GuardPipes
    from singleton_run.guard.process import Task
    from singleton_run.job import Job
    from singleton_run.schedule.slot_rules import Plan
    from singleton_run.system.messages import Message

    class LockHandle(Protocol):
        """What the front does with a lock. `process` is the keeper's process id, 0 without one."""

        process: int

        @property
        def descriptor(self) -> int:
            """What to poll for messages; -1 without a keeper."""

        def keep(self, grant: Mapping[str, Any] | None, turn: Turn) -> None:
            """Take the lock, or go on with `grant`. Raises OSError if a fork is refused."""

        def fork_guard(self) -> None:
            """Fork a guard as a child of the front's."""

        def replace_guard(self, turn: Turn) -> None:
            """Have a guard in the place of one that died before the start."""

        def locked(self, grant: Mapping[str, Any], turn: Turn) -> None:
            """A guard that waited has the lock, and shares it with us."""

        def withdraw(self) -> bool:
            """Take from a waiting guard the right to start; False if it has used it already."""

        def begun(self, run: Record) -> str:
            """Write down that the command is about to start; why that could not be done, or ''."""

        def settle(self, turn: Turn, run: Record) -> None:
            """Have the lock given back, with the record of the run."""

        def leave(self, turn: Turn) -> None:
            """Have the place in the queue given back."""

        def kill(self) -> None:
            """SIGKILL the keeper; it is waited for later."""

        def retire(self, turn: Turn) -> None:
            """End a keeper that another can replace, so that no helper of ours is left but this."""

        def ended(self, turn: Turn) -> None:
            """The keeper has ended and was waited for."""

        def messages(self) -> list[list[Any]]:
            """What the keeper has told since."""

        def close(self) -> None:
            """At the end of a turn: keep nothing of the lock open."""


KILL = 9


def _two_pipes() -> tuple[int, int, int, int]:
    """Two pipes, or none and an OSError."""
    first = pipes.pipe()
    try:
        return (*first, *pipes.pipe())
    except OSError:
        for descriptor in first:
            os.close(descriptor)
        raise


class KernelLockHandle:
    """A lock that the kernel holds: the front has it together with the guard, which also waits for it."""

    process = 0
    descriptor = -1

    def __init__(self, backend: KernelLock, job: Job, task: Task, link: GuardLink) -> None:
        self.job = job
        self.backend = backend
        self._task = task
        self._link = link
        self._front = os.getpid()
        self.grant: Grant | None = None
        self._right: list[int] = []

    def keep(self, grant: Mapping[str, Any] | None, turn: Turn) -> None:
        """Take the lock, or have a guard wait for it, which says "locked"."""
        try:
            got = self.backend.acquire(self.job.name, self.job.holder, self.job.ttl, 0.0)
        except Failure as failure:
            turn.gave_up(failure.status, str(failure))
            return
        if isinstance(got, Held):
            turn.held(got.holder, got.host, got.since)
            if turn.wait.is_wanted:
                self._give_right()
                self.fork_guard()
            return
        self.grant = got
        turn.granted(got.as_dict(), calls.now())

    def replace_guard(self, turn: Turn) -> None:
        """The guard that waited has died: ask for the lock anew, with another."""
        self.backend.leave(0.0)
        self.keep(None, turn)

    def locked(self, grant: Mapping[str, Any], turn: Turn) -> None:
        """The guard waited, and shares the lock with us."""
        self.grant = Grant(**grant)
        turn.granted(self.grant.as_dict(), calls.now())

    def _give_right(self) -> None:
        """Put the right to decide where front and guard can reach it: one byte, which one of them gets.

        With it the guard starts the command, or the front ends the wait.
        """
        self._drop_right()
        self._right = [*pipes.pipe()]
        os.write(self._right[1], b"!")

    def _drop_right(self) -> None:
        for descriptor in self._right:
            os.close(descriptor)
        self._right = []

    def withdraw(self) -> bool:
        """Get the right to decide from a guard that waits; False if that has it already, and starts."""
        if not self._right:
            return True
        try:
            return bool(os.read(self._right[0], 1))
        except BlockingIOError:
            return False

    def fork_guard(self) -> None:
        """Fork a guard: it holds the lock with the front, or waits for it first."""
        self._link.fork(self._be_guard)

    def _be_guard(self, ends: GuardPipes) -> None:
        take = self._take if self.grant is None else None
        ends.be_guard(self._task, self.backend.descriptor, take, self.keep_lock)

    def _take(self) -> Grant | None:
        """Wait for the lock, in the guard; None if the wait is over, or the front has ended it."""
        self.grant = self.backend.take(self.job.name, self.job.holder, self.job.ttl, self._front)
        return self.grant if calls.now() <= self.job.wait_until and self.withdraw() else None

    def keep_lock(self) -> None:
        """In the guard whose front has died: have the lock kept as long as was asked for."""
        keep = record.keep_left(self.job.keep, self._task.page.began)
        try:
            if keep:
                self.backend.keep(keep)
        except Failure:
            pass  # there is nobody to tell

    def begun(self, run: Record) -> str:
        """Write down that the command is about to start; why that could not be done, or ''."""
        return self._try(lambda grant: self.backend.write(grant, run, 0.0))

    def settle(self, turn: Turn, run: Record) -> None:
        """Give the lock back at once, with the record of the run."""
        key, text = self.job.once, ""
        if key is not None and run["state"] == "succeeded":
            text = self._try(lambda grant: self.backend.mark(grant, key, record.mark_of(run), 0.0))
        keep = record.keep_left(self.job.keep, self._task.page.began)
        text = self._try(lambda grant: self.backend.release(grant, run, 0.0, keep)) or text
        self.backend.leave(0.0)
        turn.settled(text)

    def leave(self, turn: Turn) -> None:
        """Give up waiting, at once."""
        self.backend.leave(0.0)
        turn.settled("")

    def _try(self, work: Callable[[Grant], None]) -> str:
        try:
            if self.grant is not None:
                work(self.grant)
        except Failure as failure:
            return str(failure)
        return ""

    def kill(self) -> None:
        """There is no keeper."""

    def retire(self, turn: Turn) -> None:
        """There is no keeper."""

    def ended(self, turn: Turn) -> None:
        """There is no keeper."""

    def messages(self) -> list[list[Any]]:
        """Nothing is told later: what happens is said at once."""
        return []

    def close(self) -> None:
        """At the end of a turn: the guard's copy is the last."""
        self._drop_right()
        self.backend.close()


class KeeperHandle:
    """A backend's lock, owned by a keeper: a process of its own, which another can replace.

    `plan` makes the plan of its slots, None without; `shared` are descriptors that the backend needs.
    """

    def __init__(
        self,
        job: Job,
        task: Task,
        link: GuardLink,
        open_backend: Callable[[], Backend],
        plan: Callable[[], Plan] | None,
        shared: Callable[[], list[int]] = list,
    ) -> None:
        self.job = job
        self.task = task
        self._link = link
        self._open_backend = open_backend
        self._plan = plan
        self._shared = shared
        self.generation = -1
        self.process = 0
        self.settled = False
        self._orders = pipes.Writer(-1)
        self._says = pipes.Reader(-1)

    @property
    def descriptor(self) -> int:
        """What to poll for messages; -1 without a keeper."""
        return self._says.descriptor

    def keep(self, grant: Mapping[str, Any] | None, turn: Turn) -> None:
        """Fork a keeper: the first forks the guard at once, a later one resumes `grant`."""
        self._close()
        orders_read, orders_write, says_read, says_write = descriptors = _two_pipes()
        self.generation += 1
        first = self.generation == 0 and self.job.leased
        resumed = None
        if grant is not None:
            resumed = (Grant(**{**grant, "generation": self.generation}), self.task.page.end)
        self.task.page.reported = calls.now()

        proof = self._link.pipes.proof_read

        def work() -> None:
            guard = self._fork_first_guard((orders_read, orders_write, says_read, says_write)) if first else 0
            os.setpgid(0, 0)
            calls.close_standard(0, 1)
            calls.keep_only([orders_read, says_write, proof, *self._shared(), *pipes.traced_to()])
            self._run(guard, resumed, orders_read, says_write)

        try:
            self.process = forked(work)
        except OSError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        os.close(orders_read)
        os.close(says_write)
        if first:
            self._link.was_forked()
        self._orders = pipes.Writer(orders_write)
        self._says = pipes.Reader(says_read)

    def _run(self, guard: int, resumed: tuple[Grant, float] | None, orders: int, says: int) -> None:
        """Be the keeper; an error is told, and ends this process."""
        try:
            from singleton_run.keeper import process

            process.run(
                self._open_backend,
                self.job,
                self.task.page,
                orders,
                says,
                self._link.pipes.proof_read,
                guard=guard,
                resumed=resumed,
                plan=self._plan,
            )
        except ImportError as error:  # another keeper would meet it too
            pipes.Writer(says).send(KeeperTells.gave_up(UNUSABLE, incomplete(error)))
            os._exit(1)
        except Exception as error:  # noqa: BLE001 - a stranger's backend may raise anything
            pipes.Writer(says).send(KeeperTells.trouble(f"the backend failed: {fault(error)}"))
            os._exit(1)

    def _fork_first_guard(self, keepers: tuple[int, ...]) -> int:
        """In the keeper, which must be above the guard to know by itself that nothing is left."""
        calls.become_subreaper()

        def work() -> None:
            for descriptor in keepers:
                os.close(descriptor)
            self._link.pipes.be_guard(self.task, -1)

        return forked(work)

    def fork_guard(self) -> None:
        """Fork a guard as a child of the front's."""
        self._link.fork(lambda ends: ends.be_guard(self.task, -1))

    def replace_guard(self, turn: Turn) -> None:
        """A guard died before the start: the next is a child of the front's."""
        self.fork_guard()

    def locked(self, grant: Mapping[str, Any], turn: Turn) -> None:
        """No guard waits for a lock of a server's."""

    def begun(self, run: Record) -> str:
        """The server tells who holds a lock: nothing is written at the start of a plain turn."""
        return ""

    def settle(self, turn: Turn, run: Record) -> None:
        """Have the keeper give the lock back, with the record of the run."""
        self._order(KeeperOrders.settle(run))

    def leave(self, turn: Turn) -> None:
        """Have the keeper give up waiting."""
        self._order(KeeperOrders.leave())

    def withdraw(self) -> bool:
        """No guard starts without an order."""
        return True

    def _order(self, order: Message) -> None:
        if self._orders.descriptor >= 0:
            self._orders.send(order)

    def kill(self) -> None:
        """SIGKILL the keeper."""
        if self.process:
            processes.send(self.process, KILL)

    def retire(self, turn: Turn) -> None:
        """End the keeper on purpose: another resumes afterwards."""
        turn.keeper_retired()
        self.kill()

    def ended(self, turn: Turn) -> None:
        """The keeper has ended and was waited for."""
        self.process = 0
        turn.keeper_died(calls.now())

    def messages(self) -> list[list[Any]]:
        """What the keeper has told since."""
        told = self._says.read() if self._says.descriptor >= 0 else []
        self.settled = self.settled or any(message[0] in ("settled", "gave_up", "rest") for message in told)
        return told

    def _close(self) -> None:
        for descriptor in (self._orders.descriptor, self._says.descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._orders = pipes.Writer(-1)
        self._says = pipes.Reader(-1)

    def close(self) -> None:
        """At the end of a turn: one that has settled ends by itself, another is killed."""
        if not self.settled:
            self.kill()
        self._close()


class KernelSlotHandle:
    """A lock that the kernel holds, for slots and `--once`: a process of its own decides, and ends then.

    It shares the open lock with the front, which goes on as with any `KernelLockHandle`.
    """

    def __init__(self, kernel: KernelLockHandle, keeper: KeeperHandle, task: Task, link: GuardLink) -> None:
        self._kernel = kernel
        self._task = task
        self._link = link
        self._keeper = keeper
        self._leaving: Turn | None = None
        self._unstarted: Record | None = None

    @property
    def descriptor(self) -> int:
        """What to poll for messages; -1 without a keeper."""
        return self._keeper.descriptor

    @property
    def process(self) -> int:
        """The process that decides, 0 without."""
        return self._keeper.process

    @process.setter
    def process(self, process: int) -> None:
        self._keeper.process = process

    def keep(self, grant: Mapping[str, Any] | None, turn: Turn) -> None:
        """Fork the process that decides."""
        try:
            self._kernel.backend.open(self._kernel.job.name)
        except Failure as failure:
            turn.gave_up(failure.status, str(failure))
            return
        self._keeper.keep(None, turn)

    def replace_guard(self, turn: Turn) -> None:
        """There is no guard before the start."""

    def locked(self, grant: Mapping[str, Any], turn: Turn) -> None:
        """No guard waits: the process that decides does."""

    def fork_guard(self) -> None:
        """Fork a guard, which holds the lock with the front."""
        kernel = self._kernel
        self._link.fork(
            lambda ends: ends.be_guard(self._task, kernel.backend.descriptor, None, kernel.keep_lock)
        )

    def withdraw(self) -> bool:
        """No guard starts without an order."""
        return True

    def begun(self, run: Record) -> str:
        """Write down that the command is about to start; why that could not be done, or ''."""
        return self._kernel.begun(run)

    def settle(self, turn: Turn, run: Record) -> None:
        """Give the lock back at once, with the record of the run."""
        self._kernel.settle(turn, run)

    def leave(self, turn: Turn) -> None:
        """Have the process that decides leave; what it has got by then is given back."""
        self._leaving = turn
        self._keeper.leave(turn)

    def kill(self) -> None:
        """SIGKILL the process that decides."""
        self._keeper.kill()

    def retire(self, turn: Turn) -> None:
        """The process that decides has ended by itself."""

    def ended(self, turn: Turn) -> None:
        """That process has ended, and was waited for."""
        if self._kernel.grant is None:
            turn.keeper_died(calls.now())

    def messages(self) -> list[list[Any]]:
        """What it has told since; the lock that it got is ours too, if the file is still the same."""
        told = []
        for message in self._keeper.messages():
            if message[0] == "ready":
                self._unstarted = message[1]
            if message[0] != "granted":
                told.append(message)
            elif self._kernel.backend.holds(grant := Grant(**message[1])):
                self._kernel.grant = grant
                if self._leaving is None:
                    told.append(message)
                elif self._unstarted is not None:
                    self._kernel.settle(self._leaving, self._unstarted)
        return told

    def close(self) -> None:
        """At the end of a turn: the guard's copy of the lock is the last."""
        self._keeper.close()
        self._kernel.close()
