"""--ping: a monitor of jobs is told when a run starts and how it ends, and misses a run that never starts."""

from __future__ import annotations

from binascii import a2b_base64

from singleton_run.names import hashed
from singleton_run.report.events import RUN_OVER
from singleton_run.reporter.channel import OUTPUT
from singleton_run.reporter.outbox import Outbox
from singleton_run.reporter.web import Letter, Target
from singleton_run.system import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from singleton_run.report.events import Event
    from singleton_run.reporter.sinks import Place

_OUTPUT_WITHIN = 2.0
"""How long after a run's end its output may come, in seconds: a process that it left may still print."""
_UNKNOWN = 255
"""The exit status of a run of which nobody can tell how it ended."""


class Pings:
    """See `sinks.Sink`."""

    def __init__(self, place: Place, url: str) -> None:
        self._loop = place.loop
        self._style = _STYLES[place.settings.ping_style]
        self._wants_output = place.settings.ping_log
        self._outbox = Outbox(place, "--ping", Target(url))
        self._ended: Event | None = None
        self._output: dict[str, bytes] = {}
        self._whole: set[str] = set()

    def hear(self, event: Event) -> None:
        """Tell of the start of a run, and of its end, with its output where that is wanted."""
        if event.again:
            return
        run = str(event.facts.get("run"))
        if event.event == OUTPUT:
            self._output[run] = self._output.get(run, b"") + a2b_base64(event.facts["data"])
            if not event.facts["more"]:
                self._whole.add(run)
                self._tell_end()
        elif event.event == "started":
            self._send(event)
        elif event.event in RUN_OVER:
            self._tell_end()
            self._ended = event
            if not self._wants_output or run in self._whole:
                self._tell_end()
            else:
                self._loop.at(calls.now() + _OUTPUT_WITHIN, self._tell_end)

    def finish(self) -> None:
        """Nothing more comes; what is left is sent."""
        self._tell_end()

    def busy(self) -> bool:
        """Whether anything is left to send."""
        return self._outbox.busy()

    def _tell_end(self) -> None:
        """Tell how the latest run ended, if that was not told yet, and forget the output of all runs."""
        if self._ended is None:
            return
        ended, self._ended = self._ended, None
        self._send(ended)
        self._output.clear()
        self._whole.clear()

    def _send(self, event: Event) -> None:
        run = str(event.facts.get("run"))
        letter = self._style(event, run_id(run), self._output.get(run, b""))
        if letter is not None:
            self._outbox.add(letter)


def run_id(run: str) -> str:
    """A UUID (version 8) for a run, the same for its start and its end, whoever makes it."""
    text = f"{hashed([run, 'a']):020x}{hashed([run, 'b']):020x}"
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-8{text[17:20]}-{text[20:32]}"


def _status(facts: Mapping[str, Any]) -> int:
    status = facts.get("status")
    return _UNKNOWN if status is None else int(status)


def _healthchecks(event: Event, run: str, output: bytes) -> Letter | None:
    """healthchecks.io: URL/start, then URL/STATUS with the output."""
    if event.event == "started":
        return Letter("GET", "/start", f"rid={run}")
    kind = {"Content-Type": "text/plain; charset=utf-8"} if output else {}
    method = "POST" if output else "GET"
    return Letter(method, f"/{_status(event.facts)}", f"rid={run}", output, kind)


def _cronitor(event: Event, run: str, _: bytes) -> Letter | None:
    """Cronitor's telemetry: ?state=run, complete or fail."""
    if event.event == "started":
        return Letter("GET", query=f"state=run&series={run}")
    status = _status(event.facts)
    state = "fail" if status else "complete"
    return Letter("GET", query=f"state={state}&status_code={status}&series={run}")


def _snitch(event: Event, _run: str, output: bytes) -> Letter | None:
    """Dead Man's Snitch: at the end, with the exit status."""
    if event.event == "started":
        return None
    return Letter("GET", query=f"s={_status(event.facts)}")


def _plain(event: Event, _run: str, _: bytes) -> Letter | None:
    """Any address that wants to be asked for after a success."""
    return Letter("GET") if event.event == "succeeded" else None


_STYLES: dict[str, Callable[[Event, str, bytes], Letter | None]] = {
    "healthchecks": _healthchecks,
    "cronitor": _cronitor,
    "snitch": _snitch,
    "plain": _plain,
}
