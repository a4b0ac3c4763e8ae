"""The command is told at once that somebody has taken its lock by hand, with the server's own tool."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from singleton_run.errors import LOST
from tests.servers.postgres import binaries
from tests.support.harness import LONG, Lab, environment, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVERS = ("etcd", "k8s-lease", "postgres", "redis")
RENEWED_EVERY = 20


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


class Hands:
    """Somebody at one kind of server."""

    def __init__(self, kind: str, request: pytest.FixtureRequest, lab: Lab) -> None:
        self.kind = kind
        self.lab = lab
        self.variables: dict[str, str] = {}
        fixture = "namespace" if kind == "k8s-lease" else f"{kind}_server"
        self.server = request.getfixturevalue(fixture)
        if kind == "k8s-lease":
            pod = self.server.account(f"hands-{uuid4().hex}").pod(lab.directory / "pod")
            lab.lock, self.variables = f"k8s-lease://?service-account={pod.folder}", pod.environ
        elif kind == "redis":
            lab.lock = f"redis://{self.server.address}"
        else:
            lab.lock = self.server.url if kind == "postgres" else f"etcd://{self.server.address}"

    def delete(self) -> None:
        """Delete the lock, and tell nobody."""
        name = self.lab.name
        if self.kind == "etcd":
            self.server.ctl("del", "--prefix", f"{name}/")
        elif self.kind == "k8s-lease":
            self.server.delete_lease(name)
        elif self.kind == "postgres":
            self._sql(f"DELETE FROM singleton_run_lock WHERE name = '{name}'")  # noqa: S608
        else:
            self._redis("DEL", f"singleton-run:{{{name}}}:lock")

    def overwrite(self) -> None:
        """Write another holder into the lock, and tell nobody."""
        name = self.lab.name
        if self.kind == "etcd":
            (key,) = self.server.keys(f"{name}/")
            self.server.ctl("put", key, "somebody")
            self.server.ctl("del", key)
            self.server.ctl("put", key, "somebody")
        elif self.kind == "k8s-lease":
            self.server.take_lease(name)
        elif self.kind == "postgres":
            self._sql(
                f"UPDATE singleton_run_lock SET holder = 'x', token = token + 1 WHERE name = '{name}'"  # noqa: S608
            )
        else:
            self._redis("HSET", f"singleton-run:{{{name}}}:lock", "holder", "somebody")

    def _sql(self, statement: str) -> None:
        psql = shutil.which("psql") or str(binaries() / "psql")
        subprocess.run([psql, self.server.url, "-qc", statement], check=True)

    def _redis(self, *words: str) -> None:
        host, _, port = self.server.address.rpartition(":")
        client = shutil.which("redis-cli")
        assert client is not None, "needs redis-cli: apt-get install redis-tools"
        subprocess.run([client, "-h", host, "-p", port, *words], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("how", ["delete", "overwrite"])
@pytest.mark.parametrize("after", ["the start", "a renewal"])
@pytest.mark.parametrize("kind", SERVERS)
def test_the_command_is_told_at_once(
    kind: str, how: str, after: str, request: pytest.FixtureRequest, lab: Lab
) -> None:
    """The next renewal isn't what tells it: that comes a third of the ttl after the last one.

    After the start that is later than any test waits.
    """
    hands = Hands(kind, request, lab)
    ttl = LONG if after == "the start" else f"{3 * RENEWED_EVERY}s"
    run = lab.start("-vv", "--ttl", ttl, command=lab.long_job(), environ=environment(**hands.variables))
    lab.ready()
    if after == "a renewal":
        until(lambda: run.said.count("renew") >= 2, "it renews")
    done = time.monotonic()
    getattr(hands, how)()
    assert run.wait() == LOST, run.said
    took = time.monotonic() - done
    print(f"{kind}, {how} after {after}: {took * 1000:.0f} ms")
    assert took < RENEWED_EVERY - 1 or after == "the start"
