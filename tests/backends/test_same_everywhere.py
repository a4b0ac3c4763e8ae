"""What goes wrong in the same way ends with the same status and sentence, whatever the lock's backend."""

from __future__ import annotations

import re
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trustme

from singleton_run.api.toolbox import digest
from singleton_run.errors import DENIED, UNAVAILABLE, UNUSABLE
from singleton_run_k8s.lease import MARK
from singleton_run_k8s.objects import of_key
from singleton_run_redis.scripts import keys_of
from tests.process.test_init_terminal import CTRL_Z, STOPPED, Shell, are, front_below
from tests.servers import etcd, postgres, redis
from tests.support.harness import Lab, environment, until
from tests.support.proxy import DOWN, UP, proxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.servers.kubeaccess import Namespace, Pod

SERVERS = ("etcd", pytest.param("etcd+grpc", marks=etcd.NEEDS_GRPC), "k8s-lease", "postgres", "redis")
KEY = "v1"
TTL = "6s"
PASSWORD = "corr%ect:horse"  # noqa: S105 - of a server that lives as long as the tests


class Place(NamedTuple):
    """Where a lock is: its address, and the variables that a pod has."""

    lock: str
    variables: Mapping[str, str] = {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("same")


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Path:
    """The certificate of an authority that vouches for none of the servers."""
    path = folder / "stranger.pem"
    path.write_bytes(trustme.CA().cert_pem.bytes())
    return path


@pytest.fixture(scope="module")
def pod(namespace: Namespace, folder: Path) -> Pod:
    return namespace.account("same").pod(folder / "pod")


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[etcd.Etcd]:
    """An etcd that asks for users; `nobody` may do nothing."""
    (folder / "guarded").mkdir()
    with etcd.running(folder / "guarded") as server:
        server.ctl("user", "add", f"nobody:{PASSWORD}")
        server.enable_users(PASSWORD)
        yield server


@pytest.fixture(scope="module")
def encrypted(folder: Path) -> Iterator[etcd.Etcd]:
    """An etcd that speaks TLS."""
    (folder / "encrypted").mkdir()
    certificates = etcd.Certificates(folder / "encrypted" / "certificates")
    with etcd.running(folder / "encrypted", certificates=certificates) as server:
        yield server


@pytest.fixture(scope="module")
def secure_redis(folder: Path) -> Iterator[redis.Server]:
    """A Redis that speaks TLS."""
    (folder / "redis").mkdir()
    certificates = etcd.Certificates(folder / "redis" / "certificates")
    with redis.running(certificates=certificates) as server:
        yield server


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


def pod_lock(pod: Pod, port: int = 0) -> Place:
    """The lock of a pod; `port` is that of a proxy before the API server."""
    changed = {"KUBERNETES_SERVICE_PORT": str(port)} if port else {}
    return Place(f"k8s-lease://?service-account={pod.folder}", {**pod.environ, **changed})


def refused_with(lab: Lab, place: Place, *options: str) -> tuple[int, str]:
    """How a call ends that must not start its command, and the one line that it says."""
    lab.lock = place.lock
    run = lab.start(*options, command=lab.job(), environ=environment(**place.variables))
    status = run.wait()
    lab.evidence.check(0)
    (line,) = run.said.splitlines()
    return status, line


def damage_mark(kind: str, request: pytest.FixtureRequest, lab: Lab, data: str) -> None:
    """Write that into the lab's mark of KEY, as by hand."""
    if kind == "file":
        (lab.locks / f"{lab.name}.once" / f"{digest([KEY])}.json").write_text(data)
    elif kind == "k8s-lease":
        body = {"metadata": {"annotations": {MARK: data}}}
        request.getfixturevalue("namespace").change_lease(of_key(lab.name, KEY), body)
    elif kind == "postgres":
        statement = "UPDATE singleton_run_lock_once SET mark = %s WHERE name = %s AND key = %s"
        request.getfixturevalue("postgres_server").run(statement, [data, lab.name, KEY])
    elif kind == "redis":
        with request.getfixturevalue("redis_server").client() as client:
            client.hset(keys_of(lab.name)[-1], KEY, data)
    else:
        server: etcd.Etcd = request.getfixturevalue("etcd_server")
        command = server.ctl_command("put", f"singleton-run/once/{lab.name}/{KEY}")
        subprocess.run(command, input=data.encode(), env=etcd.environment(), check=True, capture_output=True)


def healthy(kind: str, request: pytest.FixtureRequest, lab: Lab) -> Place:
    """The lock on a server that works."""
    if kind == "k8s-lease":
        return pod_lock(request.getfixturevalue("pod"))
    if kind == "postgres":
        return Place(request.getfixturevalue("postgres_server").url)
    if kind == "redis":
        return Place(request.getfixturevalue("redis_server").url)
    return Place(lab.lock if kind == "file" else f"{kind}://{request.getfixturevalue('etcd_server').address}")


@pytest.mark.parametrize("kind", ["file", *SERVERS])
def test_a_damaged_mark_is_for_a_person_to_look_at(
    kind: str, request: pytest.FixtureRequest, lab: Lab
) -> None:
    place = healthy(kind, request, lab)
    lab.lock = place.lock
    first = lab.start("--once", KEY, command=["true"], environ=environment(**place.variables))
    assert first.wait() == 0, first.said
    for damage in ("rubbish", "[]", '{"holder":'):
        damage_mark(kind, request, lab, damage)
        status, line = refused_with(lab, place, "--once", KEY)
        assert status == UNUSABLE, line
        assert re.search(r" is damaged: delete it if what it marks shall be done again$", line), line


@contextmanager
def deaf(kind: str, request: pytest.FixtureRequest) -> Iterator[tuple[Place, str]]:
    """The lock on a server from which no answer comes, and what a user is to read of it."""
    service = {"k8s-lease": "kubernetes", "etcd+grpc": "etcd"}.get(kind, kind)
    server = (
        request.getfixturevalue("cluster").own_server()
        if kind == "k8s-lease"
        else request.getfixturevalue(f"{service}_server")
    )
    with proxy(server.port) as between:
        between.deafen(UP, DOWN)
        if kind == "k8s-lease":
            place = pod_lock(request.getfixturevalue("pod"), between.port)
        elif kind == "postgres":
            place = Place(server.url.replace(f":{server.port}", f":{between.port}"))
        else:
            place = Place(f"{kind}://{between.address}")
        yield place, f"{service}: 127.0.0.1:{between.port}: no answer in time"


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_does_not_answer_is_named_with_its_port(
    kind: str, request: pytest.FixtureRequest, lab: Lab
) -> None:
    with deaf(kind, request) as (place, why):
        lab.lock = place.lock
        # Longer than one request may take: it may be told that another will be made, and then that it ends.
        run = lab.start("--wait", "6", command=lab.job(), environ=environment(**place.variables))
        status = run.wait()
    assert status == UNAVAILABLE, run.said
    assert {line.count(why) for line in run.said.splitlines()} == {1}, run.said
    assert run.said.endswith(f" {why}\n"), run.said
    lab.evidence.check(0)


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("wait", ["-n", "--wait=1"])
def test_a_server_that_does_not_answer_is_not_taken_for_a_held_lock(
    kind: str, request: pytest.FixtureRequest, lab: Lab, wait: str
) -> None:
    """However short the wait is: a busy keeper says at which server, else the front that there was none."""
    with deaf(kind, request) as (place, _):
        status, line = refused_with(lab, place, wait)
    assert status == UNAVAILABLE, line
    assert line.endswith("no answer in time"), line


def wrong_login(kind: str, request: pytest.FixtureRequest, folder: Path) -> Place:
    """The lock, asked for with a password or token that is wrong."""
    if kind == "k8s-lease":
        namespace: Namespace = request.getfixturevalue("namespace")
        return pod_lock(namespace.account("no-token").pod(folder / "no-token", "none"))
    if kind == "postgres":
        return Place(request.getfixturevalue("postgres_server").url_of("app", "wr%6Fng"))
    if kind == "redis":
        return Place(f"redis://app:wr%6Fng@{request.getfixturevalue('redis_server').address}")
    return Place(f"{kind}://root:wr%6Fng@{request.getfixturevalue('guarded').address}")


def no_permission(kind: str, request: pytest.FixtureRequest, folder: Path) -> Place:
    """The lock, asked for by somebody whom the server knows and who may do nothing."""
    if kind == "k8s-lease":
        namespace: Namespace = request.getfixturevalue("namespace")
        return pod_lock(namespace.account("nobody", ()).pod(folder / "nobody"))
    if kind == "postgres":
        server: postgres.Postgres = request.getfixturevalue("postgres_server")
        server.make_role("nobody")
        return Place(server.url_of("nobody"))
    if kind == "redis":
        return Place(f"redis://nobody:{redis.QUOTED}@{request.getfixturevalue('redis_server').address}")
    quoted = PASSWORD.replace("%", "%25")
    return Place(f"{kind}://nobody:{quoted}@{request.getfixturevalue('guarded').address}")


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("login", [wrong_login, no_permission])
def test_a_login_that_the_server_refuses_is_denied(
    kind: str, login: object, request: pytest.FixtureRequest, lab: Lab, tmp_path: Path
) -> None:
    place = login(kind, request, tmp_path)  # type: ignore[operator] # one of the two above
    status, line = refused_with(lab, place, "--wait", "30")
    assert status == DENIED, line
    assert "wrong" not in line


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_whose_certificate_is_not_trusted_is_of_no_use(
    kind: str, request: pytest.FixtureRequest, lab: Lab, tmp_path: Path, stranger: Path
) -> None:
    if kind == "k8s-lease":
        pod: Pod = request.getfixturevalue("namespace").account("other-ca").pod(tmp_path / "pod")
        (pod.folder / "ca.crt").write_bytes(stranger.read_bytes())
        place = pod_lock(pod)
    elif kind == "postgres":
        pooler: postgres.Pgbouncer = request.getfixturevalue("postgres_pooler")
        url = f"postgres://app:{postgres.QUOTED}@localhost:{pooler.port}/app"
        place = Place(f"{url}?sslmode=verify-ca&sslrootcert={stranger}")
    elif kind == "redis":
        place = Place(f"{request.getfixturevalue('secure_redis').url}?ssl_ca_certs={stranger}")
    else:
        place = Place(f"{kind}://{request.getfixturevalue('encrypted').address}?cacert={stranger}")
    status, line = refused_with(lab, place, "--wait", "30")
    assert status == UNUSABLE, line
    assert "certificate" in line


# Nothing listens there: what is contacted ends with 69.
NOWHERE = {
    "etcd": "etcd://127.0.0.1:1?cert={0}.crt&key={0}.key",
    "etcd+grpc": "etcd+grpc://127.0.0.1:1?cert={0}.crt&key={0}.key",
    "k8s-lease": "k8s-lease",
    "postgres": "postgres://a@127.0.0.1:1/b?sslmode=require&sslcert={0}.crt&sslkey={0}.key",
    "redis": "rediss://127.0.0.1:1?ssl_certfile={0}.crt&ssl_keyfile={0}.key",
}
KUBECONFIG = """
current-context: a
contexts: [{{name: a, context: {{cluster: a, user: a}}}}]
clusters: [{{name: a, cluster: {{server: "https://127.0.0.1:1"}}}}]
users: [{{name: a, user: {{client-certificate: {0}.crt, client-key: {0}.key}}}}]
"""


@pytest.mark.parametrize("kind", SERVERS)
def test_a_certificate_of_ours_that_is_missing_is_for_the_user_to_mend(kind: str, lab: Lab) -> None:
    missing = lab.directory / "missing"
    config = lab.directory / "kubeconfig"
    config.write_text(KUBECONFIG.format(missing))
    status, line = refused_with(lab, Place(NOWHERE[kind].format(missing), {"KUBECONFIG": str(config)}))
    assert status == UNUSABLE, line
    assert f"{missing}.crt" in line


@pytest.mark.parametrize("kind", SERVERS)
def test_who_is_stopped_while_waiting_lets_others_go_first(
    kind: str, request: pytest.FixtureRequest, lab: Lab
) -> None:
    place = healthy(kind, request, lab)
    lab.lock = place.lock
    environ = environment(**place.variables)
    first = lab.start("--ttl", TTL, command=lab.long_job(), environ=environ)
    lab.ready()
    with Shell("bash", lab.directory, place.variables) as shell:
        shell.call(lab.argv("--ttl", TTL, command=["touch", "done"]))
        shell.shows("waiting for")
        front = front_below(shell)
        shell.type(CTRL_Z)
        shell.prompt()
        are(front, letter=STOPPED)
        lab.finish()
        assert first.wait() == 0
        second = lab.start("--ttl", TTL, command=["test", "!", "-e", "done"], environ=environ)
        assert second.wait() == 0, second.said
        shell.line("fg")
        until((lab.directory / "done").exists, "the command to run")
        shell.prompt()
        shell.status(0)
        shell.leave()
