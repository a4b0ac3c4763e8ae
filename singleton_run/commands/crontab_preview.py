"""`crontab --check` and `crontab --plan N`: say what is in crontabs, and run nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run.call import preview
from singleton_run.call.output import warn
from singleton_run.commands.connection import let_interrupt
from singleton_run.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from singleton_run.crontab.job import CrontabJob


def check(jobs: Sequence[CrontabJob], passed_over: Sequence[str]) -> None:
    """Print each line's place, name, schedule and command. Raises OSError if stdout can't be written."""
    _note(jobs, passed_over)
    rows = [(job.place, job.name, job.schedule, one_line(job.command)) for job in jobs]
    preview.show_rows("no fault found", ("line", "name", "schedule", "command"), rows)


def plan(
    jobs: Sequence[CrontabJob], passed_over: Sequence[str], number: int, environ: Mapping[str, str]
) -> None:
    """Print the next `number` times of all lines together.

    Raises Failure for a server that can't be reached, which a line with @every needs, and OSError if stdout
    can't be written.
    """
    let_interrupt()
    _note(jobs, passed_over)
    preview.show_of_all([job.settings for job in jobs if job.settings.scheduled], number, environ)


def _note(jobs: Sequence[CrontabJob], passed_over: Sequence[str]) -> None:
    """Say what a person may want to change although it is no fault."""
    for path in passed_over:
        warn(f"{path} is passed over: in a directory only names of letters, digits, _ and - count")
    unnamed = [job.place for job in jobs if not job.named]
    if unnamed:
        more = f" and {len(unnamed) - 3} more" if len(unnamed) > 3 else ""
        warn(
            f"no name is given to the lines {', '.join(unnamed[:3])}{more}: with another schedule or command "
            "they lose their record (# singleton-run: name=NAME above a line gives it one)"
        )
