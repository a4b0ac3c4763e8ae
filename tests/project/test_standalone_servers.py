"""The executable that needs no Python with real servers: its own libpq, OpenSSL and client."""

from __future__ import annotations

import subprocess
import uuid
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from tests.servers import etcd, postgres
from tests.support import standalone

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.etcd import Etcd
    from tests.servers.kubeaccess import Namespace
    from tests.servers.postgres import Postgres

pytestmark = pytest.mark.servers
SH = "/bin/sh"


def run(lock: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The executable with this lock, and nothing in its environment but PATH and `environ`."""
    command = [str(standalone.executable()), "--lock", lock, "--name", "a", *words]
    environ = {"PATH": "/usr/bin:/bin", **environ}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def check(lock: str, **environ: str) -> None:
    """A command runs, a second one beside it is refused, and one with a key runs once."""
    held = [str(standalone.executable()), "--lock", lock, "--name", "a", "--", SH, "-c", "echo; read -r line"]
    environ = {"PATH": "/usr/bin:/bin", **environ}
    with subprocess.Popen(held, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        refused = run(lock, "-n", "--", "/bin/true", **environ)
        assert (refused.returncode, refused.stderr.count("\n")) == (75, 1), refused.stderr
        waiter = subprocess.Popen(
            [*held[:5], "--", "/bin/echo", "after"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert waiter.stderr is not None
        assert waiter.stderr.readline().startswith(b"singleton-run: waiting for lock 'a'")
        holder.communicate(b"\n")
    assert holder.returncode == 0
    assert waiter.communicate()[0] == b"after\n"
    key = uuid.uuid4().hex
    for said in ("once\n", ""):
        done = run(lock, "--once", key, "--", "/bin/echo", "once", **environ)
        assert (done.returncode, done.stdout) == (0, said), done.stderr


def test_etcd(etcd_server: Etcd) -> None:
    check(f"etcd://{etcd_server.address}")


def test_etcd_by_tls_with_a_client_s_certificate(tmp_path: Path) -> None:
    files = etcd.Certificates(tmp_path / "certificates")
    with etcd.running(tmp_path, certificates=files) as server:
        lock = f"etcd://{server.address}?cacert={files.ca}"
        check(f"{lock}&cert={files.client_cert}&key={files.client_key}")
        untrusted = run(f"etcd://{server.address}?tls=true", "--", "/bin/true")
        trusted = run(
            f"etcd://{server.address}?tls=true&cert={files.client_cert}&key={files.client_key}",
            "--", "/bin/echo", "hi", SSL_CERT_FILE=files.ca,
        )  # fmt: skip
    assert (untrusted.returncode, untrusted.stderr.count("\n")) == (78, 1), untrusted.stderr
    assert "its certificate is not trusted" in untrusted.stderr
    assert (trusted.returncode, trusted.stdout) == (0, "hi\n"), trusted.stderr


def test_postgres(postgres_server: Postgres) -> None:
    check(postgres_server.url)
    password = unquote(postgres.QUOTED)
    done = run(
        "postgres", "--", "/bin/echo", "hi",
        PGHOST="127.0.0.1", PGPORT=str(postgres_server.port), PGUSER="app", PGPASSWORD=password,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr


def test_the_server_s_refusal_is_told_by_its_state(postgres_server: Postgres) -> None:
    done = run(postgres_server.url_of("app", "wrong"), "--", "/bin/true")
    assert (done.returncode, done.stderr.count("\n")) == (77, 1), done.stderr
    assert "password" in done.stderr


@pytest.mark.parametrize("url", ["postgres://h?nonsense=1", "postgres://me@h:port/x", "postgres://%"])
def test_what_libpq_can_not_read_is_refused(url: str) -> None:
    done = run(url, "--", "/bin/true")
    assert (done.returncode, done.stderr.count("\n")) == (78, 1), done.stderr


@pytest.mark.parametrize("login", ["token", "exec", "certificate"])
def test_kubernetes_by_a_kubeconfig(namespace: Namespace, tmp_path: Path, login: str) -> None:
    account = namespace.account(f"runner-{login}")
    kubeconfig = getattr(account, f"{login}_kubeconfig")(tmp_path)
    check("k8s-lease", KUBECONFIG=str(kubeconfig))
    namespace.delete_lease("a")
