"""A lock that the kernel holds: front and guard have it open together, and there is no keeper."""

from __future__ import annotations

import posix as os

from singleton_run.api import record
from singleton_run.api.contract import Held
from singleton_run.errors import Failure
from singleton_run.system import calls, pipes, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from singleton_run.api.contract import Grant, KernelLock
    from singleton_run.api.record import Record
    from singleton_run.front.decisions import Turn
    from singleton_run.front.guard_link import GuardLink, GuardPipes
    from singleton_run.guard.decisions import Tell
    from singleton_run.guard.process import Task
    from singleton_run.job import Job

_DEATH_MILLISECONDS = 1000
"""How long a killed guard may take to end."""


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
        """Acquire the lock, or fork a guard that waits for it and then says "locked".

        During a pause the guard waits with the lock, which it shares with us.
        """
        try:
            got = self.backend.acquire(self.job.name, self.job.holder, self.job.ttl, 0.0)
        except Failure as failure:
            turn.gave_up(failure.status, str(failure))
            return
        pause = None
        if got.control is not None:
            from singleton_run.guard import pausing

            pause = pausing.facts_in_force(got.control)
        if isinstance(got, Held):
            turn.held(got.holder, got.host, got.since, pause, got.token)
        elif pause is not None:
            turn.paused(pause)
        else:
            self.grant = got
            turn.granted(got, calls.now())
            return
        if turn.wait.is_wanted:
            self._give_right()
            self.fork_guard()

    def replace_guard(self, turn: Turn) -> None:
        """Fork another guard. It shares the lock if a guard has got it; else it queues up anew."""
        if self.grant is not None:
            self.fork_guard()
        else:
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

    def suspend(self) -> bool:
        """End the guard that waits, and give up what it has got. False if it starts the command already."""
        if not self.withdraw():
            return False
        self._end_guard()
        return True

    def _end_guard(self) -> None:
        """Kill a guard that waits: it shares the lock that it may have got."""
        self._link.kill()
        if self._link.is_open:
            processes.exited(self._link.process, _DEATH_MILLISECONDS)
        self.backend.leave(0.0)

    def resume(self, turn: Turn) -> None:
        """Wait again, at the end of the queue."""
        if self._link.is_open:
            self._link.forget()
        self.acquire(None, turn)

    def fork_guard(self) -> None:
        """Fork a guard that shares the lock with the front, or waits for it first."""
        self._link.fork(self._be_guard)

    def _be_guard(self, ends: GuardPipes) -> None:
        take = self._take if self.grant is None else None
        ends.be_guard(self._task, self.backend.descriptor, take, self.keep_lock)

    def _take(self, orders: int, tell: Tell) -> Grant | None:
        """Wait for the lock, in the guard. None if the wait is over, or the front has ended it."""
        self.grant = self.backend.take(self.job.name, self.job.holder, self.job.ttl, self._front)
        if self.grant.control is not None:
            from singleton_run.guard import pausing

            if not pausing.wait_out(self.backend, self.grant, self.job.wait_until, orders, tell):
                return None
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
        if self.grant is None:
            return ""
        self.grant.record = whole = record.with_earlier(run, self.grant.record)
        return self._try(lambda grant: self.backend.write(grant, whole, 0.0))

    def running(self, run: Record) -> None:
        """Do nothing: it was written down before the start."""

    def settle(self, turn: Turn, run: Record) -> None:
        """Give the lock back at once, with the record of the run."""
        key, text = self.job.once, ""
        if key is not None and run["state"] == "succeeded":
            text = self._try(lambda grant: self.backend.mark(grant, key, record.mark_of(run), 0.0))
        keep = record.keep_left(self.job.lock_at_least_for, self._task.page.started_at)
        text = self._try(lambda grant: self._release(grant, run, keep)) or text
        self.backend.leave(0.0)
        turn.settled(text)

    def _release(self, grant: Grant, run: Record, keep: float) -> None:
        self.backend.release(grant, record.with_earlier(run, grant.record), 0.0, keep)

    def leave(self, turn: Turn) -> None:
        """Give up waiting, at once. A guard that waits during a pause has the lock: it ends before us."""
        self._end_guard()
        turn.settled("")

    def pause(self) -> dict[str, Any] | None:
        """The pause in force, as facts of a message; None without one, and if it can't be read."""
        try:
            control = None if self.grant is None else self.backend.renew(self.grant, 0.0)
        except Failure:
            return None
        if control is None:
            return None
        from singleton_run.guard import pausing

        return pausing.facts_in_force(control)

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
