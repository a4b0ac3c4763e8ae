"""Reads the crontab in a process of its own: what that takes doesn't stay in memory, a fault ends nothing.

What it has read comes back through a pipe as plain values (marshal), and becomes `Line` again.
"""

from __future__ import annotations

import marshal
import os

from singleton_run.call.settings import Settings
from singleton_run.errors import UNUSABLE, Failure
from singleton_run.supervisor.crew import Line
from singleton_run.system import calls, processes
from singleton_run.system.forked import forked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from singleton_run.call.fast_parser import Value
    from singleton_run.crontab.job import CrontabJob

LIMIT = 60.0
"""How long reading may take, in seconds: a file can be a pipe, or on a server that doesn't answer."""
_KILL = 9


class Faults(Exception):
    """A crontab that can't be taken: `sentences` has all that is wrong with it."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__(*sentences)
        self.sentences = sentences


class Interrupted(Exception):
    """The signal `number` came while the files were read, and asks us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Crontab:
    """What is in the files: the `lines`, and `news`, what the user should know (events with their facts)."""

    def __init__(self, lines: list[Line], news: list[tuple[str, dict[str, str]]]) -> None:
        self.lines = lines
        self.news = news


class Call:
    """The call: its files, the options for all lines, and how to read the files (see `reading.Call`)."""

    def __init__(
        self,
        files: Sequence[str],
        options: Mapping[str, Value],
        environ: Mapping[str, str],
        *,
        user_column: bool,
        reboot_once: str | None,
    ) -> None:
        self.files = files
        self.options = options
        self.environ = environ
        self.user_column = user_column
        self.reboot_once = reboot_once


def read(call: Call, signals: int, stops: Callable[[], int]) -> Crontab:
    """What is in the files of the call. Raises Faults, and Failure for what is wrong with the call itself.

    While the descriptor `signals` is readable, `stops` reads it, and gives the number of a signal that asks
    us to end, else 0. Raises Interrupted then.
    """
    parent = os.getpid()
    source, write = os.pipe()
    try:
        process = forked(lambda: _send(call, write, parent))
    finally:
        os.close(write)
    try:
        data, number = _receive(source, signals, stops)
    finally:
        os.close(source)
        processes.send(process, _KILL)  # it has written all, or is not to go on
        processes.reap_one(process, int(LIMIT * 1000))
    if number:
        raise Interrupted(number)
    if not data:
        raise Failure(
            UNUSABLE, f"the crontab could not be read within {LIMIT:.0f}s, or its reader was killed"
        )
    kind, *told = marshal.loads(data)  # noqa: S302 - our own process has written it
    if kind == "faults":
        raise Faults(told[0])
    if kind == "failure":
        raise Failure(*told)
    return Crontab([_line(*fields) for fields in told[0]], told[1])


def _receive(source: int, signals: int, stops: Callable[[], int]) -> tuple[bytes, int]:
    """All that comes from `source`, and 0 or the signal that asks us to end. Nothing if it takes too long."""
    until = calls.now() + LIMIT
    data = b""
    while ready := calls.wait(until, [source, signals]):
        if signals in ready and (number := stops()):
            return b"", number
        if source in ready:
            piece = os.read(source, 65536)
            if not piece:
                return data, 0
            data += piece
    return b"", 0


def _line(settings: dict[str, Any], path: str, place: str, key: tuple[str, ...], how: dict[str, Any]) -> Line:
    return Line(Settings(**settings), path, place, key, **how)


def _send(call: Call, write: int, parent: int) -> None:
    """Read the files and write what they have to the pipe: lines, faults, or a failure."""
    calls.die_with(parent)
    calls.keep_only([write])
    try:
        told = _read(call)
    except Faults as faults:
        told = ("faults", faults.sentences)
    except Failure as failure:
        told = ("failure", failure.status, str(failure))
    data: bytes = marshal.dumps(told)  # type: ignore[arg-type]  # plain values, see `_read`
    while data:
        data = data[os.write(write, data) :]


def jobs(call: Call) -> tuple[list[CrontabJob], list[str]]:
    """The jobs in the files of the call, and the paths that were passed over in directories.

    What this imports stays in memory. Raises Faults, and Failure for what is wrong with the call itself.
    """
    from singleton_run.crontab import files, reading

    how = reading.Call(
        call.options,
        call.environ,
        user_column=call.user_column,
        refuses_user=files.refuses_user,
        reboot_once=call.reboot_once,
    )
    try:
        texts, passed_over = files.texts(call.files)
        return reading.read(texts, how), passed_over
    except reading.Faults as faults:
        raise Faults(faults.sentences) from None


def _read(call: Call) -> tuple[object, ...]:
    known, passed_over = jobs(call)
    lines, faults = [], []
    for job in known:
        try:
            lines.append(_values(job, call.environ))
        except Failure as failure:
            faults.append(f"{job.place}: {failure}")
    if faults:
        raise Faults(faults)
    news = [("passed over", {"text": path}) for path in passed_over]
    news += [("unnamed line", {"text": job.place, "line": job.name}) for job in known if not job.named]
    return "lines", lines, news


def _values(job: CrontabJob, environ: Mapping[str, str]) -> tuple[object, ...]:
    """A job as plain values, as `_line` takes them. Raises Failure if its shell can't be executed."""
    from singleton_run.call import executable

    settings = {field: getattr(job.settings, field) for field in job.settings.__slots__}
    path = executable.find(job.shell, environ)
    text = None if job.stdin is None else os.fsencode(job.stdin)
    how = {"variables": job.environment, "text": text, "user": job.user or ""}
    return {**settings, "rewrite": dict(settings["rewrite"])}, path, job.place, job.key, how
