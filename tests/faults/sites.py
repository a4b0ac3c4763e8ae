"""Where the lock is: a real server, and a proxy before it for each contender.

A site is opened once for many rounds. Its `world` says in which state of being it is opened:
`plain`, or what a few faults need, as a cluster of three.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.contenders import CONTENDERS
from tests.proxy import proxy
from tests.servers import etcd, postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.proxy import Proxy

Record = dict[str, Any]


class Site:
    """One place for locks. `leased` is false where the kernel frees a lock with its last holder.

    Every method that changes the server may be called again, and `heal` undoes all of them.
    """

    leased = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.proxies: list[Proxy] = []

    def lock(self, contender: int, round_directory: Path) -> str:
        """The lock's URL for one contender."""
        raise NotImplementedError

    def environ(self) -> dict[str, str]:
        """What the wrapper needs to know besides."""
        return {}

    def crash(self) -> None:
        """The server's machine is gone: SIGKILL."""

    def freeze(self) -> None:
        """The server does nothing: SIGSTOP."""

    def heal(self) -> None:
        """The server serves, as at the beginning, on the data that it had."""

    def record(self, name: str, round_directory: Path) -> Record:
        """The lock's record; empty if there is none."""
        raise NotImplementedError

    def delete(self, name: str) -> None:
        """Somebody deletes the lock by hand."""
        raise NotImplementedError

    def take(self, name: str) -> None:
        """Somebody overwrites the lock by hand."""
        raise NotImplementedError


class FileSite(Site):
    """flock on this machine."""

    leased = False

    def lock(self, contender: int, round_directory: Path) -> str:
        """A directory of the round's own."""
        (round_directory / "locks").mkdir(mode=0o700, exist_ok=True)
        return f"file://{round_directory / 'locks'}"

    def record(self, name: str, round_directory: Path) -> Record:
        """The JSON beside the lock."""
        try:
            return dict(json.loads((round_directory / "locks" / f"{name}.json").read_text()))
        except FileNotFoundError:
            return {}


class EtcdSite(Site):
    """One etcd behind four proxies, by one of the two transports."""

    def __init__(self, name: str, scheme: str, server: etcd.Etcd, proxies: list[Proxy]) -> None:
        super().__init__(name)
        self.scheme = scheme
        self.server = server
        self.proxies = proxies
        self.is_frozen = False

    def lock(self, contender: int, round_directory: Path) -> str:
        """By the contender's own proxy."""
        return f"{self.scheme}://{self.proxies[contender].address}"

    def environ(self) -> dict[str, str]:
        """Nothing said of other servers."""
        return dict(etcd.environment())

    def crash(self) -> None:
        """SIGKILL."""
        self.server.kill()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.server.send(19)
        self.is_frozen = True

    def heal(self) -> None:
        """Continue it, start it if it has ended, and wait until it serves."""
        if self.is_frozen:
            self.is_frozen = False
            self.server.send(18)
        if self.server.process is None or self.server.process.poll() is not None:
            self.server.kill()
            self.server.start()
        self.server.serves()

    def record(self, name: str, round_directory: Path) -> Record:
        """The record's key."""
        return dict(
            json.loads(self.server.ctl("get", "--print-value-only", f"singleton-run/record/{name}") or "{}")
        )

    def delete(self, name: str) -> None:
        """Delete the holder's key."""
        self.server.delete_lock(name)

    def take(self, name: str) -> None:
        """Make it another's."""
        self.server.take_lock(name)


@contextmanager
def _etcd(name: str, scheme: str, folder: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        server = stack.enter_context(etcd.running(folder))
        proxies = [stack.enter_context(proxy(server.port)) for _ in range(CONTENDERS)]
        yield EtcdSite(name, scheme, server, proxies)


class PostgresSite(Site):
    """One PostgreSQL behind four proxies, or behind a pgbouncer behind them."""

    def __init__(self, name: str, server: postgres.Postgres, proxies: list[Proxy], front: Any) -> None:
        super().__init__(name)
        self.server = server
        self.proxies = proxies
        self.front = front
        self.frozen: ExitStack | None = None

    def lock(self, contender: int, round_directory: Path) -> str:
        """By the contender's own proxy."""
        url = str(self.front.url)
        return url.replace(f":{self.front.port}/", f":{self.proxies[contender].port}/")

    def environ(self) -> dict[str, str]:
        """Nothing said of other servers."""
        return dict(postgres.client_environment())

    def crash(self) -> None:
        """The postmaster and all of its children at once."""
        self.server.kill()

    def freeze(self) -> None:
        """SIGSTOP to all of them."""
        self.frozen = ExitStack()
        self.frozen.enter_context(self.server.frozen())

    def heal(self) -> None:
        """Continue it, start it if it has ended, and wait until it serves."""
        if self.frozen is not None:
            self.frozen.close()
            self.frozen = None
        if not self.server.runs():
            self.server.kill()
            self.server.start()

    def record(self, name: str, round_directory: Path) -> Record:
        """The row's column."""
        rows = self.server.run("SELECT record FROM singleton_run_lock WHERE name = %s", [name])
        return dict(json.loads(rows[0][0])) if rows and rows[0][0] else {}

    def delete(self, name: str) -> None:
        """Delete the row, and tell those who wait."""
        self.server.delete_lock(name)

    def take(self, name: str) -> None:
        """Make it another's."""
        self.server.take_lock(name)


@contextmanager
def _postgres(name: str, *, pooled: bool) -> Iterator[Site]:
    with ExitStack() as stack:
        server = stack.enter_context(postgres.running())
        front = stack.enter_context(postgres.pooled(server)) if pooled else server
        proxies = [stack.enter_context(proxy(front.port)) for _ in range(CONTENDERS)]
        yield PostgresSite(name, server, proxies, front)


@contextmanager
def _file(name: str) -> Iterator[Site]:
    yield FileSite(name)


SITES: dict[str, Callable[[str, Path], Any]] = {
    "file": lambda world, folder: _file("file"),
    "etcd": lambda world, folder: _etcd("etcd", "etcd", folder),
    "etcd+grpc": lambda world, folder: _etcd("etcd+grpc", "etcd+grpc", folder),
    "postgres": lambda world, folder: _postgres("postgres", pooled=False),
    "pgbouncer": lambda world, folder: _postgres("pgbouncer", pooled=True),
}


def opened(site: str, world: str, folder: Path) -> Any:
    """The site of that name in that state, as a context; its data are below `folder`."""
    return SITES[site](world, folder)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for servers' data, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="faults-site-", ignore_cleanup_errors=True) as name:
        yield Path(name)
