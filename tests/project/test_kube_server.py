"""The tests' own Kubernetes gives what the tests of its lock rely on."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from kubernetes import client, config

from tests.servers import kube, kubeaccess, programs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.kubeaccess import Account, Cluster, Namespace, Pod

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def account(namespace: Namespace) -> Account:
    return namespace.account(verbs=kubeaccess.LEAST)


def read(cluster: Cluster, namespace: Namespace, token: str) -> int:
    """The status of a read of all Leases by a token."""
    request = urllib.request.Request(  # noqa: S310 - a server of ours
        f"{cluster.url}{namespace.leases}/none", headers={"Authorization": f"Bearer {token}"}
    )
    context = ssl.create_default_context(cafile=cluster.ca)
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:  # noqa: S310 - a server of ours
            status: int = answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return status


def write_by(kubeconfig: Path, name: str) -> None:
    """Make a Lease as whoever that kubeconfig logs in."""
    settings = client.Configuration()
    config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
    place = json.loads(kubeconfig.read_text())["contexts"][0]["context"]["namespace"]
    lease = client.V1Lease(metadata=client.V1ObjectMeta(name=name))
    with client.ApiClient(settings) as api:
        client.CoordinationV1Api(api).create_namespaced_lease(place, lease)


def test_an_account_may_do_what_it_was_given_and_no_more(
    cluster: Cluster, namespace: Namespace, account: Account
) -> None:
    assert read(cluster, namespace, account.token()) == 404
    account.allow(["update"])
    assert read(cluster, namespace, account.token()) == 403
    account.allow(kubeaccess.LEAST)
    assert read(cluster, namespace, account.token()) == 404


def test_a_token_that_has_ended_or_is_none_is_refused(
    cluster: Cluster, namespace: Namespace, account: Account
) -> None:
    assert read(cluster, namespace, "none") == 401
    assert read(cluster, namespace, account.short_token(600)) == 404
    assert read(cluster, namespace, account.short_token(-1)) == 401


@pytest.mark.parametrize("way", ["token", "exec", "certificate"])
def test_a_kubeconfig_logs_in(namespace: Namespace, account: Account, tmp_path: Path, way: str) -> None:
    ways = {
        "token": account.token_kubeconfig,
        "exec": account.exec_kubeconfig,
        "certificate": account.certificate_kubeconfig,
    }
    write_by(ways[way](tmp_path), f"by-{way}")
    assert namespace.lease(f"by-{way}") is not None


def test_a_pod_has_its_three_files(
    cluster: Cluster, namespace: Namespace, account: Account, tmp_path: Path
) -> None:
    pod: Pod = account.pod(tmp_path / "pod", "first")
    pod.put_token(account.token())
    assert {path.name for path in pod.folder.iterdir()} == {"ca.crt", "namespace", "token"}
    assert (pod.folder / "namespace").read_text() == namespace.name
    assert read(cluster, namespace, (pod.folder / "token").read_text()) == 404


def test_requests_are_counted(cluster: Cluster, namespace: Namespace, account: Account) -> None:
    server = cluster.own_server()
    kind = kube.Request(account.user, "get", "leases")
    before = server.requests()[kind]
    for _ in range(3):
        read(cluster, namespace, account.token())
    assert server.requests()[kind] == before + 3


def test_without_the_program_the_reason_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBE_APISERVER_BIN", "/none/kube-apiserver")
    with pytest.raises(pytest.skip.Exception, match="make kube-apiserver"):
        programs.apiserver()


def test_a_killed_server_comes_back_with_its_leases(tmp_path: Path) -> None:
    with kube.running(tmp_path) as server:
        cluster = kubeaccess.own(server)
        namespace = cluster.namespace()
        namespace.take_lease("kept")
        server.kill()
        server.etcd.kill()
        server.etcd.start().serves()
        server.start().serves()
        kept = namespace.lease("kept")
        assert kept is not None
        assert kept["spec"]["holderIdentity"] == "somebody"
