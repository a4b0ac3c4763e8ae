"""A lock that the kernel holds, for slots and `--once`: a process of its own decides about them."""

from __future__ import annotations

from singleton_run.errors import Failure
from singleton_run.system import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from singleton_run.api.contract import Grant
    from singleton_run.api.record import Record
    from singleton_run.front.decisions import Turn
    from singleton_run.front.guard_link import GuardLink
    from singleton_run.front.keeper_handle import KeeperHandle
    from singleton_run.front.kernel_lock_handle import KernelLockHandle
    from singleton_run.guard.process import Task


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
        """The descriptor that is readable when the keeper has said something; -1 when none can say more."""
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

    def suspend(self) -> bool:
        """Do nothing: no command starts while we are stopped, for that needs an order of ours."""
        return True

    def resume(self, turn: Turn) -> None:
        """Do nothing: the keeper has gone on."""

    def write_start(self, run: Record) -> str:
        """Write the record of a run that is about to start. The error, or ''."""
        return self._kernel.write_start(run)

    def running(self, run: Record) -> None:
        """Do nothing: it was written down before the start."""

    def settle(self, turn: Turn, run: Record) -> None:
        """Give the lock back at once, with the record of the run."""
        self._kernel.settle(turn, run)

    def leave(self, turn: Turn) -> None:
        """Order the keeper to leave. A lock that it has acquired meanwhile is given back."""
        self._leaving = turn
        self._keeper.leave(turn)

    def pause(self) -> dict[str, Any] | None:
        """The pause in force, as facts of a message; None without one."""
        return self._kernel.pause()

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
