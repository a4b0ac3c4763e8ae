"""The log: tells the user what happens, on stderr, without waiting for stderr.

A message goes into a pipe to a small process, the writer, which is forked with the first message. Only the
writer may block, on a held terminal or a full pipe. A message that doesn't fit into the pipe is dropped, and
counted.
"""

from __future__ import annotations

import os
import select

from singleton_run.api.lock_address import redact
from singleton_run.errors import HELD
from singleton_run.system import calls, fastjson, pipes
from singleton_run.system.processes import reap_one
from singleton_run.system.stderr import last_words, takes_more

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from singleton_run.call.settings import Settings

TRACE = "trace"
END = "end"
"""The event by which a writer that reads a trace is told to end: others still have that pipe."""
_LEAST_VERBOSITY = {"error": -1, "final": -1, "warning": 0, "wait": 0, "info": 1}
_FLUSH_MILLISECONDS, _STARVED_MILLISECONDS = 1000, 4000
_LONGEST_TEXT, _LONGEST_WORD = 300, 100


class Log:
    """The log of one process. `process` is the writer's process id, 0 without a writer.

    `said` has the events that are told only once, each with a number that tells it from others.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pipe = -1
        self._waited = False
        self._dropped = 0
        self.process = 0
        self.said: set[tuple[str, int]] = set()
        self._trouble = ""
        if pipes.tracer is not None:
            pipes.tracer.wants_writer = self._want_writer

    def say(self, level: str, event: str, **facts: Any) -> None:
        """Tell the user of `event`, a word of `sentences`, if its `level` is asked for.

        The same trouble is told once in a row, even over several turns.
        """
        trouble = facts["text"] if event == "trouble" else ""
        if trouble and trouble == self._trouble:
            return
        self._trouble = trouble
        if pipes.reporter is not None:
            pipes.reporter.told(event, facts)
        if event == "acquired" and self._waited:
            level = "wait"
        if self._settings.verbosity < _LEAST_VERBOSITY[level] or (
            self._settings.verbosity < 0 and facts.get("status") == HELD
        ):
            return
        self._waited = self._waited or level == "wait"
        if self._dropped:
            facts["dropped"] = self._dropped
        facts.update(level=level, event=event, name=self._settings.name)
        if "text" in facts:  # a library's error may contain the lock's address, and with it a password
            facts["text"] = facts["text"].replace(
                self._settings.lock_address, redact(self._settings.lock_address)
            )
        line = _line(facts)
        if len(line) > select.PIPE_BUF:
            line = _line({fact: _cut(fact, value) for fact, value in facts.items()})
        try:
            if self._pipe < 0:
                self._fork()
        except OSError:  # no process or descriptor is left, so the module with the sentences can't be read
            last_words(f"lock {self._settings.name!r}: {facts.get('text') or event}")
            return
        self._send(line)

    def _want_writer(self) -> None:
        """Have a writer for the trace, which has a pipe of its own."""
        try:
            if self._pipe < 0:
                self._fork()
        except OSError:
            return

    def _send(self, line: bytes) -> None:
        try:
            os.write(self._pipe, line)
            self._dropped = 0
        except (BlockingIOError, BrokenPipeError):
            self._dropped += 1

    def _fork(self) -> None:
        read, write = pipes.pipe()
        try:
            self.process = os.fork()
        except OSError:
            os.close(read)
            os.close(write)
            raise
        self._pipe = write
        if self.process:
            os.close(read)
            return
        try:
            calls.set_title(f"singleton-run: writer for {self._settings.name}")
            trace = None if pipes.tracer is None else pipes.tracer.news()
            pipes.tracer = None
            calls.keep_only([read] if trace is None else [read, trace.descriptor])
            calls.close_standard(0, 1)
            from singleton_run.report import writer

            calls.leave_directory()
            writer.write(read, trace, as_json=self._settings.log_format == "json")
        finally:
            os._exit(0)

    def close(self, *, at_end: bool = False) -> None:
        """Let the writer write what it has, for a second at most, and end it.

        With `at_end` there is nothing else left to do: the writer gets four seconds more if stderr would take
        more, because then the machine is only busy.
        """
        if not self.process:
            return
        if pipes.tracer is not None:
            self._send(_line({"event": END}))
        os.close(self._pipe)
        self._pipe = -1
        in_time = reap_one(self.process, _FLUSH_MILLISECONDS)
        if not in_time and at_end and takes_more(2):
            in_time = reap_one(self.process, _STARVED_MILLISECONDS)
        if not in_time:
            os.kill(self.process, 9)
            reap_one(self.process, _FLUSH_MILLISECONDS)
        self.process = 0

    def gone(self) -> None:
        """The writer has ended and was waited for: the next message forks another."""
        self.process = 0
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def _line(facts: dict[str, Any]) -> bytes:
    """A message for the pipe. At most PIPE_BUF bytes are written whole or not at all (pipe(7))."""
    return fastjson.dumps(facts).encode() + b"\n"


def _cut(fact: str, value: Any) -> Any:
    longest = _LONGEST_TEXT if fact in ("text", "name", "reason") else _LONGEST_WORD
    return value[:longest] + " …" if isinstance(value, str) and len(value) > longest else value
