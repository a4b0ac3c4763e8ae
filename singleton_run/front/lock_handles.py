"""How the front has a lock: through a keeper that it forks, or, where the kernel holds it, by itself.

Both take the same orders, and answer with the same messages (see `keeper.keep`).
"""

from __future__ import annotations

import os

from singleton_run.api import record
from singleton_run.api.contract import Grant, Held
from singleton_run.errors import UNUSABLE, Failure, fault, incomplete
from singleton_run.guard import process as guard_process
from singleton_run.system import calls, pipes, processes
from singleton_run.system.messages import KeeperOrders, KeeperTells
from singleton_run.system.stderr import last_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from singleton_run.api.contract import Backend
    from singleton_run.api.record import Record
    from singleton_run.front.decisions import Turn
    from singleton_run.guard.process import Take, Task
    from singleton_run.job import Job
    from singleton_run.report.log import Log
    from singleton_run.schedule.slot_rules import Plan
    from singleton_run.system.messages import Message
    from singleton_run.system.shared_page import Page

KILL = 9


def forked(work: Callable[[], None]) -> int:
    """Do `work` in a forked process, which then ends; its process id.

    The process never returns and leaves a line in place of a traceback: status 1 says that work failed.
    """
    process = os.fork()
    if process:
        return process
    try:
        work()
        os._exit(0)
    except OSError as error:
        last_words(f"a process of ours had to end: this machine refuses what a run takes ({error.strerror})")
    except Exception as error:  # noqa: BLE001 - a traceback is of no use to who reads it
        last_words(f"a process of ours had to end, which is a fault of singleton-run: {fault(error)}")
    finally:
        os._exit(1)


def _two_pipes() -> tuple[int, int, int, int]:
    """Two pipes, or none and an OSError."""
    first = pipes.pipe()
    try:
        return (*first, *pipes.pipe())
    except OSError:
        for descriptor in first:
            os.close(descriptor)
        raise


class GuardEnds:
    """The pipes to and from the guard, and the one by which it tells the keeper of the end.

    The front keeps both ends of that one, so that end-of-file on it means that front and guard
    are both dead.
    """

    def __init__(self, proof: tuple[int, int], log: Log) -> None:
        self.log = log
        self.orders_read, orders_write = pipes.pipe()
        says_read, self.says_write = pipes.pipe()
        self.orders = pipes.Writer(orders_write)
        self.says = pipes.Reader(says_read)
        self.proof_read, self.proof_write = proof
        self._unused = True

    def close_guards(self) -> None:
        """In the front, once the guard was forked: what only the guard has to hold."""
        self._unused = False
        os.close(self.orders_read)
        os.close(self.says_write)

    def close_unused(self) -> None:
        """In the front, at the end or before others take their place: these, if no guard has them."""
        if self._unused:
            self.close_guards()
            self.close_fronts()

    def close_fronts(self) -> None:
        """In any process forked from the front: what only the front has to hold."""
        os.close(self.orders.descriptor)
        os.close(self.says.descriptor)

    def run(
        self, task: Task, lock: int, take: Take | None = None, orphaned: Callable[[], None] | None = None
    ) -> None:
        """Be the guard. The writer is the front's alone: it ends when that has no more to say."""
        self.close_fronts()
        self.log.gone()
        if self.proof_read >= 0:
            os.close(self.proof_read)
        guard_process.run(task, self.orders_read, self.says_write, self.proof_write, lock, take, orphaned)


class FlockLock:
    """The file backend's lock: the front holds it with the guard, which also waits for it."""

    leased = False
    process = 0
    descriptor = -1

    def __init__(
        self, lock: str, job: Job, page: Page, environ: Mapping[str, str], fork_guard: Callable[[], None]
    ) -> None:
        from singleton_run_file import open_backend

        self.job = job
        self.page = page
        self.backend = open_backend(lock, environ)
        self.fork_guard = fork_guard
        self.front = os.getpid()
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
            if turn.waits:
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

    def guard(self, ends: GuardEnds, task: Task) -> None:
        """Be the guard: hold the lock with the front, or wait for it first."""
        take = self._take if self.grant is None else None
        ends.run(task, self.backend.lock, take, self.keep_lock)

    def _take(self) -> Grant | None:
        """Wait for the lock, in the guard; None if the wait is over, or the front has ended it."""
        self.grant = self.backend.take(self.job.name, self.job.holder, self.job.ttl, self.front)
        return self.grant if calls.now() <= self.job.wait_until and self.withdraw() else None

    def keep_lock(self) -> None:
        """In the guard whose front has died: have the lock kept as long as was asked for."""
        keep = record.keep_for(self.job.keep, self.page.began)
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
        keep = record.keep_for(self.job.keep, self.page.began)
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

    def ended(self, turn: Turn) -> None:
        """There is no keeper."""

    def messages(self) -> list[list[Any]]:
        """Nothing is told later: what happens is said at once."""
        return []

    def close(self) -> None:
        """At the end of a turn: the guard's copy is the last."""
        self._drop_right()
        self.backend.close()


class KeeperLock:
    """A backend's lock, owned by a keeper: a process of its own, which another can replace.

    `plan` makes the plan of its slots, None without; `shared` are descriptors that the backend needs.
    """

    leased = True

    def __init__(
        self,
        job: Job,
        task: Task,
        ends: GuardEnds,
        fork_guard: Callable[[], None],
        open_backend: Callable[[], Backend],
        plan: Callable[[], Plan] | None,
        shared: Callable[[], list[int]] = list,
    ) -> None:
        self.job = job
        self.task = task
        self.ends = ends
        self.fork_guard = fork_guard
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

        def work() -> None:
            guard = self._fork_guard((orders_read, orders_write, says_read, says_write)) if first else 0
            os.setpgid(0, 0)
            calls.close_standard(0, 1)
            calls.keep_only([orders_read, says_write, self.ends.proof_read, *self._shared()])
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
            self.ends.close_guards()
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
                self.ends.proof_read,
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

    def _fork_guard(self, keepers: tuple[int, ...]) -> int:
        calls.become_subreaper()

        def work() -> None:
            for descriptor in keepers:
                os.close(descriptor)
            self.ends.run(self.task, -1)

        return forked(work)

    def replace_guard(self, turn: Turn) -> None:
        """A guard died before the start: the next is a child of the front's."""
        self.fork_guard()

    def guard(self, ends: GuardEnds, task: Task) -> None:
        """Be a guard that the front forks."""
        ends.run(task, -1)

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


class SlotLock:
    """The file backend's lock for slots and `--once`: a process of its own decides, and ends then.

    It shares the lock's open file with the front, which goes on as with any `FlockLock`.
    """

    leased = False

    def __init__(self, flock: FlockLock, keeper: KeeperLock) -> None:
        self._flock = flock
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
            self._flock.backend.open(self._flock.job.name)
        except Failure as failure:
            turn.gave_up(failure.status, str(failure))
            return
        self._keeper.keep(None, turn)

    def replace_guard(self, turn: Turn) -> None:
        """There is no guard before the start."""

    def guard(self, ends: GuardEnds, task: Task) -> None:
        """Be the guard: hold the lock with the front."""
        ends.run(task, self._flock.backend.lock, None, self._flock.keep_lock)

    def withdraw(self) -> bool:
        """No guard starts without an order."""
        return True

    def begun(self, run: Record) -> str:
        """Write down that the command is about to start; why that could not be done, or ''."""
        return self._flock.begun(run)

    def settle(self, turn: Turn, run: Record) -> None:
        """Give the lock back at once, with the record of the run."""
        self._flock.settle(turn, run)

    def leave(self, turn: Turn) -> None:
        """Have the process that decides leave; what it has got by then is given back."""
        self._leaving = turn
        self._keeper.leave(turn)

    def kill(self) -> None:
        """SIGKILL the process that decides."""
        self._keeper.kill()

    def ended(self, turn: Turn) -> None:
        """That process has ended, and was waited for."""
        if self._flock.grant is None:
            turn.keeper_died(calls.now())

    def messages(self) -> list[list[Any]]:
        """What it has told since; the lock that it got is ours too, if the file is still the same."""
        told = []
        for message in self._keeper.messages():
            if message[0] == "ready":
                self._unstarted = message[1]
            if message[0] != "granted":
                told.append(message)
            elif self._flock.backend.holds(grant := Grant(**message[1])):
                self._flock.grant = grant
                if self._leaving is None:
                    told.append(message)
                elif self._unstarted is not None:
                    self._flock.settle(self._leaving, self._unstarted)
        return told

    def close(self) -> None:
        """At the end of a turn: the guard's copy of the lock is the last."""
        self._keeper.close()
        self._flock.close()
