"""Who holds the lock, for /leader: of ourselves by the shared page, of others by asking the server.

Nothing that is said is older than the ttl. Where it can't be known, that is said (503). The server is asked
only when somebody asks us, and at most once in a sixth of the ttl (5 s at most): between two questions
nothing is sent, and nobody wakes up.
"""

from __future__ import annotations

import os
import time

from singleton_run.api import registry
from singleton_run.api.contract import host_of
from singleton_run.api.timestamps import rfc3339
from singleton_run.lease_times import request_limit
from singleton_run.reporter.health import holds
from singleton_run.reporter.http_server import JSON, Answer
from singleton_run.system import calls, fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from singleton_run.api.contract import Held
    from singleton_run.report.events import Event
    from singleton_run.reporter.http_server import Respond
    from singleton_run.reporter.sinks import Place


class Leader:
    """What is known of the lock's holder. `asked_at` is when that was true at the earliest (boot clock)."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._ttl = place.settings.ttl
        self._own = ""
        self._held: Held | None = None
        self._asked_at: float | None = None
        self._waiting: list[Respond] = []

    def hear(self, event: Event) -> None:
        """Our own turn has changed: what the server said before counts no more."""
        if event.event == "acquired":
            self._own = event.facts["holder"]
        if event.event in ("acquired", "lost", "released", "waiting"):
            self._asked_at = None

    def answer(self, query: str, respond: Respond) -> None:
        """Answer /leader: at once if we hold the lock or have asked just now, else when the server has."""
        vitals = self._place.vitals
        if holds(vitals):
            respond(_known(self._own, os.uname().nodename, vitals.since, self._own_end(), is_leader=True))
        elif self._age() <= request_limit(self._ttl):
            respond(self._of_other())
        else:
            self._waiting.append(respond)
            if len(self._waiting) == 1:
                self._ask()

    def _own_end(self) -> float | None:
        vitals = self._place.vitals
        return time.time() + vitals.end - calls.now() if vitals.leased else None

    def _age(self) -> float:
        return calls.FOREVER if self._asked_at is None else calls.now() - self._asked_at

    def _ask(self) -> None:
        settings = self._place.settings
        began = calls.now()

        def work() -> list[Held | None]:
            backend = registry.open_backend(settings.lock_address, os.environ)
            try:
                return [backend.read(settings.name, request_limit(settings.ttl))[0]]
            finally:
                backend.close()

        self._place.loop.in_thread(work, lambda found: self._told(found, began))

    def _told(self, found: list[Held | None] | None, began: float) -> None:
        if found is not None:
            self._held, self._asked_at = found[0], began
        waiting, self._waiting = self._waiting, []
        for respond in waiting:
            respond(self._of_other())

    def _of_other(self) -> Answer:
        """What the server has said, if that is not too old."""
        held = self._held
        if self._age() > self._ttl:
            facts = _facts(None, None, None, None, is_leader=False)
            return _json(503, {**facts, "error": "the holder is unknown: the server did not answer"})
        if held is None:
            return _known(None, None, None, None, is_leader=False)
        until = None if held.until is None else time.time() + held.until - calls.now()
        return _known(held.holder, held.host or host_of(held.holder), held.since, until, is_leader=False)


def _known(
    holder: str | None, host: str | None, since: float | None, until: float | None, *, is_leader: bool
) -> Answer:
    return _json(200, _facts(holder, host, since, until, is_leader=is_leader))


def _facts(
    holder: str | None, host: str | None, since: float | None, until: float | None, *, is_leader: bool
) -> dict[str, Any]:
    return {
        "name": host or holder,
        "holder": holder,
        "is_leader": is_leader,
        "since": None if since is None else rfc3339(since),
        "until": None if until is None else rfc3339(until),
    }


def _json(status: int, facts: dict[str, Any]) -> Answer:
    return Answer(status, fastjson.dumps(facts) + "\n", JSON)
