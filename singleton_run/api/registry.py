"""Which backend a `--lock` means: the built-in ones in plain tables, strangers' by entry point.

A backend says by the scheme under which it is registered whether its locks are leased (by a server, which has
to hear of the holder again and again) or held by the kernel as long as a process has something open: those of
strangers begin with `kernel+`. So the front knows without loading anything; a leased backend is the keeper's.
"""

from __future__ import annotations

import posix as os
import sys

from singleton_run import preload
from singleton_run.errors import UNUSABLE, Refused, incomplete

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable, Mapping
    from typing import Any

    from singleton_run.api.contract import Backend, KernelLock
else:
    import _signal

GROUP = "singleton_run.backends"
KERNEL = "kernel+"
DEFAULT = "file"
KERNEL_HELD = {"file": "singleton_run_file"}
BUILT_IN = {
    "etcd": "singleton_run_etcd",
    "etcd+grpc": "singleton_run_etcd",
    "k8s-lease": "singleton_run_k8s",
    "postgres": "singleton_run_postgres",
    "postgresql": "singleton_run_postgres",
    "redis": "singleton_run_redis",
    "redis+cluster": "singleton_run_redis",
    "redis+quorum": "singleton_run_redis",
    "redis+sentinel": "singleton_run_redis",
    "rediss": "singleton_run_redis",
    "rediss+cluster": "singleton_run_redis",
    "rediss+quorum": "singleton_run_redis",
    "rediss+sentinel": "singleton_run_redis",
    "unix": "singleton_run_redis",
}
OF_PATHS = ("file",)
"""Schemes whose address is a path on this machine, without a host."""
IN_PODS = "k8s-lease"
"""The scheme of the backend that can label the pod that we run in."""
LOADED_FIRST = {
    "singleton_run_file": (
        "singleton_run_file.address",
        "singleton_run_file.lock_file",
        "singleton_run_file.directory",
        "singleton_run_file.backend",
    ),
    "singleton_run_etcd": (
        "singleton_run.api.url",
        "singleton_run_etcd.address",
        "singleton_run.api.deadline",
        "singleton_run.api.http.__init__",
        "singleton_run.api.http.wire",
        "singleton_run.api.servers",
        "singleton_run_etcd.client",
        "singleton_run_etcd.keys",
        "singleton_run_etcd.backend",
        "singleton_run.api.http.connection",
        "singleton_run.api.background",
        "singleton_run.api.resolve",
        "singleton_run.api.http.client",
        "singleton_run_etcd.gateway",
    ),
    "singleton_run_k8s": (
        "singleton_run.api.url",
        "singleton_run_k8s.address",
        "singleton_run.api.deadline",
        "singleton_run.api.http.__init__",
        "singleton_run.api.http.wire",
        "singleton_run.api.servers",
        "singleton_run_k8s.errors",
        "singleton_run.api.control",
        "singleton_run_k8s.lease",
        "singleton_run_k8s.objects",
        "singleton_run_k8s.client",
        "singleton_run_k8s.events",
        "singleton_run_k8s.backend",
        "singleton_run.api.http.connection",
        "singleton_run.api.background",
        "singleton_run.api.resolve",
        "singleton_run.api.http.client",
        "singleton_run_k8s.login",
        "singleton_run.api.http.tls",
        "singleton_run_k8s.login_pod",
    ),
}
"""The modules of a package on the way to the command, each after all that it imports (`preload`)."""
# The executable that needs no Python (packaging/standalone) has no packages but those that are built in.
IS_ALONE = "_singleton_run" in sys.builtin_module_names
_LEFT_OUT = ("etcd+grpc",)
began_in = 0
"""The process in which the program began, as `main` sets it: only that one may become another program."""


def usable() -> list[str]:
    """The built-in backends that can be asked for here."""
    return [scheme for scheme in (*KERNEL_HELD, *BUILT_IN) if not (IS_ALONE and scheme in _LEFT_OUT)]


def leave_to_python(url: str, environ: Mapping[str, str], mask: Iterable[int]) -> None:
    """Leave a call for that lock to the Python command beside the executable, if only that can do it.

    Only the process that began does so, and not a child of it. `mask` has the signals that the command is to
    have blocked. Returns where we can do it, or are alone.
    """
    if IS_ALONE and os.getpid() == began_in and _lacks(url, environ):
        from singleton_run.system import beside

        beside.take_over(mask)


def _lacks(url: str, environ: Mapping[str, str]) -> bool:
    """Whether the executable lacks something that this lock may need."""
    scheme, _, place = url.partition("://")
    if scheme == DEFAULT and not place:
        return not _is_known(os.geteuid())
    if scheme == IN_PODS:
        from singleton_run.system import beside

        return beside.is_there() and beside.names_auth_provider(environ)
    return scheme not in usable()


def _is_known(user: int) -> bool:
    """Whether a user is found here, or is root. Python's libc asks other directories than /etc/passwd too."""
    if user == 0:
        return True
    import pwd

    try:
        return bool(pwd.getpwuid(user))
    except KeyError:
        return False


def open_backend(url: str, environ: Mapping[str, str]) -> Backend:
    """The backend of either kind that `url` (a scheme alone, or a URL) asks for; nobody is contacted.

    Raises Refused if there is none of that name, or it can't be used here.
    """
    backend: Backend = _opened(url, environ)
    return backend


def open_kernel_lock(url: str, environ: Mapping[str, str]) -> KernelLock | None:
    """The backend of `url` if the kernel holds its locks, else None. Raises Refused as `open_backend`."""
    if not is_kernel_held(url.partition("://")[0]):
        return None
    kernel_lock: KernelLock = _opened(url, environ)
    return kernel_lock


def is_kernel_held(scheme: str) -> bool:
    """Whether the kernel holds the locks of that scheme."""
    return scheme in KERNEL_HELD or scheme.startswith(KERNEL)


def _opened(url: str, environ: Mapping[str, str]) -> Any:
    try:
        return _open(url, environ)
    except ImportError as error:
        raise Refused(incomplete(error), UNUSABLE) from None


def _open(url: str, environ: Mapping[str, str]) -> Any:
    scheme = url.partition("://")[0]
    leave_to_python(url, environ, _signal.pthread_sigmask(_signal.SIG_BLOCK, []))
    if IS_ALONE and scheme not in usable():
        from singleton_run.api.lock_address import redact

        raise Refused(
            f"the lock backend {redact(scheme)!r} isn't in this executable: use one of "
            f"{', '.join(usable())}, or the package of Python (pip install singleton-run)",
            UNUSABLE,
        )
    package = KERNEL_HELD.get(scheme) or BUILT_IN.get(scheme)
    if package is not None:
        preload.load((f"{package}.__init__",), LOADED_FIRST.get(package, ()))
        return __import__(package).open_backend(url, environ)
    from importlib.metadata import entry_points

    from singleton_run import late_site

    late_site.load()
    for entry in entry_points(group=GROUP, name=scheme):
        return entry.load()(url, environ)

    from singleton_run.api.lock_address import redact

    known = ", ".join([*KERNEL_HELD, *BUILT_IN, *sorted(entry_points(group=GROUP).names)])
    raise Refused(f"there is no lock backend {redact(scheme)!r}: use one of {known}", UNUSABLE)
