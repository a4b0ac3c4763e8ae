"""The reporter's loop: descriptors, times and work in threads, each with a function to call.

Everything but the work of `in_thread` happens in one thread, one call after the other. None of these calls
may wait. Times are by the boot clock, in seconds.
"""

from __future__ import annotations

import os
import select

from singleton_run.system import calls, pipes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Result = TypeVar("Result")


class Loop:
    """Calls back what is due. Without descriptors that are ready and times that come it sleeps."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._timer = calls.Timer()
        self._ready: dict[int, Callable[[int], None]] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._done: list[Callable[[], None]] = []
        self._wake = pipes.pipe()
        self.watch(self._timer.descriptor, select.EPOLLIN, lambda _: self._timer.clear())
        self.watch(self._wake[0], select.EPOLLIN, lambda _: self._hear_threads())

    def watch(self, descriptor: int, events: int, call: Callable[[int], None]) -> None:
        """Call `call` with the events (epoll(7)) whenever they come; a second `watch` replaces the first."""
        if descriptor in self._ready:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._ready[descriptor] = call

    def forget(self, descriptor: int) -> None:
        """Watch the descriptor no more. Call it before the descriptor is closed."""
        if self._ready.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def at(self, when: float, call: Callable[[], None]) -> int:
        """Call `call` once at `when` (boot clock). Returns a number for `cancel`."""
        self._number += 1
        self._due.append((when, self._number, call))
        self._due.sort(key=lambda due: due[:2])
        return self._number

    def cancel(self, number: int) -> None:
        """Take an `at` back; nothing happens if it was called already."""
        self._due = [due for due in self._due if due[1] != number]

    def in_thread(self, work: Callable[[], Result], done: Callable[[Result | None], None]) -> None:
        """Do `work` in a thread of its own, and call `done` in the loop with its result.

        The result is None if `work` raises. `work` must have a time limit of its own.
        """
        import _thread

        def run() -> None:
            result: Result | None = None
            try:
                result = work()
            except Exception:  # noqa: BLE001 - whoever wants to tell of it catches it in `work`
                result = None
            self._done.append(lambda: done(result))
            os.write(self._wake[1], b"!")

        _thread.start_new_thread(run, ())

    def step(self) -> None:
        """Wait until something is due, and call what is."""
        self._timer.set(self._due[0][0] if self._due else calls.FOREVER)
        for descriptor, events in self._epoll.poll():
            call = self._ready.get(descriptor)
            if call is not None:
                call(events)
        now = calls.now()
        while self._due and self._due[0][0] <= now:
            self._due.pop(0)[2]()

    def _hear_threads(self) -> None:
        os.read(self._wake[0], 4096)
        while self._done:
            self._done.pop(0)()
