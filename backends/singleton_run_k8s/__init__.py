"""The lock in Kubernetes: a Lease with client-go's record, so that it excludes leader elections too.

In a pod it needs the standard library alone. The official client logs in by a kubeconfig.
"""

from __future__ import annotations

from singleton_run_k8s.address import Address
from singleton_run_k8s.backend import LeaseBackend
from singleton_run_k8s.client import Api

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run_k8s.login import Login


def open_backend(url: str, environ: Mapping[str, str]) -> LeaseBackend:
    """The backend for `k8s-lease` or a URL of it; nobody is contacted. Raises Refused."""
    address = Address(url, environ)
    login: Login
    if address.account:
        from singleton_run_k8s.login_pod import PodLogin

        login = PodLogin(address, environ)
    else:
        from singleton_run_k8s.login_kubeconfig import KubeconfigLogin

        login = KubeconfigLogin(address, environ)
    pod = (address.pod, address.pod_namespace)
    return LeaseBackend(Api(login, address.namespace), stamps=address.stamps, pod=pod)
