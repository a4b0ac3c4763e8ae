"""What is put before the command: singleton-run, a peer, or nothing at all."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import etcd

if TYPE_CHECKING:
    from collections.abc import Callable

PEERS = Path(sys.prefix, "peers", "bin")


@dataclass(frozen=True)
class Tool:
    """A wrapper. `argv` gives the call for a lock's URL, a name, a ttl in seconds and a command.

    `sites` are where its lock can be, `version` are the words that print its version.
    `ends_leftovers`: what the command leaves behind when it ends is the wrapper's business, so the
    command needn't tidy up. `has_records`: it writes down how a run ended.
    """

    name: str
    argv: Callable[[str, str, float, list[str]], list[str]]
    sites: tuple[str, ...]
    version: tuple[str, ...] = ()
    ends_leftovers: bool = False
    has_records: bool = False


def _ours(lock: str, name: str, ttl: float, command: list[str]) -> list[str]:
    options = ["--lock", lock, "--name", name, "--ttl", f"{ttl}s", "--kill-after", "300ms"]
    return [sys.executable, "-m", "singleton_run", *options, "--", *command]


def _flock(lock: str, name: str, ttl: float, command: list[str]) -> list[str]:
    return ["flock", f"{lock.removeprefix('file://')}/{name}.lock", *command]


def _flock_o(lock: str, name: str, ttl: float, command: list[str]) -> list[str]:
    return ["flock", "-o", f"{lock.removeprefix('file://')}/{name}.lock", *command]


def _etcdctl(lock: str, name: str, ttl: float, command: list[str]) -> list[str]:
    options = ["--endpoints", lock.removeprefix("etcd://")]
    return [etcd.program("etcdctl"), *options, "lock", "--ttl", str(round(ttl)), "--", name, *command]


def _dislock(lock: str, name: str, ttl: float, command: list[str]) -> list[str]:
    settings = [f"DATABASE_URL={lock}", f"LOCK_KEY={name}", "LOCK_STRATEGY=lease"]
    settings += [f"RUN_LOCK_TTL_SECONDS={ttl}", f"LOCK_LEASE_INTERVAL={ttl / 3}"]
    return ["env", *settings, str(PEERS / "dislock"), "DATABASE_URL", *command]


def _single_beat(lock: str, name: str, ttl: float, command: list[str]) -> list[str]:
    settings = {"REDIS_SERVER": lock, "IDENTIFIER": name, "LOCK_TIME": str(round(ttl))}
    words = [f"SINGLE_BEAT_{word}={value}" for word, value in settings.items()]
    return ["env", *words, str(PEERS / "single-beat"), *command]


def _of(package: str) -> tuple[str, ...]:
    code = f"from importlib.metadata import version; print({package!r}, version({package!r}))"
    return (str(PEERS / "python"), "-c", code)


SERVED = ("file", "etcd", "etcd+grpc", "postgres", "pgbouncer", "k8s-lease")
OURS = Tool("singleton-run", _ours, SERVED, ends_leftovers=True, has_records=True)
_ALL = [
    OURS,
    Tool("flock", _flock, ("file",), ("flock", "--version")),
    # Two that must be caught: one whose lock is free with the process in front, and no lock at all.
    Tool("flock -o", _flock_o, ("file",), ("flock", "--version")),
    Tool("none", lambda lock, name, ttl, command: command, ("file",)),
    Tool("etcdctl lock", _etcdctl, ("etcd",), ("etcdctl", "version")),
    Tool("dislock", _dislock, ("postgres",), _of("dislock")),
    Tool("single-beat", _single_beat, ("redis",), _of("single-beat")),
]
TOOLS = {tool.name: tool for tool in _ALL}
