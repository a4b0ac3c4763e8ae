"""Go programs for tests: kube-apiserver, a client-go elector and etcd, each built once and kept.

`python -m tests.servers.programs` builds those that are missing. They are kept by version outside the
tree, in ${XDG_CACHE_HOME:-~/.cache}/singleton-run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "go_programs"
GO = ("/usr/local/go/bin", "/usr/lib/go/bin")
ADVICE = (
    "needs kube-apiserver: `make kube-apiserver` builds it (Go 1.26 or later, 5 minutes), "
    "or name it in KUBE_APISERVER_BIN, or its folder in KUBEBUILDER_ASSETS"
)


class Missing(Exception):
    """There is no Go to build with, or the build failed; the text says which."""


def cache() -> Path:
    """The folder where what was built is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "singleton-run"


def apiserver() -> str:
    """The path of kube-apiserver. Skips the test without one."""
    if given := os.environ.get("KUBE_APISERVER_BIN"):
        found = shutil.which(given)
    elif assets := os.environ.get("KUBEBUILDER_ASSETS"):
        found = shutil.which("kube-apiserver", path=assets)
    else:
        found = shutil.which("kube-apiserver") or shutil.which(_apiserver_kept())
    if found is None:
        pytest.skip(ADVICE)
    return found


def elector() -> str:
    """The path of the client-go elector of these sources. Skips the test without it."""
    found = elector_built()
    if found is None:
        pytest.skip("needs the client-go elector: `make kube-apiserver` builds it (Go 1.26 or later)")
    return found


def elector_built() -> str | None:
    """The path of the elector; None if it isn't built."""
    return shutil.which(_elector_kept())


def etcd_built(name: str) -> str | None:
    """The path of `etcd` or `etcdctl`; None if it isn't built."""
    return shutil.which(_kept(name, name, "go.etcd.io/etcd/"))


def _apiserver_kept() -> Path:
    return _kept("kube-apiserver", "apiserver", "k8s.io/kubernetes")


def _kept(name: str, source: str, module: str) -> Path:
    """Where a program is kept, by the version of the module that it is made of."""
    text = (SOURCES / source / "go.mod").read_text()
    version = re.search(rf"{re.escape(module)}\S* (v\S+)", text)
    assert version is not None
    return cache() / f"{name}-{version[1]}"


def _elector_kept() -> Path:
    content = b"".join((SOURCES / "elector" / name).read_bytes() for name in ("go.mod", "go.sum", "main.go"))
    return cache() / f"elector-{hashlib.sha256(content).hexdigest()[:12]}"


def build() -> list[Path]:
    """Build what isn't kept yet; the paths of all. Raises Missing."""
    return [
        _build(SOURCES / "elector", _elector_kept()),
        _build(SOURCES / "apiserver", _apiserver_kept()),
        _build(SOURCES / "etcd", _kept("etcd", "etcd", "go.etcd.io/etcd/")),
        _build(SOURCES / "etcdctl", _kept("etcdctl", "etcdctl", "go.etcd.io/etcd/")),
    ]


def _build(source: Path, kept: Path) -> Path:
    """Two builds at once wait for each other, and nobody ever finds half a program."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.with_name(f"{kept.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            print(f"building {kept}", file=sys.stderr, flush=True)
            part = kept.with_name(f"{kept.name}.part")
            _go(source, "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", str(part), ".")
            part.rename(kept)
    return kept


def _go(source: Path, *words: str) -> None:
    go = shutil.which("go", path=os.pathsep.join([os.environ.get("PATH", os.defpath), *GO]))
    if go is None:
        raise Missing(f"no `go` on PATH or in {' or '.join(GO)}: install Go 1.26 or later")
    # Whatever runs beside this, the tests of others among it, goes first.
    command = ["nice", go, *words]
    if subprocess.run(command, cwd=source, env={**os.environ, "CGO_ENABLED": "0"}, check=False).returncode:
        raise Missing(f"`{' '.join(command[1:])}` in {source} failed")


if __name__ == "__main__":
    try:
        print(*build(), sep="\n")
    except Missing as error:
        sys.exit(f"kube-apiserver: {error}")
