"""The backend `etcd` passes what every lock under a lease must, by the JSON gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import Refused, Unavailable
from singleton_run.testing import Fault, LeasedConformance, Site
from tests.servers import etcd

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


def faults_at(server: etcd.Etcd, guarded: etcd.Etcd, without_gateway: etcd.Etcd, files: Path) -> list[Fault]:
    nobody = etcd.free_ports(1)[0]
    unavailable = {
        "nobody listens": f"127.0.0.1:{nobody}",
        "nobody listens at any": f"127.0.0.1:{nobody},localhost:{nobody}",
        "no such host": "no-such-host.invalid",
        "TLS where none is spoken": f"{server.address}/?tls=true",
    }
    refused = {
        "no user": guarded.address,
        "no gateway": without_gateway.address,
        "no port": "localhost:",
        "a port that is none": "localhost:99999",
        "a typing error in an option": "localhost/?ca=x",
        "no such file": f"localhost/?cacert={files}/none.pem",
        "a key without its certificate": f"localhost/?key={files}/none.pem",
        "the records' own prefix": "localhost/singleton-run/record",
        "no such character": "localhost/%zz",
        "a truth that is none": "localhost/?tls=perhaps",
    }
    stopped = Fault(
        "a server that is stopped", Unavailable, f"etcd://{server.address}", during=server.stopped
    )
    password = f"etcd://root:wr0ng@{guarded.address}"
    permission = f"etcd://nobody:{QUOTED}@{guarded.address}"
    return [
        *(Fault(what, Unavailable, f"etcd://{address}") for what, address in unavailable.items()),
        *(Fault(what, Refused, f"etcd://{address}") for what, address in refused.items()),
        stopped,
        Fault("wrong password", Refused, password, secret="wr0ng"),  # noqa: S106 - wrong everywhere
        Fault("no permission", Refused, permission, secret=PASSWORD),
    ]


class TestGateway(LeasedConformance):
    """By the JSON gateway."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(
        cls,
        server: etcd.Etcd,
        guarded: etcd.Etcd,
        without_gateway: etcd.Etcd,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Site:
        return Site(
            opener="singleton_run_etcd:open_backend",
            lock=f"etcd://{server.address}",
            ttl=2.0,
            fifo=True,
            watches=True,
            delete=server.delete_lock,
            take=server.take_lock,
            outage=server.stopped,
            restart=server.restart,
            faults=faults_at(server, guarded, without_gateway, tmp_path_factory.mktemp("files")),
        )
