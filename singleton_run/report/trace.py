"""The trace of -vv: each request, decision and message, for a maintainer who looks for a fault of ours.

Front, guard and keeper write their lines to one pipe that never blocks. The writer reads it beside the pipe
with the lines for people. A line that doesn't fit is lost, and counted in memory that all of them share.

A trace has no secrets. It shows only the kind and key of a request, only the listed fields of a grant or a
record, and only the program of a process. In every text the lock's address is without its passwords.
"""

from __future__ import annotations

import mmap
import os
import select
import sys

from singleton_run import __version__, lease_times
from singleton_run.api.lock_address import redact
from singleton_run.errors import Failure
from singleton_run.report.log import TRACE
from singleton_run.system import calls, fastjson, messages, pipes
from singleton_run.system.pipes import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from singleton_run.call.settings import Settings
    from singleton_run.keeper.operations import Operation
    from singleton_run.keeper.operations import Result as Outcome

    Result = TypeVar("Result")
    Facts = dict[str, Any]

_PROCESSES = ("front", "guard", "keeper")
_OF_GRANTS = ("name", "holder", "token", "generation", "ttl", "record")
_OF_RECORDS = ("state", "start", "end", "status", "slot", "attempt")
_OF_PAUSES = ("paused_by", "paused_since", "paused_until", "reason")
_READINGS = ("until", "again_at")
_WAITS = ("wait", "hold", "sleep")
_SAID_ELSEWHERE = ("report", "tell")
# The effects that are decisions. The others are questions, or are traced as messages, or told to people.
_FRONT_DECIDES = (
    "acquire",
    "kill_keeper",
    "settle",
    "leave",
    "withdraw",
    "new_guard",
    "kill_guard",
    "adopt",
)
_GUARD_DECIDES = ("spawn", "signal", "signal_command")
_LONGEST = 300
_ENDLESS = 1e15


def begin(settings: Settings) -> None:
    """Begin the trace, in the front: it and every process that it forks from now on write to it."""
    tracer = pipes.tracer = Tracer(settings)
    system = os.uname()
    tracer.write(
        "begin",
        version=__version__,
        python=sys.version.split()[0],
        system=f"{system.sysname} {system.release} {system.machine}",
        lock=settings.lock_address,
        ttl=settings.ttl,
        pid=os.getpid(),
    )


class Tracer:
    """Writes the trace of one process. `process` is its role.

    `descriptor` is the pipe's end for the trace, `source` the writer's end. `wants_writer` is called in the
    front after each line, because there may be no writer yet.
    """

    def __init__(self, settings: Settings) -> None:
        self.source, self.descriptor = pipes.pipe()
        self.process = _PROCESSES[0]
        self.wants_writer: Callable[[], None] | None = None
        self._front = os.getpid()
        self._began = calls.now()
        self._name = settings.name
        self._ttl = settings.ttl
        self._leased = True
        self._hidden = settings.lock_address, redact(settings.lock_address)
        self._lost = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")
        self._lease = (0.0, 0.0)

    def become(self, process: str) -> None:
        """Begin the trace of a process that was forked from the front or the keeper."""
        self.process = process
        self.write("begin", pid=os.getpid())

    def write(self, event: str, what: str = "", /, **facts: object) -> None:
        """Write a line without waiting. If the pipe doesn't take it now, it is lost, and counted."""
        at = round(calls.now() - self._began, 6)
        known = {"level": TRACE, "name": self._name, "at": at, "process": self.process}
        known |= {"event": event, "what": what} if what else {"event": event}
        shown = {fact: self._shown(fact, value) for fact, value in facts.items()}
        line = fastjson.dumps(known | ({"facts": shown} if shown else {}))
        if len(line) >= select.PIPE_BUF:  # it is written whole or not at all
            line = fastjson.dumps(known)
        try:
            os.write(self.descriptor, f"{line}\n".encode())
        except OSError:
            self._lost[_PROCESSES.index(self.process)] += 1
        if self.wants_writer is not None and os.getpid() == self._front:
            self.wants_writer()

    def message(self, event: str, message: messages.Message | list[Any]) -> None:
        """Trace a message. `event` is "sent" or "heard"."""
        name, *values = message
        self.write(event, str(name), **dict(zip(_fields(name, len(values)), values, strict=True)))

    def request(
        self, work: Callable[[], Result], kind: str, key: Callable[[], str], answer: Callable[[Result], str]
    ) -> Result:
        """Do `work`, a request to the server, and trace it. See `toolbox.request`."""
        sent = calls.now()
        try:
            result = work()
        except Exception as error:
            ms = _since(sent)
            self.write("request", kind, key=_asked(key), ms=ms, answer=_error(error))
            raise
        ms = _since(sent)
        self.write("request", kind, key=_asked(key), ms=ms, answer=_asked(answer, result))
        return result

    def operation(self, operation: Operation, outcome: Outcome | None = None) -> None:
        """Trace that an operation of the keeper begins, or with `outcome` how it ended."""
        name = operation.name
        if name in _SAID_ELSEWHERE:
            return
        if outcome is not None:
            result = "done" if outcome.value is None else type(outcome.value).__name__.lower()
            result = "control" if name == "renew" and outcome.value is not None else result
            result = result if outcome.error is None else _error(outcome.error)
            self.write("did", name, ms=_since(outcome.began, outcome.now), result=result)
            return
        last = operation.arguments[-1] if operation.arguments else None
        span = {"until" if name in _WAITS else "limit": last} if isinstance(last, float) and last else {}
        self.write("does", name, **span)

    def lease(self, end: float, reported: float) -> None:
        """Trace the lease's deadlines, if its end or the keeper's last sign of life has changed."""
        if not self._leased or end == 0.0 or (end, reported) == self._lease:
            return
        renewed, self._lease = end > self._lease[0], (end, reported)
        ttl = self._ttl
        deadlines = {
            "renew": lease_times.renew_at(end, ttl),
            "keeper_answers_by": lease_times.hangs_at(end, ttl, reported),
            "stop": lease_times.stop_at(end, ttl),
            "kill": lease_times.kill_at(end, ttl),
            "enforce": lease_times.enforce_at(end, ttl),
            "end": end,
        }
        self.write("lease", renewed=renewed, **{name: self._reading(at) for name, at in deadlines.items()})

    def effects(self, effects: Result, *, leased: bool) -> Result:
        """The same effects of a turn, traced: its decisions, and its looks at the lease if it has one."""
        self._leased = leased
        return _Watched(effects, self._decides, self.lease)  # type: ignore[return-value]  # the same methods

    def tree(self, tree: Result) -> Result:
        """The guard's tree of processes, traced: its starts and signals."""
        return _Watched(tree, self._decides)  # type: ignore[return-value]  # as above

    def _decides(self, name: str, arguments: tuple[object, ...]) -> None:
        if name in _FRONT_DECIDES:
            self.write("decides", name)
        elif name in _GUARD_DECIDES:
            self.write("decides", name, **({"number": arguments[-1]} if arguments else {}))

    def _shown(self, fact: str, value: object) -> object:
        """The part of a value that the trace shows: never a secret, and always valid JSON."""
        if isinstance(value, bool | int) or value is None:
            return value
        if isinstance(value, float):
            return self._reading(value) if fact in _READINGS else _finite(value)
        if isinstance(value, str):
            text = value.split()[0] if fact == "command" and value.split() else value
            text = text.replace(*self._hidden)
            return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
        if isinstance(value, dict):
            return {
                str(key): self._shown(key, value[key])
                for key in value
                if key in _OF_GRANTS + _OF_RECORDS + _OF_PAUSES
            }
        return type(value).__name__

    def _reading(self, reading: float) -> float | None:
        """A reading of the boot clock as seconds since our start; None for never."""
        return _finite(reading - self._began)

    def news(self) -> Lines:
        """The lines of all processes. For the writer."""
        return Lines(self.source, self._name, self._lost)


class Lines(Reader):
    """Reads the lines of all processes, and how many lines each has lost."""

    def __init__(self, descriptor: int, name: str, lost: memoryview[int]) -> None:
        super().__init__(descriptor)
        self._name = name
        self._lost = lost

    def read(self) -> list[Any]:
        """The lines since the last call, and the numbers of lost lines."""
        return [*super().read(), *self._told_of_losses()]

    def _told_of_losses(self) -> list[Facts]:
        told: list[Facts] = []
        for number, process in enumerate(_PROCESSES):
            before = number + len(_PROCESSES)  # already reported: another writer goes on from there
            lost = self._lost[number] - self._lost[before]
            if lost:
                self._lost[before] += lost
                known = {"level": TRACE, "name": self._name, "process": process}
                told.append({**known, "event": "dropped", "facts": {"lines": lost}})
        return told


class _Watched:
    """Passes calls on to another object. Calls `before` first, and `lease` with the result of `lease()`."""

    def __init__(
        self,
        inner: object,
        before: Callable[[str, tuple[object, ...]], None],
        lease: Callable[[float, float], None] | None = None,
    ) -> None:
        self._inner = inner
        self._before = before
        self._lease = lease

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call: Callable[..., Any] = getattr(self._inner, name)

        def told(*arguments: object, **named: object) -> Any:
            self._before(name, arguments)
            result = call(*arguments, **named)
            if self._lease is not None and name == "lease":
                self._lease(*result)
            return result

        return told


def text(facts: Mapping[str, Any]) -> str:
    """The line for people: when, who, what, and the facts as NAME=VALUE."""
    words = [f"{facts['at']:+.6f}"] if "at" in facts else []
    words += [facts[word] for word in ("process", "event", "what") if word in facts]
    return " ".join([*words, *(f"{fact}={_word(value)}" for fact, value in facts.get("facts", {}).items())])


def _word(value: object) -> str:
    plain = isinstance(value, str) and value.isprintable() and value and not set(value) & set(' "=')
    return str(value) if plain else fastjson.dumps(value)


def _fields(name: str, count: int) -> list[str]:
    """The names of a message's fields. If two messages have that name, the one with `count` fields."""
    for direction in messages.DIRECTIONS:
        make = vars(direction).get(name)
        if isinstance(make, staticmethod):
            code = make.__func__.__code__
            fields = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if len(fields) == count:
                return list(fields)
    return [f"field{number}" for number in range(count)]


def _asked(tell: Callable[..., str], *arguments: object) -> str:
    """A backend's description of a request. An error in it must not fail the request itself."""
    try:
        return str(tell(*arguments))
    except Exception as error:  # noqa: BLE001 - a stranger's function may raise anything
        return type(error).__name__


def _finite(number: float) -> float | None:
    """A number rounded to a millionth; None for one that JSON can't have."""
    return round(number, 6) if abs(number) < _ENDLESS else None


def _error(error: Exception) -> str:
    """An error's kind, with the text of a `Failure`: only such a text is known to have no secret."""
    return f"{type(error).__name__}: {error}" if isinstance(error, Failure) else type(error).__name__


def _since(began: float, now: float | None = None) -> float:
    return round(((calls.now() if now is None else now) - began) * 1000, 3)
