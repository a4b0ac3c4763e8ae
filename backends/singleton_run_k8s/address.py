"""The cluster and namespace in a lock's URL: `k8s-lease://NAMESPACE?context=CONTEXT&clock=observed`."""

from __future__ import annotations

import posix as os

from singleton_run.api.lock_address import parts, refuse
from singleton_run.api.url import options, unquoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_FORM = "k8s-lease://NAMESPACE?context=CONTEXT"
_WORDS = ("context", "clock", "service-account")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


class Address:
    """The place of the Leases, as far as URL and environment name it. The constructor raises Refused (78).

    `namespace` and `context` are empty where nothing names them. `account` is the folder of the service
    account to log in with. Where it is empty, `kubeconfig` has the paths of kubeconfigs, with colons between
    them; it is empty for the user's own. `stamps`: the API server's clock may be used. `pod` is the name of
    the pod that we run in, and `pod_namespace` its namespace, empty for that of the login.
    """

    __slots__ = ("account", "context", "kubeconfig", "namespace", "pod", "pod_namespace", "stamps")

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        try:
            _, login, hosts, path, query = parts(url)
            words = options(query, _WORDS)
            named = unquoted((hosts + path).rstrip("/"))
        except ValueError as error:
            refuse(f"in the address of k8s-lease {error}")
        if login or "@" in named:
            refuse(
                f"a user has no place in the address of k8s-lease, a kubeconfig has it: the form is {_FORM}"
            )
        self.namespace = checked(named or environ.get("POD_NAMESPACE") or environ.get("NAMESPACE") or "")
        self.context = words.get("context", "")
        self.stamps = _clock(words.get("clock", ""))
        self.kubeconfig = environ.get("KUBECONFIG", "")
        self.pod = environ.get("POD_NAME") or environ.get("HOSTNAME") or os.uname().nodename
        self.pod_namespace = environ.get("POD_NAMESPACE", "")
        by_file = bool(self.context or self.kubeconfig)
        in_pod = bool(environ.get("KUBERNETES_SERVICE_HOST"))
        self.account = words.get("service-account") or (ACCOUNT if in_pod and not by_file else "")
        if self.account and self.context:
            refuse("a context is of a kubeconfig, which isn't used with a service account: leave one out")
        if self.account and not in_pod:
            refuse("a service account is for pods: KUBERNETES_SERVICE_HOST must say where the API server is")


def checked(namespace: str) -> str:
    """`namespace`, if it is empty or can be the name of one. Raises Refused (78)."""
    if not _LETTERS.issuperset(namespace) or len(namespace) > 63:
        is_login = not set("@:%").isdisjoint(namespace)  # USER:PASSWORD, whose @ may be missing
        named = "what stands there" if is_login else repr(namespace[:80])
        refuse(f"{named} is not a namespace: the form is {_FORM}")
    return namespace


def _clock(text: str) -> bool:
    """Whether the API server's clock may be used."""
    if text not in ("", "server", "observed"):
        refuse("clock must be server or observed")
    return text != "observed"
