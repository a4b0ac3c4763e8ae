"""The tests' servers. One that can't be had is Broken, and says how to get it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from bench import measure
from tests.servers import etcd as etcds
from tests.servers import kube as kubes
from tests.servers import kubeaccess
from tests.servers import postgres as postgreses
from tests.servers import redis as redises

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def etcd(folder: Path, *, tls: bool = False) -> Iterator[etcds.Etcd]:
    """One etcd that serves, its data in `folder`, which is made."""
    folder.mkdir()
    try:
        certificates = etcds.Certificates(folder / "certificates") if tls else None
        with etcds.running(folder, certificates=certificates) as server:
            yield server
    except pytest.skip.Exception as missing:
        raise measure.Broken(str(missing)) from None


@contextmanager
def kubernetes(folder: Path) -> Iterator[kubeaccess.Cluster]:
    """One cluster that serves, its data in `folder`, which is made."""
    folder.mkdir()
    try:
        with kubes.running(folder) as server:
            yield kubeaccess.own(server)
    except pytest.skip.Exception as missing:
        raise measure.Broken(str(missing)) from None


@contextmanager
def postgres(**settings: str) -> Iterator[postgreses.Postgres]:
    """One PostgreSQL that serves with these settings."""
    try:
        with postgreses.running(settings=settings) as server:
            yield server
    except pytest.skip.Exception as missing:
        raise measure.Broken(str(missing)) from None


@contextmanager
def redis(folder: Path) -> Iterator[redises.Server]:
    """One Redis that serves and writes each change to the disk, its data in `folder`, which is made."""
    folder.mkdir()
    try:
        with redises.running(folder, redises.DURABLE) as server:
            yield server
    except pytest.skip.Exception as missing:
        raise measure.Broken(str(missing)) from None
