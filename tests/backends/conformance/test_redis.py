"""What holds a lock in Redis passes the suite for leases: one server, Sentinels, a cluster, a quorum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import Refused, Unavailable
from singleton_run.testing import Fault, LeasedConformance, Site
from singleton_run_redis.errors import RIGHTS
from tests.servers import redis, redis_cluster
from tests.servers.redis_quorum import quorum
from tests.support.commands import LeasedCommands

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.redis_quorum import Quorum

OPENER = "tests.servers.redis_opener:open_backend"
WRONG = "wr%6Fng"
SPOILED = "%zzword"


@pytest.fixture(scope="module")
def server() -> Iterator[redis.Server]:
    flags = [*redis.user("app", RIGHTS), *redis.user("stranger", "+hello +select +time")]
    with redis.running(flags=flags) as server:
        yield server


def _faults(server: redis.Server) -> list[Fault]:
    stranger = f"redis://stranger:{redis.QUOTED}@{server.address}"
    return [
        Fault("nobody listens", Unavailable, "redis://127.0.0.1:1"),
        Fault("no such host", Unavailable, "redis://host.invalid"),
        Fault("no such socket", Unavailable, "unix:///none/socket"),
        Fault("the server is stopped", Unavailable, server.url, during=server.stopped),
        Fault("wrong password", Refused, f"redis://app:{WRONG}@{server.address}", secret=WRONG),
        Fault("no such user", Refused, f"redis://nobody:{redis.QUOTED}@{server.address}"),
        Fault("no permission", Refused, stranger, secret=redis.QUOTED),
        Fault("no such database", Refused, f"{server.url}/99"),
    ]


def _bad_addresses() -> list[Fault]:
    words = {
        "a port that is none": "redis://localhost:x",
        "an option that there isn't": "redis://localhost?colour=red",
        "a database that is none": "redis://localhost/first",
        "no such character": f"redis://user:{SPOILED}@localhost",
        "a socket without a path": "unix://",
        "a certificate that is none": "rediss://localhost?ssl_ca_certs=/dev/null",
    }
    return [Fault(what, Refused, lock, secret=SPOILED) for what, lock in words.items()]


def _site(
    place: redis.Server | redis.Watched | redis_cluster.RedisCluster | Quorum, lock: str, faults: list[Fault]
) -> Site:
    """A lock there."""
    return Site(
        opener=OPENER,
        lock=lock,
        delete=place.delete_lock,
        take=place.take_lock,
        outage=place.stopped,
        restart=place.restart,
        faults=faults,
        ttl=1.0,
        fifo=True,
        watches=True,
        tells=True,
    )


class OneServer:
    """One server, as a user with no more rights than docs/redis.md asks for."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, server: redis.Server) -> Site:
        lock = f"redis://app:{redis.QUOTED}@{server.address}"
        return _site(server, lock, [*_faults(server), *_bad_addresses()])


class TestOneServer(OneServer, LeasedConformance):
    """The backend by itself."""


class TestCommand(OneServer, LeasedCommands):
    """The whole program."""


class TestSentinel(LeasedConformance):
    """A primary with replicas, which Sentinels name."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls) -> Iterator[Site]:
        with redis.watched(patience=60_000) as watched:
            host = watched.sentinels[0].address
            yield _site(
                watched,
                watched.url,
                [
                    Fault("nobody listens", Unavailable, "redis+sentinel://127.0.0.1:1/locks"),
                    Fault("all are stopped", Unavailable, watched.url, during=watched.stopped),
                    Fault("no such service", Refused, f"redis+sentinel://{host}/none"),
                    Fault("no service", Refused, f"redis+sentinel://{host}"),
                    Fault("no port", Refused, "redis+sentinel://localhost:x/locks"),
                ],
            )


class TestCluster(LeasedConformance):
    """Three masters, which share the locks."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls) -> Iterator[Site]:
        with redis_cluster.clustered() as cluster, redis.running() as single:
            hosts = cluster.servers[0].address
            yield _site(
                cluster,
                cluster.url,
                [
                    Fault("nobody listens", Unavailable, "redis+cluster://127.0.0.1:1,127.0.0.1:2"),
                    Fault("all are stopped", Unavailable, cluster.url, during=cluster.stopped),
                    Fault("no cluster", Refused, f"redis+cluster://{single.address}"),
                    Fault("wrong password", Refused, f"redis+cluster://app:{WRONG}@{hosts}", secret=WRONG),
                    Fault("a database", Refused, f"{cluster.url}/1"),
                    Fault("no host", Refused, "redis+cluster://"),
                    Fault("no port", Refused, "redis+cluster://localhost:x"),
                ],
            )


class OnQuorum:
    """Three independent servers, as a user with no more rights than docs/redis.md asks for."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls) -> Iterator[Site]:
        with quorum(3, redis.user("app", RIGHTS)) as three:
            lock = f"redis+quorum://app:{redis.QUOTED}@{three.hosts}"
            nobody = "redis+quorum://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"
            yield _site(
                three,
                lock,
                [
                    Fault("nobody listens", Unavailable, nobody),
                    Fault("no such host", Unavailable, "redis+quorum://a.invalid,b.invalid,c.invalid"),
                    Fault("all are stopped", Unavailable, lock, during=three.stopped),
                    Fault(
                        "wrong password", Refused, f"redis+quorum://app:{WRONG}@{three.hosts}", secret=WRONG
                    ),
                    Fault("no such database", Refused, f"{three.url}/99"),
                    Fault("two servers", Refused, "redis+quorum://a,b"),
                    Fault("one of them twice", Refused, "redis+quorum://a,b,a"),
                    Fault("no port", Refused, "redis+quorum://a,b,localhost:x"),
                ],
            )


class TestQuorum(OnQuorum, LeasedConformance):
    """The backend by itself."""


class TestQuorumCommand(OnQuorum, LeasedCommands):
    """The whole program."""
