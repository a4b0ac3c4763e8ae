"""The backend `k8s-lease` passes what every lock under a lease must, with each login, with and without watch.

Every pair of the two would take twice as long. In a pod without watch is in `test_k8s`.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
import trustme

from singleton_run.errors import Refused, Unavailable
from singleton_run.testing import Fault, LeasedConformance, Site
from singleton_run_k8s.objects import of_lock
from tests.servers import kube, kubeaccess
from tests.support.commands import LeasedCommands
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from singleton_run.errors import Failure
    from tests.servers.kubeaccess import Account, Namespace, Pod

# What listing the locks and forgetting a key take beside the least Role.
MORE = ("list", "delete")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    """A namespace on a server of our own, for it is stopped in between."""
    with kube.running(tmp_path_factory.mktemp("kube")) as server:
        yield kubeaccess.own(server).namespace()


@pytest.fixture(scope="module")
def pod(place: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    account = place.account("in-pod", (*kubeaccess.WATCHING, *MORE), events=True)
    return account.pod(tmp_path_factory.mktemp("pod"))


@pytest.fixture(scope="module")
def least(place: Namespace) -> Account:
    return place.account("least", (*kubeaccess.LEAST, *MORE))


def lock_of(pod: Pod, namespace: str = "", more: str = "") -> str:
    return f"k8s-lease://{namespace}?service-account={pod.folder}{more}"


@pytest.fixture(scope="module")
def faults(place: Namespace, pod: Pod, tmp_path_factory: pytest.TempPathFactory) -> list[Fault]:
    """What is wrong with a pod, its service account, or the way to the server."""
    folder = tmp_path_factory.mktemp("faults")
    stranger = place.account("stranger", ()).pod(folder / "stranger")
    no_token = place.account("no-token").pod(folder / "no-token", "none")
    elsewhere = {**pod.environ, "KUBERNETES_SERVICE_PORT": str(free_port())}
    nowhere = {**pod.environ, "KUBERNETES_SERVICE_HOST": "no-such-host.invalid"}
    server = place.cluster.server
    assert server is not None
    token = (stranger.folder / "token").read_text()
    other_ca = place.account("other-ca").pod(folder / "other-ca")
    (other_ca.folder / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    no_ca = place.account("no-ca").pod(folder / "no-ca")
    (no_ca.folder / "ca.crt").write_text("none")
    ours = lock_of(pod)
    return [
        Fault("nobody listens", Unavailable, ours, elsewhere),
        Fault("no such host", Unavailable, ours, nowhere),
        Fault("a server that is stopped", Unavailable, ours, pod.environ, server.stopped),
        Fault("no permission", Refused, lock_of(stranger), pod.environ, secret=token),
        Fault("no permission in that namespace", Refused, lock_of(pod, "default"), pod.environ),
        Fault("a token that is none", Refused, lock_of(no_token), pod.environ),
        Fault("another's certificate", Refused, lock_of(other_ca), pod.environ),
        Fault("a certificate that is none", Refused, lock_of(no_ca), pod.environ),
        Fault("no service account", Refused, f"k8s-lease://?service-account={folder}/none", pod.environ),
        Fault("no kubeconfig", Refused, "k8s-lease", {"KUBECONFIG": f"{folder}/none"}),
        Fault("no such option", Refused, "k8s-lease://?kontext=x", pod.environ),
        Fault("a clock that is none", Refused, lock_of(pod, more="&clock=mine"), pod.environ),
        Fault("no such character", Refused, "k8s-lease://%zz", pod.environ),
        Fault("a namespace that is none", Refused, "k8s-lease://Jobs/", pod.environ),
    ]


def restart(server: kube.Server) -> None:
    server.kill()
    server.start().serves()


def site_at(
    place: Namespace,
    lock: str,
    environ: Mapping[str, str],
    faults: list[Fault],
    opener: str = "singleton_run_k8s",
    *,
    watches: bool = False,
) -> Site:
    server = place.cluster.server
    assert server is not None
    return Site(
        opener=f"{opener}:open_backend",
        lock=lock,
        environ=environ,
        ttl=2.0,
        delete=lambda name: place.delete_lease(of_lock(name)),
        take=lambda name: place.take_lease(of_lock(name)),
        outage=server.stopped,
        restart=lambda: restart(server),
        faults=faults,
        watches=watches,
        tells=watches,
        runs=12,
    )


class InPod:
    """In a pod, with the Role that the docs show."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, place: Namespace, pod: Pod, faults: list[Fault]) -> Site:
        return site_at(place, lock_of(pod), pod.environ, faults, watches=True)


class TestPod(InPod, LeasedConformance):
    """The backend by itself."""


class TestCommand(InPod, LeasedCommands):
    """The whole program."""


class TestCertificateWithoutWatch(LeasedConformance):
    """By a kubeconfig with a client certificate, and nobody may watch or make Events."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, place: Namespace, least: Account, tmp_path_factory: pytest.TempPathFactory) -> Site:
        file = least.certificate_kubeconfig(tmp_path_factory.mktemp("certificate"))
        return site_by(place, file, [])


class TestTokenWithoutWatch(LeasedConformance):
    """By a kubeconfig with a token in it, with the same permissions."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, place: Namespace, least: Account, tmp_path_factory: pytest.TempPathFactory) -> Site:
        folder = tmp_path_factory.mktemp("token")
        tokens = {
            "a token that is none": "none",
            "a token that has ended": least.short_token(-1),
            "a token of somebody without permission": place.account("nobody", ()).token(),
        }
        faults = []
        for what, token in tokens.items():
            wrong = folder / what.replace(" ", "-")
            wrong.mkdir()
            faults.append(fault(what, Refused, least.token_kubeconfig(wrong, token), secret=token))
        return site_by(place, least.token_kubeconfig(folder), faults)


class TestProgram(LeasedConformance):
    """By a kubeconfig with a program that gives a token, and everybody may watch."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, place: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Site:
        account = place.account("by-program", (*kubeaccess.WATCHING, *MORE))
        file = account.exec_kubeconfig(tmp_path_factory.mktemp("program"))
        return site_by(place, file, faults_of_program(account, file), watches=True)


def site_by(place: Namespace, file: Path, faults: list[Fault], *, watches: bool = False) -> Site:
    """Where that kubeconfig logs in; `faults` are those of the way in which it does."""
    every = [*faults_by_file(place, file), *faults]
    return site_at(place, "k8s-lease", by(file), every, "tests.servers.kubeconfig_opener", watches=watches)


def by(file: Path) -> dict[str, str]:
    return {"KUBECONFIG": str(file), "PATH": os.environ["PATH"]}


def fault(what: str, kind: type[Failure], file: Path, secret: str = "") -> Fault:
    """One of a kubeconfig."""
    return Fault(what, kind, "k8s-lease", by(file), secret=secret)


def faults_by_file(place: Namespace, file: Path) -> list[Fault]:
    """What is wrong with a kubeconfig, whatever it logs in by."""
    text = file.read_text()
    broken = {
        "no YAML": "a: [",
        "an empty file": "",
        "no current context": text.replace('"current-context": "tests"', '"current-context": ""'),
        "a certificate that is none": text.replace(".crt", ".none"),
        "no address": text.replace(place.cluster.url, "nowhere"),
    }
    faults = [Fault("no such context", Refused, "k8s-lease://?context=other", by(file))]
    for what, content in broken.items():
        assert content != text
        wrong = file.parent / what.replace(" ", "-")
        wrong.write_text(content)
        faults.append(fault(what, Refused, wrong))
    return faults


def faults_of_program(account: Account, file: Path) -> list[Fault]:
    """What is wrong with the program that a kubeconfig names. It may be better the next time."""
    content = json.loads(file.read_text())
    run = content["users"][0]["user"]["exec"]
    scripts = {
        "a program that fails": "echo please log in >&2; exit 3",
        "a program that says nothing": "true",
        "a program that says something else": "echo hello",
    }
    faults = []
    for what, script in scripts.items():
        run["args"] = ["-c", script]
        wrong = file.parent / what.replace(" ", "-")
        wrong.write_text(json.dumps(content))
        faults.append(fault(what, Unavailable if "fails" in what else Refused, wrong))
    run["command"] = str(file.parent / "none")
    wrong = file.parent / "no-program"
    wrong.write_text(json.dumps(content))
    other = file.parent / "other"
    other.mkdir()
    refused = account.exec_kubeconfig(other, "none")
    return [
        *faults,
        fault("no program", Refused, wrong),
        fault("a program whose token is refused", Refused, refused),
    ]
