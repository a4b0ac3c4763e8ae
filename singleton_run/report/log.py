"""The log: tells the user what happens, on stderr, without waiting for stderr.

A message goes into a pipe to a small process, the writer, which is forked with the first message. Only the
writer may block, on a held terminal or a full pipe. A message that doesn't fit into the pipe is dropped, and
counted. A writer that has nothing to write for a second ends, where somebody forks another for what comes
later (`look`). We have both ends of the pipe: so a message that comes while it ends is there for the next.
"""

from __future__ import annotations

import posix as os
import select

from singleton_run.api.lock_address import redact
from singleton_run.errors import HELD
from singleton_run.system import calls, fastjson, pipes
from singleton_run.system.processes import reap_one
from singleton_run.system.stderr import last_words, takes_more

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.call.settings import Settings

TRACE = "trace"
END = "end"
"""The event by which a writer that reads a trace is told to end: others still have that pipe."""
WAITS = ("held", "paused")
REMINDER_SECONDS = 60.0
_LEAST_VERBOSITY = {"error": -1, "final": -1, "warning": 0, "wait": 0, "info": 1}
_FLUSH_MILLISECONDS, _STARVED_MILLISECONDS = 1000, 4000
_LONGEST_TEXT, _LONGEST_WORD = 300, 100


class Log:
    """The log of one process. `process` is the writer's process id, 0 without a writer.

    `said` has the events that are told only once, each with a number that tells it from others. `looked_at`
    promises that `look` is called at `due` (boot clock): then the writer doesn't stay without work.
    """

    def __init__(self, settings: Settings, *, looked_at: bool = False) -> None:
        self._settings = settings
        self._looked_at = looked_at
        self._read = self._pipe = -1
        self._held: dict[str, Any] | None = None
        self._held_since = 0.0
        self._remind_at = calls.FOREVER
        self._unread = False
        self._words = ""
        self._waited = False
        self._dropped = 0
        self.process = 0
        self.said: set[tuple[str, int]] = set()
        self._trouble = ""
        if pipes.tracer is not None:
            pipes.tracer.wants_writer = self._want_writer

    def memory(self) -> dict[str, Any]:
        """What decides about later messages, for another log of the same call (`remember`)."""
        return {"said": sorted(self.said), "trouble": self._trouble, "waited": self._waited}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Go on as the log whose `memory` this is."""
        self.said = {(event, number) for event, number in memory["said"]}
        self._trouble, self._waited = memory["trouble"], memory["waited"]

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
        if self._held_since:
            facts["waited"] = calls.now() - self._held_since
        if "text" in facts:  # a library's error may contain the lock's address, and with it a password
            facts["text"] = facts["text"].replace(
                self._settings.lock_address, redact(self._settings.lock_address)
            )
        self._note_wait(event, facts)
        if self.process or not facts.get("again"):
            self._pass_on(facts)

    def _pass_on(self, facts: dict[str, Any]) -> None:
        """Have a writer write this, which is forked at the next `look` if there was one before."""
        self._words = f"lock {self._settings.name!r}: {facts.get('text') or facts['event']}"
        line = _line(facts)
        if len(line) > select.PIPE_BUF:
            line = _line({fact: _cut(fact, value) for fact, value in facts.items()})
        try:
            if self._pipe < 0:
                self._open()
        except OSError:  # no process or descriptor is left, so the module with the sentences can't be read
            last_words(self._words)
            return
        self._send(line)
        self._unread = not self.process

    def _note_wait(self, event: str, facts: dict[str, Any]) -> None:
        """Note whether we wait, and when to say it again: some CI systems end a silent step."""
        if event in WAITS:
            facts["again"] = self._held is not None and _pause_in(facts) == _pause_in(self._held)
            self._held = facts
            self._held_since = self._held_since or calls.now()
            if not facts["again"]:
                self._remind_at = calls.now() + REMINDER_SECONDS
        elif event in ("acquired", "gave up"):
            self._held = None
            self._remind_at = calls.FOREVER

    @property
    def due(self) -> float:
        """When to `look`, by the boot clock."""
        return 0.0 if self._unread else self._remind_at

    def look(self) -> None:
        """Say once a minute that we wait, and have a writer for what isn't read yet."""
        now = calls.now()
        if self._held is not None and now >= self._remind_at:
            self._remind_at = now + REMINDER_SECONDS
            self._pass_on({**self._held, "again": False, "waited": now - self._held_since})
        if self._unread:
            try:
                self._unread = False
                self._fork()
            except OSError:
                self._drop()
                last_words(self._words)

    def _want_writer(self) -> None:
        """Have a writer for the trace, which has a pipe of its own."""
        try:
            if self._pipe < 0:
                self._open()
        except OSError:
            return

    def _send(self, line: bytes) -> None:
        try:
            os.write(self._pipe, line)
            self._dropped = 0
        except (BlockingIOError, BrokenPipeError):
            self._dropped += 1

    def _open(self) -> None:
        self._read, self._pipe = pipes.pipe()
        try:
            self._fork()
        except OSError:
            self._drop()
            raise

    def _fork(self) -> None:
        self.process = os.fork()
        if self.process:
            return
        status = 1
        try:
            calls.set_title(f"singleton-run: writer for {self._settings.name}")
            trace = None if pipes.tracer is None else pipes.tracer.news()
            pipes.tracer = None
            calls.keep_only([self._read] if trace is None else [self._read, trace.descriptor])
            calls.close_standard(0, 1)
            from singleton_run.report import writer

            calls.leave_directory()
            as_json = self._settings.log_format == "json"
            writer.write(self._read, trace, as_json=as_json, stays=not self._looked_at)
            status = 0
        finally:
            os._exit(status)

    def close(self, *, at_end: bool = False) -> None:
        """Let the writer write what it has, for a second at most, and end it.

        With `at_end` there is nothing else left to do: the writer gets four seconds more if stderr would take
        more, because then the machine is only busy.
        """
        self._held, self._held_since, self._remind_at = None, 0.0, calls.FOREVER
        if self._pipe < 0:
            return
        if pipes.tracer is not None:
            self._send(_line({"event": END}))
        os.close(self._pipe)
        self._pipe = -1
        try:
            if not self.process and self._has_more():
                self._fork()
            if self.process and self._end_writer(at_end) and self._has_more():  # it ended as that came
                self._fork()
                self._end_writer(at_end)
        except OSError:  # no process is left
            last_words(self._words)
        self._drop()

    def _end_writer(self, at_end: bool) -> bool:
        """Wait for the writer, and kill it if it is too slow. Whether it has ended by itself."""
        in_time = reap_one(self.process, _FLUSH_MILLISECONDS)
        if not in_time and at_end and takes_more(2):
            in_time = reap_one(self.process, _STARVED_MILLISECONDS)
        if not in_time:
            os.kill(self.process, 9)
            reap_one(self.process, _FLUSH_MILLISECONDS)
        self.process = 0
        return in_time

    def _has_more(self) -> bool:
        """Whether a message is in the pipe."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        return any(event & select.POLLIN for _, event in poll.poll(0))

    def gone(self, status: int = 1) -> None:
        """The writer has ended with `status`, and was waited for: another is forked for what comes next.

        If it failed, what it had read is lost, and perhaps half a message: the next has another pipe.
        """
        self.process = 0
        if status:
            self._drop()
        else:
            self._unread = self._pipe >= 0 and self._has_more()

    def _drop(self) -> None:
        self._unread = False
        for descriptor in (self._read, self._pipe):
            if descriptor >= 0:
                os.close(descriptor)
        self._read = self._pipe = -1


def _pause_in(facts: dict[str, Any]) -> tuple[object, ...]:
    """The pause that a waiting line tells of: a change of it is worth a line."""
    return tuple(facts.get(fact) for fact in ("paused_by", "paused_since", "paused_until", "reason"))


def _line(facts: dict[str, Any]) -> bytes:
    """A message for the pipe. At most PIPE_BUF bytes are written whole or not at all (pipe(7))."""
    return fastjson.dumps(facts).encode() + b"\n"


def _cut(fact: str, value: Any) -> Any:
    longest = _LONGEST_TEXT if fact in ("text", "name", "reason") else _LONGEST_WORD
    return value[:longest] + " …" if isinstance(value, str) and len(value) > longest else value
