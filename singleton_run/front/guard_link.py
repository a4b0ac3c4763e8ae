"""The front's link to the guard: the pipes between them, and which orders the guard has read."""

from __future__ import annotations

import os

from singleton_run.guard import process as guard_process
from singleton_run.system import pipes, processes
from singleton_run.system.forked import forked

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any

    from singleton_run.guard.process import Take, Task
    from singleton_run.report.log import Log
    from singleton_run.system.messages import Message
    from singleton_run.system.shared_page import Page
else:
    import _signal

_KILL = 9


class GuardPipes:
    """The pipes to and from one guard, and the one by which it tells the keeper of the end.

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

    def be_guard(
        self, task: Task, lock: int, take: Take | None = None, orphaned: Callable[[], None] | None = None
    ) -> None:
        """Be the guard. The writer is the front's alone: it ends when that has no more to say."""
        self.close_fronts()
        self.log.gone()
        if self.proof_read >= 0:
            os.close(self.proof_read)
        guard_process.run(task, self.orders_read, self.says_write, self.proof_write, lock, take, orphaned)


class GuardLink:
    """Orders to the guard, and what it says. `is_open` says that there is a guard which hasn't ended.

    `pipes` are those of the current guard, or of the next one before it was forked. `proof` are the ends of
    the pipe by which a guard tells the keeper of the end, -1 without one.
    """

    def __init__(self, page: Page, log: Log, proof: tuple[int, int]) -> None:
        self._page = page
        self._log = log
        self._proof = proof
        self.pipes = GuardPipes(proof, log)
        self.is_open = False
        self._ordered = 0
        self._last_orders: list[Message] = []

    @property
    def descriptor(self) -> int:
        """What to poll for what the guard says; -1 without a guard."""
        return self.pipes.says.descriptor if self.is_open else -1

    @property
    def process(self) -> int:
        """The guard's process id, 0 without one."""
        return self._page.guard if self.is_open else 0

    def was_forked(self) -> None:
        """The first guard runs: the keeper has forked it."""
        self.pipes.close_guards()

    def fork(self, be_guard: Callable[[GuardPipes], None]) -> None:
        """Fork a guard, as a child of ours, in which `be_guard` is called with its pipes."""
        self._ordered = self._page.heard = 0
        self._last_orders = []
        self.pipes.close_unused()
        self.pipes = GuardPipes(self._proof, self._log)
        forked(lambda: be_guard(self.pipes))
        self.pipes.close_guards()
        self.is_open = True

    def send(self, order: Message) -> None:
        """Give the guard an order, and SIGCONT."""
        self._last_orders = [*self.unread(), order]
        self._ordered += 1
        self.pipes.orders.send(order)
        if self._page.guard:
            processes.send(self._page.guard, int(_signal.SIGCONT))

    def has_read_all(self) -> bool:
        """Whether the guard has read every order."""
        return not self.is_open or self._page.heard >= self._ordered

    def unread(self) -> list[Message]:
        """The orders that the guard has not read, or had not when it died."""
        unread = self._ordered - self._page.heard
        return self._last_orders[len(self._last_orders) - unread :]

    def read(self) -> list[list[Any]]:
        """What the guard has said since."""
        return self.pipes.says.read() if self.is_open else []

    def has_ended(self) -> bool:
        """Whether the guard has closed its end, and all it said was read."""
        return self.is_open and self.pipes.says.closed

    def forget(self) -> None:
        """The guard has ended, or we end: it sees end-of-file."""
        self.is_open = False
        self.pipes.close_fronts()

    def kill(self) -> None:
        """SIGKILL the guard; that it is gone is seen later."""
        if self._page.guard:
            processes.send(self._page.guard, _KILL)

    def close(self) -> None:
        """Between two turns: nothing of the last one stays open."""
        if self.is_open:
            self.pipes.close_fronts()
        self.pipes.close_unused()
        for descriptor in self._proof:
            if descriptor >= 0:
                os.close(descriptor)
