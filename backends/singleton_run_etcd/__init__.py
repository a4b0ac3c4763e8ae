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
    server: Server
    if url.partition("://")[0] == "etcd+grpc":
        from singleton_run_etcd.grpc import Grpc

        server = Grpc(address)
    else:
        from singleton_run_etcd.gateway import Gateway

        server = Gateway(address, environ)
    backend = EtcdBackend(server, address.prefix)
    if address.insecure:
        text = "the certificate of etcd is not checked: anybody may be answering in its place"
        backend.warning = "error", text
    return backend
