"""TLS to one server, to Sentinels and their primary, to the nodes of a cluster, to a quorum's servers."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import pytest
import trustme

from singleton_run.api.contract import Grant, Held, Look
from singleton_run.errors import UNAVAILABLE, UNUSABLE, Failure, Unavailable
from singleton_run.system import calls
from singleton_run_redis import open_backend
from tests.servers import redis, redis_cluster
from tests.servers.etcd import Certificates
from tests.servers.redis_quorum import quorum
from tests.support.harness import Lab, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from singleton_run_redis.backend import RedisBackend

KINDS = ("", "+sentinel", "+cluster", "+quorum")
LIMIT = 5.0
SHORT = 1.0
TTL = 60.0
RECORD = {"version": 1, "state": "succeeded", "token": 1, "holder": "h", "runs": []}
MARK = {"version": 1, "time": 1.0}


class Site(NamedTuple):
    """Where a lock is, and the server that has a lock's keys, or one of those."""

    lock: str
    servers: list[redis.Server]


@contextmanager
def running(kind: str, certificates: Certificates | None) -> Iterator[Site]:
    """Servers of that kind, which speak TLS where they have certificates."""
    with ExitStack() as stack:
        if kind == "+sentinel":
            watched = stack.enter_context(redis.watched(60_000, certificates))
            yield Site(watched.url, watched.servers)
        elif kind == "+cluster":
            cluster = stack.enter_context(redis_cluster.clustered(certificates=certificates))
            yield Site(cluster.url, cluster.servers)
        elif kind == "+quorum":
            three = stack.enter_context(quorum(certificates=certificates))
            yield Site(three.url, three.servers)
        else:
            server = stack.enter_context(redis.running(certificates=certificates))
            yield Site(server.url, [server])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls") / "certificates")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The certificate of an authority that vouches for none of the servers."""
    path = tmp_path_factory.mktemp("stranger") / "ca.pem"
    path.write_bytes(trustme.CA().cert_pem.bytes())
    return str(path)


@pytest.fixture(scope="module", params=KINDS)
def secure(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Site]:
    with running(request.param, certificates) as site:
        yield site


@pytest.fixture
def name() -> str:
    return f"n{uuid4().hex}"


def fails(lock: str, name: str = "n", limit: float = LIMIT) -> tuple[int, str]:
    """The status and the text with which the lock can't be taken there."""
    with pytest.raises(Failure) as no, closing(open_backend(lock, {})) as backend:
        backend.acquire(name, "host:1:a", TTL, limit)
    assert "\n" not in str(no.value)
    return no.value.status, str(no.value)


def waits(backend: RedisBackend, held: Held, wake: int) -> None:
    backend.wait(held, calls.now() + TTL, wake)


def test_whole_turns_of_two_who_want_it(secure: Site, certificates: Certificates, name: str) -> None:
    lock = f"{secure.lock}?ssl_ca_certs={certificates.ca}"
    with (
        closing(open_backend(lock, {})) as holder,
        closing(open_backend(lock, {})) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        grant = holder.acquire(name, "host:1:a", TTL, LIMIT)
        assert isinstance(grant, Grant)
        held = other.acquire(name, "host:2:b", TTL, LIMIT)
        assert isinstance(held, Held)
        assert held.holder == "host:1:a"
        never, end = os.pipe()
        wait = pool.submit(waits, other, held, never)
        try:
            until(
                lambda: [one.holder for one in holder.look(name, LIMIT).waiting or ()], "a place in the queue"
            )
            assert holder.steer(name, "", {"version": 1, "pause": None, "release": None}, LIMIT)
            assert holder.renew(grant, LIMIT) == {"version": 1, "pause": None, "release": None}
            holder.write(grant, RECORD, LIMIT)
            holder.mark(grant, "k", MARK, LIMIT)
            assert holder.done(name, "k", LIMIT) == MARK
            assert name in holder.list(LIMIT)
            assert holder.look(name, LIMIT).state == Look.HELD
            holder.release(grant, RECORD, LIMIT)
            wait.result(TTL)
        finally:
            os.write(end, b".")
        os.close(never)
        os.close(end)
        after = other.acquire(name, "host:2:b", TTL, LIMIT)
        assert isinstance(after, Grant)
        assert after.token > grant.token
        other.release(after, RECORD, LIMIT)


def test_the_whole_program(secure: Site, certificates: Certificates, tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        lab.lock = f"{secure.lock}?ssl_ca_certs={certificates.ca}"
        runs = [lab.start(command=lab.job()) for _ in range(3)]
        assert [run.wait() for run in runs] == [0, 0, 0], [run.said for run in runs]
        lab.evidence.check(3)
        plain = secure.lock.replace("rediss", "redis", 1)
        for lock, status, words in (
            (secure.lock, UNUSABLE, "its certificate is not trusted"),
            (plain, UNAVAILABLE, "is it Redis, and without TLS?"),
        ):
            lab.lock = lock
            run = lab.start("--wait", "4s", "--ttl", "6s", command=lab.job())
            assert run.wait() == status, run.said
            assert words in run.said.splitlines()[-1], run.said
        lab.evidence.check(3)


def test_an_authority_that_does_not_vouch_for_it(secure: Site, stranger: str, name: str) -> None:
    for lock in (secure.lock, f"{secure.lock}?ssl_ca_certs={stranger}"):
        status, text = fails(lock, name)
        assert (status, "is not trusted" in text) == (UNUSABLE, True), text
        assert "name its authority in ssl_ca_certs" in text


def test_a_name_that_the_certificate_must_have(secure: Site, certificates: Certificates, name: str) -> None:
    lock = f"{secure.lock}?ssl_ca_certs={certificates.ca}&ssl_server_name="
    status, text = fails(f"{lock}other.example", name)
    assert (status, "ismatch" in text, "ssl_server_name" in text) == (UNUSABLE, True, True), text
    with closing(open_backend(f"{lock}localhost", {})) as backend:
        assert isinstance(backend.acquire(name, "host:1:a", TTL, LIMIT), Grant)


def test_a_certificate_that_is_not_checked_is_warned_of(secure: Site, name: str) -> None:
    with closing(open_backend(f"{secure.lock}?ssl_cert_reqs=none", {})) as backend:
        assert isinstance(backend.acquire(name, "host:1:a", TTL, LIMIT), Grant)
        assert backend.warning is not None
        assert "is not checked" in backend.warning[1]


def test_no_tls_where_it_is_spoken(secure: Site, name: str) -> None:
    status, text = fails(secure.lock.replace("rediss", "redis", 1), name)
    assert (status, "is it Redis, and without TLS?" in text) == (UNAVAILABLE, True), text


@pytest.mark.parametrize("kind", KINDS)
def test_tls_where_none_is_spoken(kind: str, certificates: Certificates, name: str) -> None:
    with running(kind, None) as plain:
        lock = plain.lock.replace("redis", "rediss", 1)
        status, text = fails(f"{lock}?ssl_ca_certs={certificates.ca}", name, SHORT)
    assert (status, "no answer to the TLS handshake in time: is TLS spoken there?" in text) == (
        UNAVAILABLE,
        True,
    ), text


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_of_another_host_and_one_of_the_past(
    kind: str, certificates: Certificates, name: str
) -> None:
    """Who doesn't check them is let in by both: so it is these that keep us out."""
    past = datetime.now(UTC) - timedelta(days=1)
    for what, words, one in (
        ("name", "mismatch", certificates.other("name", "other.example")),
        ("past", "expired", certificates.other("past", "localhost", "127.0.0.1", end=past)),
    ):
        if kind in ("+sentinel", "+cluster") and what == "past":
            continue  # they don't trust each other then
        with running(kind, one) as site:
            status, text = fails(f"{site.lock}?ssl_ca_certs={one.ca}", name)
            assert (status, words in text.lower()) == (UNUSABLE, True), text
            with closing(open_backend(f"{site.lock}?ssl_cert_reqs=none", {})) as backend:
                assert isinstance(backend.acquire(name, "host:1:a", TTL, LIMIT), Grant)


def test_the_node_that_a_cluster_names_is_checked_too(certificates: Certificates) -> None:
    """One node has a certificate of another host: what is on the others can be locked."""
    with redis_cluster.clustered(certificates=certificates) as cluster:
        lock = (
            f"{cluster.servers[0].url.replace('rediss', 'rediss+cluster').replace('localhost', '127.0.0.1')}"
        )
        lock += f"?ssl_ca_certs={certificates.ca}"
        wrong = certificates.other("wrong", "other.example")
        odd = cluster.servers[1]
        with odd.client() as client:
            client.config_set("tls-cert-file", wrong.cert, "tls-key-file", wrong.key)
        names = {cluster.owner(name).port: name for name in (f"n{number}" for number in range(60))}
        assert len(names) == redis_cluster.MASTERS
        status, text = fails(lock, names.pop(odd.port))
        assert status == UNUSABLE, text
        assert f"{odd.address}: its certificate is not trusted" in text
        for name in names.values():
            with closing(open_backend(lock, {})) as backend:
                assert isinstance(backend.acquire(name, "host:1:a", TTL, LIMIT), Grant)


def test_a_minority_of_a_quorum_that_is_not_trusted_keeps_nobody_out(
    certificates: Certificates, name: str
) -> None:
    with quorum(certificates=certificates) as three:
        lock = f"{three.url}?ssl_ca_certs={certificates.ca}"
        wrong = certificates.other("wrong-quorum", "other.example")
        for server, granted in zip(three.servers, (True, False, False), strict=True):
            with server.client() as client:
                client.config_set("tls-cert-file", wrong.cert, "tls-key-file", wrong.key)
            with closing(open_backend(lock, {})) as backend:
                if granted:
                    assert isinstance(backend.acquire(name, "host:1:a", TTL, LIMIT), Grant)
                    backend.leave(LIMIT)
                    continue
            status, text = fails(lock, name)
            assert (status, "ismatch" in text) == (UNUSABLE, True), text


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_of_ours_is_asked_for(kind: str, certificates: Certificates, name: str) -> None:
    with running(kind, certificates) as site:
        for server in site.servers:
            with server.client() as client:
                client.config_set("tls-auth-clients", "yes")
        lock = f"{site.lock}?ssl_ca_certs={certificates.ca}"
        status, text = fails(lock, name)
        # The server's word of it may be overtaken by the end of the connection.
        assert status in (UNUSABLE, UNAVAILABLE)
        assert "ask for a certificate of ours (ssl_certfile)?" in text, text
        lock += f"&ssl_certfile={certificates.client_cert}&ssl_keyfile={certificates.client_key}"
        with closing(open_backend(lock, {})) as backend:
            assert isinstance(backend.acquire(name, "host:1:a", TTL, LIMIT), Grant)


def test_a_quorum_with_a_silent_server_goes_on(certificates: Certificates, name: str) -> None:
    with (
        quorum(certificates=certificates) as three,
        closing(open_backend(f"{three.url}?ssl_ca_certs={certificates.ca}", {})) as backend,
    ):
        with three.stopped(0):
            grant = backend.acquire(name, "host:1:a", TTL, LIMIT)
            assert isinstance(grant, Grant)
            with three.stopped(1), pytest.raises(Unavailable, match="fewer than 2 of 3"):
                backend.renew(grant, SHORT)
        backend.renew(grant, LIMIT)
        backend.release(grant, RECORD, LIMIT)
