"""A real kube-apiserver for tests, with an etcd of its own and RBAC on.

What there is in it, and who may do what, is the business of `kubeaccess`.
"""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import trustme

from tests.servers import etcd, programs
from tests.servers.process import Process
from tests.support.harness import until
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

ISSUER = "https://kubernetes.default.svc.cluster.local"
# Seconds: 4 of two cores, ten times that where other tests keep these busy.
STARTED = 150.0
# Every request of a client's, once: a watch when it opens, all others when they have ended.
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "None", "users": ["system:apiserver"]}, {"level": "Metadata"}],
}


class Request(NamedTuple):
    """What kind of request the server counts: its user, its verb, and what it was about."""

    user: str
    verb: str
    resource: str


class Login(NamedTuple):
    """A client certificate and its key, as paths of PEM files."""

    cert: str
    key: str


class Server(Process):
    """One kube-apiserver and its etcd. Both can be stopped for a while, killed, and started again.

    `url` is its address, `ca` the path of the certificate that vouches for it, `admin` logs in
    whoever may do everything.
    """

    def __init__(self, folder: Path, store: etcd.Etcd) -> None:
        self.folder = folder
        self.etcd = store
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._authority = trustme.CA()
        self.ca = self._write("ca.crt", self._authority.cert_pem.bytes())
        server = self._login("server", self._authority.issue_cert("localhost", "127.0.0.1"))
        self.admin = self.login("admin", group="system:masters")
        self.signer = self._write("accounts.key", trustme.CA().private_key_pem.bytes())
        self._audit = folder / "audit.log"
        command = [programs.apiserver(), f"--etcd-servers={store.url}", *self._flags(server)]
        super().__init__(command, folder / "kube-apiserver.log")

    def _flags(self, server: Login) -> list[str]:
        policy = self._write("audit-policy.json", json.dumps(AUDIT).encode())
        flags = {
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": str(self.port),
            "service-cluster-ip-range": "10.0.0.0/24",
            "endpoint-reconciler-type": "none",
            "tls-cert-file": server.cert,
            "tls-private-key-file": server.key,
            "client-ca-file": self.ca,
            "service-account-key-file": self.signer,
            "service-account-signing-key-file": self.signer,
            "service-account-issuer": ISSUER,
            "authorization-mode": "RBAC",
            "disable-admission-plugins": "ServiceAccount",
            "audit-policy-file": policy,
            "audit-log-path": str(self._audit),
        }
        return [f"--{name}={value}" for name, value in flags.items()]

    def _write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def _login(self, name: str, signed: trustme.LeafCert) -> Login:
        chain = b"".join(part.bytes() for part in signed.cert_chain_pems)
        return Login(
            self._write(f"{name}.crt", chain), self._write(f"{name}.key", signed.private_key_pem.bytes())
        )

    def login(self, user: str, group: str = "singleton-run:testers", ends: datetime | None = None) -> Login:
        """The client certificate of a user in a group, made now. One that `ends` has files of its own."""
        signed = self._authority.issue_cert(
            "client.example", common_name=user, organization_name=group, not_after=ends
        )
        return self._login(f"{user}-ending" if ends else user, signed)

    def start(self) -> Server:
        """Start it; it need not serve yet when this returns."""
        self.begin()
        return self

    def serves(self) -> Server:
        """Wait until it serves all that it will serve."""
        until(self._is_ready, f"kube-apiserver at {self.url} serves; see {self._log}", STARTED)
        return self

    def _is_ready(self) -> bool:
        self.check()
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(*self.admin)
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5, context=context):  # noqa: S310 - ours
                return True
        except OSError:
            return False

    def requests(self) -> Counter[Request]:
        """How many requests of each kind have ended since the first start; a watch counts when it opens."""
        found: Counter[Request] = Counter()
        if not self._audit.exists():
            return found
        for line in self._audit.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            event = json.loads(line)
            opened = event["stage"] == "ResponseStarted"
            if opened == (event["verb"] == "watch"):
                resource = event.get("objectRef", {}).get("resource", "")
                # Whoever was refused the login has no name.
                user = event["user"].get("username", "")
                found[Request(user, event["verb"], resource)] += 1
        return found


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """One server that serves, its data below `folder`."""
    programs.apiserver()
    with etcd.running(folder) as store:
        server = Server(folder, store).start()
        try:
            yield server.serves()
        finally:
            server.kill()
