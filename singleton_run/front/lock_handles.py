"""How the front handles a lock: through a keeper that it forks, or by itself if the kernel holds the lock.

All take the same orders, and answer with the same messages (see `keeper.decisions.lifecycle`).
"""

from __future__ import annotations

import os

from singleton_run.api import record
from singleton_run.api.contract import Grant, Held
from singleton_run.errors import UNUSABLE, Failure, describe_bug, incomplete
from singleton_run.system import calls, pipes, processes
from singleton_run.system.forked import forked
from singleton_run.system.messages import KeeperOrders, KeeperTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
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
        """What the front can do with a lock. `process` is the keeper's process id, 0 without a keeper."""

        process: int

        @property
        def descriptor(self) -> int:
            """The descriptor that is readable when the keeper has said something; -1 without a keeper."""

        def acquire(self, grant: Grant | None, turn: Turn) -> None:
            """Begin to acquire the lock, or go on with `grant`. Raises OSError if a fork fails."""

        def fork_guard(self) -> None:
            """Fork a guard as a child of the front's."""

        def replace_guard(self, turn: Turn) -> None:
            """Fork a guard in place of one that died before the start."""

        def granted(self, grant: Grant, turn: Turn) -> None:
            """The lock is ours: a keeper has it, or a guard that waited for it."""

        def be_ready(self, unstarted: Record | None) -> None:
            """Have a guard now: the command is about to be started."""

        def withdraw(self) -> bool:
            """Take the right to start from a waiting guard. False if it has used the right already."""

        def write_start(self, run: Record) -> str:
            """Write the record of a run that is about to start. The error, or ''."""

        def settle(self, turn: Turn, run: Record) -> None:
            """Give the lock back and write the record of the run; `turn.settled` follows."""

        def leave(self, turn: Turn) -> None:
            """Give up waiting; `turn.settled` follows."""

        def kill(self) -> None:
            """SIGKILL the keeper; it is waited for later."""

        def retire(self, turn: Turn) -> None:
            """End the keeper on purpose: the kernel can prove something only if no helper is left."""

        def ended(self, turn: Turn) -> None:
            """The keeper has ended and was waited for."""

        def messages(self) -> list[list[Any]]:
            """The keeper's messages since the last call."""

        def close(self) -> None:
            """Close everything. Called at the end of a turn."""


KILL = 9


def _two_pipes() -> tuple[int, int, int, int]:
    """The four ends of two pipes. Raises OSError, and leaves nothing open then."""
    first = pipes.pipe()
    try:
        return (*first, *pipes.pipe())
    except OSError:
        for descriptor in first:
            os.close(descriptor)
        raise


class KernelLockHandle:
    """A lock that the kernel holds for us. Front and guard share it; the guard waits for it if need be."""

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

    def acquire(self, grant: Grant | None, turn: Turn) -> None:
        """Acquire the lock, or fork a guard that waits for it and then says "locked"."""
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
        turn.granted(got, calls.now())

    def replace_guard(self, turn: Turn) -> None:
        """The guard that waited has died: begin to wait anew."""
        self.backend.leave(0.0)
        self.acquire(None, turn)

    def granted(self, grant: Grant, turn: Turn) -> None:
        """The guard that waited has the lock, and shares it with us."""
        self.grant = grant
        turn.granted(grant, calls.now())

    def be_ready(self, unstarted: Record | None) -> None:
        """Do nothing: the guard is forked with the order to start."""

    def _give_right(self) -> None:
        """Put one byte, the right to decide, into a pipe that front and guard can both read.

        One of them gets it: the guard then starts the command, or the front ends the wait.
        """
        self._drop_right()
        self._right = [*pipes.pipe()]
        os.write(self._right[1], b"!")

    def _drop_right(self) -> None:
        for descriptor in self._right:
            os.close(descriptor)
        self._right = []

    def withdraw(self) -> bool:
        """Take the right to decide. False if the guard has taken it before, and starts the command."""
        if not self._right:
            return True
        try:
            return bool(os.read(self._right[0], 1))
        except BlockingIOError:
            return False

    def fork_guard(self) -> None:
        """Fork a guard that shares the lock with the front, or waits for it first."""
        self._link.fork(self._be_guard)

    def _be_guard(self, ends: GuardPipes) -> None:
        take = self._take if self.grant is None else None
        ends.be_guard(self._task, self.backend.descriptor, take, self.keep_lock)

    def _take(self) -> Grant | None:
        """Wait for the lock, in the guard. None if the wait is over, or the front has ended it."""
        self.grant = self.backend.take(self.job.name, self.job.holder, self.job.ttl, self._front)
        return self.grant if calls.now() <= self.job.wait_until and self.withdraw() else None

    def keep_lock(self) -> None:
        """Keep the lock for the rest of --lock-at-least-for. Called in a guard whose front has died."""
        keep = record.keep_left(self.job.lock_at_least_for, self._task.page.started_at)
        try:
            if keep:
                self.backend.keep(keep)
        except Failure:
            pass  # there is nobody to tell

    def write_start(self, run: Record) -> str:
        """Write the record of a run that is about to start. The error, or ''."""
        return self._try(lambda grant: self.backend.write(grant, run, 0.0))

    def settle(self, turn: Turn, run: Record) -> None:
        """Give the lock back at once, with the record of the run."""
        key, text = self.job.once, ""
        if key is not None and run["state"] == "succeeded":
            text = self._try(lambda grant: self.backend.mark(grant, key, record.mark_of(run), 0.0))
        keep = record.keep_left(self.job.lock_at_least_for, self._task.page.started_at)
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
        """There is no keeper: the turn's events happen at once."""
        return []

    def close(self) -> None:
        """Close our copy of the lock, at the end of a turn. The guard's copy is then the last."""
        self._drop_right()
        self.backend.close()


class KeeperHandle:
    """A lock that a keeper owns: a process of its own, which another keeper can replace.

    `open_backend` and `plan` are called in the keeper. `plan` makes the plan of the slots; it is None for a
    turn without a schedule. `shared` gives the descriptors that the backend needs in the keeper.
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
        """The descriptor that is readable when the keeper has said something; -1 without a keeper."""
        return self._says.descriptor

    def acquire(self, grant: Grant | None, turn: Turn) -> None:
        """Fork a keeper. The first one forks the guard at once; a later one resumes `grant`."""
        self._close()
        orders_read, orders_write, says_read, says_write = descriptors = _two_pipes()
        self.generation += 1
        first = self.generation == 0 and self.job.leased
        resumed = None
        if grant is not None:
            resumed = (Grant(**{**grant.as_dict(), "generation": self.generation}), self.task.page.end)
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
            pipes.Writer(says).send(KeeperTells.trouble(f"the backend failed: {describe_bug(error)}"))
            os._exit(1)

    def _fork_first_guard(self, keepers: tuple[int, ...]) -> int:
        """Fork the guard in the keeper: only above the guard can a keeper prove that nothing is left."""
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
        """Fork a guard in place of one that died before the start, as a child of the front's."""
        self.fork_guard()

    def granted(self, grant: Grant, turn: Turn) -> None:
        """The keeper has the lock: start the command."""
        turn.granted(grant, calls.now())

    def be_ready(self, unstarted: Record | None) -> None:
        """Have a guard now: the command is about to be started."""
        if not self._link.is_open:
            self.fork_guard()

    def write_start(self, run: Record) -> str:
        """Write nothing: the server itself knows who holds a lock."""
        return ""

    def settle(self, turn: Turn, run: Record) -> None:
        """Order the keeper to give the lock back, and to write the record of the run."""
        self._order(KeeperOrders.settle(run))

    def leave(self, turn: Turn) -> None:
        """Order the keeper to give up waiting."""
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
        """End the keeper on purpose. Another one resumes afterwards."""
        turn.keeper_retired()
        self.kill()

    def ended(self, turn: Turn) -> None:
        """The keeper has ended and was waited for."""
        self.process = 0
        turn.keeper_died(calls.now())

    def messages(self) -> list[list[Any]]:
        """The keeper's messages since the last call."""
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
        """Close the pipes, at the end of a turn. A keeper that has not settled is killed."""
        if not self.settled:
            self.kill()
        self._close()


class KernelSlotHandle:
    """A lock that the kernel holds, for slots and --once: a short-lived keeper decides whether to run.

    The keeper shares the open lock with the front. When it has decided it ends, and the front goes on as
    with any `KernelLockHandle`.
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
        """The descriptor that is readable when the keeper has said something; -1 without a keeper."""
        return self._keeper.descriptor

    @property
    def process(self) -> int:
        """The keeper's process id, 0 without a keeper."""
        return self._keeper.process

    @process.setter
    def process(self, process: int) -> None:
        self._keeper.process = process

    def acquire(self, grant: Grant | None, turn: Turn) -> None:
        """Fork the keeper that decides."""
        try:
            self._kernel.backend.open(self._kernel.job.name)
        except Failure as failure:
            turn.gave_up(failure.status, str(failure))
            return
        self._keeper.acquire(None, turn)

    def replace_guard(self, turn: Turn) -> None:
        """Do nothing: there is no guard before the start."""

    def granted(self, grant: Grant, turn: Turn) -> None:
        """The keeper has the lock. It is ours too if our open descriptor is of the same lock."""
        if not self._kernel.backend.holds(grant):
            return
        self._kernel.grant = grant
        if self._leaving is None:
            turn.granted(grant, calls.now())
        elif self._unstarted is not None:
            self._kernel.settle(self._leaving, self._unstarted)

    def be_ready(self, unstarted: Record | None) -> None:
        """Have a guard now: the command is about to be started."""
        self._unstarted = unstarted
        if not self._link.is_open:
            self.fork_guard()

    def fork_guard(self) -> None:
        """Fork a guard that shares the lock with the front."""
        kernel = self._kernel
        self._link.fork(
            lambda ends: ends.be_guard(self._task, kernel.backend.descriptor, None, kernel.keep_lock)
        )

    def withdraw(self) -> bool:
        """No guard starts without an order."""
        return True

    def write_start(self, run: Record) -> str:
        """Write the record of a run that is about to start. The error, or ''."""
        return self._kernel.write_start(run)

    def settle(self, turn: Turn, run: Record) -> None:
        """Give the lock back at once, with the record of the run."""
        self._kernel.settle(turn, run)

    def leave(self, turn: Turn) -> None:
        """Order the keeper to leave. A lock that it has acquired meanwhile is given back."""
        self._leaving = turn
        self._keeper.leave(turn)

    def kill(self) -> None:
        """SIGKILL the keeper."""
        self._keeper.kill()

    def retire(self, turn: Turn) -> None:
        """Do nothing: the keeper has ended by itself."""

    def ended(self, turn: Turn) -> None:
        """The keeper has ended and was waited for. That is a crash if it has not acquired the lock."""
        if self._kernel.grant is None:
            turn.keeper_died(calls.now())

    def messages(self) -> list[list[Any]]:
        """The keeper's messages since the last call."""
        return self._keeper.messages()

    def close(self) -> None:
        """Close our copy of the lock, at the end of a turn. The guard's copy is then the last."""
        self._keeper.close()
        self._kernel.close()
