"""The backend of a stranger, with a lease, passes the suite."""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run.errors import Refused, Unavailable
from singleton_run.system import calls
from singleton_run.testing import Fault, LeasedConformance, Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process


@contextmanager
def marked(directory: Path, what: str) -> Iterator[None]:
    mark = directory / what
    mark.touch()
    yield
    mark.unlink()


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """As a server makes one change after the other: a backend could put back what is deleted meanwhile."""
    with (directory / "server").open("a") as server:
        fcntl.flock(server, fcntl.LOCK_EX)
        yield


def site_in(directory: Path, opener: str, **words: Any) -> Site:
    """Leases in a directory. `words` replace what is said of it."""
    lock = f"leasefile://{directory}"

    def take(name: str) -> None:
        path = directory / f"{name}.lease"
        with alone(directory):
            state = json.loads(path.read_text(encoding="utf-8"))
            state.update(holder="somebody", token=state["token"] + 1, until=calls.now() + 60.0, kept=False)
            path.write_text(json.dumps(state), encoding="utf-8")

    def delete(name: str) -> None:
        with alone(directory):
            directory.joinpath(f"{name}.lease").unlink(missing_ok=True)

    site = Site(
        opener=opener,
        lock=lock,
        delete=delete,
        take=take,
        outage=lambda: marked(directory, "outage"),
        restart=directory.joinpath("restarted").touch,
        faults=[
            Fault("out of reach", Unavailable, lock, during=lambda: marked(directory, "outage")),
            Fault("no permission", Refused, lock, during=lambda: marked(directory, "denied")),
        ],
        ttl=1.0,
    )
    return replace(site, **words)


class TestLeaseFile(LeasedConformance):
    """First come, first served is not promised, and a holder watches nothing."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, tmp_path_factory: pytest.TempPathFactory) -> Site:
        site = site_in(
            tmp_path_factory.mktemp("leases"), "tests.example_backends.singleton_run_leasefile:open_backend"
        )
        return replace(site, faults=[*site.faults, Fault("no directory", Refused, f"{site.lock}/none")])


class TestQueueFile(LeasedConformance):
    """Both are promised."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, tmp_path_factory: pytest.TempPathFactory) -> Site:
        opener = "tests.example_backends.singleton_run_queuefile:open_backend"
        return site_in(tmp_path_factory.mktemp("queues"), opener, fifo=True, watches=True, tells=True)
