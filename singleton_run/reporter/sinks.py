"""Those who are told of events, as far as the call asks for them."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from singleton_run.call.settings import Settings
    from singleton_run.report.events import Event
    from singleton_run.report.log import Log
    from singleton_run.reporter.lines import Lines
    from singleton_run.reporter.loop import Loop
    from singleton_run.reporter.vitals import Vitals
else:
    Protocol = object


class Sink(Protocol):
    """One who is told of events. None of these calls may wait: what takes time goes by the `Loop`."""

    def hear(self, event: Event) -> None:
        """Something has happened."""

    def finish(self) -> None:
        """The front has ended: nothing more happens. Deliver what is left, and stop listening."""

    def busy(self) -> bool:
        """Whether something is left to deliver. After `finish` the reporter ends when nobody is busy."""


class Place:
    """What a sink works with: its `settings`, the `loop`, the `log` for the user, and the `vitals`.

    `front` is the front's process id, `listener` the descriptor of --metrics-addr (-1 without one), and
    `directory` the one in which the call was made. `lines` has the vitals of a crontab's lines, None if we
    report of one call.
    """

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        log: Log,
        vitals: Vitals,
        front: int,
        listener: int,
        lines: Lines | None = None,
    ) -> None:
        self.listener = listener
        self.settings = settings
        self.loop = loop
        self.log = log
        self.vitals = vitals
        self.front = front
        try:
            self.directory = os.getcwd()
        except OSError:
            self.directory = "/"
        self.lines = lines


def wanted(place: Place, *, over: bool) -> list[Sink]:
    """The sinks that the call asks for. `over` says that the front has ended already: nobody can ask us.

    Each loads what it needs, which may fail in any way.
    """
    return [*_metrics(place, over=over), *_tellers(place)]


def _metrics(place: Place, *, over: bool) -> list[Sink]:
    settings = place.settings
    serves = place.listener >= 0 and not over
    if not serves and settings.metrics_file is None:
        return []
    from singleton_run.reporter import text_format

    text_format.load_counting_modules()
    from singleton_run.reporter.series import Series

    series = Series()
    made: list[Sink] = [series]
    if place.lines is None:
        series.add(settings.name, place.vitals)
    else:
        place.lines.add_all(series)
        made.insert(0, place.lines)
    if serves:
        from singleton_run.reporter.endpoints import Endpoints

        made.append(Endpoints(place, place.listener, series))
    if settings.metrics_file is not None:
        from singleton_run.reporter.metrics_file import MetricsFile

        made.append(MetricsFile(place, os.path.join(place.directory, settings.metrics_file), series))
    return made


def _tellers(place: Place) -> list[Sink]:
    """Those who tell others by themselves: hooks, webhook and pings."""
    settings = place.settings
    made: list[Sink] = []
    if settings.on:
        from singleton_run.reporter.hooks import Hooks

        made.append(Hooks(place))
    if settings.notify is not None:
        from singleton_run.reporter.webhook import Webhook

        made.append(Webhook(place, settings.notify))
    if settings.ping is not None:
        from singleton_run.reporter.pings import Pings

        made.append(Pings(place, settings.ping))
    return made
