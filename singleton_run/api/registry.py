"""Which backend a `--lock` means: the built-in ones in a plain table, strangers' by entry point."""

from __future__ import annotations

import sys

from singleton_run.api.lock_address import redact
from singleton_run.errors import UNUSABLE, Refused, incomplete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run.api.contract import Backend

GROUP = "singleton_run.backends"
BUILTINS = {
    "file": "singleton_run_file",
    "etcd": "singleton_run_etcd",
    "etcd+grpc": "singleton_run_etcd",
    "k8s-lease": "singleton_run_k8s",
    "postgres": "singleton_run_postgres",
    "postgresql": "singleton_run_postgres",
}
# The executable that needs no Python (packaging/standalone) has no packages but those that are built in.
_IS_ALONE = "_singleton_run" in sys.builtin_module_names
_LEFT_OUT = ("etcd+grpc",)


def usable() -> list[str]:
    """The built-in backends that can be asked for here."""
    return [scheme for scheme in BUILTINS if not (_IS_ALONE and scheme in _LEFT_OUT)]


def open_backend(lock: str, environ: Mapping[str, str]) -> Backend:
    """The backend that `lock` (a name or a URL) asks for; nobody is contacted.

    Raises Refused if there is none of that name, or it can't be used here.
    """
    try:
        return _open(lock, environ)
    except ImportError as error:
        raise Refused(incomplete(error), UNUSABLE) from None


def _open(lock: str, environ: Mapping[str, str]) -> Backend:
    scheme = lock.partition("://")[0]
    if _IS_ALONE and scheme not in usable():
        raise Refused(
            f"the lock backend {redact(scheme)!r} isn't in this executable: use one of "
            f"{', '.join(usable())}, or the package of Python (pip install singleton-run)",
            UNUSABLE,
        )
    package = BUILTINS.get(scheme)
    backend: Backend
    if package is not None:
        backend = __import__(package).open_backend(lock, environ)
        return backend
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP, name=scheme):
        backend = entry.load()(lock, environ)
        return backend
    known = ", ".join([*BUILTINS, *sorted(entry_points(group=GROUP).names)])
    raise Refused(f"there is no lock backend {redact(scheme)!r}: use one of {known}", UNUSABLE)
