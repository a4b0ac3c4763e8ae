"""What is put before the command: singleton-run, a peer, or nothing at all."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.fault import REDIS
from tests.faults.slots import INTERVAL
from tests.servers import etcd
from tests.support.harness import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "KEY"
PEERS = Path(sys.prefix, "peers", "bin")
LIBRARIES = Path(__file__).parent / "libraries"
UNQUOTED = Path(__file__).with_name("unquoted.sh")
KLOCK = os.environ.get("KLOCK_BIN") or "klock"


@dataclass(frozen=True)
class Tool:
    """A wrapper. `argv` gives the call for a lock's URL, a name, a ttl in seconds and a command.

    Where a word of it is `KEY`, the call's key is put. `sites` are where its lock can be.
    `ends_leftovers`: what the command leaves behind when it ends is the wrapper's business, so the command
    needn't tidy up. `has_records`: it writes down how a run ended. `loops`: a call runs slot after slot,
    each at most 1 + `retries` times, until it is asked to stop. `has_keys`: it runs a command once for
    each key.
    """

    name: str
    argv: Callable[[str, str, float, list[str]], list[str]]
    sites: tuple[str, ...]
    ends_leftovers: bool = False
    has_records: bool = False
    loops: bool = False
    has_keys: bool = False
    retries: int = 0


def _ours(*more: str) -> Callable[[str, str, float, list[str]], list[str]]:
    def argv(lock: str, name: str, ttl: float, command: list[str]) -> list[str]:
        options = ["--lock", lock, "--name", name, "--ttl", f"{ttl}s", "--kill-after", "300ms", *more]
        return [*PROGRAM, *options, "--", *command]

    return argv


def _unlocked(lock: str, name: str, ttl: float, command: list[str]) -> list[str]:
    """Each call runs each slot."""
    slot = f'$(date -u -d "@$(( $(date +%s) / {INTERVAL:.0f} * {INTERVAL:.0f} ))" +%FT%TZ)'
    loop = f'while sleep 1; do SINGLETON_ATTEMPT=1 SINGLETON_SLOT={slot} "$@"; done'
    return ["sh", "-c", loop, "sh", *command]


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


def _by_library(script: str) -> Callable[[str, str, float, list[str]], list[str]]:
    """A peer that is a library, as a script of a few lines uses it."""

    def argv(lock: str, name: str, ttl: float, command: list[str]) -> list[str]:
        return [str(PEERS / "python"), str(LIBRARIES / script), lock, name, str(ttl), *command]

    return argv


def _klock(lock: str, name: str, ttl: float, command: list[str]) -> list[str]:
    # Its login is the contender's KUBECONFIG; it quotes what it runs. The times are client-go's shares.
    times = [f"--lease-duration={ttl}s", f"--renew-deadline={ttl / 1.5}s", f"--retry-period={ttl / 7.5}s"]
    place = ["--namespace", lock.removeprefix("k8s-lease://").partition("?")[0], "--lease", name]
    options = [*place, "--generate-identity", *times]
    return ["env", f"FAULTS_COMMAND={shlex.join(command)}", KLOCK, *options, "--", str(UNQUOTED)]


SERVED = ("file", "etcd", "etcd+grpc", "postgres", "pgbouncer", "k8s-lease", *REDIS)
OURS = Tool("singleton-run", _ours(), SERVED, ends_leftovers=True, has_records=True)
_EVERY = ("--every", f"{INTERVAL:.0f}s")
_AGAIN = ("--retries", "2", "--retry-delay", "100ms")
SLOTS = replace(OURS, name="slots", argv=_ours(*_EVERY), loops=True)
RETRIED = replace(SLOTS, name="retried slots", argv=_ours(*_EVERY, *_AGAIN), retries=2)
KEYS = replace(OURS, name="keys", argv=_ours("--once", KEY), has_keys=True)
ALL_OURS = (OURS, SLOTS, RETRIED, KEYS)
_ALL = [
    *ALL_OURS,
    Tool("flock", _flock, ("file",)),
    # Those that must be caught: one whose lock is free with the process in front, and no lock at all.
    Tool("flock -o", _flock_o, ("file",)),
    Tool("none", lambda lock, name, ttl, command: command, ("file",)),
    Tool("slots, no lock", _unlocked, ("file",), loops=True),
    Tool("etcdctl lock", _etcdctl, ("etcd",)),
    Tool("dislock", _dislock, ("postgres",)),
    Tool("single-beat", _single_beat, ("redis",)),
    Tool("redis-py Lock", _by_library("redis_py.py"), ("redis",)),
    Tool("python-redis-lock", _by_library("python_redis_lock.py"), ("redis",)),
    Tool("klock", _klock, ("k8s-lease",)),
]
TOOLS = {tool.name: tool for tool in _ALL}
