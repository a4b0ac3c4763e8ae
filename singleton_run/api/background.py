"""A task in a thread, for calls without a time limit: the lookup of a name, a login program."""

from __future__ import annotations

import _thread
import posix as os

from singleton_run.api.deadline import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from singleton_run.api.deadline import Deadline


class Background:
    """Runs `task`, which must not raise, in a thread from now on.

    Nothing stops it: a thread that hangs ends with the process. `done` says whether it has ended.
    """

    def __init__(self, task: Callable[[], None]) -> None:
        self.done = False
        self._read, self._write = os.pipe()
        _thread.start_new_thread(self._run, (task,))

    def _run(self, task: Callable[[], None]) -> None:
        task()
        self.done = True
        os.close(self._write)

    def wait(self, deadline: Deadline) -> None:
        """Wait until the task has ended. Raises Timeout, Interrupted: the task then goes on."""
        if not self.done:
            deadline.wait(self._read, READ)

    def close(self) -> None:
        """Free its descriptor, once it is done."""
        os.close(self._read)
