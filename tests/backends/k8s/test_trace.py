"""-vv with a Kubernetes API: each request is told, and no token, in a pod or of a kubeconfig."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.servers import kubeaccess
from tests.support.harness import Lab, environment, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.kubeaccess import Account, Namespace


@pytest.fixture(scope="module")
def account(namespace: Namespace) -> Account:
    return namespace.account("traced", kubeaccess.WATCHING)


@pytest.mark.parametrize("place", ["pod", "kubeconfig", "exec"])
def test_each_request_is_told_and_no_token(account: Account, tmp_path: Path, place: str) -> None:
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{account.namespace.name}/leases"
    token = account.token()
    with Lab(tmp_path) as lab:
        if place == "pod":
            pod = account.pod(tmp_path / "pod", token)
            lab.lock, environ = f"k8s-lease://?service-account={pod.folder}", environment(**pod.environ)
        else:
            files = {"kubeconfig": account.token_kubeconfig, "exec": account.exec_kubeconfig}
            lab.lock = "k8s-lease"
            environ = environment(KUBECONFIG=str(files[place](tmp_path, token)))
        options = ("-vv", "--log-format", "json", "--ttl", "6s")
        run = lab.start(*options, command=lab.long_job(), environ=environ)
        lab.ready()
        until(lambda: run.said.count('"what":"PUT"') >= 1, "a renewal")
        second = lab.start(*options, command=lab.job(), environ=environ)
        second.hears(f"{leases}?watch=true")
        lab.finish()
        assert (run.wait(), second.wait()) == (0, 0), run.said
    lines = [json.loads(line) for line in run.said.splitlines()]
    told = [(line["what"], line["facts"]["key"]) for line in lines if line["event"] == "request"]
    assert {("GET", f"{leases}/{lab.name}"), ("POST", leases), ("PUT", f"{leases}/{lab.name}")} <= set(told)
    for said in (run.said, second.said):
        assert token not in said
        assert token.split(".")[-1] not in said
