"""The lock in Kubernetes as its users meet it: logins, Roles, requests, what others write, the docs."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import yaml

from singleton_run.api.contract import Grant, Held
from singleton_run.errors import UNUSABLE, Lost, Refused, Unavailable
from singleton_run.system import calls
from singleton_run.testing.suite import record_of
from singleton_run_k8s import open_backend
from singleton_run_k8s.lease import LONGEST_RECORD, RECORD
from singleton_run_k8s.objects import of_key, of_lock
from tests.backends.http.test_connection import _tunnel, always, serving
from tests.project import test_imports
from tests.servers import kubeaccess
from tests.support.harness import PROGRAM, TREE, Lab, environment, labs, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from singleton_run_k8s.backend import LeaseBackend
    from tests.backends.http.test_connection import Request
    from tests.servers.kubeaccess import Account, Cluster, Namespace, Pod
    from tests.support.harness import Run

LIMIT = 5.0
TTL = 60.0
EXAMPLES = TREE / "examples" / "kubernetes"


class PodLab(Lab):
    """A lock in Kubernetes for the whole program, in what it takes for a pod."""

    pod: Pod

    def start(self, *options: str, environ: Mapping[str, str] | None = None, **how: Any) -> Run:
        """Start a command under the lock."""
        return super().start(*options, environ=environ or environment(**self.pod.environ), **how)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a cluster of their own."""
    for name in ("KUBECONFIG", "POD_NAMESPACE", "NAMESPACE", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def account(namespace: Namespace) -> Account:
    return namespace.account("worker", kubeaccess.WATCHING, events=True)


@pytest.fixture(scope="module")
def pod(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    return account.pod(tmp_path_factory.mktemp("pod"))


@pytest.fixture
def lab(tmp_path: Path, pod: Pod) -> Iterator[PodLab]:
    with PodLab(tmp_path, "k8s-lease") as lab:
        lab.pod = pod
        lab.lock = lock_of(pod)
        yield lab


@pytest.fixture
def opened() -> Iterator[Callable[..., LeaseBackend]]:
    """Opens a backend and closes it at the end."""
    backends = []

    def work(lock: str, environ: Mapping[str, str]) -> LeaseBackend:
        backends.append(open_backend(lock, environ))
        return backends[-1]

    yield work
    for backend in backends:
        backend.close()


if TYPE_CHECKING:
    Opened = Callable[..., LeaseBackend]


def lock_of(pod: Pod, namespace: str = "", more: str = "") -> str:
    return f"k8s-lease://{namespace}?service-account={pod.folder}{more}"


def in_pod(opened: Opened, pod: Pod) -> LeaseBackend:
    return opened(lock_of(pod), pod.environ)


def by_file(opened: Opened, file: Path, context: str = "") -> LeaseBackend:
    return opened(f"k8s-lease://?context={context}", {"KUBECONFIG": str(file), "PATH": os.environ["PATH"]})


def fresh() -> str:
    return f"t{os.urandom(6).hex()}"


def takes(backend: LeaseBackend, name: str, holder: str = "host:1:a", ttl: float = TTL) -> Grant:
    got = backend.acquire(name, holder, ttl, LIMIT)
    assert isinstance(got, Grant)
    return got


def is_held(backend: LeaseBackend, name: str, holder: str = "host:2:b") -> Held:
    got = backend.acquire(name, holder, TTL, LIMIT)
    assert isinstance(got, Held)
    return got


def spec_of(namespace: Namespace, name: str) -> dict[str, Any]:
    found = namespace.lease(of_lock(name))
    assert found is not None
    return dict(found["spec"])


def a_turn(backend: LeaseBackend) -> None:
    """Take a lock, hold it, give it back, by whatever login."""
    name = fresh()
    grant = takes(backend, name)
    backend.renew(grant, LIMIT)
    backend.release(grant, record_of(grant), LIMIT)
    assert backend.read(name, LIMIT)[0] is None


# Who logs in.


@pytest.mark.parametrize("way", ["token", "exec", "certificate"])
def test_every_login_of_a_kubeconfig_takes_a_turn(
    opened: Opened, cluster: Cluster, account: Account, tmp_path: Path, way: str
) -> None:
    if way == "certificate" and cluster.server is None:
        return  # of a cluster that isn't ours we have no authority to make one
    a_turn(by_file(opened, getattr(account, f"{way}_kubeconfig")(tmp_path)))


def test_a_kubeconfig_with_everything_inside_leaves_no_key_behind(
    opened: Opened, cluster: Cluster, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The official client writes certificates and keys into files that only an orderly exit would delete."""
    import base64

    own = tmp_path / "tmp"
    own.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    file = account.token_kubeconfig(tmp_path)
    content = json.loads(file.read_text())
    inside = content["clusters"][0]["cluster"]
    inside["certificate-authority-data"] = base64.b64encode(
        Path(inside.pop("certificate-authority")).read_bytes()
    ).decode()
    file.write_text(json.dumps(content))
    a_turn(by_file(opened, file))
    assert list(own.iterdir()) == []


def test_a_token_that_was_replaced_is_used_at_once(opened: Opened, account: Account, tmp_path: Path) -> None:
    pod = account.pod(tmp_path / "pod")
    backend = in_pod(opened, pod)
    grant = takes(backend, fresh())
    pod.put_token("none")
    with pytest.raises(Unavailable, match="refuses the login"):
        backend.renew(grant, LIMIT)
    pod.put_token(account.token())
    backend.renew(grant, LIMIT)
    (pod.folder / "token").unlink()
    backend.renew(grant, LIMIT)


def test_a_token_that_would_be_more_than_a_header_is_refused(
    opened: Opened, account: Account, tmp_path: Path
) -> None:
    pod = account.pod(tmp_path / "pod", "x\r\nHost: elsewhere")
    with pytest.raises(Refused, match="no token has"):
        in_pod(opened, pod).read(fresh(), LIMIT)
    (pod.folder / "namespace").write_text("../../x")
    with pytest.raises(Refused, match="not a namespace"):
        in_pod(opened, pod).read(fresh(), LIMIT)


def exec_kubeconfig(account: Account, folder: Path, first: str) -> Path:
    """A login program that gives `first`, and from then on a token that is good. It counts its runs."""
    (folder / "next").write_text(first)
    (folder / "good").write_text(account.token())
    answer = credential({"token": "%s"})
    return by_script(account, folder, f"echo >> runs; printf '{answer}' \"$(cat next)\"; cp good next")


API = "client.authentication.k8s.io/v1"


def credential(status: Mapping[str, str]) -> str:
    """What a login program says."""
    return json.dumps({"apiVersion": API, "kind": "ExecCredential", "status": status})


def by_script(account: Account, folder: Path, script: str) -> Path:
    """A kubeconfig whose login program is that script, run in `folder`."""
    args = ["-c", f"cd {folder}; {script}"]
    run = {"apiVersion": API, "command": "sh", "args": args, "interactiveMode": "Never"}
    return account.namespace.kubeconfig(folder, "by-program", {"exec": run})


def test_a_login_program_is_run_again_when_its_token_is_refused(
    opened: Opened, account: Account, tmp_path: Path
) -> None:
    backend = by_file(opened, exec_kubeconfig(account, tmp_path, "none"))
    a_turn(backend)
    assert (tmp_path / "runs").read_text() == "\n\n"


def test_a_login_program_that_fails_is_tried_again(opened: Opened, account: Account, tmp_path: Path) -> None:
    file = account.exec_kubeconfig(tmp_path)
    token = (tmp_path / "exec-token").read_text()
    content = json.loads(file.read_text())
    script = f"test -e {tmp_path}/in || {{ echo please log in first >&2; exit 3; }}; "
    content["users"][0]["user"]["exec"]["args"][1] = script + content["users"][0]["user"]["exec"]["args"][1]
    file.write_text(json.dumps(content))
    backend = by_file(opened, file)
    with pytest.raises(Unavailable, match="please log in first") as caught:
        backend.acquire(fresh(), "host:1:a", TTL, LIMIT)
    assert "\n" not in str(caught.value)
    assert token not in str(caught.value)
    (tmp_path / "in").touch()
    a_turn(backend)


def is_refused(cluster: Cluster, token: str) -> bool:
    """Whether the server takes a token no more."""
    review = {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": token}}
    place = "/apis/authentication.k8s.io/v1/tokenreviews"
    return not cluster.call("POST", place, review)["status"].get("authenticated")


def kubeconfigs(account: Account, folder: Path, token: str) -> list[tuple[Path, Callable[[str], object]]]:
    """Each kind that has a token, and how it is given another one. The first is of a login program."""
    (folder / "answer").write_text(credential({"token": token}))
    by_program = by_script(account, folder, "cat answer || { echo please log in first >&2; exit 3; }")
    inside = account.token_kubeconfig(folder, token)
    file = folder / "token"
    file.write_text(token)
    beside = account.namespace.kubeconfig(folder, "token-file", {"tokenFile": file.name})
    return [
        (by_program, lambda new: (folder / "answer").write_text(credential({"token": new}))),
        (inside, lambda new: account.token_kubeconfig(folder, new)),
        (beside, file.write_text),
    ]


# Seconds in which somebody logs in for the first time on a busy machine, and where all is imported already.
AWHILE, SOON = 15.0, 5.0


def test_a_token_that_ends_in_the_middle_is_replaced(
    opened: Opened, cluster: Cluster, account: Account, namespace: Namespace, tmp_path: Path
) -> None:
    """By a command that goes on, by whoever renews and gives back, and by whoever opens a watch to wait."""
    token = account.short_token(AWHILE)
    ways = kubeconfigs(account, tmp_path, token)
    for lab in labs(tmp_path, "k8s-lease"):
        lab.lock = "k8s-lease"
        environ = environment(KUBECONFIG=str(ways[0][0]))
        run = lab.start("--ttl", "6s", command=lab.long_job(), environ=environ)
        turns = []
        for file, _ in ways:
            holder, waiter, name = by_file(opened, file), by_file(opened, file), fresh()
            grant = takes(holder, name)
            turns.append((holder, waiter, grant, is_held(waiter, name)))
        lab.ready()
        for _, replace in ways:
            replace(account.token())
        until(lambda: is_refused(cluster, token), "the token to end")
        for turn in turns:
            goes_on(*turn)
        for _ in range(2):
            last = spec_of(namespace, lab.name)["renewTime"]
            until(lambda: spec_of(namespace, lab.name)["renewTime"] != last, "a renewal")  # noqa: B023 - at once
        lab.finish()
        assert run.wait() == 0, run.said
        assert "refuses the login" not in run.said
        lab.evidence.check(1)


def goes_on(holder: LeaseBackend, waiter: LeaseBackend, grant: Grant, held: Held) -> None:
    """The lock is renewed, waited for by a watch, given back, and taken by whoever waited."""
    read, write = os.pipe()
    holder.renew(grant, LIMIT)
    waiter.wait(held, calls.now() + 0.3, read)
    holder.release(grant, record_of(grant), LIMIT)
    waiter.wait(held, calls.now() + LIMIT, read)
    takes(waiter, grant.name, "host:2:b")
    os.close(read)
    os.close(write)


def test_a_token_is_used_as_long_as_it_is_good_where_there_is_no_other(
    opened: Opened, account: Account, tmp_path: Path
) -> None:
    """The official client asks for the next one five minutes before the end; its program fails, and hangs."""
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    said = credential({"token": account.token(), "expirationTimestamp": soon})
    answer = tmp_path / "answer"
    answer.write_text(said)
    backend = by_file(opened, by_script(account, tmp_path, "cat answer"))
    grant = takes(backend, fresh())
    answer.unlink()
    backend.renew(grant, LIMIT)
    os.mkfifo(answer)
    backend.renew(grant, LIMIT)
    answer.write_text(said)
    answer.unlink()
    answer.write_text(said)
    backend.release(grant, record_of(grant), LIMIT)


def test_a_login_program_that_fails_after_its_token_has_ended_is_tried_again(
    opened: Opened, cluster: Cluster, account: Account, tmp_path: Path
) -> None:
    token = account.short_token(SOON)
    (file, replace), *_ = kubeconfigs(account, tmp_path, token)
    backend = by_file(opened, file)
    grant = takes(backend, fresh())
    (tmp_path / "answer").unlink()
    until(lambda: is_refused(cluster, token), "the token to end")
    with pytest.raises(Unavailable, match="please log in first"):
        backend.renew(grant, LIMIT)
    replace(account.token())
    backend.renew(grant, LIMIT)


def test_a_certificate_of_a_login_program_that_ends_in_the_middle_is_replaced(
    opened: Opened, cluster: Cluster, account: Account, tmp_path: Path
) -> None:
    server = cluster.own_server()
    account.certificate_kubeconfig(tmp_path)  # which lets this user do what the account may
    user = f"{account.namespace.name}-{account.name}-user"
    end = datetime.now(UTC) + timedelta(seconds=SOON)

    def give(cert: str, key: str) -> None:
        parts = {"clientCertificateData": Path(cert).read_text(), "clientKeyData": Path(key).read_text()}
        (tmp_path / "answer").write_text(credential(parts))

    give(*server.login(user, ends=end))
    backend = by_file(opened, by_script(account, tmp_path, "cat answer"))
    grant = takes(backend, fresh())
    give(*server.login(user))
    until(lambda: datetime.now(UTC) > end + timedelta(seconds=1), "the certificate to end")
    backend.renew(grant, LIMIT)
    backend.release(grant, record_of(grant), LIMIT)


def test_a_login_program_that_hangs_takes_no_longer_than_the_limit(
    opened: Opened, account: Account, tmp_path: Path
) -> None:
    file = account.exec_kubeconfig(tmp_path)
    content = json.loads(file.read_text())
    run = content["users"][0]["user"]["exec"]
    run["args"][1] = f"mkfifo {tmp_path}/go; cat {tmp_path}/go; " + run["args"][1]
    file.write_text(json.dumps(content))
    backend = by_file(opened, file)
    began = calls.now()
    with pytest.raises(Unavailable, match="too long"):
        backend.acquire(fresh(), "host:1:a", TTL, 1.0)
    assert calls.now() < began + 5.0
    until((tmp_path / "go").exists, "the program to run")
    (tmp_path / "go").write_text("")
    # What it gave in the end is used: it isn't run a second time.
    a_turn(backend)


def test_without_the_official_client_the_error_says_how_to_get_it(account: Account, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "kubernetes.py").write_text("raise ModuleNotFoundError(name='kubernetes')\n")
    environ = environment(KUBECONFIG=str(account.token_kubeconfig(tmp_path)))
    environ["PYTHONPATH"] = f"{tmp_path}/hidden:{environ['PYTHONPATH']}"
    for lab in labs(tmp_path, "k8s-lease"):
        lab.lock = "k8s-lease"
        run = lab.start(command=["true"], environ=environ)
        assert run.wait() == 78
        assert "pip install 'singleton-run[k8s-lease]'" in run.said


def test_a_kubeconfig_by_which_the_whole_program_locks(
    account: Account, namespace: Namespace, tmp_path: Path
) -> None:
    for lab in labs(tmp_path, "k8s-lease"):
        lab.lock = "k8s-lease"
        environ = environment(KUBECONFIG=str(account.exec_kubeconfig(tmp_path)))
        run = lab.start(command=lab.job(), environ=environ)
        assert run.wait() == 0, run.said
        assert run.said == ""
        assert spec_of(namespace, lab.name)["holderIdentity"] == ""


# The way there.


def test_a_proxy_of_the_kubeconfig_and_another_server_name(
    opened: Opened, cluster: Cluster, account: Account, tmp_path: Path
) -> None:
    """The address is one that only the proxy knows, and the certificate is for another name."""
    port = int(cluster.url.rpartition(":")[2].partition("/")[0])
    file = account.token_kubeconfig(tmp_path)
    content = json.loads(file.read_text())
    said: list[str] = []
    tunnel = _tunnel(port, said)
    place = {"server": f"https://api.example:{port}", "tls-server-name": "localhost"}
    content["clusters"][0]["cluster"] |= {**place, "proxy-url": f"http://127.0.0.1:{tunnel.port}"}
    file.write_text(json.dumps(content))
    if cluster.server is None:
        tunnel.close()
        return  # what its certificate says isn't known
    try:
        a_turn(by_file(opened, file))
        # By the environment too, where the kubeconfig says nothing of a proxy.
        del content["clusters"][0]["cluster"]["proxy-url"]
        file.write_text(json.dumps(content))
        environ = {"KUBECONFIG": str(file), "HTTPS_PROXY": f"http://127.0.0.1:{tunnel.port}"}
        a_turn(opened("k8s-lease", environ))
    finally:
        tunnel.close()
    assert len(said) == 2
    assert all(line.startswith(f"CONNECT api.example:{port} ") for line in said)


def test_a_certificate_that_is_not_checked_is_said(account: Account, tmp_path: Path) -> None:
    file = account.token_kubeconfig(tmp_path)
    content = json.loads(file.read_text())
    del content["clusters"][0]["cluster"]["certificate-authority"]
    content["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
    file.write_text(json.dumps(content))
    for lab in labs(tmp_path, "k8s-lease"):
        lab.lock = "k8s-lease"
        run = lab.start("-q", command=["true"], environ=environment(KUBECONFIG=str(file)))
        assert run.wait() == 0, run.said
        assert "certificate of the API server is not checked" in run.said


def test_a_certificate_that_is_not_trusted_is_refused(
    opened: Opened, account: Account, tmp_path: Path
) -> None:
    pod = account.pod(tmp_path / "pod")
    (pod.folder / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    with pytest.raises(Refused, match="not trusted"):
        in_pod(opened, pod).acquire(fresh(), "host:1:a", TTL, LIMIT)


def answering(opened: Opened, account: Account, folder: Path, *answer: bytes) -> Exception:
    """What is raised where an address answers like that."""
    file = account.token_kubeconfig(folder)
    content = json.loads(file.read_text())
    with serving(always(*answer)) as server:
        content["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{server.port}"}
        file.write_text(json.dumps(content))
        with pytest.raises((Refused, Unavailable)) as caught:
            by_file(opened, file).acquire(fresh(), "host:1:a", TTL, LIMIT)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("head", "body", "kind", "text"),
    [
        ("200 OK", "<html>Please log in</html>", Refused, "not a Kubernetes API server"),
        ("403 Forbidden", "<html>Blocked</html>", Refused, "not a Kubernetes API server"),
        ("502 Bad Gateway", "<html>Oh no</html>", Unavailable, "502"),
        ("200 OK", '{"kind": "Lease", "metadata": {', Unavailable, "cut off"),
        (
            "500 Internal Server Error",
            '{"kind": "Status", "message": "etcd is gone"}',
            Unavailable,
            "etcd is",
        ),
        ("429 Too Many Requests\r\nRetry-After: 60", '{"kind": "Status"}', Unavailable, "429"),
        ("404 Not Found", "<html>What?</html>", Refused, "not a Kubernetes API server"),
    ],
)
def test_what_answers_is_told_apart(
    opened: Opened, account: Account, tmp_path: Path, head: str, body: str, kind: type[Exception], text: str
) -> None:
    answer = f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    failure = answering(opened, account, tmp_path, answer)
    assert type(failure) is kind
    assert text in str(failure)


def test_what_answers_to_a_label_is_told_apart_too(opened: Opened, account: Account, tmp_path: Path) -> None:
    file = account.token_kubeconfig(tmp_path)
    content = json.loads(file.read_text())
    with serving(always(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")) as server:
        content["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{server.port}"}
        file.write_text(json.dumps(content))
        with pytest.raises(Refused, match="not a Kubernetes API server"):
            by_file(opened, file).label_pod("role=leader", LIMIT, on=True)


def test_a_server_that_is_too_busy_is_asked_again_when_it_said(
    opened: Opened, account: Account, tmp_path: Path
) -> None:
    file = account.token_kubeconfig(tmp_path)
    content = json.loads(file.read_text())
    times: list[float] = []
    busy = b'HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: 18\r\n\r\n{"kind": "Status"}'
    gone = b'HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\n\r\n{"kind": "Status"}'

    def reply(_: object) -> list[bytes]:
        times.append(time.monotonic())
        return [busy if len(times) == 1 else gone]

    with serving(reply) as server:
        content["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{server.port}"}
        file.write_text(json.dumps(content))
        assert by_file(opened, file).read(fresh(), LIMIT) == (None, None)
    assert len(times) == 2
    assert times[1] - times[0] >= 1.9


def test_a_server_that_forgets_each_version_is_not_asked_in_a_loop(
    opened: Opened, namespace: Namespace, account: Account, tmp_path: Path
) -> None:
    file = account.token_kubeconfig(tmp_path)
    content = json.loads(file.read_text())
    name = fresh()
    namespace.take_lease(name)
    held = json.dumps(namespace.lease(name))
    status = '{"kind": "Status", "code": 410, "reason": "Expired"}'

    def reply(request: Request) -> list[bytes]:
        head, body = ("410 Gone", status) if "watch=true" in request.line else ("200 OK", held)
        return [f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()]

    with serving(reply) as server:
        content["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{server.port}"}
        file.write_text(json.dumps(content))
        backend = by_file(opened, file)
        got = backend.acquire(name, "host:1:a", TTL, LIMIT)
        assert isinstance(got, Held)
        with pytest.raises(Unavailable, match="410"):
            backend.wait(got, calls.now() + LIMIT, -1)
        asked = ["watch=true" in request.line for request in server.requests]
    assert asked == [False, True, False, True]


# What is allowed.


def test_a_refusal_names_verb_namespace_and_the_role_to_apply(
    opened: Opened, namespace: Namespace, account: Account, tmp_path: Path
) -> None:
    stranger = namespace.account("stranger", ())
    backend = in_pod(opened, stranger.pod(tmp_path / "pod"))
    with pytest.raises(Refused) as caught:
        backend.acquire(fresh(), "host:1:a", TTL, LIMIT)
    text = str(caught.value)
    assert caught.value.status == 77
    assert f"{stranger.user} may not get leases in namespace {namespace.name}" in text
    assert "--verb=get,create,update,watch --resource=leases.coordination.k8s.io" in text
    assert f"--serviceaccount={namespace.name}:stranger" in text
    worker = in_pod(opened, account.pod(tmp_path / "worker"))
    for call, verb in (
        (lambda: worker.list(LIMIT), "list"),
        (lambda: worker.forget("a", "b", LIMIT), "delete"),
    ):
        with pytest.raises(Refused, match=f"may not {verb} leases .*watch,{verb}"):
            call()


def test_the_least_role_will_do_and_the_want_of_watch_is_said_once(
    namespace: Namespace, tmp_path: Path
) -> None:
    pod = namespace.account("least", kubeaccess.LEAST).pod(tmp_path / "least")
    with PodLab(tmp_path, "k8s-lease") as lab:
        lab.pod, lab.lock = pod, lock_of(pod)
        first = lab.start(command=lab.long_job())
        lab.ready()
        second = lab.start(command=lab.job())
        second.hears("lacks the verb watch")
        # It looks more than once before it has the lock.
        calls.wait(calls.now() + 2.5, [])
        lab.finish()
        assert first.wait() == 0, first.said
        assert second.wait() == 0, second.said
        assert first.said == ""
        assert second.said.count("watch") == 2, second.said
        lab.evidence.check(2)


def admin_kubeconfig(namespace: Namespace, folder: Path, **user: object) -> Path:
    """A kubeconfig of who may do everything, and acts as `user` says."""
    cert, key = namespace.cluster.own_server().admin
    login = {"client-certificate": cert, "client-key": key}
    return namespace.kubeconfig(
        folder, "admin", {**login, **{key.replace("_", "-"): user[key] for key in user}}
    )


def test_a_kubeconfig_s_as_is_whom_the_server_takes_us_for(
    opened: Opened, namespace: Namespace, account: Account, tmp_path: Path
) -> None:
    nobody = {"as": "nobody@example.com", "as_groups": ["a", "b"], "as_user_extra": {"x.y/z": ["1"]}}
    backend = by_file(opened, admin_kubeconfig(namespace, tmp_path, **nobody, as_uid="17"))
    with pytest.raises(Refused, match=r"nobody@example.com may not get leases") as caught:
        backend.acquire(fresh(), "host:1:a", TTL, LIMIT)
    assert caught.value.status == 77
    # The second group counts as much as the first.
    groups = ["a", "system:masters"]
    a_turn(by_file(opened, admin_kubeconfig(namespace, tmp_path, **{**nobody, "as_groups": groups})))
    a_turn(by_file(opened, admin_kubeconfig(namespace, tmp_path, **{"as": account.user})))
    login = {"token": account.token(), "as": "nobody@example.com"}
    with pytest.raises(Refused, match="need a role with the verb impersonate") as caught:
        by_file(opened, namespace.kubeconfig(tmp_path, "acting", login)).acquire(
            fresh(), "host:1:a", TTL, LIMIT
        )
    assert caught.value.status == 77


def test_a_login_without_credentials_is_said_to_be_one(
    opened: Opened, namespace: Namespace, tmp_path: Path
) -> None:
    file = namespace.kubeconfig(tmp_path, "nobody", {"token": None})
    with pytest.raises(Refused, match="wants to know who asks") as caught:
        by_file(opened, file).acquire(fresh(), "host:1:a", TTL, LIMIT)
    assert caught.value.status == 77
    assert f"kubeconfig {file}, context 'tests', user entry 'nobody' gives no credentials" in str(
        caught.value
    )
    assert "anonymous" not in str(caught.value)


def test_a_namespace_that_is_not_there_is_said(opened: Opened, namespace: Namespace, tmp_path: Path) -> None:
    if namespace.cluster.server is None:
        return  # it would take a permission for every namespace of somebody's cluster
    file = namespace.account("everywhere").token_kubeconfig(tmp_path)
    content = json.loads(file.read_text())
    cert, key = namespace.cluster.server.admin
    content["users"][0]["user"] = {"client-certificate": cert, "client-key": key}
    file.write_text(json.dumps(content))
    backend = opened("k8s-lease://not-there", {"KUBECONFIG": str(file)})
    with pytest.raises(Refused, match=r"no namespace not-there.*kubectl create namespace") as caught:
        backend.acquire(fresh(), "host:1:a", TTL, LIMIT)
    assert caught.value.status == 78


def test_the_namespace_comes_from_the_url_the_environment_or_the_login(
    opened: Opened, cluster: Cluster, namespace: Namespace, account: Account, tmp_path: Path
) -> None:
    other = cluster.namespace()
    try:
        pod = account.pod(tmp_path / "pod")
        theirs = other.account("worker", kubeaccess.WATCHING).pod(tmp_path / "theirs")
        (theirs.folder / "namespace").write_text(namespace.name)
        for lock, environ, where in (
            (lock_of(pod), pod.environ, namespace),
            (lock_of(theirs, other.name), pod.environ, other),
            (lock_of(theirs, other.name), {**pod.environ, "POD_NAMESPACE": namespace.name}, other),
            (lock_of(theirs), {**pod.environ, "POD_NAMESPACE": other.name, "NAMESPACE": "x"}, other),
            (lock_of(theirs), {**pod.environ, "NAMESPACE": other.name}, other),
            ("k8s-lease", {"KUBECONFIG": str(account.token_kubeconfig(tmp_path))}, namespace),
        ):
            name = fresh()
            takes(opened(lock, environ), name)
            assert where.lease(name) is not None
    finally:
        other.remove()


# What is written, and what others write.


def test_the_lease_is_as_client_go_has_it(opened: Opened, namespace: Namespace, pod: Pod) -> None:
    backend, name = in_pod(opened, pod), fresh()
    grant = takes(backend, name, ttl=29.5)
    first = namespace.lease(name)
    assert first is not None
    assert grant.token == int(first["metadata"]["resourceVersion"])
    assert first["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "singleton-run"
    spec = first["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (
        "host:1:a",
        30,
        0,
    )
    assert spec["acquireTime"] == spec["renewTime"]
    backend.renew(grant, LIMIT)
    renewed = spec_of(namespace, name)
    assert renewed.pop("renewTime") > spec.pop("renewTime")
    assert renewed == spec
    backend.release(grant, record_of(grant), LIMIT)
    free = spec_of(namespace, name)
    assert (free["holderIdentity"], free["leaseDurationSeconds"], free["leaseTransitions"]) == ("", 1, 0)
    assert free["acquireTime"] == free["renewTime"]
    takes(in_pod(opened, pod), name, "host:2:b")
    assert spec_of(namespace, name)["leaseTransitions"] == 1


def test_a_lock_whose_name_is_none_of_kubernetes_is_found_by_its_own(
    opened: Opened, namespace: Namespace, pod: Pod
) -> None:
    name = f"Deploy_{fresh()}@eu"
    takes(in_pod(opened, pod), name)
    found = namespace.lease(of_lock(name))
    assert found is not None
    assert found["metadata"]["annotations"]["singleton-run.dev/name"] == name


def test_an_annotation_of_a_stranger_disturbs_nobody(opened: Opened, namespace: Namespace, pod: Pod) -> None:
    backend, other, name = in_pod(opened, pod), in_pod(opened, pod), fresh()
    grant = takes(backend, name)
    record = record_of(grant)
    namespace.annotate_lease(name, "1")
    backend.renew(grant, LIMIT)
    namespace.annotate_lease(name, "2")
    backend.write(grant, record, LIMIT)
    namespace.annotate_lease(name, "3")
    backend.release(grant, record, LIMIT)
    assert takes(other, name, "host:2:b").record == record
    found = namespace.lease(name)
    assert found is not None
    assert "example.com/note" in found["metadata"]["annotations"]


def test_an_annotation_of_a_stranger_is_no_sign_of_life(
    opened: Opened, namespace: Namespace, pod: Pod
) -> None:
    """Whoever waits counts on from the last renewal."""
    name = fresh()
    takes(in_pod(opened, pod), name, ttl=6.0)
    waiter = opened(lock_of(pod, more="&clock=observed"), pod.environ)
    began = calls.now()
    held = is_held(waiter, name)
    until_then = held.until
    assert until_then is not None
    read, write = os.pipe()
    for _ in range(3):
        namespace.annotate_lease(name, fresh())
        waiter.wait(held, calls.now() + 0.5, read)
        held = is_held(waiter, name)
        assert held.until == until_then
    waiter.wait(held, began + 30.0, read)
    takes(waiter, name, "host:2:b")
    assert until_then <= calls.now() < began + 20.0
    os.close(read)
    os.close(write)


def test_a_record_is_no_longer_than_four_kibibytes(opened: Opened, namespace: Namespace, pod: Pod) -> None:
    backend, name = in_pod(opened, pod), fresh()
    grant = takes(backend, name)
    record = record_of(grant)
    record["runs"] = [{**record_of(grant), "runs": [], "notes": ["x" * 300] * 3} for _ in range(5)]
    backend.release(grant, record, LIMIT)
    found = namespace.lease(name)
    assert found is not None
    assert len(found["metadata"]["annotations"][RECORD]) <= LONGEST_RECORD
    left = backend.read(name, LIMIT)[1]
    assert left is not None
    assert 0 < len(left["runs"]) < 5


def test_a_mark_that_is_damaged_is_neither_done_nor_to_do(
    opened: Opened, namespace: Namespace, pod: Pod
) -> None:
    backend, name = in_pod(opened, pod), fresh()
    grant = takes(backend, name)
    backend.mark(grant, "v1", {"token": grant.token}, LIMIT)
    stored_as = of_key(name, "v1")
    for text in ("rubbish", "[]", "5"):
        namespace.change_lease(stored_as, {"metadata": {"annotations": {"singleton-run.dev/mark": text}}})
        with pytest.raises(Refused, match="damaged: delete it") as refused:
            backend.done(name, "v1", LIMIT)
        assert refused.value.status == UNUSABLE


def test_an_empty_lease_made_beforehand_is_taken_without_the_right_to_create(
    opened: Opened, namespace: Namespace, tmp_path: Path
) -> None:
    pod = namespace.account("no-create", ("get", "update", "watch")).pod(tmp_path / "pod")
    name = fresh()
    namespace.cluster.call("POST", namespace.leases, {"metadata": {"name": name}})
    takes(in_pod(opened, pod), name)


def test_a_lease_that_was_deleted_is_lost_and_the_token_grows(lab: PodLab, namespace: Namespace) -> None:
    run = lab.start("--ttl", "6s", command=lab.long_job("leave"))
    lab.ready()
    namespace.delete_lease(lab.name)
    assert run.wait() == 79, run.said
    assert "its Lease was deleted" in run.said
    lab.next_one()
    lab.evidence.check(2)


def test_a_lease_that_was_overwritten_is_lost(lab: PodLab, namespace: Namespace) -> None:
    run = lab.start("--ttl", "6s", command=lab.long_job())
    lab.ready()
    namespace.take_lease(lab.name)
    assert run.wait() == 79, run.said
    assert "somebody holds its Lease" in run.said
    assert spec_of(namespace, lab.name)["holderIdentity"] == "somebody"
    refused = lab.start("-n", command=lab.job())
    assert refused.wait() == 75
    assert "held by somebody" in refused.said


# Time.


def test_one_attempt_has_the_lock_as_soon_as_a_lost_holders_lease_is_over(
    lab: PodLab, namespace: Namespace
) -> None:
    """At first sight, by the API server's stamps; by observation alone nobody could know."""
    namespace.take_lease(lab.name, 1)
    written = spec_of(namespace, lab.name)["renewTime"]
    until(lambda: lab.start("-n", command=lab.job()).wait() == 0, "an attempt to have the lock")
    assert spec_of(namespace, lab.name)["renewTime"] > written
    namespace.take_lease(lab.name, 6)
    lab.lock += "&clock=observed"
    calls.wait(calls.now() + 10.0, [])
    refused = lab.start("-n", command=lab.job())
    assert refused.wait() == 75, refused.said
    patient = lab.start(command=lab.job())
    assert patient.wait() == 0, patient.said


def test_the_servers_time_is_that_of_its_answers(opened: Opened, pod: Pod) -> None:
    backend = in_pod(opened, pod)
    assert backend.offset() is None
    backend.read(fresh(), LIMIT)
    told = backend.offset()
    assert told is not None
    ahead, exact = told
    assert 0.5 <= exact < 2.0
    assert abs(ahead) <= exact + 1.0


# What it costs.


def test_a_turn_holding_and_waiting_take_as_few_requests_as_the_docs_say(
    opened: Opened, cluster: Cluster, namespace: Namespace, tmp_path: Path
) -> None:
    if cluster.server is None:
        return  # nobody counts there
    server = cluster.server
    holding = namespace.account("counted", kubeaccess.WATCHING, events=True)
    waiting = namespace.account("waiting", kubeaccess.WATCHING)

    def count(account: Account) -> dict[str, int]:
        found = {kind: many for kind, many in server.requests().items() if kind.user == account.user}
        return {f"{kind.verb} {kind.resource}": many for kind, many in found.items()}

    name = fresh()
    holder = in_pod(opened, holding.pod(tmp_path / "holding"))
    waiter = in_pod(opened, waiting.pod(tmp_path / "waiting"))
    grant = takes(holder, name)
    until(
        lambda: count(holding) == {"get leases": 1, "create leases": 1}, "a lock to be taken by two requests"
    )
    read, write = os.pipe()
    held = is_held(waiter, name)
    for number in range(1, 6):
        holder.renew(grant, LIMIT)
        # The first has to open the watch, and on a busy machine one is given up that takes longer.
        waiter.wait(held, calls.now() + (2.0 if number == 1 else 0.3), read)
        held = is_held(waiter, name)
        until(lambda: count(holding).get("update leases") == number, "each renewal to be one update")  # noqa: B023 - at once
    holder.release(grant, record_of(grant), LIMIT)
    waiter.wait(held, calls.now() + LIMIT, read)
    taken = takes(waiter, name, "host:2:b")
    waiter.release(taken, record_of(taken), LIMIT)
    for backend in (holder, waiter):
        backend.close()
    whole = {"get leases": 1, "create leases": 1, "update leases": 6, "create events": 2}
    until(lambda: count(holding) == whole, "all that a holder asks for to be counted")
    # The first Event is refused, so there is no second.
    whole = {"get leases": 1, "watch leases": 1, "update leases": 2, "create events": 1}
    until(lambda: count(waiting) == whole, "all that a waiter asks for to be counted")
    os.close(read)
    os.close(write)


EVENTS = {"became leader": "acquired", "stopped leading": "released", "lost the lease": "lost"}


def test_events_tell_the_story_where_they_are_allowed(opened: Opened, namespace: Namespace, pod: Pod) -> None:
    """Each is given a moment and no second one, so on a busy machine it may take another turn."""
    read, write = os.pipe()

    def story(*, lost: bool) -> list[str]:
        backend, name = opened(lock_of(pod), pod.environ), fresh()
        grant = takes(backend, name)
        backend.hold(grant, calls.now() + 1.5, read)
        if lost:
            namespace.delete_lease(name)
            with pytest.raises(Lost):
                backend.renew(grant, LIMIT)
        else:
            backend.release(grant, record_of(grant), LIMIT)
        backend.close()
        about = [event for event in namespace.events() if event["involvedObject"]["name"] == name]
        names = {event["message"].removeprefix(f"{grant.holder} "): event["action"] for event in about}
        assert names.items() <= EVENTS.items()
        return sorted(names)

    until(lambda: story(lost=False) == ["became leader", "stopped leading"], "a turn to be told")
    until(lambda: story(lost=True) == ["became leader", "lost the lease"], "a loss to be told")
    os.close(read)
    os.close(write)


def test_in_a_pod_the_keeper_imports_nothing_heavy(lab: PodLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_imports, "environment", lambda: environment(**lab.pod.environ))
    found = test_imports.imported(lab)
    assert test_imports.heavy(found["keeper"]) == set()
    assert not {"kubernetes", "yaml"} & found["keeper"]


# Examples and docs.


def documents(file: Path, namespace: Namespace) -> list[dict[str, Any]]:
    """The objects in a file of examples, for the tests' own namespace."""
    text = file.read_text().replace("namespace: jobs", f"namespace: {namespace.name}")
    return [document for document in yaml.safe_load_all(text) if document]


def place_of(document: dict[str, Any], namespace: Namespace) -> str:
    group = document["apiVersion"]
    root = f"/apis/{group}" if "/" in group else f"/api/{group}"
    return f"{root}/namespaces/{namespace.name}/{document['kind'].lower()}s"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.name)
def test_the_examples_are_accepted_by_the_server(cluster: Cluster, namespace: Namespace, file: Path) -> None:
    for document in documents(file, namespace):
        where = f"{place_of(document, namespace)}?dryRun=All&fieldValidation=Strict"
        cluster.call("POST", where, document)


def account_of_the_examples(namespace: Namespace) -> Account:
    """The account that the docs have one make, with its Role."""
    for document in documents(EXAMPLES / "role.yaml", namespace):
        namespace.cluster.call("POST", place_of(document, namespace), document)
    account = kubeaccess.Account(namespace, "singleton-run", "")
    for verb in kubeaccess.WATCHING:
        until(lambda: account._may(verb), f"the Role to be known for {verb}")  # noqa: B023, SLF001 - at once
    return account


def test_with_the_role_of_the_examples_everything_works_as_any_user(
    namespace: Namespace, tmp_path: Path
) -> None:
    """Also one whom the password file doesn't know, without a home or a time zone."""
    pod = account_of_the_examples(namespace).pod(tmp_path / "pod")
    environ = environment(**pod.environ, SINGLETON_RUN_LOCK=lock_of(pod), TMPDIR="/none")
    for name in ("HOME", "USER", "LOGNAME", "TZ"):
        environ.pop(name, None)
    # Where the tree is root's alone, another user has to be allowed to read it.
    other = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    may_read = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    as_user = [*other, *may_read] if os.getuid() == 0 else []
    command = [*PROGRAM, "--name", "example", "-v", "--", "id", "-u"]
    done = subprocess.run(
        [*as_user, *command], env=environ, capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert not as_user or done.stdout == "54321\n"
    assert "got lock 'example'" in done.stderr


def test_the_docs_show_the_verbs_that_the_role_has() -> None:
    (role,) = [
        document
        for document in yaml.safe_load_all((EXAMPLES / "role.yaml").read_text())
        if document["kind"] == "Role"
    ]
    leases, events = role["rules"]
    assert tuple(leases["verbs"]) == kubeaccess.WATCHING
    assert events["verbs"] == ["create"]
    page = (TREE / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    for verb in leases["verbs"]:
        assert f"`{verb}`" in page
