"""Logging in as a pod, by the files of its service account, with the standard library alone."""

from __future__ import annotations

from singleton_run.api.http.tls import Tls
from singleton_run.api.url import authority
from singleton_run.errors import UNUSABLE, Refused
from singleton_run_k8s.login import Access, proxy_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from singleton_run.api.deadline import Deadline
    from singleton_run_k8s.address import Address


class PodLogin:
    """See `login.Login`. The token is read before each request, because the kubelet replaces it."""

    def __init__(self, address: Address, environ: Mapping[str, str]) -> None:
        self._folder = address.account
        self._environ = environ
        self._access: Access | None = None
        self._token = ""
        if not self._read():
            raise Refused(
                f"this pod has no token in {self._folder}: give it a service account "
                "(automountServiceAccountToken: true), or name a kubeconfig in KUBECONFIG",
                UNUSABLE,
            )

    def access(self, deadline: Deadline) -> Access:
        """The way to the server that the environment names, with the folder's authority and namespace."""
        if self._access is None:
            host = self._environ["KUBERNETES_SERVICE_HOST"]
            port = self._environ.get("KUBERNETES_SERVICE_PORT_HTTPS") or self._environ.get(
                "KUBERNETES_SERVICE_PORT", "443"
            )
            url = f"https://{authority(host, port)}"
            namespace = _text(f"{self._folder}/namespace") or "default"
            tls = Tls(f"{self._folder}/ca.crt")
            self._access = Access(url, namespace, tls, proxy_for(url, self._environ))
        return self._access

    def authorization(self, deadline: Deadline) -> str:
        """The present token."""
        self._read()
        return f"Bearer {self._token}"

    def headers(self) -> Mapping[str, Sequence[str]]:
        """None: a pod acts as itself."""
        return {}

    def missing_credentials(self) -> str:
        """Empty: without a token this object isn't made."""
        return ""

    def renew(self, refused: str, deadline: Deadline) -> bool:
        """Read the token again; false if it is the same."""
        return self.authorization(deadline) != refused

    def close(self) -> None:
        """Drop the connection."""
        if self._access is not None:
            self._access.client.close()

    def _read(self) -> bool:
        """Whether there is a token. Where the file can't be read now, the last one serves on."""
        self._token = _text(f"{self._folder}/token") or self._token
        return bool(self._token)


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:  # as text it would take the import of a codec
            return file.read().decode("ascii").strip()
    except (OSError, UnicodeError):
        return ""
