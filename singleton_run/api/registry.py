"""The backend that a `--lock` asks for: a built-in one from a table, another package's by its entry point.

A backend is registered as one of two kinds. A server leases the locks of the first, and must hear of the
holder again and again (`BUILT_IN`, the group `singleton_run.backends`). The kernel holds those of the second
as long as a process has them open (`KERNEL_HELD`, the group `singleton_run.kernel_locks`). The front has to
know the kind, and must not load a backend of the first: only the keeper does.
"""

from __future__ import annotations

from singleton_run.errors import UNUSABLE, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.api.contract import Backend, KernelLock

GROUP = "singleton_run.backends"
KERNEL_GROUP = "singleton_run.kernel_locks"
DEFAULT = "file"
KERNEL_HELD = {"file": "singleton_run_file"}
BUILT_IN = {
    "etcd": "singleton_run_etcd",
    "etcd+grpc": "singleton_run_etcd",
    "k8s-lease": "singleton_run_k8s",
    "postgres": "singleton_run_postgres",
    "postgresql": "singleton_run_postgres",
}
OF_PATHS = ("file",)
"""Schemes whose address is a path on this machine, without a host."""


def open_backend(url: str, environ: Mapping[str, str]) -> Backend:
    """The backend of either kind that `url`, a name or a URL, asks for. Nobody is contacted.

    Raises Refused (78) if there is none with that name, or it can't be used here.
    """
    kernel_lock = open_kernel_lock(url, environ)
    if kernel_lock is not None:
        return kernel_lock
    scheme = url.partition("://")[0]
    backend: Backend | None = _opened(BUILT_IN.get(scheme), GROUP, url, environ)
    if backend is not None:
        return backend
    from importlib.metadata import entry_points

    from singleton_run.api.lock_address import redact

    strangers = {*entry_points(group=GROUP).names, *entry_points(group=KERNEL_GROUP).names}
    known = ", ".join([*KERNEL_HELD, *BUILT_IN, *sorted(strangers)])
    raise Refused(f"there is no lock backend {redact(scheme)!r}: use one of {known}", UNUSABLE)


def open_kernel_lock(url: str, environ: Mapping[str, str]) -> KernelLock | None:
    """The backend of `url` if the kernel holds its locks, else None. Raises Refused as `open_backend`."""
    scheme = url.partition("://")[0]
    if scheme in BUILT_IN:
        return None
    kernel_lock: KernelLock | None = _opened(KERNEL_HELD.get(scheme), KERNEL_GROUP, url, environ)
    return kernel_lock


def _opened(package: str | None, group: str, url: str, environ: Mapping[str, str]) -> Any:
    """The backend from that package, else from the group's entry point for the scheme; None without one."""
    if package is not None:
        return __import__(package).open_backend(url, environ)
    from importlib.metadata import entry_points

    for entry in entry_points(group=group, name=url.partition("://")[0]):
        return entry.load()(url, environ)
    return None
