"""The backend `postgres` passes what every lock under a lease must: by itself, and behind a pooler."""

from __future__ import annotations

import pytest

from singleton_run.errors import Refused, Unavailable
from singleton_run.testing import Fault, LeasedConformance, Site
from tests.servers import postgres
from tests.support.commands import LeasedCommands

OPENER = "tests.servers.postgres_opener:open_backend"
WRONG = "wr%6Fng"
SPOILED = "%zzword"


def _faults(place: postgres.Postgres | postgres.Pgbouncer) -> list[Fault]:
    user = place.url_of("stranger")
    return [
        Fault("nobody listens", Unavailable, "postgres://127.0.0.1:1/app"),
        Fault("no such host", Unavailable, "postgres://host.invalid/app"),
        Fault("the server is stopped", Unavailable, place.url, during=place.stopped),
        Fault("no permission", Refused, user, secret=postgres.QUOTED),
        Fault("no such schema", Refused, f"{place.url}?singleton_run_schema=none"),
    ]


def _bad_addresses() -> list[Fault]:
    words = {
        "a port that is none": "postgres://localhost:x/app",
        "an option that libpq doesn't know": "postgres://localhost/app?nonsense=1",
        "an option of ours that there isn't": "postgres://localhost/app?singleton_run_tabel=x",
        "a value that libpq doesn't know": "postgres://localhost/app?sslmode=perhaps",
        "no such service": "postgres:///?service=none",
        "no such character": f"postgres://user:{SPOILED}@localhost/app",
        "more ports than hosts": "postgres://localhost/app?port=1,2",
    }
    return [Fault(what, Refused, lock, secret=SPOILED) for what, lock in words.items()]


class Direct:
    """Sessions of our own: LISTEN and NOTIFY."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, postgres_server: postgres.Postgres) -> Site:
        wrong = [
            Fault("wrong password", Refused, postgres_server.url_of("app", WRONG), secret=WRONG),
            Fault("no such user", Refused, postgres_server.url_of("nobody")),
            Fault("no such database", Refused, postgres_server.url_of("app", database="none")),
        ]
        return Site(
            opener=OPENER,
            lock=postgres_server.url,
            environ=postgres.client_environment(),
            delete=postgres_server.delete_lock,
            take=postgres_server.take_lock,
            outage=postgres_server.stopped,
            restart=postgres_server.restart,
            faults=[*_faults(postgres_server), *wrong, *_bad_addresses()],
            ttl=2.0,
            watches=True,
            tells=True,
        )


class TestDirect(Direct, LeasedConformance):
    """The backend by itself."""


class TestCommand(Direct, LeasedCommands):
    """The whole program."""


class TestPooled(LeasedConformance):
    """Every statement may meet another session.

    Before version 1.19 pgbouncer has one SQLSTATE for whatever goes wrong at a login, so what is wrong
    with it is not told apart here.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, postgres_server: postgres.Postgres, postgres_pooler: postgres.Pgbouncer) -> Site:
        return Site(
            opener=OPENER,
            lock=postgres_pooler.url,
            environ=postgres.client_environment(),
            delete=postgres_server.delete_lock,
            take=postgres_server.take_lock,
            outage=postgres_server.stopped,
            restart=postgres_server.restart,
            faults=_faults(postgres_pooler),
            ttl=2.0,
        )
