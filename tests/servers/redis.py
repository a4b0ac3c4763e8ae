"""Real Redis servers for tests: with TLS, with users, with a Unix socket.

The program is that of the variable REDIS_BIN (a folder, or a path to `redis-server`), else on PATH:
`redis-server`, or `valkey-server`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.servers.process import Process
from tests.support.harness import until
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.servers.etcd import Certificates

ADVICE = "needs redis-server: apt-get install redis-server, or name its folder in REDIS_BIN"
PASSWORD = "corr%ect:h/rse"  # noqa: S105 - of a server that lives as long as the tests
QUOTED = "corr%25ect%3Ah%2Frse"
LIMIT = 5.0
SERVICE = "locks"
# No test waits for a disk. A server that is killed loses nothing so: each write is made before it is
# answered. With "everysec" it is put off for up to 2 s while an fsync goes on.
_FLAGS = ("--appendonly", "yes", "--appendfsync", "no", "--save", "")
DURABLE = ("--appendfsync", "always")
"""The flags of a server that loses nothing when its machine fails, as docs/redis.md asks for."""


def program() -> str:
    """The path of the server. Skips the test without one."""
    given = os.environ.get("REDIS_BIN", "")
    folder = given if Path(given).is_dir() else os.path.dirname(given)
    places = folder or f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name, path=places)
        if found is not None:
            return found
    pytest.skip(ADVICE)


def user(name: str, rights: str) -> list[str]:
    """The flags that give a server a user with the password."""
    return ["--user", name, "on", f">{PASSWORD}", *rights.split()]


def port_flags(port: int, certificates: Certificates | None) -> dict[str, str]:
    """The settings by which a server or Sentinel serves at a port, by TLS alone where it has certificates.

    It speaks TLS to its own kind too.
    """
    if certificates is None:
        return {"port": str(port)}
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-auth-clients": "optional",
        "tls-cert-file": certificates.cert,
        "tls-key-file": certificates.key,
        "tls-ca-cert-file": certificates.ca,
        "tls-replication": "yes",
        "tls-cluster": "yes",
    }


class Server(Process):
    """One server, which writes down each change. `flags` are for its command line.

    `environ` is added to its environment.
    """

    def __init__(
        self, folder: Path, flags: Sequence[str] = (), certificates: Certificates | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.socket = folder / "socket"
        self.url = f"redis://{self.address}"
        command = [program(), "--dir", str(folder), *_FLAGS]
        command += ["--unixsocket", str(self.socket), "--bind", "127.0.0.1"]
        for word, value in port_flags(self.port, certificates).items():
            command += [f"--{word}", value]
        if certificates is not None:
            self.url = f"rediss://localhost:{self.port}"
        self.environ: dict[str, str] = {}
        self._said = 0
        self.bus = 0
        if "--cluster-enabled" in flags:  # else its port of the cluster is one that nobody has asked for
            self.bus = free_port()
            command += ["--cluster-port", str(self.bus)]
        super().__init__([*command, *flags], folder / "log")

    def start(self) -> Server:
        """Start it, and wait until it serves."""
        self._said = self._log.stat().st_size if self._log.exists() else 0
        self.begin(env={**os.environ, **self.environ})
        until(self._serves, f"redis serves at port {self.port}; see {self._log}")
        return self

    def _serves(self) -> bool:
        self.check()
        with suppress(RedisError), self.client() as client:
            # A password may be asked for: that is an answer.
            client.ping()
            return True
        return b"Ready to accept connections" in self._log.read_bytes()[self._said :]

    def client(self, **how: Any) -> Redis:
        """A client of redis-py's, by the Unix socket."""
        how = {"socket_timeout": LIMIT, "retry": Retry(NoBackoff(), 0), "decode_responses": True, **how}
        return Redis(unix_socket_path=str(self.socket), **how)

    def restart(self) -> None:
        """As when the machine fails and comes back."""
        self.kill()
        self.start()

    def delete_lock(self, name: str) -> None:
        """Delete a lock as docs/redis.md says."""
        with self.client() as client:
            client.delete(f"singleton-run:{{{name}}}:lock")
            client.publish(f"singleton-run:{{{name}}}:wake", "")

    def take_lock(self, name: str, milliseconds: int = 100_000) -> None:
        """Make the lock somebody else's, who never renews it; nobody is told."""
        key = f"singleton-run:{{{name}}}:lock"
        with self.client() as client:
            client.hset(key, mapping={"holder": "somebody", "token": "1"})
            client.pexpire(key, milliseconds)

    def do(self, *words: str) -> Any:
        """The answer to a command."""
        with self.client() as client:
            return client.execute_command(*words)

    def end_sessions(self) -> None:
        """An administrator ends every connection."""
        for kind in ("normal", "pubsub"):
            self.do("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def flush_scripts(self) -> None:
        """It knows no script any more, and no client is told."""
        self.do("SCRIPT", "FLUSH")

    def limit_memory(self, size: int) -> None:
        """It may take so many bytes, and deletes nothing to make room; 0 is any number."""
        self.do("CONFIG", "SET", "maxmemory", str(size))


@contextmanager
def running(
    place: Path | None = None, flags: Sequence[str] = (), certificates: Certificates | None = None
) -> Iterator[Server]:
    """A server that serves. Its data are below `place`, else in a folder of their own."""
    program()
    with tempfile.TemporaryDirectory(prefix="singleton-run-") as own:
        server = Server((place or Path(own)) / "redis", flags, certificates)
        try:
            yield server.start()
        finally:
            server.kill()


class Sentinel(Process):
    """A Sentinel that watches over the server at port `primary` by the name SERVICE, with two of its kind.

    A server that is silent for `patience` ms is down.
    """

    def __init__(
        self, folder: Path, primary: int, patience: int, certificates: Certificates | None = None
    ) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        settings = folder / "sentinel.conf"
        flags = port_flags(self.port, certificates)
        self._secure: dict[str, Any] = {"ssl": True, "ssl_cert_reqs": "none"} if certificates else {}
        settings.write_text(
            "".join(f"{word} {value}\n" for word, value in flags.items()) + f"bind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {patience}\n"
            f"sentinel failover-timeout {SERVICE} 6000\n"
        )
        super().__init__([program(), str(settings), "--sentinel"], folder / "log")

    def client(self) -> Redis:
        """A client of redis-py's."""
        how: dict[str, Any] = {
            "socket_timeout": LIMIT,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": True,
        }
        return Redis(host="127.0.0.1", port=self.port, **how, **self._secure)

    def sees(self) -> tuple[int, int, int]:
        """The primary's port, and how many replicas and other Sentinels it knows of."""
        with self.client() as client:
            state = client.sentinel_master(SERVICE)
        return int(state["port"]), int(state["num-slaves"]), int(state["num-other-sentinels"])


class Watched:
    """A primary with replicas, and Sentinels that watch over them."""

    def __init__(self, folder: Path, patience: int, certificates: Certificates | None = None) -> None:
        first = Server(folder / "0", (), certificates)
        follow = ["--replicaof", "127.0.0.1", str(first.port), "--repl-diskless-sync-delay", "0"]
        self.servers = [first, *(Server(folder / str(number), follow, certificates) for number in (1, 2))]
        self.sentinels = [
            Sentinel(folder / f"sentinel{number}", first.port, patience, certificates) for number in range(3)
        ]
        places = ",".join(sentinel.address for sentinel in self.sentinels)
        self.url = f"{'rediss' if certificates else 'redis'}+sentinel://{places}/{SERVICE}"

    def start(self) -> Watched:
        """Start all, and wait until they know each other."""
        for server in self.servers:
            server.start()
        for sentinel in self.sentinels:
            sentinel.begin()
        whole = (self.servers[0].port, 2, 2)
        until(
            lambda: all(self._sees(sentinel) == whole for sentinel in self.sentinels),
            "the Sentinels to see all",
        )
        with self.servers[0].client() as client:
            until(lambda: self._follow(client), "both replicas to follow")
        return self

    @staticmethod
    def _follow(client: Redis) -> bool:
        """Whether both replicas have all that the primary has."""
        return bool(client.wait(2, 100) == 2)

    @staticmethod
    def _sees(sentinel: Sentinel) -> tuple[int, int, int] | None:
        try:
            return sentinel.sees()
        except (RedisError, KeyError):
            return None

    def wait(self) -> None:
        """Until all Sentinels name one primary, and both replicas have all that it has."""

        def whole() -> bool:
            seen = {self._sees(sentinel) for sentinel in self.sentinels}
            with suppress(RedisError), self.primary().client() as client:
                return len(seen) == 1 and self._follow(client)
            return False

        until(whole, "all to follow one primary")

    def primary(self) -> Server:
        """The server that most Sentinels say is the primary."""
        ports = [seen[0] for sentinel in self.sentinels if (seen := self._sees(sentinel))]
        port = max(ports, key=ports.count)
        return next(server for server in self.servers if server.port == port)

    def delete_lock(self, name: str) -> None:
        """Delete a lock by hand."""
        self.primary().delete_lock(name)

    def take_lock(self, name: str) -> None:
        """Make the lock somebody else's, who never renews it."""
        self.primary().take_lock(name)

    def restart(self) -> None:
        """The primary is killed, and is back before anybody has missed it."""
        self.primary().restart()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """None of them answers."""
        with ExitStack() as stack:
            for process in (*self.sentinels, *self.servers):
                stack.enter_context(process.stopped())
            yield

    def kill(self) -> None:
        """End all."""
        for process in (*self.sentinels, *self.servers):
            process.kill()


@contextmanager
def watched(patience: int = 1000, certificates: Certificates | None = None) -> Iterator[Watched]:
    """A primary, two replicas and three Sentinels, which know each other; `patience` is in ms."""
    program()
    with tempfile.TemporaryDirectory(prefix="singleton-run-") as own:
        all_of_them = Watched(Path(own), patience, certificates)
        try:
            yield all_of_them.start()
        finally:
            all_of_them.kill()
