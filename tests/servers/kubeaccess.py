"""What tests do in a Kubernetes cluster as whoever may do everything: places, accounts, logins, Leases.

It is the same for the tests' own server and for a cluster that is named by `--kube-context`.
"""

from __future__ import annotations

import base64
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from kubernetes import client, config

from tests.servers import kube
from tests.support.harness import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LEASES = "coordination.k8s.io"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
# The least that the lock can do with, and what makes it quick.
LEAST = ("get", "create", "update")
WATCHING = (*LEAST, "watch")
# So many seconds after its end the server still takes a token.
LEEWAY = 60


class Failed(Exception):
    """The API server said no: `status` is the answer's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Cluster:
    """A cluster, seen by who may do everything. `server` is the tests' own one, if it is that."""

    def __init__(self, settings: client.Configuration, server: kube.Server | None = None) -> None:
        self.server = server
        self.url = str(settings.host)
        self.ca = str(settings.ssl_ca_cert)
        self._client = client.ApiClient(settings)

    def own_server(self) -> kube.Server:
        """The server, where it is the tests' own one. Skips the test elsewhere."""
        if self.server is None:
            pytest.skip("needs a server of the tests' own: run it without --kube-context")
        return self.server

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """One request; the object that is answered. Raises Failed."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Accept": "application/json", "Content-Type": kind}
        auth = ["BearerToken"]
        request = self._client.param_serialize(
            method, path, header_params=headers, body=body, auth_settings=auth
        )
        answer = self._client.call_api(*request, _request_timeout=30)
        data = answer.read()
        if answer.status >= 300:
            raise Failed(answer.status, data.decode())
        return dict(json.loads(data))

    def namespace(self) -> Namespace:
        """A new namespace."""
        body = {"metadata": {"generateName": "singleton-run-test-"}}
        return Namespace(self, self.call("POST", "/api/v1/namespaces", body)["metadata"]["name"])

    def may(self, user: str, verb: str, resource: str, namespace: str, group: str = "") -> bool:
        """Whether the server lets a user do that."""
        what = {"verb": verb, "resource": resource, "group": group, "namespace": namespace}
        body = {"spec": {"user": user, "resourceAttributes": what}}
        review = self.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
        return bool(review["status"]["allowed"])


@contextmanager
def existing(context: str) -> Iterator[Cluster]:
    """The cluster of a context of the user's own kubeconfig."""
    settings = client.Configuration()
    config.load_kube_config(context=context, client_configuration=settings)
    yield Cluster(settings)


def own(server: kube.Server) -> Cluster:
    """The cluster that a server of the tests' own makes."""
    settings = client.Configuration()
    settings.host = server.url
    settings.ssl_ca_cert = server.ca
    settings.cert_file, settings.key_file = server.admin
    return Cluster(settings, server)


class Namespace:
    """A namespace of the tests' own."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.leases = f"/apis/{LEASES}/v1/namespaces/{name}/leases"

    def remove(self) -> None:
        """Delete it with all that is in it. Where no controller runs, it stays."""
        self.cluster.call("DELETE", f"/api/v1/namespaces/{self.name}")

    def account(
        self, name: str = "tester", verbs: Sequence[str] = WATCHING, *, events: bool = False
    ) -> Account:
        """A new service account that may do just this with Leases, and create Events where that is said."""
        place = f"/api/v1/namespaces/{self.name}/serviceaccounts"
        made = self.cluster.call("POST", place, {"metadata": {"name": name}})
        account = Account(self, name, made["metadata"]["uid"])
        account.allow(verbs, events=events)
        return account

    def lease(self, name: str) -> dict[str, Any] | None:
        """A Lease as it is now, None if there is none."""
        try:
            return self.cluster.call("GET", f"{self.leases}/{name}")
        except Failed as error:
            if error.status == 404:
                return None
            raise

    def all_leases(self) -> list[dict[str, Any]]:
        """Every Lease there is."""
        return list(self.cluster.call("GET", self.leases)["items"])

    def events(self) -> list[dict[str, Any]]:
        """Every Event there is."""
        return list(self.cluster.call("GET", f"/api/v1/namespaces/{self.name}/events")["items"])

    def delete_lease(self, name: str) -> None:
        """Delete a Lease by hand, if there is one."""
        try:
            self.cluster.call("DELETE", f"{self.leases}/{name}")
        except Failed as error:
            if error.status != 404:
                raise

    def change_lease(self, name: str, change: Mapping[str, object]) -> dict[str, Any]:
        """Change a Lease by hand (a merge patch); the Lease after that."""
        return self.cluster.call("PATCH", f"{self.leases}/{name}", change)

    def annotate_lease(self, name: str, value: str = "seen") -> None:
        """Write an annotation that is no concern of the holder's."""
        self.change_lease(name, {"metadata": {"annotations": {"example.com/note": value}}})

    def take_lease(self, name: str, seconds: int = 100, holder: str = "somebody") -> None:
        """Make a Lease somebody else's, who never renews it."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": seconds,
            "acquireTime": now,
            "renewTime": now,
        }
        if self.lease(name) is None:
            self.cluster.call("POST", self.leases, {"metadata": {"name": name}, "spec": spec})
        else:
            self.change_lease(name, {"spec": spec})

    def kubeconfig(self, folder: Path, user: str, login: Mapping[str, object]) -> Path:
        """A kubeconfig file in `folder` with this one context; `login` is what `user` says for itself."""
        cluster = {"server": self.cluster.url, "certificate-authority": self.cluster.ca}
        context = {"cluster": "tests", "user": user, "namespace": self.name}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": user, "user": login}],
            "contexts": [{"name": "tests", "context": context}],
            "current-context": "tests",
        }
        path = folder / f"{user}.kubeconfig"
        path.write_text(json.dumps(content))
        return path


class Account:
    """A service account. `user` is the name by which the server knows it."""

    def __init__(self, namespace: Namespace, name: str, uid: str) -> None:
        self.namespace = namespace
        self.name = name
        self.uid = uid
        self.user = f"system:serviceaccount:{namespace.name}:{name}"
        self._bound = False

    def allow(self, verbs: Sequence[str], *, events: bool = False) -> None:
        """From now on it may do this with Leases and nothing else; returns when the server knows it."""
        rules: list[dict[str, object]] = []
        if verbs:
            rules.append({"apiGroups": [LEASES], "resources": ["leases"], "verbs": list(verbs)})
        if events:
            rules.append({"apiGroups": [""], "resources": ["events"], "verbs": ["create"]})
        cluster = self.namespace.cluster
        place = f"{RBAC}/namespaces/{self.namespace.name}"
        role = {"metadata": {"name": self.name}, "rules": rules}
        if self._bound:
            cluster.call("PUT", f"{place}/roles/{self.name}", role)
        else:
            cluster.call("POST", f"{place}/roles", role)
            self.bind(self.user)
            self._bound = True
        for verb in (*WATCHING, "delete"):
            until(lambda: self._may(verb) == (verb in verbs), f"{verb}: {verb in verbs}")  # noqa: B023 - called at once
        until(lambda: self._may("create", "events", "") == events, f"events: {events}")

    def _may(self, verb: str, resource: str = "leases", group: str = LEASES) -> bool:
        return self.namespace.cluster.may(self.user, verb, resource, self.namespace.name, group)

    def bind(self, *users: str) -> None:
        """Let these users do what it may do."""
        group = "rbac.authorization.k8s.io"
        place = f"{RBAC}/namespaces/{self.namespace.name}/rolebindings"
        for user in users:
            body = {
                "metadata": {"generateName": f"{self.name}-"},
                "roleRef": {"apiGroup": group, "kind": "Role", "name": self.name},
                "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
            }
            self.namespace.cluster.call("POST", place, body)

    def token(self, seconds: int = 3600) -> str:
        """A token from the server, who gives none for less than 600 seconds."""
        place = f"/api/v1/namespaces/{self.namespace.name}/serviceaccounts/{self.name}/token"
        body = {"spec": {"expirationSeconds": seconds}}
        token: str = self.namespace.cluster.call("POST", place, body)["status"]["token"]
        return token

    def short_token(self, seconds: float) -> str:
        """A token that is taken for so long, or not any more, signed in the server's stead.

        The server may go on for 10 s with a token that it saw while it was good. For the tests' own one only.
        """
        now = int(time.time())
        names = {"namespace": self.namespace.name, "serviceaccount": {"name": self.name, "uid": self.uid}}
        claims = {
            "iss": kube.ISSUER,
            "aud": [kube.ISSUER],
            "sub": self.user,
            "iat": now - 3600,
            "nbf": now - 3600,
            "exp": now + seconds - LEEWAY,
            "kubernetes.io": names,
        }
        return _signed(claims, Path(self.namespace.cluster.own_server().signer))

    def pod(self, folder: Path, token: str | None = None) -> Pod:
        """What a pod of this account has, in `folder`."""
        return Pod(self, folder, self.token() if token is None else token)

    def token_kubeconfig(self, folder: Path, token: str | None = None) -> Path:
        """A kubeconfig that logs in by a token."""
        login = {"token": self.token() if token is None else token}
        return self.namespace.kubeconfig(folder, f"{self.name}-token", login)

    def exec_kubeconfig(self, folder: Path, token: str | None = None) -> Path:
        """A kubeconfig that logs in by a program, which gives the token in the file `exec-token`."""
        file = folder / "exec-token"
        file.write_text(self.token() if token is None else token)
        api = "client.authentication.k8s.io/v1"
        answer = '{"apiVersion": "%s", "kind": "ExecCredential", "status": {"token": "%s"}}'
        script = f"printf '{answer}' {api} \"$(cat {file})\""
        run = {"apiVersion": api, "command": "sh", "args": ["-c", script], "interactiveMode": "Never"}
        return self.namespace.kubeconfig(folder, f"{self.name}-exec", {"exec": run})

    def certificate_kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig that logs in by the client certificate of a user who may do what this account may."""
        server = self.namespace.cluster.own_server()
        user = f"{self.namespace.name}-{self.name}-user"
        cert, key = server.login(user)
        self.bind(user)
        login = {"client-certificate": cert, "client-key": key}
        place = self.namespace.name
        until(lambda: self.namespace.cluster.may(user, "get", "leases", place, LEASES), f"{user} may get")
        return self.namespace.kubeconfig(folder, f"{self.name}-certificate", login)


class Pod:
    """What a pod sees of its service `account`: the folder with the three files, and the environment."""

    def __init__(self, account: Account, folder: Path, token: str) -> None:
        self.account = account
        self.folder = folder
        cluster = account.namespace.cluster
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca.crt").write_bytes(Path(cluster.ca).read_bytes())
        (folder / "namespace").write_text(account.namespace.name)
        self.put_token(token)
        address = urlsplit(cluster.url)
        self.environ = {
            "KUBERNETES_SERVICE_HOST": str(address.hostname),
            "KUBERNETES_SERVICE_PORT": str(address.port or 443),
        }

    def put_token(self, token: str) -> None:
        """Put another token in its place, as the kubelet does: at one stroke."""
        part = self.folder / ".token"
        part.write_text(token)
        os.replace(part, self.folder / "token")


def _signed(claims: Mapping[str, object], key: Path) -> str:
    """A JSON web token, ES256."""
    private = load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    parts = [json.dumps(part).encode() for part in ({"alg": "ES256", "typ": "JWT"}, claims)]
    text = b".".join(map(_base64, parts))
    halves = utils.decode_dss_signature(private.sign(text, ec.ECDSA(SHA256())))
    return b".".join([text, _base64(b"".join(half.to_bytes(32) for half in halves))]).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
