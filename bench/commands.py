"""The programs that are compared, and where to get those that are missing."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import programs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    # A folder of its own, whose name may be the lock's, and a command: what runs it behind the lock.
    Maker = Callable[..., list[str] | None]

PYTHON = sys.executable
OURS = Path(sys.executable).with_name("singleton-run")
STANDALONE = Path(__file__).parents[1] / "dist" / "singleton-run-linux-x86_64"
PEERS = Path(sys.prefix, "peers", "bin")
DISLOCK = PEERS / "dislock"
LIBRARIES = {"redis-py Lock": "redis_py.py", "python-redis-lock": "python_redis_lock.py"}
PACKAGES = {
    "flock": "util-linux",
    "timeout": "coreutils",
    "tini": "tini",
    "dumb-init": "dumb-init",
    "etcdctl": "etcd-client",
}


def program(name: str) -> str | None:
    """The full path of a program, None if it is not installed."""
    return shutil.which(name)


def advice(label: str) -> str:
    """How to get the program that is the first word of this, which is missing."""
    name = label.replace(",", " ").split()[0]
    if name == OURS.name:
        return "make venv"
    if name == STANDALONE.name:
        return "make standalone"
    if name in (DISLOCK.name, "redis-py", "python-redis-lock", "single-beat"):
        return "make peers"
    if name == "supercronic":
        return "go install github.com/aptible/supercronic@latest, in PATH"
    if name == "klock":
        return "see KLOCK_BIN"
    if name == "elector":
        return "make kube-apiserver"
    return f"apt-get install {PACKAGES[name]}"


def behind(lock: str, name: str, *command: str) -> list[str] | None:
    """What runs `command` behind singleton-run under that lock; None if that is not installed."""
    return _behind(OURS, lock, name, *command)


def standalone(lock: str, name: str, *command: str) -> list[str] | None:
    """The same by the executable that needs no Python."""
    return _behind(STANDALONE, lock, name, *command)


def makers(lock: str, *options: str) -> dict[str, Maker]:
    """What runs a command behind a lock with its folder's name: the Python command, and the executable."""

    def maker(path: Path) -> Maker:
        return lambda folder, *command: _behind(path, lock, folder.name, *command, options=options)

    return {path.name: maker(path) for path in (OURS, STANDALONE)}


def _behind(path: Path, lock: str, name: str, *command: str, options: Sequence[str] = ()) -> list[str] | None:
    if not path.exists():
        return None
    return [str(path), "--lock", lock, "--name", name, *options, "--", *command]


def ours(folder: Path, *command: str) -> list[str] | None:
    """What runs `command` behind singleton-run, its lock in `folder`; None if that is not installed."""
    return behind(f"file://{folder}", "b", *command)


def flock(folder: Path, *command: str) -> list[str] | None:
    """What runs `command` behind flock, its lock in `folder`; None if that is not installed."""
    path = program("flock")
    return [path, str(folder / "flock"), *command] if path else None


def etcdctl(connected: list[str], name: str, *command: str) -> list[str] | None:
    """What runs `command` behind `etcdctl lock NAME`; None if that is not installed.

    `connected` is an etcdctl with what it needs to reach the server. The program in ETCDCTL_BIN, if
    that is set, takes its place.
    """
    path = shutil.which(os.environ.get("ETCDCTL_BIN") or connected[0])
    return [path, *connected[1:], "lock", name, *command] if path else None


def dislock(url: str, name: str, *command: str) -> list[str] | None:
    """What runs `command` behind dislock's lock for the whole run; None if that is not installed."""
    if not DISLOCK.exists():
        return None
    settings = [f"DATABASE_URL={url}", f"LOCK_KEY={name}", "LOCK_STRATEGY=lease"]
    return [program("env") or "/usr/bin/env", *settings, str(DISLOCK), "DATABASE_URL", *command]


def library(peer: str, url: str, name: str, *command: str) -> list[str] | None:
    """What runs `command` under the lock of one of LIBRARIES, renewed; None if that is not installed."""
    if not (PEERS / "single-beat").exists():
        return None
    script = Path(__file__).parents[1] / "tests" / "faults" / "libraries" / LIBRARIES[peer]
    return [str(PEERS / "python"), str(script), url, name, "30", *command]


def single_beat(url: str, name: str, *command: str) -> list[str] | None:
    """What runs `command` behind single-beat; None if that is not installed."""
    if not (PEERS / "single-beat").exists():
        return None
    settings = [f"SINGLE_BEAT_REDIS_SERVER={url}", f"SINGLE_BEAT_IDENTIFIER={name}"]
    return [program("env") or "/usr/bin/env", *settings, str(PEERS / "single-beat"), *command]


def klock(kubeconfig: str, namespace: str, name: str, *options: str) -> list[str] | None:
    """What runs the command that is appended behind klock's lock; None if that is not installed.

    It is KLOCK_BIN, if that is set, or on PATH, or where this puts it:
    `go install github.com/berquerant/k8s-lease/cmd/klock@latest`. It must know --generate-identity.
    """
    places = [os.environ.get("PATH", os.defpath), os.path.expanduser("~/go/bin")]
    path = shutil.which(os.environ.get("KLOCK_BIN") or "klock", path=os.pathsep.join(places))
    login = ["--kubeconfig", kubeconfig, "--namespace", namespace, "--lease", name]
    return [path, *login, "--generate-identity", *options, "--"] if path else None


def elector(kubeconfig: str, namespace: str, name: str, *options: str) -> list[str] | None:
    """What runs the command that is appended in a client-go leader election; None if that isn't built."""
    path = programs.elector_built()
    login = ["-kubeconfig", kubeconfig, "-namespace", namespace, "-lease", name]
    return [path, *login, "-release", *options, "--"] if path else None
