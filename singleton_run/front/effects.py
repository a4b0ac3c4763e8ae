"""The effects that the front's decisions can have. Types only: never imported at run time."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    from singleton_run.api.contract import Grant
    from singleton_run.system.messages import Message
else:
    Protocol = object


class Effects(Protocol):
    """What a turn does, and what it reads. None of these calls waits."""

    def acquire(self, grant: Grant | None) -> None:
        """Begin to acquire the lock, or resume `grant`. Raises OSError if a fork fails."""

    def kill_keeper(self) -> None:
        """SIGKILL the keeper. `Turn.keeper_died` follows when it was waited for."""

    def settle(self) -> None:
        """Order the keeper to give the lock back, and to write the record of the run."""

    def running(self) -> None:
        """Have the keeper write down that the command runs, where that was not written before the start."""

    def leave(self) -> None:
        """Order the keeper to give up waiting."""

    def withdraw(self) -> bool:
        """Take the right to start from a waiting guard. False if it has the lock, and will say so."""

    def tell_guard(self, message: Message) -> None:
        """Send the guard an order, and SIGCONT."""

    def new_guard(self) -> None:
        """Fork a guard in place of one that died before the start."""

    def kill_guard(self) -> None:
        """SIGKILL the guard. `Turn.guard_died` follows."""

    def adopt(self) -> bool:
        """Take the place of a dead guard: its children are ours now.

        False, and nothing changes, if it died before it had started anything.
        """

    def lease(self) -> tuple[float, float]:
        """The lease's end and the keeper's last report, both by the boot clock, in seconds."""

    def guard_has_read_all(self) -> bool:
        """Whether the guard has read all orders (it counts them in the shared page)."""

    def start_begun(self) -> bool:
        """Whether a guard has begun to start the command. False proves that nothing ran."""

    def pause(self) -> Mapping[str, Any] | None:
        """The pause in force (`control.facts`), where it can be read from a lock of the kernel's."""

    def say(self, level: str, event: str, **facts: object) -> None:
        """Tell the user, without waiting."""
