"""A server of the module's own, with a pooler before it, and backends that are closed after each test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from singleton_run_postgres import open_backend
from tests.support.backend_calls import Opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from singleton_run_postgres.backend import PostgresBackend
    from tests.servers.postgres import Pgbouncer, Postgres


@pytest.fixture(scope="module")
def server(postgres_server: Postgres) -> Postgres:
    """The module's server, by a shorter name."""
    return postgres_server


@pytest.fixture(scope="module")
def pooler(postgres_pooler: Pgbouncer) -> Pgbouncer:
    """The pgbouncer before it."""
    return postgres_pooler


@pytest.fixture
def opened() -> Iterator[Opened[PostgresBackend]]:
    """Opens backends at an address."""
    with Opened(lambda lock: open_backend(lock, os.environ)) as opened:
        yield opened


@pytest.fixture
def name() -> str:
    """A lock that nobody has had."""
    return f"n{uuid4().hex}"
