"""What -vv tells: each request, decision and message, for whoever looks for a fault of ours.

Front, guard and keeper write their lines to one pipe that never blocks; the writer reads it beside the one
for people's lines. What the pipe doesn't take is lost, and counted in memory that all of them share.

No secret gets in. Of a request only its kind and key are told, of a grant or a record only the fields that
are listed here, of a process its program; in every text the lock's address is without its passwords.
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
_READINGS = ("until", "again_at")
_WAITS = ("wait", "hold", "sleep")
_SAID_ELSEWHERE = ("report", "tell")
# What is no decision is a question, or is told as a message, or to people.
_FRONT_DECIDES = ("keep", "kill_keeper", "settle", "leave", "withdraw", "new_guard", "kill_guard", "adopt")
_GUARD_DECIDES = ("spawn", "signal", "signal_command")
_LONGEST = 300
_ENDLESS = 1e15


def begin(settings: Settings) -> None:
    """From now on this process, the front, tells what it does, and so does every one that it forks."""
    tracer = pipes.tracer = Tracer(settings)
    system = os.uname()
    tracer.write(
        "begin",
        version=__version__,
        python=sys.version.split()[0],
        system=f"{system.sysname} {system.release} {system.machine}",
        lock=settings.lock,
        ttl=settings.ttl,
        pid=os.getpid(),
    )


class Tracer:
    """Tells what one process does. `process` is its role.

    `descriptor` is what it writes to, `source` what the writer reads. `wants_writer` is called in the
    front for each line: there may be no writer yet.
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
        self._hidden = settings.lock, redact(settings.lock)
        self._lost = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")
        self._lease = (0.0, 0.0)

    def become(self, process: str) -> None:
        """We are another process now, forked from the front or the keeper."""
        self.process = process
        self.write("begin", pid=os.getpid())

    def write(self, event: str, what: str = "", /, **facts: object) -> None:
        """Write down an event, without waiting: what can't be written now is lost, and counted."""
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
        """Tell of a message that was "sent" or "heard"."""
        name, *values = message
        self.write(event, str(name), **dict(zip(_fields(name, len(values)), values, strict=True)))

    def request(
        self, work: Callable[[], Result], kind: str, key: Callable[[], str], answer: Callable[[Result], str]
    ) -> Result:
        """Do `work`, a request to the server, and tell of it. See `toolbox.request`."""
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
        """Tell that an operation of the keeper's begins, or how it went."""
        name = operation.name
        if name in _SAID_ELSEWHERE:
            return
        if outcome is not None:
            result = "done" if outcome.value is None else type(outcome.value).__name__.lower()
            result = result if outcome.error is None else _error(outcome.error)
            self.write("did", name, ms=_since(outcome.began, outcome.now), result=result)
            return
        last = operation.arguments[-1] if operation.arguments else None
        span = {"until" if name in _WAITS else "limit": last} if isinstance(last, float) else {}
        self.write("does", name, **span)

    def lease(self, end: float, reported: float) -> None:
        """Tell of the lease's deadlines, by its end and the keeper's last report, if one has changed."""
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
        """A turn's effects, by which its decisions are told, and its looks at the lease, if there is one."""
        self._leased = leased
        return _Watched(effects, self._decides, self.lease)  # type: ignore[return-value]  # it has theirs

    def tree(self, tree: Result) -> Result:
        """The guard's tree of processes, by which its starts and signals are told."""
        return _Watched(tree, self._decides)  # type: ignore[return-value]  # as above

    def _decides(self, name: str, arguments: tuple[object, ...]) -> None:
        if name in _FRONT_DECIDES:
            self.write("decides", name)
        elif name in _GUARD_DECIDES:
            self.write("decides", name, **({"number": arguments[-1]} if arguments else {}))

    def _shown(self, fact: str, value: object) -> object:
        """What is told of a value: nothing that could be a secret, and what JSON can say."""
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
                str(key): self._shown(key, value[key]) for key in value if key in _OF_GRANTS + _OF_RECORDS
            }
        return type(value).__name__

    def _reading(self, reading: float) -> float | None:
        """A reading of the boot clock, from our beginning on; None for never."""
        return _finite(reading - self._began)

    def news(self) -> Lines:
        """In the writer: what comes from all processes."""
        return Lines(self.source, self._name, self._lost)


class Lines(Reader):
    """The lines of all processes, and how many of each were lost."""

    def __init__(self, descriptor: int, name: str, lost: memoryview[int]) -> None:
        super().__init__(descriptor)
        self._name = name
        self._lost = lost

    def read(self) -> list[Any]:
        """What has come since, and what was lost."""
        return [*super().read(), *self._told_of_losses()]

    def _told_of_losses(self) -> list[Facts]:
        told: list[Facts] = []
        for number, process in enumerate(_PROCESSES):
            before = number + len(_PROCESSES)  # what was told: another writer goes on from there
            lost = self._lost[number] - self._lost[before]
            if lost:
                self._lost[before] += lost
                known = {"level": TRACE, "name": self._name, "process": process}
                told.append({**known, "event": "dropped", "facts": {"lines": lost}})
        return told


class _Watched:
    """Does what another object does; `before` is told of each call, `lease` of what `lease()` gave."""

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
    """The names of a message's fields; of two messages of that name that with so many of them."""
    for direction in messages.DIRECTIONS:
        make = vars(direction).get(name)
        if isinstance(make, staticmethod):
            code = make.__func__.__code__
            fields = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if len(fields) == count:
                return list(fields)
    return [f"field{number}" for number in range(count)]


def _asked(tell: Callable[..., str], *arguments: object) -> str:
    """What a backend tells of a request. That it can't is no reason to fail what was asked for."""
    try:
        return str(tell(*arguments))
    except Exception as error:  # noqa: BLE001 - a stranger's function may raise anything
        return type(error).__name__


def _finite(number: float) -> float | None:
    """A number as JSON can have it, to a millionth."""
    return round(number, 6) if abs(number) < _ENDLESS else None


def _error(error: Exception) -> str:
    """An error's kind. Only the text of one that is meant for people is known to have no secret in it."""
    return f"{type(error).__name__}: {error}" if isinstance(error, Failure) else type(error).__name__


def _since(began: float, now: float | None = None) -> float:
    return round(((calls.now() if now is None else now) - began) * 1000, 3)
