"""Redis, for a peer that has its lock there: behind four proxies."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.contenders import CONTENDERS
from tests.faults.sites.site import Site
from tests.support.harness import until
from tests.support.ports import free_ports
from tests.support.proxy import proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.sites.site import Record

PEERS = Path(sys.prefix, "peers", "bin")


class RedisSite(Site):
    """One server that writes down each command."""

    def __init__(self, name: str, program: str, folder: Path) -> None:
        super().__init__(name)
        self.port = free_ports(1)[0]
        self.command = [program, "--port", str(self.port), "--dir", str(folder), "--appendonly", "yes"]
        self.process: subprocess.Popen[bytes] | None = None
        self.is_frozen = False

    def lock(self, contender: int, round_directory: Path) -> str:
        """By the contender's own proxy."""
        return f"redis://{self.proxies[contender].address}"

    def crash(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """SIGSTOP."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self.is_frozen = True

    def heal(self) -> None:
        """Continue it, start it if it has ended, and wait until it serves."""
        if self.is_frozen and self.process is not None:
            self.process.send_signal(signal.SIGCONT)
        self.is_frozen = False
        if self.process is None:
            self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        until(lambda: "PONG" in self._cli("ping"), f"redis serves at port {self.port}")

    def _cli(self, *words: str) -> str:
        command = [str(PEERS / "redis-cli"), "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def delete(self, name: str, round_directory: Path) -> None:
        """Somebody deletes the lock by hand."""
        for key in self._cli("keys", f"*{name}*").split():
            self._cli("del", key)

    def record(self, name: str, round_directory: Path) -> Record:
        """There is none."""
        return {}


@contextmanager
def opened(name: str, world: str, folder: Path) -> Iterator[Site]:
    """One server."""
    program = shutil.which("redis-server", path=str(PEERS))
    if program is None:
        pytest.skip("needs redis-server: make peers")
    with ExitStack() as stack:
        site = RedisSite(name, program, folder)
        site.heal()
        stack.callback(site.crash)
        site.proxies = [stack.enter_context(proxy(site.port)) for _ in range(CONTENDERS)]
        yield site
