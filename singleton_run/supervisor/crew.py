"""Which of the lines' processes are started, and when: decisions without a clock or a descriptor."""

from __future__ import annotations

from singleton_run.errors import DENIED, UNAVAILABLE, UNUSABLE
from singleton_run.lease_times import FOREVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from singleton_run.call.settings import Settings

MOST_STARTING = 8
"""So many processes at most make their first turn at the same time, unless one of them takes long."""
STARTS_WITHIN = 2.0
"""How long a process counts as starting, in seconds, if it doesn't come to rest."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 60.0
"""The pauses before a dead process is started again, in seconds: they double."""
STEADY = 60.0
"""A process that has lived so long, in seconds, is steady: its death counts as the first."""
_UNFINISHED = (UNAVAILABLE, DENIED, UNUSABLE)


class Line:
    """A line of a crontab, ready to run. Lines with the same `key` do the same, wherever they stand.

    `place` is FILE:LINE. `path` is the shell that runs its command. `variables` are the crontab's, for the
    command; `text` is the command's standard input, None for an empty one; `user` is whose the command is, ''
    for ours.
    """

    __slots__ = ("key", "path", "place", "settings", "text", "user", "variables")

    def __init__(
        self,
        settings: Settings,
        path: str,
        place: str,
        key: tuple[str, ...],
        *,
        variables: Mapping[str, str] | None = None,
        text: bytes | None = None,
        user: str = "",
    ) -> None:
        self.settings = settings
        self.path = path
        self.place = place
        self.key = key
        self.variables = variables or {}
        self.text = text
        self.user = user

    @property
    def name(self) -> str:
        """The name of its lock and its record."""
        return self.settings.name


class Member:
    """A line and its process. `process` is 0 without one.

    `is_leaving` says that the line is not in the crontab any more: its process ends when its command has
    ended. `is_refused` says that it has ended because the server refuses it, or this machine can't do it.
    `start_at` is when to start the process (boot clock), FOREVER if it is not to be started again.
    `failures` counts its deaths in a row.
    """

    __slots__ = (
        "failures",
        "is_leaving",
        "is_refused",
        "line",
        "process",
        "start_at",
        "started_at",
        "starting_until",
    )

    def __init__(self, line: Line) -> None:
        self.line = line
        self.process = 0
        self.is_leaving = False
        self.is_refused = False
        self.failures = 0
        self.start_at = 0.0
        self.started_at = 0.0
        self.starting_until = 0.0


class Crew:
    """The lines' processes. `is_stopping` says that nothing is started any more."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.is_stopping = False
        self._has_worked = False

    def take(self, lines: Sequence[Line]) -> tuple[int, list[Member]]:
        """Take these lines in place of those before. How many are new, and the members that are to leave."""
        staying = [member for member in self.members if not member.is_leaving]
        wanted = {line.name: line.key for line in lines}
        leaving = [member for member in staying if wanted.get(member.line.name) != member.line.key]
        for member in leaving:
            member.is_leaving = True
            member.start_at = FOREVER
        kept = {member.line.name for member in staying if not member.is_leaving}
        new = [Member(line) for line in lines if line.name not in kept]
        self.members += new
        self._forget()
        return len(new), leaving

    def due(self, now: float) -> list[Member]:
        """The members whose processes are to be started now."""
        if self.is_stopping:
            return []
        room = MOST_STARTING - len(self._starting(now))
        due = [member for member in self.members if not member.process and member.start_at <= now]
        return due[: max(room, 0)]

    def next_look(self, now: float) -> float:
        """When `due` may have more to say, by the boot clock."""
        if self.is_stopping:
            return FOREVER
        waiting = [member.start_at for member in self.members if not member.process]
        soonest = min(waiting, default=FOREVER)
        starting = self._starting(now)
        if soonest <= now and len(starting) >= MOST_STARTING:
            return min(member.starting_until for member in starting)
        return soonest

    def _starting(self, now: float) -> list[Member]:
        return [member for member in self.members if member.process and now < member.starting_until]

    def started(self, member: Member, process: int, now: float) -> None:
        """The member's process was started."""
        member.process = process
        member.started_at = now
        member.starting_until = now + STARTS_WITHIN

    def rests(self, member: Member, *, worked: bool) -> None:
        """The member's process has come to its first rest, or has ended before (not `worked`)."""
        member.starting_until = 0.0
        self._has_worked = self._has_worked or worked

    @property
    def is_hopeless(self) -> bool:
        """Whether no line has ever worked, and each was refused: more attempts would be refused too."""
        return not self._has_worked and all(member.is_refused for member in self.members)

    def not_started(self, member: Member, now: float) -> float:
        """The member's process could not be started: try again in so many seconds."""
        return self._again(member, now)

    def ended(self, member: Member, status: int, now: float) -> float | None:
        """The member's process has ended: in how many seconds it is started again; None for never.

        `status` is negative for a signal. A schedule's process ends only when somebody ends it, or when it
        can't do its work. That of `--once` ends when its work is done.
        """
        lived = now - member.started_at
        member.process = 0
        member.is_refused = status in (DENIED, UNUSABLE)
        self.rests(member, worked=False)
        done = not member.line.settings.scheduled and status >= 0 and status not in _UNFINISHED
        if member.is_leaving or self.is_stopping or done:
            member.start_at = FOREVER
            self._forget()
            return None
        if lived >= STEADY:
            member.failures = 0
        return self._again(member, now)

    def _again(self, member: Member, now: float) -> float:
        pause = min(FIRST_PAUSE * 2.0**member.failures, LONGEST_PAUSE)
        member.failures = min(member.failures + 1, 10)
        member.start_at = now + pause
        return pause

    def stop(self) -> None:
        """Start nothing any more."""
        self.is_stopping = True

    def processes(self) -> list[int]:
        """The processes that are there."""
        return [member.process for member in self.members if member.process]

    def of(self, process: int) -> Member | None:
        """The member with this process."""
        return next((member for member in self.members if member.process == process), None)

    def _forget(self) -> None:
        self.members = [member for member in self.members if member.process or not member.is_leaving]


def counted(number: int, what: str) -> str:
    """`1 line`, `2 lines`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
