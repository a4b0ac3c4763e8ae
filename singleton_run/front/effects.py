"""What the front's decisions can have done: the effects of a turn. Types only, never imported at run time."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from singleton_run.system.messages import Message
else:
    Protocol = object


class Effects(Protocol):
    """What a turn does to the world, and what it reads of it. Nothing here waits."""

    def keep(self, grant: dict[str, Any] | None) -> None:
        """Fork a keeper: to take the lock, or to resume `grant`. Raises OSError if the fork fails."""

    def kill_keeper(self) -> None:
        """SIGKILL the keeper; its death is an event, once it was waited for."""

    def settle(self) -> None:
        """Order the keeper to give the lock back, with the record of the run."""

    def leave(self) -> None:
        """Order the keeper to give up waiting."""

    def withdraw(self) -> bool:
        """Take from a waiting guard the right to start; False if it has the lock, and will say so."""

    def tell_guard(self, message: Message) -> None:
        """Send the guard an order, and SIGCONT."""

    def new_guard(self) -> None:
        """Fork a guard in the place of one that died before the start."""

    def kill_guard(self) -> None:
        """SIGKILL the guard; its death is an event."""

    def adopt(self) -> bool:
        """Take the decisions of a dead guard here: its children are ours now.

        False, and nothing is taken, if it died before it had started anything.
        """

    def lease(self) -> tuple[float, float]:
        """The lease's end and the keeper's last report, readings of the boot clock (seconds)."""

    def guard_heard(self) -> bool:
        """Whether the guard has read every order, by the shared page."""

    def begun(self) -> bool:
        """Whether a guard has begun to start the command: false proves that nothing ran."""

    def say(self, level: str, event: str, **facts: object) -> None:
        """Tell the user, without waiting."""
