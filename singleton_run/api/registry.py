"""Which backend a `--lock` means: the built-in ones in plain tables, strangers' by entry point.

A backend says by where it is registered whether its locks are leased: by a server, which has to hear of the
holder again and again (`BUILT_IN`, the group `singleton_run.backends`), or held by the kernel as long as a
process has something open (`KERNEL_HELD`, the group `singleton_run.kernel_locks`). The front has to know
which, and must not load a leased backend: that is the keeper's.
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


def open_backend(lock: str, environ: Mapping[str, str]) -> Backend:
    """The backend of either kind that `lock` (a name or a URL) asks for; nobody is contacted.

    Raises Refused if there is none of that name, or it can't be used here.
    """
    kernel_lock = open_kernel_lock(lock, environ)
    if kernel_lock is not None:
        return kernel_lock
    scheme = lock.partition("://")[0]
    backend: Backend | None = _opened(BUILT_IN.get(scheme), GROUP, lock, environ)
    if backend is not None:
        return backend
    from importlib.metadata import entry_points

    from singleton_run.api.lock_address import redact

    strangers = {*entry_points(group=GROUP).names, *entry_points(group=KERNEL_GROUP).names}
    known = ", ".join([*KERNEL_HELD, *BUILT_IN, *sorted(strangers)])
    raise Refused(f"there is no lock backend {redact(scheme)!r}: use one of {known}", UNUSABLE)


def open_kernel_lock(lock: str, environ: Mapping[str, str]) -> KernelLock | None:
    """The backend of `lock` if the kernel holds its locks, else None. Raises Refused as `open_backend`."""
    scheme = lock.partition("://")[0]
    if scheme in BUILT_IN:
        return None
    kernel_lock: KernelLock | None = _opened(KERNEL_HELD.get(scheme), KERNEL_GROUP, lock, environ)
    return kernel_lock


def _opened(package: str | None, group: str, lock: str, environ: Mapping[str, str]) -> Any:
    """What the opener of that package, or of that group's entry point, gives; None without one."""
    if package is not None:
        return __import__(package).open_backend(lock, environ)
    from importlib.metadata import entry_points

    for entry in entry_points(group=group, name=lock.partition("://")[0]):
        return entry.load()(lock, environ)
    return None
