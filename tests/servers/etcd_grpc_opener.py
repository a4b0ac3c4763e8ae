"""`open_backend` with gRPC imported: where fifty processes are forked from one, once is enough."""

from __future__ import annotations

import singleton_run_etcd.grpc
from singleton_run_etcd import open_backend

__all__ = ["open_backend", "singleton_run_etcd"]
