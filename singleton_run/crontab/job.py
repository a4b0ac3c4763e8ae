"""One line of a crontab as a job: what it runs, when, and with which options."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run.call.settings import Settings
    from singleton_run.crontab.syntax import Line


class CrontabJob:
    """One line of a crontab.

    `settings` are those of the call that the line stands for: its name, its schedule or its --once, its
    options, and `shell -c command` as its command. `named` says that the file gives the name. `schedule` is
    the schedule as it is written. `environment` has the assignments above the line, and nothing else.
    `stdin` is the text for the command's standard input, None for none. `user` is the user of the line with
    --system, else None. `place` is the line as `FILE:LINE`.

    Two jobs with the same `key` are the same line, whatever their places are.
    """

    __slots__ = ("command", "environment", "key", "named", "place", "schedule", "settings", "stdin", "user")

    def __init__(
        self,
        line: Line,
        settings: Settings,
        environment: Mapping[str, str],
        place: str,
        *,
        named: bool,
    ) -> None:
        self.schedule = line.schedule
        self.command = line.command
        self.stdin = line.stdin
        self.user = line.user
        self.settings = settings
        self.named = named
        self.environment = dict(environment)
        self.place = place
        own = tuple(repr(getattr(settings, name)) for name in settings.__slots__)
        self.key = (*line.words, *own, *(text for pair in sorted(environment.items()) for text in pair))

    @property
    def name(self) -> str:
        """The name of the line's lock and record."""
        return self.settings.name

    @property
    def shell(self) -> str:
        """The program that reads the command."""
        return self.settings.command[0]
