"""What can't get better is refused at once, 77 or 78, by every backend: a wait would hang on it for ever."""

from __future__ import annotations

import os
import ssl
import threading
from contextlib import contextmanager
from pathlib import Path
from socket import create_server
from typing import TYPE_CHECKING

import pytest
import trustme

from singleton_run.api.registry import open_backend as load
from singleton_run.errors import DENIED, UNUSABLE, Refused, Unavailable
from tests.servers import postgres
from tests.servers.postgres import QUOTED
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LIMIT = 5.0
KUBE = """
clusters: [{name: c, cluster: {server: "SERVER", certificate-authority: CA}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: USER}]
current-context: c
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The files and ports that the cases name."""
    folder = tmp_path_factory.mktemp("permanent")
    authority, stranger = trustme.CA(), trustme.CA()
    signed = authority.issue_cert("localhost")
    files = {
        "authority": authority.cert_pem.bytes(),
        "stranger": stranger.cert_pem.bytes(),
        "cert": signed.cert_chain_pems[0].bytes(),
        "key": signed.private_key_pem.bytes(),
        "other_key": stranger.issue_cert("localhost").private_key_pem.bytes(),
        "garbage": b"garbage",
        "plain": b"",
    }
    paths = {name: str(folder / name) for name in files}
    for name, content in files.items():
        Path(paths[name]).write_bytes(content)
        Path(paths[name]).chmod(0o600)
    (folder / "folder").mkdir()
    with tls_server(signed) as tls, postgres.running() as server, postgres.pooled(server) as pooler:
        tail = {"pg": f"app:{QUOTED}@localhost:{server.port}/app", "role": f"localhost:{server.port}"}
        bouncer = {"bouncer": f"app:{QUOTED}@localhost:{pooler.port}/app", "vouching": str(pooler.authority)}
        yield {**paths, **tail, **bouncer, "tls": str(tls), "here": str(folder), "free": str(free_port())}


@contextmanager
def tls_server(signed: trustme.LeafCert) -> Iterator[int]:
    """The port of a server that does nothing but shake hands, as `localhost`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    signed.configure_cert(context)

    def serve() -> None:
        while True:
            try:
                connection = listening.accept()[0]
            except OSError:
                return
            with connection:
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    continue

    with create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(2)


FULL = "postgres://{bouncer}?sslmode=verify-full&sslrootcert={vouching}"
# The address, variables, a kubeconfig's server and user if there is one, the status, a word of why.
CASES = [
    ("postgres://{bouncer}?sslmode=verify-ca&sslrootcert={here}/none", {}, UNUSABLE, "there is no file"),
    ("postgres://{bouncer}?sslmode=verify-ca&sslrootcert={garbage}", {}, UNUSABLE, "root certificate"),
    ("postgres://{bouncer}?sslmode=verify-ca&sslrootcert={here}/folder", {}, UNUSABLE, "root certificate"),
    (
        "postgres://{bouncer}?sslmode=verify-ca&sslrootcert={stranger}",
        {},
        UNUSABLE,
        "certificate verify failed",
    ),
    (
        "postgres://{bouncer}?sslmode=require&sslrootcert={stranger}",
        {},
        UNUSABLE,
        "certificate verify failed",
    ),
    ("postgres://{bouncer}?sslmode=verify-full", {"HOME": "{here}"}, UNUSABLE, "does not exist"),
    (FULL.replace("localhost", "x") + "&hostaddr=127.0.0.1&host=other", {}, UNUSABLE, "does not match"),
    (FULL + "&sslcert={cert}&sslkey={here}/none", {}, UNUSABLE, "there is no file"),
    (FULL + "&sslcert={cert}&sslkey={garbage}", {}, UNUSABLE, "private key file"),
    (FULL + "&sslcert={cert}&sslkey={other_key}", {}, UNUSABLE, "private key file"),
    (FULL + "&sslcert={garbage}&sslkey={key}", {}, UNUSABLE, "certificate file"),
    ("postgres://{pg}?sslmode=require", {}, UNUSABLE, "SSL was required"),
    ("postgres://{pg}?channel_binding=require&sslmode=disable", {}, UNUSABLE, "channel binding"),
    ("postgres://{pg}?require_auth=none", {}, UNUSABLE, "requirement"),
    ("postgres", {"PGPORT": "abc"}, UNUSABLE, "port"),
    ("postgres://localhost:abc/app", {}, UNUSABLE, "port"),
    ("postgres://app:wrong@{role}/app", {}, DENIED, "password"),
    ("postgres://{pg}none", {}, DENIED, "does not exist"),
    ("etcd://localhost:abc", {}, UNUSABLE, "port"),
    ("etcd", {"ETCDCTL_ENDPOINTS": "https://localhost:abc"}, UNUSABLE, "port"),
    ("etcd://localhost:{tls}?cacert={here}/none", {}, UNUSABLE, "none"),
    ("etcd://localhost:{tls}?cacert={garbage}", {}, UNUSABLE, "garbage"),
    ("etcd://localhost:{tls}?cacert={authority}&cert={cert}&key={other_key}", {}, UNUSABLE, "key"),
    ("etcd://localhost:{tls}?cacert={authority}&cert={cert}&key={here}/none", {}, UNUSABLE, "key"),
    ("etcd://localhost:{tls}?cacert={stranger}", {}, UNUSABLE, "not trusted"),
    ("etcd://127.0.0.1:{tls}?cacert={authority}", {}, UNUSABLE, "not trusted"),
    ("k8s-lease", {"KUBECONFIG": "{here}/none"}, UNUSABLE, "no kubeconfig"),
    ("k8s-lease", {"KUBECONFIG": "{here}/folder"}, UNUSABLE, "can't be read"),
    ("k8s-lease", {"KUBECONFIG": "{plain}"}, UNUSABLE, "nothing in it"),
    ("k8s-lease", {"KUBECONFIG": "{garbage}"}, UNUSABLE, "is not one"),
    (
        "k8s-lease",
        {"SERVER": "https://localhost:{tls}", "USER": "{{tokenFile: none}}"},
        UNUSABLE,
        "tokenFile",
    ),
    (
        "k8s-lease",
        {
            "SERVER": "https://localhost:{tls}",
            "USER": "{{client-certificate: {cert}, client-key: {other_key}}}",
        },
        UNUSABLE,
        "key",
    ),
    (
        "k8s-lease",
        {
            "SERVER": "https://localhost:{tls}",
            "USER": "{{exec: {{command: no-such-program, apiVersion: x}}}}",
        },
        UNUSABLE,
        "'no-such-program'",
    ),
    ("k8s-lease", {"SERVER": "https://localhost:abc", "USER": "{{token: t}}"}, UNUSABLE, "port"),
    (
        "k8s-lease",
        {"SERVER": "https://localhost:{tls}", "CA": "{stranger}", "USER": "{{token: t}}"},
        UNUSABLE,
        "not trusted",
    ),
    ("k8s-lease", {"SERVER": "https://127.0.0.1:{tls}", "USER": "{{token: t}}"}, UNUSABLE, "not trusted"),
    (
        "k8s-lease",
        {"SERVER": "https://localhost:{tls}", "CA": "none", "USER": "{{token: t}}"},
        UNUSABLE,
        "certificate-authority",
    ),
    ("k8s-lease", {"KUBERNETES_SERVICE_HOST": "localhost"}, UNUSABLE, "no token"),
    (
        "k8s-lease://?service-account={here}/folder",
        {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": "tcp://x:1"},
        UNUSABLE,
        "no token",
    ),
    ("file://{garbage}", {}, UNUSABLE, "garbage"),
]


@pytest.mark.parametrize(("address", "variables", "status", "why"), CASES, ids=lambda value: str(value)[:70])
def test_what_can_not_get_better_is_refused_at_once(
    words: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    address: str,
    variables: Mapping[str, str],
    status: int,
    why: str,
) -> None:
    lock = address.format(**words)
    told = {name: value.format(**words) for name, value in variables.items()}
    if "SERVER" in told:
        text = KUBE.replace("SERVER", told.pop("SERVER")).replace("USER", told.pop("USER"))
        (tmp_path / "config").write_text(text.replace("CA", told.pop("CA", words["authority"])))
        told["KUBECONFIG"] = str(tmp_path / "config")
    for name in [name for name in os.environ if name.startswith(("PG", "KUBE", "ETCDCTL_"))]:
        monkeypatch.delenv(name)
    for name, value in {"HOME": str(tmp_path), **told}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Refused, match=why) as caught:
        load(lock, os.environ).acquire("n", "host:1:a", 60.0, LIMIT)
    assert caught.value.status == status
    assert postgres.PASSWORD not in str(caught.value)


def test_one_of_several_servers_that_is_down_may_come_back(words: Mapping[str, str]) -> None:
    """So it isn't given up for another that can't be trusted."""
    port = words["bouncer"].partition("localhost:")[2].partition("/")[0]
    lock = f"postgres://app:{QUOTED}@localhost:{port},localhost:{words['free']}/app?sslmode=verify-ca"
    with pytest.raises(Unavailable):
        load(f"{lock}&sslrootcert={words['stranger']}", os.environ).acquire("n", "host:1:a", 60.0, LIMIT)
