"""A lab of slots at one of the servers, and what its record says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from singleton_run.api import registry
from tests.servers.etcd import Etcd
from tests.support.harness import Lab, Run, below, open_files, until

if TYPE_CHECKING:
    from tests.servers.postgres import Postgres
    from tests.support.proxy import Proxy


class Place(Lab):
    """A lab at one of the servers; `port` is the server's, 0 without one."""

    port = 0
    server: Etcd | Postgres | None = None

    def put_at(self, server: Etcd | Postgres) -> None:
        """Have the lock there."""
        self.server = server
        self.port = server.port
        self.lock = f"etcd://{server.address}" if isinstance(server, Etcd) else server.url

    def behind(self, between: Proxy) -> str:
        """The lock through a proxy."""
        return self.lock.replace(f":{self.port}", f":{between.port}")

    def slots(self, count: int) -> list[float]:
        """Wait for so many starts for slots; the slots' times."""
        until(lambda: len(self.evidence.slots()) >= count, f"{count} slots; {self._said()}")
        return [slot.time for slot in self.evidence.slots()]

    def idle(self, run: Run) -> None:
        """Wait until a replica is at rest: one process that waits for signals, its time, and the clock."""
        rest = ["anon_inode"] * 3
        until(
            lambda: not below(run.pid) and _kinds_of_open_files(run.pid) == rest,
            f"one at rest; {self._said()}",
        )

    def record(self) -> dict[str, Any]:
        """The record beside the lock."""
        backend = registry.open_backend(self.lock, os.environ)
        try:
            found = backend.read(self.name, 5.0)[1]
        finally:
            backend.close()
        assert found is not None
        return dict(found)

    def slot_is(self, state: str) -> None:
        """Wait until the record says that of the last slot."""
        until(lambda: self.record()["slot"]["state"] == state, f"a slot that is {state}; {self._said()}")

    def restart(self) -> None:
        """SIGKILL the server, and start it again on its data."""
        if isinstance(self.server, Etcd):
            self.server.kill()
            self.server.start().serves()
        elif self.server is not None:
            self.server.kill()
            self.server.start()


def _kinds_of_open_files(process: int) -> list[str]:
    """What the process has open: no pipe, file or socket is, at rest, but the list of its own children."""
    files = [file for number, file in open_files(process).items() if number > 2]
    return sorted(file.partition(":")[0] for file in files if not file.endswith("/children"))
