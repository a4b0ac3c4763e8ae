"""Every message between our processes, by direction: who sends it, what it means, which fields it has.

A message is a list: its name, then its fields. One class is one direction. Its functions make the
messages; whoever receives them has a method of the same name and fields for each (`deliver`).
What is said to people goes to the writer and has its words in `report.sentences`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Message = tuple[Any, ...]


class GuardOrders:
    """Front to guard. Any of them also wakes a guard that was stopped: SIGCONT comes with it."""

    @staticmethod
    def start(token: int, slot: float | None = None, attempt: int | None = None) -> Message:
        """Start the command under this fencing token; `slot` is in Unix seconds."""
        return "start", token, slot, attempt

    @staticmethod
    def signal(number: int) -> Message:
        """Send the command this signal."""
        return "signal", number

    @staticmethod
    def kill() -> Message:
        """Kill every process of the turn, until none is left."""
        return ("kill",)

    @staticmethod
    def wake() -> Message:
        """Nothing but the SIGCONT."""
        return ("wake",)


class GuardTells:
    """Guard to front."""

    @staticmethod
    def locked(grant: Mapping[str, Any]) -> Message:
        """The kernel gave the lock to the guard that waited for it; it starts the command by itself."""
        return "locked", grant

    @staticmethod
    def started(process: int) -> Message:
        """The command runs as this process."""
        return "started", process

    @staticmethod
    def failed(number: int) -> Message:
        """The command could not be started, by this errno."""
        return "failed", number

    @staticmethod
    def late() -> Message:
        """The lease was too old to start the command."""
        return ("late",)

    @staticmethod
    def expired() -> Message:
        """The lease's end has come: everything is killed."""
        return ("expired",)

    @staticmethod
    def ended(status: int) -> Message:
        """The command has ended: its exit status, or minus the signal that ended it."""
        return "ended", status

    @staticmethod
    def leftover(process: int, command: str) -> Message:
        """The command has ended and left this process behind."""
        return "leftover", process, command

    @staticmethod
    def more_leftovers() -> Message:
        """It left more of them than are named."""
        return ("more_leftovers",)

    @staticmethod
    def forbidden(process: int, command: str) -> Message:
        """This process may not be signalled by us."""
        return "forbidden", process, command

    @staticmethod
    def stuck(process: int, command: str) -> Message:
        """This process was killed and has not ended yet."""
        return "stuck", process, command

    @staticmethod
    def gone(*, proved: bool) -> Message:
        """Nothing is left of the turn's processes, by the kernel's word if `proved`."""
        return "gone", proved


class Proof:
    """Guard to keeper, over the pipe that is read only once the front is dead."""

    @staticmethod
    def gone() -> Message:
        """Nothing is left of the turn's processes, by the kernel's word."""
        return ("gone",)


class KeeperOrders:
    """Front to keeper."""

    @staticmethod
    def settle(record: Mapping[str, Any]) -> Message:
        """The command is gone: give the lock back, with this record of the run."""
        return "settle", record

    @staticmethod
    def leave() -> Message:
        """Give up waiting."""
        return ("leave",)


class KeeperTells:
    """Keeper to front."""

    @staticmethod
    def held(holder: str, host: str, since: float | None) -> Message:
        """Another has the lock, since then (Unix seconds, UTC)."""
        return "held", holder, host, since

    @staticmethod
    def ready(unstarted: Mapping[str, Any] | None) -> Message:
        """The command is started within milliseconds: have a guard ready.

        `unstarted` is the record to write if it isn't started after all.
        """
        return "ready", unstarted

    @staticmethod
    def granted(grant: Mapping[str, Any]) -> Message:
        """The lock is ours: start the command."""
        return "granted", grant

    @staticmethod
    def trouble(text: str) -> Message:
        """Something could not be done, and is tried again."""
        return "trouble", text

    @staticmethod
    def gave_up(status: int, text: str, again_at: float | None = None) -> Message:
        """The lock can't be had: exit status and reason; again at this reading of the boot clock."""
        return "gave_up", status, text, again_at

    @staticmethod
    def rest(until: float | None, slot: float, why: str) -> Message:
        """Nothing is to be started before `until` (boot clock), when `slot` is due; None is never."""
        return "rest", until, slot, why

    @staticmethod
    def settled(text: str) -> Message:
        """The lock is given back, or the wait given up; `text` is what failed, or empty."""
        return "settled", text

    @staticmethod
    def lost(text: str) -> Message:
        """The lock is not ours any more."""
        return "lost", text

    @staticmethod
    def note(event: str, number: float, slot: float | None = None) -> Message:
        """Something about slots that people are told once."""
        return "note", event, number, slot

    @staticmethod
    def insecure(level: str, text: str) -> Message:
        """What the backend warns of."""
        return "insecure", level, text


DIRECTIONS = (GuardOrders, GuardTells, Proof, KeeperOrders, KeeperTells)


def deliver(message: list[Any] | Message, direction: type, receiver: Any) -> None:
    """Call the receiver's method for a message of that direction.

    One that the direction does not know, as from a program that was replaced while we ran, goes to
    the receiver's `unknown` with its name: it is never lost.
    """
    name = message[0]
    if name in vars(direction) and not name.startswith("_"):
        getattr(receiver, name)(*message[1:])
    else:
        receiver.unknown(str(name))
