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
from tests.support.harness import LONG, PROGRAM, Lab, environment, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVERS = ("etcd", "k8s-lease", "postgres", "redis")


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
    """The next renewal isn't what tells it: that comes later than any test waits."""
    hands = Hands(kind, request, lab)
    environ = environment(**hands.variables)
    run = lab.start("-vv", "--ttl", LONG, command=lab.long_job(), environ=environ)
    lab.ready()
    if after == "a renewal":
        pause = [*PROGRAM, "pause", "--yes", lab.name, "--lock", lab.lock]
        until(lambda: " keeper did write " in run.said, "it holds the lock")
        subprocess.run(pause, env=environ, check=True, capture_output=True)
        until(lambda: " keeper did renew " in run.said, "it renews for the pause")
    done = time.monotonic()
    getattr(hands, how)()
    assert run.wait() == LOST, run.said
    print(f"{kind}, {how} after {after}: {(time.monotonic() - done) * 1000:.0f} ms")
