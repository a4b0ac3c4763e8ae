"""--ping: a monitor of jobs is told when a run starts and how it ends, and misses a run that never starts."""

from __future__ import annotations

from singleton_run.names import hashed
from singleton_run.report.events import RUN_OVER
from singleton_run.reporter.outbox import Outbox
from singleton_run.reporter.web import Letter, Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from singleton_run.report.events import Event
    from singleton_run.reporter.sinks import Place

_UNKNOWN = 255
"""The exit status of a run of which nobody can tell how it ended."""


class Pings:
    """See `sinks.Sink`."""

    def __init__(self, place: Place, url: str) -> None:
        self._style = _STYLES[place.settings.ping_style]
        self._outbox = Outbox(place, "--ping", Target(url))

    def hear(self, event: Event) -> None:
        """Tell of the start of a run, and of its end."""
        if event.again or event.event not in ("started", *RUN_OVER):
            return
        letter = self._style(event, run_id(str(event.facts.get("run"))), b"")
        if letter is not None:
            self._outbox.add(letter)

    def finish(self) -> None:
        """Nothing more comes; what is left is sent."""

    def busy(self) -> bool:
        """Whether anything is left to send."""
        return self._outbox.busy()


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
