"""`--label-pod`: the holder's own pod has a label, so that a Service follows the lock."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run.api import control as controls
from singleton_run.errors import DENIED, LOST, UNUSABLE, USAGE
from singleton_run_k8s import open_backend
from tests.servers import kubeaccess
from tests.support.harness import LONG, Lab, Run, environment, send, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.kubeaccess import Cluster, Namespace, Pod

LABEL = ("--label-pod", "example.com/role=leader")
KEY = "example.com/role"
LIMIT = 5.0
ROLE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}


class LabelledLab(Lab):
    """Replicas that each are a pod of their own, as the API server knows it."""

    def __init__(self, directory: Path, namespace: Namespace, account: Pod) -> None:
        super().__init__(directory)
        self.namespace = namespace
        self.account = account
        self.lock = f"k8s-lease://?service-account={account.folder}"
        self.pods = f"/api/v1/namespaces/{namespace.name}/pods"

    def pod(self, labels: dict[str, str] | None = None) -> str:
        """A new pod: its name."""
        name = f"pod-{os.urandom(4).hex()}"
        body = {
            "metadata": {"name": name, "labels": {"app": "worker", **(labels or {})}},
            "spec": {"containers": [{"name": "worker", "image": "registry.example/worker:1"}]},
        }
        self.namespace.cluster.call("POST", self.pods, body)
        return name

    def labels(self, pod: str) -> dict[str, str]:
        """The labels of a pod, without the one that all have."""
        found: dict[str, str] = self.namespace.cluster.call("GET", f"{self.pods}/{pod}")["metadata"]["labels"]
        assert found.pop("app") == "worker"
        return found

    def leader(self, pod: str) -> bool:
        """Whether a pod has the label of the holder."""
        return self.labels(pod) == {KEY: "leader"}

    def start_in(self, pod: str, *options: str, **how: Any) -> Run:
        """Start a command under the lock in that pod."""
        environ = environment(**self.account.environ, HOSTNAME=pod)
        environ.pop("KUBECONFIG", None)
        return self.start(*LABEL, *options, environ=environ, **how)


def allow(namespace: Namespace, account: kubeaccess.Account) -> None:
    """Let the account patch pods."""
    place = f"{kubeaccess.RBAC}/namespaces/{namespace.name}"
    name = f"{account.name}-label"
    namespace.cluster.call("POST", f"{place}/roles", {"metadata": {"name": name}, "rules": [ROLE]})
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": account.user}],
    }
    namespace.cluster.call("POST", f"{place}/rolebindings", binding)
    until(lambda: namespace.cluster.may(account.user, "patch", "pods", namespace.name), "to be allowed")


@pytest.fixture(scope="module")
def account(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    account = namespace.account("labelled", kubeaccess.WATCHING)
    allow(namespace, account)
    return account.pod(tmp_path_factory.mktemp("pod"))


@pytest.fixture
def lab(tmp_path: Path, namespace: Namespace, account: Pod) -> Iterator[LabelledLab]:
    with LabelledLab(tmp_path, namespace, account) as lab:
        yield lab


def test_the_label_goes_with_the_lock_from_pod_to_pod(lab: LabelledLab) -> None:
    one, other = lab.pod(), lab.pod()
    first = lab.start_in(one, command=lab.long_job())
    until(lambda: lab.leader(one), "the first to have the label")
    end = lab.directory / "end"
    second = lab.start_in(other, command=lab.job("until", str(end)))
    second.hears("waiting for lock")
    assert lab.labels(other) == {}
    lab.finish()
    assert first.wait() == 0
    assert lab.labels(one) == {}
    until(lambda: lab.leader(other), "the second to have the label")
    end.touch()
    assert second.wait() == 0
    assert lab.labels(other) == {}
    lab.evidence.check(turns=2)


def test_a_label_from_before_is_taken_away_at_the_start(lab: LabelledLab) -> None:
    """A container that was killed is restarted in place, in a pod that bears the label still."""
    one, other = lab.pod(), lab.pod({KEY: "leader"})
    first = lab.start_in(one, command=lab.long_job())
    until(lambda: lab.leader(one), "the first to have the label")
    second = lab.start_in(other, command=lab.job())
    second.hears("waiting for lock")
    assert lab.labels(other) == {}
    lab.finish()
    assert (first.wait(), second.wait()) == (0, 0)


def test_a_lock_that_is_lost_takes_the_label_with_it(lab: LabelledLab) -> None:
    """It is given a moment and no second one, so on a busy machine it may take another turn."""

    def left() -> dict[str, str]:
        one = lab.pod()
        run = lab.start_in(one, command=lab.long_job())
        until(lambda: lab.leader(one), "the label")
        lab.namespace.delete_lease(lab.name)
        assert run.wait() == LOST
        return lab.labels(one)

    until(lambda: left() == {}, "the label to be taken away")


def test_a_killed_front_and_a_killed_keeper_leave_no_label(lab: LabelledLab) -> None:
    one = lab.pod()
    run = lab.start_in(one, "--ttl", LONG, command=lab.long_job())
    until(lambda: lab.leader(one), "the label")
    keeper = run.one("keeper")
    send(signal.SIGKILL, keeper)
    run.one("keeper", but=keeper)
    send(signal.SIGKILL, run.pid)
    until(lambda: lab.labels(one) == {}, "the label to be taken away")


def test_under_a_pause_no_pod_has_the_label(lab: LabelledLab) -> None:
    one = lab.pod()
    backend = open_backend(lab.lock, lab.account.environ)
    pause = controls.paused(None, by="ann@desk", at=1.0, until=None, reason="an upgrade")
    assert backend.steer(lab.name, "", pause, LIMIT)
    run = lab.start_in(one, command=lab.job())
    run.hears("is paused")
    assert lab.labels(one) == {}
    version = backend.look(lab.name, LIMIT).version
    assert backend.steer(lab.name, version, controls.resumed(pause), LIMIT)
    assert run.wait() == 0
    assert lab.labels(one) == {}
    backend.close()


def test_in_a_loop_only_who_runs_has_the_label(lab: LabelledLab) -> None:
    one = lab.pod()
    run = lab.start_in(one, "--every", "1s", command=lab.long_job())
    until(lambda: lab.leader(one), "the label during a slot")
    lab.finish()
    until(lambda: len(lab.evidence.turns()) > 1, "another slot")
    send(signal.SIGTERM, run.pid)
    assert run.wait() in (0, 128 + signal.SIGTERM)
    assert lab.labels(one) == {}


def test_without_the_permission_the_call_ends_and_says_which(
    tmp_path: Path, namespace: Namespace, lab: LabelledLab
) -> None:
    account = namespace.account("unlabelled", kubeaccess.WATCHING).pod(tmp_path / "pod")
    with LabelledLab(tmp_path / "other", namespace, account) as other:
        run = other.start_in(other.pod(), command=other.job())
        assert run.wait() == DENIED
        assert "--verb=patch --resource=pods" in run.said
        assert f"--serviceaccount={namespace.name}:unlabelled" in run.said
        other.evidence.check(turns=0)


def test_the_lock_is_kept_until_a_label_that_is_refused_for_a_while_is_away(
    tmp_path: Path, namespace: Namespace
) -> None:
    account = namespace.account("hindered", kubeaccess.WATCHING)
    allow(namespace, account)
    with LabelledLab(tmp_path / "other", namespace, account.pod(tmp_path / "pod")) as other:
        pod = other.pod()
        run = other.start_in(pod, "--ttl", LONG, command=other.long_job())
        until(lambda: other.leader(pod), "the label")
        change_role(namespace, account, [])
        other.finish()
        run.hears("--label-pod needs the permission to patch pods")
        change_role(namespace, account, [ROLE])
        assert run.wait() == 0
        assert other.labels(pod) == {}
        lease = namespace.lease(other.name)
        assert lease is not None
        assert not lease["spec"].get("holderIdentity")


def change_role(namespace: Namespace, account: kubeaccess.Account, rules: list[dict[str, Any]]) -> None:
    """Let the account patch pods, or no more."""
    path = f"{kubeaccess.RBAC}/namespaces/{namespace.name}/roles/{account.name}-label"
    namespace.cluster.call("PUT", path, {"metadata": {"name": f"{account.name}-label"}, "rules": rules})
    may = bool(rules)
    until(lambda: namespace.cluster.may(account.user, "patch", "pods", namespace.name) == may, f"to be {may}")


def test_a_pod_that_is_not_there_is_said(lab: LabelledLab) -> None:
    run = lab.start_in("pod-nowhere", command=lab.job())
    assert run.wait() == UNUSABLE
    assert "there is no pod pod-nowhere in namespace" in run.said
    assert "POD_NAME" in run.said


def test_it_is_for_this_lock_alone(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        run = lab.start(*LABEL, command=lab.job())
        assert (run.wait(), run.said) == (USAGE, "singleton-run: --label-pod is for --lock k8s-lease alone\n")


def test_doctor_says_whether_the_pod_may_be_labelled(
    tmp_path: Path, cluster: Cluster, namespace: Namespace, lab: LabelledLab
) -> None:
    may_not = namespace.account("unhealthy", kubeaccess.WATCHING).pod(tmp_path / "pod")
    for pod, word in ((lab.account, "we may patch pods in"), (may_not, "we may not patch pods in")):
        backend = open_backend(f"k8s-lease://?service-account={pod.folder}", pod.environ)
        found = [finding for finding in backend.examine("", 30.0, LIMIT) if "patch pods" in finding.text]
        backend.close()
        assert [json.dumps(finding.text).count(word) for finding in found] == [1]
        assert found[0].grade == found[0].GOOD
