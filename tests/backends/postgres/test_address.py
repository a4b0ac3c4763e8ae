"""How `--lock postgres` finds its server: by whatever libpq knows, and each way ends in its time."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from singleton_run.api.contract import Grant
from singleton_run.errors import UNUSABLE, Refused, Unavailable
from singleton_run.system import calls
from singleton_run_postgres import open_backend
from singleton_run_postgres.statements import HELLO, Statements, kind_of
from tests.servers import postgres
from tests.servers.postgres import PASSWORD, QUOTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    Hole = Callable[[], AbstractContextManager[int]]

LIMIT = 5.0
SLACK = 5.0


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    with postgres.running() as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no file of the user's says where the server is."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def works(lock: str, limit: float = LIMIT) -> None:
    """A lock can be taken there."""
    backend = open_backend(lock, os.environ)
    name = f"n{uuid4().hex}"
    assert isinstance(backend.acquire(name, "host:1:a", 60.0, limit), Grant)
    backend.leave(LIMIT)
    backend.close()


def fails(lock: str, limit: float) -> str:
    """The server can't be reached, which is said in time."""
    backend = open_backend(lock, os.environ)
    began = calls.now()
    with pytest.raises(Unavailable) as no:
        backend.acquire("n", "host:1:a", 60.0, limit)
    assert calls.now() < began + limit + SLACK
    backend.close()
    return str(no.value)


@pytest.mark.parametrize("lock", ["postgres", "postgresql", "postgres://", "postgresql:///app"])
def test_variables(server: postgres.Postgres, monkeypatch: pytest.MonkeyPatch, lock: str) -> None:
    told = {"HOST": "127.0.0.1", "PORT": str(server.port), "USER": "app", "PASSWORD": PASSWORD}
    for name, value in {**told, "DATABASE": "app"}.items():
        monkeypatch.setenv(f"PG{name}", value)
    works(lock)


def test_a_service_and_a_password_file(
    server: postgres.Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The service names the host: also then it is looked up within the limit, and by its name."""
    services, passwords = tmp_path / "services", tmp_path / "passwords"
    services.write_text(f"[mine]\nhost=localhost\nport={server.port}\nuser=app\ndbname=app\n")
    escaped = PASSWORD.replace(":", r"\:")
    passwords.write_text(f"localhost:{server.port}:app:app:{escaped}\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    works(f"postgres:///?service=mine&passfile={passwords}")
    monkeypatch.setenv("PGSERVICE", "mine")
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    works("postgres")
    works("postgres://?singleton_run_table=another")


def test_a_socket_of_the_file_system(server: postgres.Postgres) -> None:
    works(f"postgresql://app:{QUOTED}@/app?host={server.data}&port={server.port}")


def test_a_password_with_what_belongs_quoted(server: postgres.Postgres) -> None:
    """What libpq takes as it is we take too, also with parameters of ours, but for `?` and `@`."""
    server.run("CREATE ROLE \"odd\" LOGIN PASSWORD 'a?b&c=d#:@' IN ROLE app")
    works(f"postgresql://odd:a%3Fb&c=d#:%40@127.0.0.1:{server.port}/app")
    works(f"postgresql://odd:a%3Fb&c=d#:%40@127.0.0.1:{server.port}/app?singleton_run_schema=public")


def test_certificates_are_checked_against_the_name(server: postgres.Postgres) -> None:
    with postgres.pooled(server) as pooler:
        tail = f":{pooler.port}/app?sslmode=verify-full&sslrootcert={pooler.authority}"
        works(f"postgresql://app:{QUOTED}@localhost{tail}")
        with pytest.raises(Refused, match=r"127\.0\.0\.1.* does not match host name"):
            works(f"postgresql://app:{QUOTED}@127.0.0.1{tail}")


@contextmanager
def silent() -> Iterator[int]:
    """The port of a server that takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@contextmanager
def unreachable() -> Iterator[int]:
    """A port where a connection is neither made nor refused, as if all packets were lost."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@pytest.mark.parametrize("hole", [silent, unreachable])
def test_every_way_has_its_share_of_the_time(server: postgres.Postgres, hole: Hole) -> None:
    with hole() as port:
        place = f"postgresql://app:{QUOTED}@127.0.0.1:{port}"
        assert "no answer in time" in fails(f"{place}/app", 0.5)
        works(f"{place},127.0.0.1:{server.port}/app", LIMIT)


def test_where_nobody_answered_is_tried_last(server: postgres.Postgres) -> None:
    """The first attempt needs half its time for the way that leads nowhere, the next one nothing."""
    with unreachable() as port:
        lock = f"postgresql://app:{QUOTED}@127.0.0.1:{port},127.0.0.1:{server.port}/app"
        backend = open_backend(lock, os.environ)
        backend.read("n", LIMIT)
        server.end_sessions()
        began = calls.now()
        backend.read("n", 60.0)
        assert calls.now() < began + 20.0
        backend.close()


@pytest.mark.parametrize(
    ("lock", "word"),
    [
        ("postgres://localhost/app?nonsense=1", "nonsense"),
        ("postgres://localhost:99999/app", "port"),
        ("postgres://h1,h2/app?port=1,2,3", "port"),
        ("postgres://localhost/app?sslmode=perhaps", "perhaps"),
        ("postgres:///?service=nowhere", "nowhere"),
        ("postgres://localhost/app?singleton_run_tabel=x", "singleton_run_tabel"),
        ("postgres://localhost/app?singleton_run_table=", "singleton_run_table"),
        (f"postgres://localhost/app?singleton_run_table={'x' * 59}", "58"),
        (f"postgres://localhost/app?singleton_run_schema={'x' * 64}", "63"),
        ("postgres://localhost/app?singleton_run_schema=a%00b", "63"),
        ("postgres://user:secretword%zz@localhost/app", "encoded"),
        ("postgres://[::1/app", "IPv6"),
    ],
)
def test_an_address_that_is_none_is_refused_before_anything_is_contacted(lock: str, word: str) -> None:
    with pytest.raises(Refused, match=word) as no:
        open_backend(lock, os.environ)
    assert no.value.status == UNUSABLE
    assert "\n" not in str(no.value)
    assert "secretword" not in str(no.value)


def test_each_statement_begins_with_its_name_for_whoever_reads_pg_stat_activity() -> None:
    statements = vars(Statements("locks", "marks", "controls"))
    assert statements
    assert {name: kind_of(statement) for name, statement in statements.items()} == {
        name: name for name in statements
    }
    assert kind_of(HELLO) == "hello"
