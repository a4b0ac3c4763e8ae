"""In CI nothing may skip: there a skipped test is a failed one. And each test's lane, and shared servers.

No property fails for want of time: on a busy machine an example may take as long as it likes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support import blackbox, harness, lanes

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.servers.etcd import Etcd
    from tests.servers.kubeaccess import Cluster, Namespace
    from tests.servers.postgres import Pgbouncer, Postgres
    from tests.servers.redis import Server as Redis

pytest_plugins = ["tests.support.session"]

# On top of what hypothesis itself chooses here or in CI.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --kube-context."""
    text = "run the tests for Kubernetes in new namespaces of this context's cluster, not on their own server"
    parser.addoption("--kube-context", metavar="NAME", help=text)


def pytest_configure() -> None:
    """Watch that no test of the fast lane starts a process."""
    lanes.forbid_processes_in_fast_tests()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with its lane; where a file is tested, leave what says something of it."""
    for item in items:
        item.add_marker(lanes.lane_of(item))
    if harness.GIVEN:
        blackbox.select(config, items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hold a test to its lane; a file's leased locks are on a server in any."""
    lanes.enter(lanes.SERVERS if harness.GIVEN else lanes.lane_of(item))
    try:
        return (yield)
    finally:
        lanes.enter(lanes.SERVERS)


@pytest.fixture(scope="session", autouse=bool(harness.GIVEN))
def _leased_locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where a file that is tested has its leased locks, for it knows no stranger's backend."""
    from tests.servers import etcd

    with etcd.running(tmp_path_factory.mktemp("leased")) as server:
        harness.leased_at = f"etcd://{server.address}"
        yield


@pytest.fixture(scope="module")
def etcd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """A server for a module's tests."""
    from tests.servers import etcd

    with etcd.running(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[Postgres]:
    """A server for a module's tests, with a role that may do nothing with our tables."""
    from tests.servers import postgres

    with postgres.running() as server:
        server.make_role("stranger")
        yield server


@pytest.fixture(scope="module")
def postgres_pooler(postgres_server: Postgres) -> Iterator[Pgbouncer]:
    """A pgbouncer before it."""
    from tests.servers import postgres

    with postgres.pooled(postgres_server) as pooler:
        yield pooler


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Redis]:
    """A server for a module's tests, with a user who has the rights of a lock, and one who has none."""
    from singleton_run_redis.errors import RIGHTS
    from tests.servers import redis

    with redis.running(flags=[*redis.user("app", RIGHTS), *redis.user("nobody", "+time")]) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The one cluster of all tests that don't hurt it."""
    # Not above: the client takes half a second to import, and most runs have no use for it.
    from tests.servers import kube, kubeaccess

    if context := request.config.getoption("--kube-context"):
        with kubeaccess.existing(context) as cluster:
            yield cluster
    else:
        with kube.running(tmp_path_factory.mktemp("kube")) as server:
            yield kubeaccess.own(server)


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace for a module's tests."""
    namespace = cluster.namespace()
    yield namespace
    namespace.remove()


# The one backend that leaves out what a stranger's may: the suite skips the cases that are about this.
_LEAVES_OUT = "tests/backends/conformance/test_ofdfile.py::"
_WITHOUT = "this backend has no look, steer and free"


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.nodeid.startswith(_LEAVES_OUT) and _WITHOUT in str(report.longrepr):
        return
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a test into a failure."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure."""
    report = yield
    _refuse_skip(report)
    return report
