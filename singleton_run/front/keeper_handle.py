"""A lock of a server's: the front has it through a keeper that it forks, and replaces if that dies."""

from __future__ import annotations

import posix as os

from singleton_run import lease_times, preload
from singleton_run.api.contract import Grant
from singleton_run.errors import NO_MEMORY, UNUSABLE, Failure, describe_bug, incomplete, scarce
from singleton_run.system import calls, pipes, processes
from singleton_run.system.forked import forked
from singleton_run.system.messages import KeeperOrders, KeeperTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any

    from singleton_run.api.contract import Backend
    from singleton_run.api.record import Record
    from singleton_run.front.decisions import Turn
    from singleton_run.front.guard_link import GuardLink
    from singleton_run.guard.process import Task
    from singleton_run.job import Job
    from singleton_run.schedule.slot_rules import Plan
    from singleton_run.system.messages import Message
else:
    import _signal

_KILL = 9


def _two_pipes() -> tuple[int, int, int, int]:
    """The four ends of two pipes. Raises OSError, and leaves nothing open then."""
    first = pipes.pipe()
    try:
        return (*first, *pipes.pipe())
    except OSError:
        for descriptor in first:
            os.close(descriptor)
        raise


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
        self._run: Record | None = None
        self._orders = pipes.Writer(-1)
        self._says = pipes.Reader(-1)
        if job.leased:
            task.take_back = self._take_back

    @property
    def descriptor(self) -> int:
        """The descriptor that is readable when the keeper has said something; -1 when none can say more."""
        return -1 if self._says.closed else self._says.descriptor

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
            guard = 0
            if first:
                guard = self._fork_first_guard((orders_read, orders_write, says_read, says_write))
                self.task.page.guard = guard  # it writes that as well, but we may end before it has begun
            os.setpgid(0, 0)
            calls.close_standard(0, 1)
            calls.keep_only(
                [orders_read, says_write, proof, *self._shared(), *pipes.traced_to(), *pipes.reported_to()]
            )
            self._be_keeper(guard, resumed, orders_read, says_write)

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
        if self._run is not None:  # the keeper before may have died before it wrote that
            self._order(KeeperOrders.running(self._run))

    def _be_keeper(self, guard: int, resumed: tuple[Grant, float] | None, orders: int, says: int) -> None:
        """Be the keeper; an error is told, and ends this process."""
        try:
            preload.load(preload.KEEPER)
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
        except MemoryError:
            pipes.Writer(says).send(KeeperTells.trouble(scarce(NO_MEMORY)))
            os._exit(1)
        except Exception as error:  # noqa: BLE001 - a stranger's backend may raise anything
            pipes.Writer(says).send(KeeperTells.trouble(f"the backend failed: {describe_bug(error)}"))
            os._exit(1)

    def _take_back(self) -> None:
        """Give up the place in the queue that a dead keeper has left. Called in a guard, as its last work."""
        calls.set_title(f"singleton-run: keeper of {self.job.name}")
        preload.load(preload.KEEPER)
        try:
            backend = self._open_backend()
        except Failure:  # our place ends with its lease
            return
        try:
            if give_up := getattr(backend, "take_back", None):
                give_up(self.job.name, self.job.holder, lease_times.request_limit(self.job.ttl))
        except Failure:
            pass
        finally:
            backend.close()

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

    def running(self, run: Record) -> None:
        """Have the keeper write down that the command runs. For a slot that was done before the start."""
        if self._plan is None:
            self._run = run
            self._order(KeeperOrders.running(run))

    def settle(self, turn: Turn, run: Record) -> None:
        """Order the keeper to give the lock back, and to write the record of the run."""
        self._run = None
        self._order(KeeperOrders.settle(run))

    def leave(self, turn: Turn) -> None:
        """Order the keeper to give up waiting."""
        self._order(KeeperOrders.leave())

    def withdraw(self) -> bool:
        """No guard starts without an order."""
        return True

    def suspend(self) -> bool:
        """Stop the keeper: its place in the queue, or a lock that it gets just now, ends with its lease."""
        if self.process:
            processes.send(self.process, int(_signal.SIGSTOP))
        return True

    def resume(self, turn: Turn) -> None:
        """Continue the keeper: it finds out what it still has, and queues up anew if that is nothing."""
        if self.process:
            processes.send(self.process, int(_signal.SIGCONT))

    def _order(self, order: Message) -> None:
        if self._orders.descriptor >= 0:
            self._orders.send(order)

    def pause(self) -> dict[str, Any] | None:
        """None: the keeper tells of it by itself."""
        return None

    def kill(self) -> None:
        """SIGKILL the keeper."""
        if self.process:
            processes.send(self.process, _KILL)

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
