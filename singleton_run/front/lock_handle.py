"""What the front can do with a lock, whoever holds it. Types only, never imported at run time.

There are three kinds: `kernel_lock_handle`, `keeper_handle` and `kernel_slot_handle`. They have the same
methods, and lead to the same events of the turn.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from singleton_run.api.contract import Grant
    from singleton_run.api.record import Record
    from singleton_run.front.decisions import Turn
else:
    Protocol = object


class LockHandle(Protocol):
    """What the front can do with a lock. `process` is the keeper's process id, 0 without a keeper."""

    process: int

    @property
    def descriptor(self) -> int:
        """The descriptor that is readable when the keeper has said something; -1 when none can say more."""

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

    def suspend(self) -> bool:
        """Take no lock while we are stopped. False if a guard starts the command already."""

    def resume(self, turn: Turn) -> None:
        """Wait again, after `suspend`."""

    def write_start(self, run: Record) -> str:
        """Write the record of a run that is about to start. The error, or ''."""

    def running(self, run: Record) -> None:
        """The command runs: have that written down, unless it was before the start."""

    def settle(self, turn: Turn, run: Record) -> None:
        """Give the lock back and write the record of the run; `turn.settled` follows."""

    def leave(self, turn: Turn) -> None:
        """Give up waiting; `turn.settled` follows."""

    def pause(self) -> dict[str, Any] | None:
        """The pause in force, as facts of a message, where the kernel has the lock; a keeper tells it."""

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
