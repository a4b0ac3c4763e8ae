"""The lock in etcd: the keys and the queue of `etcdctl lock`, so that the two exclude each other.

`etcd://` speaks to the server's JSON gateway and needs no other package. `etcd+grpc://` uses python-etcd3.
"""

from __future__ import annotations

from singleton_run_etcd.address import Address
from singleton_run_etcd.backend import EtcdBackend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run_etcd.client import Server


def open_backend(url: str, environ: Mapping[str, str]) -> EtcdBackend:
    """The backend for `etcd`, `etcd+grpc` or a URL of them; nobody is contacted. Raises Refused."""
    address = Address(url, environ)

    def connect(to: Address) -> Server:
        if url.partition("://")[0] == "etcd+grpc":
            from singleton_run_etcd.grpc import Grpc

            return Grpc(to)
        from singleton_run_etcd.gateway import Gateway

        return Gateway(to, environ)

    backend = EtcdBackend(connect(address), address.prefix)
    backend.for_doctor = address, connect
    if address.insecure:
        text = "the certificate of etcd is not checked: anybody may be answering in its place"
        backend.warning = "error", text
    return backend
