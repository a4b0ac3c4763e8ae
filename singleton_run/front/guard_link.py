"""The front's link to the guard: the pipes between them, and the count of the orders that it has read."""

from __future__ import annotations

import posix as os

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
    """The pipes to and from one guard, and the proof pipe, on which the guard says "gone" to the keeper.

    The front holds both ends of the proof pipe. So the keeper reads end-of-file there only when front and
    guard are both dead. `is_unused` says that no guard was forked with these pipes.
    """

    def __init__(self, proof: tuple[int, int], log: Log) -> None:
        self.log = log
        self.orders_read, orders_write = pipes.pipe()
        says_read, self.says_write = pipes.pipe()
        self.orders = pipes.Writer(orders_write)
        self.says = pipes.Reader(says_read)
        self.proof_read, self.proof_write = proof
        self.is_unused = True

    def close_guards(self) -> None:
        """Close the guard's ends. Called in the front, after the guard was forked."""
        self.is_unused = False
        os.close(self.orders_read)
        os.close(self.says_write)

    def close_unused(self) -> None:
        """Close both ends if no guard was forked with these pipes. Called in the front."""
        if self.is_unused:
            self.close_guards()
            self.close_fronts()

    def close_fronts(self) -> None:
        """Close the front's ends. Called in any process that was forked from the front."""
        os.close(self.orders.descriptor)
        os.close(self.says.descriptor)

    def be_guard(
        self,
        task: Task,
        lock_descriptor: int,
        take: Take | None = None,
        orphaned: Callable[[], None] | None = None,
    ) -> None:
        """Be the guard, in a process forked for it; see `guard.process.run`.

        The pipe to the writer is closed here: the writer ends when the front has closed its own end too.
        """
        self.close_fronts()
        self.log.gone()
        if pipes.reporter is not None:
            pipes.reporter.leave()
        if self.proof_read >= 0:
            os.close(self.proof_read)
        guard_process.run(
            task, self.orders_read, self.says_write, self.proof_write, lock_descriptor, take, orphaned
        )


class GuardLink:
    """Sends orders to the guard, and reads its messages. `is_open` says that there is a living guard.

    `pipes` are those of the current guard, or of the next one if it isn't forked yet. `proof` has both ends
    of the proof pipe, -1 without one. `children_before` are the front's children of a moment at which the
    guard had not begun to start the command.
    """

    def __init__(self, page: Page, log: Log, proof: tuple[int, int]) -> None:
        self._page = page
        self._log = log
        self._proof = proof
        self.pipes = GuardPipes(proof, log)
        self.is_open = False
        self._ordered = 0
        self._last_orders: list[Message] = []
        self.children_before: set[int] = set()

    @property
    def descriptor(self) -> int:
        """The descriptor that is readable when the guard has said something; -1 without a guard."""
        return self.pipes.says.descriptor if self.is_open else -1

    @property
    def process(self) -> int:
        """The guard's process id, 0 without one."""
        return self._page.guard if self.is_open else 0

    def was_forked(self) -> None:
        """The keeper has forked the first guard."""
        self.pipes.close_guards()

    def fork(self, be_guard: Callable[[GuardPipes], None]) -> None:
        """Fork a guard as a child of the front's, and call `be_guard` in it. Raises OSError."""
        self._ordered = self._page.orders_read = 0
        self._last_orders = []
        self.pipes.close_unused()
        self.pipes = GuardPipes(self._proof, self._log)
        self.children_before = set(processes.children())
        # The guard writes its id as well, but it may be stopped before.
        self._page.guard = forked(lambda: be_guard(self.pipes))
        self.pipes.close_guards()
        self.is_open = True

    def remember_children(self) -> None:
        """Take the children of this moment for those before the start, unless the start has begun.

        A guard that waited for the lock has begun it by itself, and may have died since: then the command
        is among our children already.
        """
        children = set(processes.children())
        if not self._page.start_begun:
            self.children_before = children

    def send(self, order: Message) -> None:
        """Give the guard an order, and SIGCONT."""
        self._last_orders = [*self.unread(), order]
        self._ordered += 1
        self.pipes.orders.send(order)
        if self._page.guard:
            processes.send(self._page.guard, int(_signal.SIGCONT))

    def has_read_all(self) -> bool:
        """Whether the guard has read every order."""
        return not self.is_open or self._page.orders_read >= self._ordered

    def unread(self) -> list[Message]:
        """The orders that the guard has not read, or had not read when it died."""
        unread = self._ordered - self._page.orders_read
        return self._last_orders[len(self._last_orders) - unread :]

    def read(self) -> list[list[Any]]:
        """The guard's messages since the last call."""
        return self.pipes.says.read() if self.is_open else []

    def has_ended(self) -> bool:
        """Whether the guard has closed its end, and all its messages were read."""
        return self.is_open and self.pipes.says.closed

    def forget(self) -> None:
        """Close our ends: the guard has ended, or is to see end-of-file because we end."""
        self.is_open = False
        self.pipes.close_fronts()

    def kill(self) -> None:
        """SIGKILL the guard. Its end is noticed later, by end-of-file."""
        if self._page.guard:
            processes.send(self._page.guard, _KILL)

    def close(self) -> None:
        """Close everything. Called between two turns."""
        if self.pipes.is_unused:  # the keeper that was to fork the first guard could not be forked
            self.pipes.close_unused()
        elif self.is_open:
            self.pipes.close_fronts()
        for descriptor in self._proof:
            if descriptor >= 0:
                os.close(descriptor)
