"""The lock in etcd by gRPC: what could be this transport's own.

`test_etcd` has the cases that are run by both transports: beside etcdctl, lost answers, fail-over, tokens,
permissions, users by certificate.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import UNUSABLE, Lost, Refused, Unavailable
from singleton_run.system import calls
from singleton_run.testing.peer import Nursery
from singleton_run.testing.suite import record_of
from tests.servers import etcd
from tests.support.crews import Crews
from tests.support.harness import Lab, environment
from tests.support.ports import free_port
from tests.support.proxy import DOWN, Proxy, proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from singleton_run.testing import Crew
    from tests.servers.etcd import Certificates, Etcd

pytestmark = etcd.NEEDS_GRPC

PASSWORD = "horse"  # noqa: S105 - of servers that live as long as the tests
# A lease that no test waits for.
LONG = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """It has no gateway."""
    with etcd.running(tmp_path_factory.mktemp("etcd"), ["--enable-grpc-gateway=false"]) as server:
        yield server


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery(etcd.GRPC_OPENER.partition(":")[0])
    yield nursery
    nursery.close()


@pytest.fixture
def crew_at(nursery: Nursery) -> Iterator[Crews]:
    with Crews(nursery, etcd.GRPC_OPENER, "etcd+grpc") as crews:
        yield crews


@pytest.fixture
def crew(crew_at: Crews, server: Etcd) -> Crew:
    return crew_at(server.address)


@pytest.fixture
def between(server: Etcd) -> Iterator[Proxy]:
    with proxy(server.port) as between:
        yield between


@pytest.fixture
def lab(tmp_path: Path, server: Etcd) -> Iterator[Lab]:
    """A lock in etcd for the whole program."""
    with Lab(tmp_path) as lab:
        lab.lock = f"etcd+grpc://{server.address}"
        yield lab


# The whole program.


def test_a_command_runs_on_through_an_outage_with_a_new_keeper(tmp_path: Path) -> None:
    with etcd.running(tmp_path) as server, Lab(tmp_path) as lab:
        lab.lock = f"etcd+grpc://{server.address}"
        run = lab.start("--ttl", "30s", command=lab.long_job())
        lab.ready()
        keeper = run.one("keeper of")
        server.kill()
        os.kill(keeper, 9)
        run.one("keeper of", but=keeper)
        server.start().serves()
        lab.beats()
        lab.finish()
        assert run.wait() == 0, run.said
        lab.evidence.check(1)


# Connections that break, answers that are lost.


def test_a_holder_whose_connections_break_sees_a_deletion(
    crew_at: Crews, between: Proxy, server: Etcd
) -> None:
    crew = crew_at(between.address)
    name = crew.name()
    holder = crew.peer()
    grant = holder.takes(name, LONG)
    holder.start_hold(grant, calls.now() + LONG)
    between.cut()
    server.delete_lock(name)
    between.mend()
    holder.result(crew.site.patience)
    with pytest.raises(Lost):
        holder.renew(grant)


def leases(server: Etcd) -> set[str]:
    """Every lease there is."""
    return {*server.ctl("lease", "list").split("\n")[1:]} - {""}


def test_an_acquire_whose_answer_was_lost_is_undone_by_leave(
    crew: Crew, crew_at: Crews, between: Proxy, server: Etcd
) -> None:
    name = crew.name()
    peer = crew_at(between.address).peer()
    peer.read(name)
    before = leases(server)
    between.deafen(DOWN)
    peer.start_call("acquire", name, peer.holder, LONG)
    with pytest.raises(Unavailable):
        peer.result()
    made = leases(server) - before
    assert made
    between.mend()
    peer.leave()
    # Not compared with all that there were before: the lease of an earlier test may end meanwhile.
    assert not made & leases(server)
    crew.peer().takes(name, LONG)


@pytest.mark.parametrize("attempts", [1, 2])
def test_who_is_told_to_leave_does_not_wait_for_an_answer(crew: Crew, server: Etcd, attempts: int) -> None:
    """Neither to a watch nor, as after a second attempt, to the question whom to watch."""
    name = crew.name()
    crew.peer().takes(name, LONG)
    waiter = crew.peer()
    held = [waiter.is_refused(name, LONG) for _ in range(attempts)][-1]
    with server.stopped():
        waiter.start_wait(held, calls.now() + LONG)
        waiter.wake()
        # Were the request that hangs waited for, its end would be Unavailable.
        waiter.result(crew.site.patience)


# Users.


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Etcd]:
    """A server whose user `worker` has the role `singleton`, which may do what is needed below `jobs/`."""
    with etcd.running(tmp_path) as server:
        server.ctl("user", "add", f"worker:{PASSWORD}")
        server.ctl("role", "add", "singleton")
        server.ctl("user", "grant-role", "worker", "singleton")
        for prefix in ("jobs/", "singleton-run/record/jobs/", "singleton-run/control/jobs/"):
            server.ctl("role", "grant-permission", "singleton", "readwrite", prefix, "--prefix=true")
        server.enable_users(PASSWORD)
        yield server


def test_a_watch_that_is_not_permitted_is_refused_and_one_with_an_old_token_is_made(
    crew_at: Crews, guarded: Etcd
) -> None:
    """The server says the same of both."""
    crew = crew_at(f"worker:{PASSWORD}@{guarded.address}/jobs")
    name = crew.name()
    holder, waiter = crew.peer(), crew.peer()
    grant = holder.takes(name, LONG)
    held = waiter.is_refused(name, LONG)
    guarded.ctl("user", "add", f"somebody:{PASSWORD}")
    waiter.start_wait(held, calls.now() + LONG)
    holder.release(grant, record_of(grant))
    waiter.result(crew.site.patience)
    guarded.ctl("role", "revoke-permission", "singleton", "jobs/", "--prefix=true")
    waiter.start_wait(held, calls.now() + LONG)
    with pytest.raises(Refused, match="permission"):
        waiter.result(crew.site.patience)


# TLS and proxies.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return etcd.Certificates(tmp_path_factory.mktemp("pki") / "certificates")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Etcd]:
    with etcd.running(tmp_path_factory.mktemp("secured"), certificates=certificates) as server:
        yield server


@pytest.fixture(scope="module")
def client(certificates: Certificates) -> str:
    """The words of a URL by which the server knows us."""
    return f"cert={certificates.client_cert}&key={certificates.client_key}"


def test_who_answers_in_the_place_of_etcd_gets_nothing(
    crew_at: Crews, secured: Etcd, certificates: Certificates, client: str
) -> None:
    """Another authority, another name; and with the right ones it is etcd that answers."""
    here, right = f"localhost:{secured.port}/?{client}", f"cacert={certificates.ca}"
    crew_at(f"{here}&{right}").peer().takes("tls", LONG)
    for stranger in ("", f"cacert={certificates.client_cert}", f"{right}&server-name=other.example"):
        with pytest.raises(Refused) as caught:
            crew_at(f"{here}&{stranger}".rstrip("&")).peer().acquire("tls")
        assert caught.value.status == UNUSABLE


def test_what_grpc_has_to_say_does_not_reach_stderr(
    lab: Lab, secured: Etcd, certificates: Certificates, client: str
) -> None:
    lab.lock = f"etcd+grpc://localhost:{secured.port}/?{client}&cacert={certificates.client_cert}"
    run = lab.start(command=lab.job())
    assert run.wait() == 78
    assert [line for line in run.said.splitlines() if not line.startswith("singleton-run: ")] == []


def test_without_an_authority_the_systems_are_trusted(
    crew_at: Crews, secured: Etcd, certificates: Certificates, client: str
) -> None:
    environ = {"SSL_CERT_FILE": certificates.ca}
    crew_at(f"localhost:{secured.port}/?{client}", environ=environ).peer().takes("system", LONG)


def test_a_file_that_is_no_certificate_is_refused_by_its_name(crew_at: Crews, tmp_path: Path) -> None:
    file = tmp_path / "none.pem"
    file.write_text("nothing")
    with pytest.raises(Refused, match=r"none\.pem"):
        crew_at(f"localhost/?cacert={file}").peer()


def test_a_proxy_of_the_environment_is_not_for_what_is_asked_without_tls(lab: Lab) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    names = ("http_proxy", "https_proxy", "grpc_proxy", "HTTPS_PROXY")
    run = lab.start(command=lab.job(), environ=environment(**dict.fromkeys(names, nobody)))
    assert run.wait() == 0, run.said


def test_with_tls_the_proxy_of_the_environment_makes_a_tunnel(
    crew_at: Crews, secured: Etcd, certificates: Certificates, client: str
) -> None:
    with tunnel(secured.port) as (proxy_port, asked):
        environ = {"HTTPS_PROXY": f"http://user:p@127.0.0.1:{proxy_port}"}
        words = f"{client}&cacert={certificates.ca}&server-name=localhost"
        crew_at(f"etcd.example:2379/?{words}", environ=environ).peer().takes("proxied", LONG)
    assert asked[0].startswith(b"CONNECT etcd.example:2379 HTTP/1.1\r\n")
    assert b"Basic dXNlcjpw" in asked[0]


@contextmanager
def tunnel(target: int) -> Iterator[tuple[int, list[bytes]]]:
    """A proxy for one connection, which goes to `target` whatever was asked: its port, what it heard."""
    asked: list[bytes] = []

    def serve() -> None:
        with (
            suppress(OSError),
            listener.accept()[0] as near,
            socket.create_connection(("127.0.0.1", target)) as far,
        ):
            asked.append(near.recv(65536))
            near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            other = {near: far, far: near}
            while True:
                for ready in select.select(list(other), [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    other[ready].sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], asked
