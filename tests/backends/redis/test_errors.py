"""What Redis refuses is the right kind of error, and says what to do."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from singleton_run.api.contract import Grant
from singleton_run.errors import DENIED, UNAVAILABLE, UNUSABLE, Failure
from singleton_run_redis import open_backend
from singleton_run_redis.errors import RIGHTS, server_error
from singleton_run_redis.scripts import keys_of
from tests.servers import redis
from tests.servers.etcd import Certificates
from tests.support.backend_calls import take
from tests.support.harness import PROGRAM, environment, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LIMIT = 5.0
TTL = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[redis.Server]:
    with redis.running(flags=redis.user("stranger", "+time")) as server:
        yield server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls") / "certificates")


@pytest.fixture(scope="module")
def secure(certificates: Certificates) -> Iterator[redis.Server]:
    with redis.running(certificates=certificates) as server:
        yield server


def works(lock: str, environ: Mapping[str, str] | None = None) -> None:
    """A lock can be taken there, and given back."""
    backend = open_backend(lock, environ or {})
    assert isinstance(backend.acquire(f"n{uuid4().hex}", "host:1:a", TTL, LIMIT), Grant)
    backend.leave(LIMIT)
    backend.close()


def fails(
    lock: str, status: int, words: str, name: str = "n", environ: Mapping[str, str] | None = None
) -> None:
    """It can't be taken there, with that status and words."""
    with pytest.raises(Failure) as no, closing(open_backend(lock, environ or {})) as backend:
        backend.acquire(name, "host:1:a", TTL, LIMIT)
    assert (no.value.status, words in str(no.value)) == (status, True), str(no.value)
    assert redis.PASSWORD not in str(no.value)


@contextmanager
def configured(server: redis.Server, **settings: str) -> Iterator[None]:
    """The server has these settings meanwhile."""
    with server.client() as client:
        before = {word: client.config_get(word)[word] for word in settings}
        client.config_set(*(part for item in settings.items() for part in item))
        try:
            yield
        finally:
            client.config_set(*(part for item in before.items() for part in item))


# What passes.


def test_a_replica_is_waited_for_until_it_is_the_primary(server: redis.Server, tmp_path: Path) -> None:
    with redis.running(tmp_path, ["--replicaof", "127.0.0.1", str(server.port)]) as replica:
        with replica.client() as client:
            until(lambda: client.info("replication")["master_link_status"] == "up", "the replica to follow")
        fails(replica.url, UNAVAILABLE, "a replica can't lock")
        backend = open_backend(replica.url, {})
        with pytest.raises(Failure):
            backend.acquire("n", "host:1:a", TTL, LIMIT)
        with replica.client() as client:
            client.replicaof("NO", "ONE")
        assert isinstance(backend.acquire("n", "host:1:a", TTL, LIMIT), Grant)
        backend.close()


def test_a_replica_that_has_lost_its_primary(tmp_path: Path) -> None:
    flags = ["--replicaof", "127.0.0.1", "1", "--replica-serve-stale-data", "no"]
    with redis.running(tmp_path, flags) as replica:
        fails(replica.url, UNAVAILABLE, "MASTERDOWN")


def test_a_full_server(server: redis.Server) -> None:
    """Nobody takes a lock there, but a holder goes on."""
    backend = open_backend(server.url, {})
    grant = backend.acquire("full", "host:1:a", TTL, LIMIT)
    assert isinstance(grant, Grant)
    with configured(server, maxmemory="1"):
        fails(server.url, UNAVAILABLE, "raise its maxmemory")
        backend.renew(grant, LIMIT)
        backend.write(grant, {"version": 1}, LIMIT)
        backend.mark(grant, "k", {}, LIMIT)
        backend.release(grant, {"version": 1}, LIMIT)
    works(server.url)
    backend.close()


def test_too_few_replicas(server: redis.Server) -> None:
    with configured(server, **{"min-replicas-to-write": "1"}):
        fails(server.url, UNAVAILABLE, "min-replicas-to-write")


def test_a_server_that_can_not_save(server: redis.Server, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with (
        redis.running(
            tmp_path, ["--enable-protected-configs", "yes", "--appendonly", "no", "--save", "3600 1"]
        ) as other,
        other.client() as client,
    ):
        client.config_set("dir", str(gone))
        shutil.rmtree(gone)
        client.set("a", "b")
        client.bgsave()
        until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the saving to fail")
        fails(other.url, UNAVAILABLE, "can't save to its disk")


def test_a_server_that_loads_its_data(tmp_path: Path) -> None:
    flags = ["--appendonly", "no", "--loading-process-events-interval-bytes", "1024"]
    with redis.running(tmp_path, flags) as server:
        with server.client() as client:
            client.mset({f"key{number}": "x" * 200 for number in range(5000)})
            client.save()
        server.kill()
        server.begin("--key-load-delay", "10000")
        until(lambda: refuses(server, "LOADING"), "the server to load")
        fails(server.url, UNAVAILABLE, "serves soon")


def refuses(server: redis.Server, code: str) -> bool:
    """Whether a lock can't be taken there because of that."""
    try:
        with closing(open_backend(server.url, {})) as backend:
            backend.acquire("n", "host:1:a", TTL, LIMIT)
    except Failure as failure:
        return code in str(failure)
    return False


def test_a_server_with_too_many_clients(tmp_path: Path) -> None:
    with redis.running(tmp_path, ["--maxclients", "1"]) as server, server.client() as client:
        client.ping()
        fails(server.url, UNAVAILABLE, "raise its maxclients")


def test_a_cluster_that_is_incomplete(tmp_path: Path) -> None:
    with redis.running(tmp_path, ["--cluster-enabled", "yes"]) as server:
        fails(server.url, UNAVAILABLE, "CLUSTER INFO")


def test_what_is_no_redis() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # The kernel takes the connection, and nobody answers.
        place = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        fails(place, UNAVAILABLE, "no answer in time")


def test_a_web_server(etcd_server: object) -> None:
    fails(f"redis://{etcd_server.address}", UNAVAILABLE, "is it Redis, and")  # type: ignore[attr-defined]


# What doesn't.


def test_a_password_is_asked_for(tmp_path: Path) -> None:
    with redis.running(tmp_path, ["--requirepass", redis.PASSWORD]) as server:
        fails(server.url, DENIED, "REDISCLI_AUTH")
        fails(f"redis://:wrong@{server.address}", DENIED, "check user and password")
        works(f"redis://:{redis.QUOTED}@{server.address}")
        works(f"{server.url}?password={redis.QUOTED}")
        works("redis", {"REDIS_URL": server.url, "REDISCLI_AUTH": redis.PASSWORD})


def test_a_right_is_missing(server: redis.Server) -> None:
    words = f"have an administrator run: ACL SETUSER USER {RIGHTS}"
    fails(f"redis://stranger:{redis.QUOTED}@{server.address}", DENIED, words)


def test_a_key_is_another_program_s(server: redis.Server) -> None:
    with server.client() as client:
        client.set(keys_of("taken")[0], "x", ex=60)
    fails(server.url, UNUSABLE, "another program's", "taken")


def test_a_token_that_can_not_grow(server: redis.Server) -> None:
    with server.client() as client:
        client.set(keys_of("worn")[1], str(1 << 60), ex=60)
    fails(server.url, UNUSABLE, "delete the key", "worn")


@pytest.mark.parametrize("stored", ["nan", "-nan", "-inf", "x", ""])
def test_a_token_that_is_no_number_is_replaced(server: redis.Server, stored: str) -> None:
    name = f"n{uuid4().hex}"
    with server.client() as client:
        client.set(keys_of(name)[1], stored, ex=60)
        with closing(open_backend(server.url, {})) as backend:
            grant = take(backend, name, ttl=TTL)
        assert client.get(keys_of(name)[1]) == str(grant.token)
    assert grant.token is not None
    assert grant.token > 1 << 50


@pytest.mark.parametrize("score", ["inf", "-inf", "1e300"])
def test_a_place_in_the_queue_that_is_no_time_of_ours_is_not_told(server: redis.Server, score: str) -> None:
    name = f"n{uuid4().hex}"
    with server.client() as client:
        client.zadd(keys_of(name)[4], {"a": float(score), "b": 1e15})
        client.hset(keys_of(name)[5], mapping=dict.fromkeys("ab", f"{1 << 60} n"))
    with closing(open_backend(server.url, {})) as backend:
        assert [held.holder for held in backend.look(name, LIMIT).waiting or ()] == ["b"]


def test_a_server_that_is_no_sentinel(server: redis.Server) -> None:
    fails(f"redis+sentinel://{server.address}/locks", UNUSABLE, "is no Sentinel: for a server alone say")


def test_a_sentinel_that_has_too_many_clients_is_asked_again(tmp_path: Path) -> None:
    with redis.running(tmp_path) as server, server.client() as client:
        client.config_set("maxclients", 1)
        words = "max number of clients reached"
        fails(f"redis+sentinel://{server.address}/locks", UNAVAILABLE, words)


def test_a_lock_that_can_not_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    with redis.running(tmp_path) as server:
        for name in ("bad", "good"):
            with closing(open_backend(server.url, {})) as backend:
                take(backend, name, ttl=TTL)
        with server.client() as client:
            client.delete(keys_of("bad")[2])
            client.set(keys_of("bad")[2], "x")
        argv = [*PROGRAM, "list", "--lock", server.url]
        done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == UNUSABLE
    assert done.stdout.split()[:2] == ["good", "held"]
    assert "'bad'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_that_is_too_old(tmp_path: Path) -> None:
    with redis.running(tmp_path, ["--rename-command", "HELLO", "BONJOUR"]) as server:
        fails(server.url, UNUSABLE, "Redis 6.0 or later")


def test_a_command_of_the_script_is_renamed(tmp_path: Path) -> None:
    with redis.running(tmp_path, ["--rename-command", "HGET", ""]) as server:
        fails(server.url, UNUSABLE, "without renamed commands")
        with closing(open_backend(server.url, {})) as backend, pytest.raises(Failure) as no:
            list(backend.examine("n", TTL, LIMIT))
    assert "without renamed commands" in str(no.value)


def test_a_node_of_a_cluster(tmp_path: Path) -> None:
    flags = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"]
    with (
        redis.running(tmp_path / "1", flags) as one,
        redis.running(tmp_path / "2", flags) as other,
        one.client() as here,
        other.client() as there,
    ):
        there.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        here.execute_command("CLUSTER", "MEET", "127.0.0.1", str(other.port), str(other.bus))
        until(lambda: refuses(one, "MOVED"), "the nodes to know each other")
        fails(one.url, UNUSABLE, "it is a cluster")


def test_an_error_within_a_script_before_redis_7() -> None:
    text = "ERR Error running script (call to f_ab): @user_script:9: -OOM command not allowed"
    assert server_error(text).code == "OOM"


# The ways to a server.


def test_a_unix_socket(server: redis.Server) -> None:
    works(f"unix://{server.socket}")
    works("redis", {"REDIS_URL": f"unix://{server.socket}?db=3"})
    fails(f"unix://stranger:wrong@{server.socket}", DENIED, "check user and password")


def test_each_database_has_its_own_locks(server: redis.Server) -> None:
    name = f"n{uuid4().hex}"
    for lock in (f"{server.url}/1", f"{server.url}/2", f"{server.url}?db=3"):
        backend = open_backend(lock, {})
        assert isinstance(backend.acquire(name, "host:1:a", TTL, LIMIT), Grant)
        backend.close()


def test_tls_by_the_authority_that_was_named(secure: redis.Server, certificates: Certificates) -> None:
    works(f"{secure.url}?ssl_ca_certs={certificates.ca}")
    place = f"rediss://127.0.0.1:{secure.port}"
    works(f"{place}?ssl_ca_certs={certificates.ca}&ssl_server_name=localhost")
    fails(secure.url, UNUSABLE, "its certificate is not trusted")
    fails(f"{secure.url}?ssl_ca_certs={certificates.ca}&ssl_server_name=other", UNUSABLE, "not trusted")


def test_tls_that_nobody_checks_is_warned_of(secure: redis.Server) -> None:
    lock = f"{secure.url}?ssl_cert_reqs=none"
    works(lock)
    warning = open_backend(lock, {}).warning
    assert warning is not None
    assert "is not checked" in warning[1]


def test_tls_and_no_tls(server: redis.Server, secure: redis.Server, certificates: Certificates) -> None:
    fails(
        f"rediss://localhost:{server.port}?ssl_ca_certs={certificates.ca}",
        UNAVAILABLE,
        "is TLS spoken there?",
    )
    fails(f"redis://localhost:{secure.port}", UNAVAILABLE, "and without TLS?")


def test_a_certificate_of_ours_is_asked_for(certificates: Certificates, tmp_path: Path) -> None:
    with redis.running(tmp_path, ["--tls-auth-clients", "yes"], certificates) as server:
        lock = f"{server.url}?ssl_ca_certs={certificates.ca}"
        works(f"{lock}&ssl_certfile={certificates.client_cert}&ssl_keyfile={certificates.client_key}")
        with pytest.raises(Failure), closing(open_backend(lock, {})) as backend:
            backend.acquire("n", "host:1:a", TTL, LIMIT)
