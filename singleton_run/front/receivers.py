"""The front's receivers of messages from guard and keeper: each message becomes an event of the turn.

The real front and the simulated one in the tests use the same classes.
"""

from __future__ import annotations

import posix as os

from singleton_run.api.contract import Grant
from singleton_run.errors import SCARCE, scarce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    from singleton_run.front.decisions import Turn

    class FrontActions(Protocol):
        """What the front itself does about a message, apart from the turn's event."""

        def say(self, level: str, event: str, **facts: object) -> None:
            """Tell the user, without waiting."""

        def say_once(self, event: str, which: int, level: str, **facts: object) -> None:
            """Tell the user, unless the same event with the same number was told before."""

        def granted(self, grant: Grant) -> None:
            """The lock is ours: a keeper has it, or a guard that waited for it."""

        def command_started(self, process: int) -> float:
            """The command runs as `process`. When it was started, by the boot clock."""

        def revoked(self, by: str) -> None:
            """`by` takes the lock away from us."""

        def be_ready(self, unstarted: dict[str, Any] | None) -> None:
            """Have a guard ready. `unstarted` is the record to write if the command is not started."""


class GuardReceiver:
    """Receives `messages.GuardTells`, where each message is described.

    `path` is the command's path. `verb` says what is done to leftovers, as the end of a sentence.
    """

    def __init__(self, turn: Turn, front: FrontActions, path: str, verb: str) -> None:
        self._turn = turn
        self._front = front
        self._path = path
        self._verb = verb

    def locked(self, grant: Mapping[str, Any]) -> None:
        """The guard that waited has the lock."""
        self._front.granted(Grant(**grant))

    def kept_back(self, pause: dict[str, Any]) -> None:
        """A pause keeps the guard, which has the lock, from starting."""
        self._turn.paused(pause)

    def started(self, process: int) -> None:
        """The command runs."""
        self._turn.guard_started(process, self._front.command_started(process))

    def failed(self, number: int) -> None:
        """The command could not be started."""
        why = os.strerror(number)
        text = scarce(why) if number in SCARCE else f"{self._path!r} can't be executed: {why}"
        self._turn.guard_failed(number, text)

    def late(self) -> None:
        """The lease was too old to start the command."""
        self._turn.guard_late()

    def expired(self) -> None:
        """The lease's end has come."""
        self._turn.guard_expired()

    def ended(self, status: int) -> None:
        """The command has ended."""
        self._turn.guard_ended(status)

    def leftover(self, process: int, command: str) -> None:
        """The command left a process behind."""
        self._front.say("warning", "leftover", pid=process, command=command, verb=self._verb)

    def more_leftovers(self) -> None:
        """The command left more processes behind than are named."""
        self._front.say("warning", "more leftovers")

    def forbidden(self, process: int, command: str) -> None:
        """We may not signal a process."""
        self._front.say("error", "forbidden", pid=process, command=command)

    def stuck(self, process: int, command: str) -> None:
        """A process was killed and has not ended."""
        self._front.say("error", "stuck", pid=process, command=command)

    def gone(self, proved: bool) -> None:
        """No process of the command is left."""
        self._turn.guard_gone(proved=proved)

    def unknown(self, name: str) -> None:
        """A message that this version does not know."""
        self._front.say("warning", "unknown message", text=f"{name} of the guard")


class KeeperReceiver:
    """Receives `messages.KeeperTells`, where each message is described."""

    def __init__(self, turn: Turn, front: FrontActions) -> None:
        self._turn = turn
        self._front = front

    def held(self, holder: str, host: str, since: float | None, pause: dict[str, Any] | None) -> None:
        """Another has the lock."""
        self._turn.held(holder, host, since, pause)

    def paused(self, pause: dict[str, Any], slot: float | None) -> None:
        """A pause keeps us from starting."""
        self._turn.paused(pause, slot)

    def revoked(self, by: str) -> None:
        """The lock is taken away from us."""
        self._front.revoked(by)

    def suspended(self, pause: dict[str, Any] | None, until: float | None) -> None:
        """A pause is in force while the command runs, or none."""
        self._turn.ending.suspended(pause, until)

    def ready(self, unstarted: dict[str, Any] | None) -> None:
        """The command will be started within milliseconds."""
        self._front.be_ready(unstarted)

    def following(self, at: float, slot: float) -> None:
        """The next slot is due then."""
        self._turn.ending.is_followed(at, slot)

    def granted(self, grant: Mapping[str, Any]) -> None:
        """The lock is ours."""
        self._front.granted(Grant(**grant))

    def trouble(self, text: str) -> None:
        """The keeper has failed at something, and tries again."""
        self._turn.trouble_came(text)

    def gave_up(self, status: int, text: str, again_at: float | None) -> None:
        """The keeper stops trying to get the lock."""
        self._turn.gave_up(status, text, again_at)

    def rest(self, until: float | None, slot: float, why: str) -> None:
        """There is nothing to start yet."""
        self._turn.rested(until, slot, why)

    def settled(self, text: str) -> None:
        """The keeper has given the lock back, or given up waiting."""
        self._turn.settled(text)

    def lost(self, text: str) -> None:
        """The lock is not ours any more."""
        self._turn.lost_lock(text)

    def note(self, event: str, number: float, slot: float | None) -> None:
        """The user has to know something about slots."""
        self._front.say_once(event, round(number if slot is None else slot), "warning", number=number)

    def insecure(self, level: str, text: str) -> None:
        """The backend has a warning."""
        self._front.say_once("insecure", 0, level, text=text)

    def unknown(self, name: str) -> None:
        """A message that this version does not know."""
        self._front.say("warning", "unknown message", text=f"{name} of the keeper")
