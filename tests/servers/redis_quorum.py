"""Independent Redis servers, a majority of which holds a lock."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from singleton_run_redis.scripts import keys_of
from tests.servers.redis import Server, program
from tests.support.proxy import DOWN, UP, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.servers.etcd import Certificates


class Quorum:
    """The servers, each behind a proxy that can swallow everything; both in one order."""

    def __init__(
        self, folder: Path, count: int, flags: Sequence[str], certificates: Certificates | None
    ) -> None:
        self.servers = [Server(folder / str(number), flags, certificates) for number in range(count)]
        self.proxies = [Proxy(server.port) for server in self.servers]
        self.hosts = ",".join(server.address for server in self.servers)
        scheme = "rediss+quorum" if certificates else "redis+quorum"
        self.url = f"{scheme}://{self.hosts}"
        self.by_proxies = f"{scheme}://{','.join(between.address for between in self.proxies)}"

    def holders(self, name: str) -> list[str | None]:
        """Whose the lock is on each server; None where it is nobody's."""
        found = []
        for server in self.servers:
            with server.client() as client:
                found.append(client.hget(keys_of(name)[0], "holder"))
        return found

    def delete_lock(self, name: str, count: int | None = None) -> None:
        """Delete a lock by hand: on all servers, or on the first `count`."""
        for server in self._running()[:count]:
            server.delete_lock(name)

    def take_lock(self, name: str, count: int | None = None, milliseconds: int = 100_000) -> None:
        """Make the lock somebody else's, who never renews it: on all servers, or on the first `count`."""
        for server in self._running()[:count]:
            server.take_lock(name, milliseconds)

    def restart(self) -> None:
        """All are killed, and are back with their data."""
        for server in self.servers:
            server.kill()
        for server in self.servers:
            server.start()

    @contextmanager
    def stopped(self, *numbers: int) -> Iterator[None]:
        """These don't answer; without numbers none does."""
        with ExitStack() as stack:
            for server in self._some(numbers):
                stack.enter_context(server.stopped())
            yield

    @contextmanager
    def killed(self, *numbers: int) -> Iterator[None]:
        """These are down; they come back with their data."""
        for server in self._some(numbers):
            server.kill()
        try:
            yield
        finally:
            for server in self._some(numbers):
                server.start()

    @contextmanager
    def swallowed(self, *numbers: int) -> Iterator[None]:
        """What goes to and comes from these by their proxies disappears."""
        some = [self.proxies[number] for number in numbers]
        for between in some:
            between.deafen(UP, DOWN)
        try:
            yield
        finally:
            for between in some:
                between.mend()

    def silence(self) -> None:
        """Hand on nothing by the proxies until `hear`."""
        for between in self.proxies:
            between.deafen(UP, DOWN)

    def hear(self) -> None:
        """Hand on all again."""
        for between in self.proxies:
            between.mend()

    def close(self) -> None:
        """End all."""
        for between in self.proxies:
            between.close()
        for server in self.servers:
            server.kill()

    def _some(self, numbers: Sequence[int]) -> list[Server]:
        return [self.servers[number] for number in numbers] if numbers else self.servers

    def _running(self) -> list[Server]:
        return [server for server in self.servers if server.runs()]


@contextmanager
def quorum(
    count: int = 3,
    flags: Sequence[str] = (),
    certificates: Certificates | None = None,
    place: Path | None = None,
    environ: Sequence[Mapping[str, str]] = (),
) -> Iterator[Quorum]:
    """So many servers that serve. Their data are below `place`, else in a folder of their own.

    `environ` is added to the environments of the first ones.
    """
    program()
    with tempfile.TemporaryDirectory(prefix="singleton-run-") as own:
        all_of_them = Quorum(place or Path(own), count, flags, certificates)
        try:
            for server, more in zip(all_of_them.servers, environ, strict=False):
                server.environ = {**more}
            for server in all_of_them.servers:
                server.start()
            yield all_of_them
        finally:
            all_of_them.close()
