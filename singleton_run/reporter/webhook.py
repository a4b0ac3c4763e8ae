"""--notify: each event as JSON, by POST, signed where there is a secret."""

from __future__ import annotations

from singleton_run.report.telling import News, message
from singleton_run.reporter.outbox import Outbox
from singleton_run.reporter.signing import signature
from singleton_run.reporter.web import Letter, Target
from singleton_run.system import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.report.events import Event
    from singleton_run.reporter.sinks import Place

SIGNATURE = "Singleton-Run-Signature"
"""The header that has `sha256=` and the HMAC-SHA256 of the body, in hexadecimal digits."""
EVENT, DELIVERY = "Singleton-Run-Event", "Singleton-Run-Delivery"


class Webhook:
    """See `sinks.Sink`."""

    def __init__(self, place: Place, url: str) -> None:
        self._settings = place.settings
        self._outbox = Outbox(place, "--notify", Target(url))
        self._news = News()

    def hear(self, event: Event) -> None:
        """Send it, if it is news."""
        if not self._news.has(event):
            return
        told = message(event, self._settings)
        body = fastjson.dumps(told).encode()
        headers = {"Content-Type": "application/json", EVENT: told["event"], DELIVERY: told["id"]}
        if self._settings.notify_secret:
            headers[SIGNATURE] = signature(self._settings.notify_secret, body)
        self._outbox.add(Letter("POST", body=body, headers=headers))

    def finish(self) -> None:
        """Nothing more comes; what is left is sent."""

    def busy(self) -> bool:
        """Whether anything is left to send."""
        return self._outbox.busy()
