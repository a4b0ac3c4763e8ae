"""What the front hears from guard and keeper: each message becomes an event of the turn.

The process and the simulation of the tests hear by the same classes.
"""

from __future__ import annotations

import os

from singleton_run.errors import SCARCE, scarce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    from singleton_run.front.decisions import Turn

    class Ears(Protocol):
        """What of a message is for the front itself, and not for the turn."""

        def clock(self) -> float:
            """The boot clock's reading now."""

        def say(self, level: str, event: str, **facts: object) -> None:
            """Tell the user, without waiting."""

        def say_once(self, event: str, which: int, level: str, **facts: object) -> None:
            """Tell the user, unless this event was said with that number before."""

        def locked(self, grant: Mapping[str, Any]) -> None:
            """A guard that waited has the lock, which the front shares."""

        def command_started(self, process: int) -> float:
            """The command runs: when it was started, a reading of the boot clock."""

        def be_ready(self) -> None:
            """Have a guard that can start the command."""


class GuardHeard:
    """Receives `messages.GuardTells`. `path` is the command's, `verb` what is done to its leftovers."""

    def __init__(self, turn: Turn, ears: Ears, path: str, verb: str) -> None:
        self._turn = turn
        self._ears = ears
        self._path = path
        self._verb = verb

    def locked(self, grant: Mapping[str, Any]) -> None:
        """The kernel gave the lock to the guard that waited for it."""
        self._ears.locked(grant)

    def started(self, process: int) -> None:
        """The command runs."""
        self._turn.guard_started(process, self._ears.command_started(process))

    def failed(self, number: int) -> None:
        """The command could not be started."""
        why = os.strerror(number)
        text = scarce(why) if number in SCARCE else f"{self._path!r} can't be executed: {why}"
        self._turn.guard_failed(number, text)

    def late(self) -> None:
        """The lease was too old."""
        self._turn.guard_late()

    def expired(self) -> None:
        """The lease's end has come."""
        self._turn.guard_expired()

    def ended(self, status: int) -> None:
        """The command has ended."""
        self._turn.guard_ended(status)

    def leftover(self, process: int, command: str) -> None:
        """The command left a process behind."""
        self._ears.say("warning", "leftover", pid=process, command=command, verb=self._verb)

    def more_leftovers(self) -> None:
        """It left more."""
        self._ears.say("warning", "more leftovers")

    def forbidden(self, process: int, command: str) -> None:
        """A process may not be signalled."""
        self._ears.say("error", "forbidden", pid=process, command=command)

    def stuck(self, process: int, command: str) -> None:
        """A process was killed and lives."""
        self._ears.say("error", "stuck", pid=process, command=command)

    def gone(self, proved: bool) -> None:
        """Nothing is left."""
        self._turn.guard_gone(proved=proved)

    def unknown(self, name: str) -> None:
        """A message that this version does not know."""
        self._ears.say("warning", "unknown message", text=f"{name} of the guard")


class KeeperHeard:
    """Receives `messages.KeeperTells`."""

    def __init__(self, turn: Turn, ears: Ears) -> None:
        self._turn = turn
        self._ears = ears

    def held(self, holder: str, host: str, since: float | None) -> None:
        """Another has the lock."""
        self._turn.held(holder, host, since)

    def ready(self, unstarted: Mapping[str, Any] | None) -> None:
        """The command is about to be started."""
        self._ears.be_ready()

    def granted(self, grant: dict[str, Any]) -> None:
        """The lock is ours."""
        self._turn.granted(grant, self._ears.clock())

    def trouble(self, text: str) -> None:
        """Something is tried again."""
        self._turn.trouble_came(text)

    def gave_up(self, status: int, text: str, again_at: float | None) -> None:
        """The lock can't be had."""
        self._turn.gave_up(status, text, again_at)

    def rest(self, until: float | None, slot: float, why: str) -> None:
        """Nothing is to be started yet."""
        self._turn.rested(until, slot, why)

    def settled(self, text: str) -> None:
        """The lock is given back, or the wait given up."""
        self._turn.settled(text)

    def lost(self, text: str) -> None:
        """The lock is not ours any more."""
        self._turn.lost_lock(text)

    def note(self, event: str, number: float, slot: float | None) -> None:
        """Something about slots."""
        self._ears.say_once(event, round(number if slot is None else slot), "warning", number=number)

    def insecure(self, level: str, text: str) -> None:
        """What the backend warns of."""
        self._ears.say_once("insecure", 0, level, text=text)

    def unknown(self, name: str) -> None:
        """A message that this version does not know."""
        self._ears.say("warning", "unknown message", text=f"{name} of the keeper")
