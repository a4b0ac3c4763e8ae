"""Every message between our processes: its sender, its meaning and its fields.

A message is a list: its name, then its fields. Each class is one direction, and its functions make the
messages. The receiver has a method of the same name and fields for each message (`deliver`). Messages to the
user are not here: they go to the writer, and their words are in `report.sentences`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Message = tuple[Any, ...]


class GuardOrders:
    """Front to guard. A SIGCONT comes with each of them, and wakes a guard that was stopped."""

    @staticmethod
    def start(token: int, slot: float | None = None, attempt: int | None = None) -> Message:
        """Start the command with this fencing token. `slot` is in Unix seconds, `attempt` counts from 1."""
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
        """Do nothing: only the SIGCONT matters."""
        return ("wake",)


class GuardTells:
    """Guard to front."""

    @staticmethod
    def locked(grant: Mapping[str, Any]) -> Message:
        """The kernel gave the lock to the guard that waited for it; it starts the command by itself."""
        return "locked", grant

    @staticmethod
    def kept_back(pause: Mapping[str, Any]) -> Message:
        """The guard that waited has the lock, and a pause keeps it from starting (`control.facts`)."""
        return "kept_back", pause

    @staticmethod
    def started(process: int) -> Message:
        """The command runs as this process."""
        return "started", process

    @staticmethod
    def failed(number: int) -> Message:
        """The command could not be started; `number` is the errno."""
        return "failed", number

    @staticmethod
    def late() -> Message:
        """The lease was too old to start the command."""
        return ("late",)

    @staticmethod
    def expired() -> Message:
        """The lease ends: the guard kills everything."""
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
        """The command left more processes behind than are named."""
        return ("more_leftovers",)

    @staticmethod
    def forbidden(process: int, command: str) -> Message:
        """We may not signal this process."""
        return "forbidden", process, command

    @staticmethod
    def stuck(process: int, command: str) -> Message:
        """This process was killed and has not ended yet."""
        return "stuck", process, command

    @staticmethod
    def gone(*, proved: bool) -> Message:
        """No process of the turn is left. `proved` says that the kernel says so."""
        return "gone", proved


class Proof:
    """Guard to keeper, on the proof pipe. The keeper reads it only if the front is dead."""

    @staticmethod
    def gone() -> Message:
        """No process of the turn is left: the kernel says so."""
        return ("gone",)


class KeeperOrders:
    """Front to keeper."""

    @staticmethod
    def settle(record: Mapping[str, Any]) -> Message:
        """Give the lock back with this record of the run: the command is gone."""
        return "settle", record

    @staticmethod
    def running(record: Mapping[str, Any]) -> Message:
        """The command runs: write this record of the run, unless it ends at once."""
        return "running", record

    @staticmethod
    def leave() -> Message:
        """Give up waiting."""
        return ("leave",)


class KeeperTells:
    """Keeper to front."""

    @staticmethod
    def held(holder: str, host: str, since: float | None, pause: Mapping[str, Any] | None = None) -> Message:
        """Another has the lock, since `since` (Unix seconds, None if unknown).

        `pause` tells the pause that is in force as well (`control.facts`), where it is known.
        """
        return "held", holder, host, since, pause

    @staticmethod
    def paused(pause: Mapping[str, Any], slot: float | None) -> Message:
        """The lock is ours, and a pause (`control.facts`) keeps us from starting.

        `slot` is None while we wait for the pause's end; else the slot of that time is skipped.
        """
        return "paused", pause, slot

    @staticmethod
    def revoked(by: str) -> Message:
        """`by` orders that the lock be given back: stop the command. The lock stays ours until it is gone."""
        return "revoked", by

    @staticmethod
    def suspended(pause: Mapping[str, Any] | None, until: float | None) -> Message:
        """The command runs, and a pause (`control.facts`) is in force; None is none.

        `until` is when it ends (boot clock), None where nobody knows. This is told after each renewal, to a
        front whose next slot would else stop the command (--overlap replace).
        """
        return "suspended", pause, until

    @staticmethod
    def ready(unstarted: Mapping[str, Any] | None) -> Message:
        """The command will be started within milliseconds: have a guard ready.

        `unstarted` is the record to write if the command is not started.
        """
        return "ready", unstarted

    @staticmethod
    def following(at: float, slot: float) -> Message:
        """The slot after the one that is about to be started is due `at` that time (boot clock)."""
        return "following", at, slot

    @staticmethod
    def granted(grant: Mapping[str, Any]) -> Message:
        """The lock is ours: start the command. `grant` is `Grant.as_dict()`."""
        return "granted", grant

    @staticmethod
    def trouble(text: str) -> Message:
        """The keeper has failed at something, and tries again."""
        return "trouble", text

    @staticmethod
    def gave_up(status: int, text: str, again_at: float | None = None) -> Message:
        """There is no lock: exit status, reason, and when to try again (boot clock, None for never)."""
        return "gave_up", status, text, again_at

    @staticmethod
    def rest(until: float | None, slot: float, why: str) -> Message:
        """There is nothing to start before `until` (boot clock; None is never), when `slot` is due."""
        return "rest", until, slot, why

    @staticmethod
    def settled(text: str) -> Message:
        """The lock is given back, or the wait given up. `text` says what failed, or is ''."""
        return "settled", text

    @staticmethod
    def lost(text: str) -> Message:
        """The lock is not ours any more."""
        return "lost", text

    @staticmethod
    def note(event: str, number: float, slot: float | None = None) -> Message:
        """The user has to know something about slots. `number` is a time or a number of seconds."""
        return "note", event, number, slot

    @staticmethod
    def insecure(level: str, text: str) -> Message:
        """The backend has a warning."""
        return "insecure", level, text


DIRECTIONS = (GuardOrders, GuardTells, Proof, KeeperOrders, KeeperTells)


def deliver(message: list[Any] | Message, direction: type, receiver: Any) -> None:
    """Call the receiver's method for a message of that direction.

    A message that the direction does not have goes to the receiver's `unknown`, with its name. Another
    version may have sent it, if the program was replaced while we run.
    """
    name = message[0]
    if name in vars(direction) and not name.startswith("_"):
        getattr(receiver, name)(*message[1:])
    else:
        receiver.unknown(str(name))
