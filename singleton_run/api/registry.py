"""The backend that a `--lock` asks for: a built-in one from a table, another package's by its entry point."""

from __future__ import annotations

from singleton_run.api.lock_address import redact
from singleton_run.errors import UNUSABLE, Refused

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


def open_backend(url: str, environ: Mapping[str, str]) -> Backend:
    """The backend that `url`, a name or a URL, asks for. Nobody is contacted.

    Raises Refused (78) if there is none with that name, or it can't be used here.
    """
    scheme = url.partition("://")[0]
    package = BUILTINS.get(scheme)
    backend: Backend
    if package is not None:
        backend = __import__(package).open_backend(url, environ)
        return backend
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP, name=scheme):
        backend = entry.load()(url, environ)
        return backend
    known = ", ".join([*BUILTINS, *sorted(entry_points(group=GROUP).names)])
    raise Refused(f"there is no lock backend {redact(scheme)!r}: use one of {known}", UNUSABLE)
