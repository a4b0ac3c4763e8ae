"""The endpoints of --metrics-addr: /metrics, /healthz, /readyz, /leader and /."""

from __future__ import annotations

from singleton_run.reporter.health import is_ready, troubles
from singleton_run.reporter.http_server import Answer, Server
from singleton_run.reporter.leader import Leader
from singleton_run.reporter.text_format import CONTENT_TYPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.report.events import Event
    from singleton_run.reporter.http_server import Respond
    from singleton_run.reporter.series import Series
    from singleton_run.reporter.sinks import Place


class Endpoints:
    """The `sinks.Sink` that answers whoever asks."""

    def __init__(self, place: Place, listener: int, series: Series) -> None:
        self._place = place
        self._series = series
        self._leader = Leader(place)
        paths = {"/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz}
        if place.lines is None:  # the lines of a crontab have a lock each
            paths.update({"/leader": self._leader.answer, "/": self._leader.answer})
        self._server = Server(place.loop, listener, paths)

    def hear(self, event: Event) -> None:
        """Something has happened: what the server said of the lock may be old. The series count it."""
        self._leader.hear(event)

    def finish(self) -> None:
        """Let the address go at once: the next call may want it."""
        self._server.close()

    def busy(self) -> bool:
        """Nobody is owed an answer."""
        return False

    def _metrics(self, query: str, respond: Respond) -> None:
        respond(Answer(200, self._series.text(), CONTENT_TYPE))

    def _healthz(self, query: str, respond: Respond) -> None:
        place = self._place
        if place.lines is None:
            found = troubles(place.vitals, place.settings.ttl, place.front)
        else:
            found = place.lines.troubles(place.front)
        respond(Answer(503, "\n".join([*found, ""])) if found else Answer(200, "ok\n"))

    def _readyz(self, query: str, respond: Respond) -> None:
        when = self._place.settings.ready_when
        lines = self._place.lines
        ready = is_ready(self._place.vitals, when) if lines is None else lines.are_ready(when)
        respond(Answer(200, "ok\n") if ready else Answer(503, f"not {when}\n"))
