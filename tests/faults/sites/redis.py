"""Redis: one server behind four proxies; a primary with Sentinels; a cluster; five independent servers."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from singleton_run_redis.errors import RIGHTS
from tests.faults.contenders import CONTENDERS
from tests.faults.sites.site import Site, with_clock
from tests.servers import redis, redis_cluster, redis_quorum
from tests.support.harness import until
from tests.support.proxy import proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis import Redis

    from tests.faults.sites.site import Record
    from tests.servers.redis import Server, Watched
    from tests.servers.redis_cluster import RedisCluster
    from tests.servers.redis_quorum import Quorum

USER = "app"
PATIENCE = 1000


class RedisSite(Site):
    """One server that writes down each change before it answers. `clock` has the difference of its clock."""

    def __init__(self, name: str, server: Server, clock: Path, user: str = "") -> None:
        super().__init__(name)
        self.server = server
        self.clock = clock
        self.user = user
        self.is_frozen = False
        self.door: Redis | None = None

    def lock(self, contender: int, round_directory: Path) -> str:
        """By the contender's own proxy."""
        return f"redis://{self.user}{self.proxies[contender].address}"

    def _do(self, *words: str, server: Server | None = None) -> Any:
        with (server or self.server).client() as client:
            return client.execute_command(*words)

    def crash(self) -> None:
        """SIGKILL."""
        self.server.kill()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.server.send(signal.SIGSTOP)
        self.is_frozen = True

    def fill_memory(self) -> None:
        """It has all the memory that it may take, and deletes nothing to make room."""
        self._do("CONFIG", "SET", "maxmemory", "1")

    def forbid_writes(self) -> None:
        """It is made a replica of a primary that isn't there."""
        self._do("REPLICAOF", "127.0.0.1", "1")

    def refuse_connections(self) -> None:
        """It takes no connection but ours, and old ones are ended."""
        self.door = self.server.client(single_connection_client=True)
        self.door.config_set("maxclients", 1)
        for kind in ("normal", "pubsub"):
            self.door.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def change_password(self) -> None:
        """The contenders' password isn't right any more, and they have no connection."""
        self._do("ACL", "SETUSER", USER, "resetpass", ">second")
        self._do("CLIENT", "KILL", "USER", USER)

    def end_sessions(self) -> None:
        """An administrator ends every connection."""
        for kind in ("normal", "pubsub"):
            self._do("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def flush_scripts(self) -> None:
        """The server knows no script any more, and no client is told."""
        self._do("SCRIPT", "FLUSH")

    def step_clock(self, seconds: int) -> None:
        """The server's clock leaps, and stays there."""
        self.clock.write_text(f"{seconds:+d}\n")

    def heal(self) -> None:
        """Whatever was done is undone, but for the clock; it is started if it has ended."""
        if self.is_frozen:
            self.is_frozen = False
            self.server.send(signal.SIGCONT)
        if self.door is not None:
            self.door.config_set("maxclients", 1000)
            self.door.close()
            self.door = None
        if not self.server.runs():
            self.server.kill()
            self.server.start()
        self._do("CONFIG", "SET", "maxmemory", "0")
        self._do("REPLICAOF", "NO", "ONE")
        if self.user:
            self._do("ACL", "SETUSER", USER, "resetpass", f">{redis.PASSWORD}")

    def record(self, name: str, round_directory: Path) -> Record:
        """The record's key."""
        found = self._do("HGET", f"singleton-run:{{{name}}}:record", "text", server=self.holds(name))
        return dict(json.loads(found or "{}"))

    def holds(self, name: str) -> Server:
        """The server that has the lock."""
        return self.server

    def delete(self, name: str, round_directory: Path) -> None:
        """Somebody deletes the lock by hand, and tells those who wait."""
        self.holds(name).delete_lock(name)

    def overwrite(self, name: str, round_directory: Path) -> None:
        """Somebody makes the lock another's by hand, for the time of a lease."""
        server = self.holds(name)
        server.take_lock(name)
        self._do("PEXPIRE", f"singleton-run:{{{name}}}:lock", "2000", server=server)


class SentinelSite(RedisSite):
    """A primary and two replicas, which three Sentinels watch over; asked without a proxy."""

    def __init__(self, name: str, watched: Watched, clock: Path) -> None:
        super().__init__(name, watched.servers[0], clock)
        self.watched = watched
        self.lost: Server | None = None

    def lock(self, contender: int, round_directory: Path) -> str:
        """The Sentinels' addresses."""
        return self.watched.url

    def holds(self, name: str) -> Server:
        """The primary."""
        return self.watched.primary()

    def kill_leader(self, name: str) -> None:
        """SIGKILL to the primary."""
        self.lost = self.watched.primary()
        self.lost.kill()
        self._wait_for_another()

    def stop_leader(self, name: str) -> None:
        """SIGSTOP to the primary."""
        self.lost = self.watched.primary()
        self.lost.send(signal.SIGSTOP)
        self.is_frozen = True
        self._wait_for_another()

    def move_leader(self, name: str) -> None:
        """An administrator has the Sentinels choose another primary."""
        before = self.watched.primary()
        with self.watched.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", redis.SERVICE)
        until(lambda: self.watched.primary() is not before, "another primary")

    def _wait_for_another(self) -> None:
        until(lambda: self.watched.primary() is not self.lost, "another primary")

    def heal(self) -> None:
        """All three serve; the one that was lost is a replica, as the Sentinels tell it."""
        lost, self.lost = self.lost, None
        if self.is_frozen and lost is not None:
            self.is_frozen = False
            lost.send(signal.SIGCONT)
        elif lost is not None:
            lost.start()
        self.watched.wait()


class ClusterSite(RedisSite):
    """Three masters with a replica each, asked without a proxy."""

    def __init__(self, name: str, cluster: RedisCluster, clock: Path) -> None:
        super().__init__(name, cluster.servers[0], clock)
        self.cluster = cluster
        self.lost: Server | None = None

    def lock(self, contender: int, round_directory: Path) -> str:
        """The masters' addresses."""
        return self.cluster.url

    def holds(self, name: str) -> Server:
        """The master of the lock's slot."""
        return self.cluster.owner(name)

    def kill_leader(self, name: str) -> None:
        """SIGKILL to the master of the lock's slot."""
        self.lost = self.cluster.owner(name)
        self.lost.kill()
        until(lambda: self.cluster.owner(name) is not self.lost, "another master")

    def stop_leader(self, name: str) -> None:
        """SIGSTOP to the master of the lock's slot."""
        self.lost = self.cluster.owner(name)
        self.lost.send(signal.SIGSTOP)
        self.is_frozen = True
        until(lambda: self.cluster.owner(name) is not self.lost, "another master")

    def move_leader(self, name: str) -> None:
        """An administrator has the replica take over, which first has all that the master has."""
        before = self.cluster.owner(name)
        with self.cluster.replicas_of(before)[0].client() as client:
            client.execute_command("CLUSTER", "FAILOVER")
        until(lambda: self.cluster.owner(name) is not before, "another master")

    def move_slot(self, name: str) -> None:
        """The lock's slot and keys go to another master."""
        self.cluster.move(name)

    def heal(self) -> None:
        """All serve; the one that was lost is a replica."""
        lost, self.lost = self.lost, None
        if self.is_frozen and lost is not None:
            self.is_frozen = False
            lost.send(signal.SIGCONT)
        elif lost is not None:
            lost.start()
        self.cluster.wait()


class QuorumSite(Site):
    """Five servers that don't know each other, each behind a proxy of its own; three are a majority."""

    def __init__(self, name: str, five: Quorum) -> None:
        super().__init__(name)
        self.five = five
        self.broken = ExitStack()

    def lock(self, contender: int, round_directory: Path) -> str:
        """All five, by their proxies."""
        return self.five.by_proxies

    def kill_some(self, count: int) -> None:
        """SIGKILL."""
        self.broken.enter_context(self.five.killed(*range(count)))

    def stop_some(self, count: int) -> None:
        """SIGSTOP."""
        self.broken.enter_context(self.five.stopped(*range(count)))

    def swallow_some(self, count: int) -> None:
        """All that goes to them and comes from them disappears."""
        self.broken.enter_context(self.five.swallowed(*range(count)))

    def heal(self) -> None:
        """All serve."""
        self.broken.close()
        self.broken = ExitStack()

    def record(self, name: str, round_directory: Path) -> Record:
        """The record of the latest token."""
        found = []
        for server in self.five.servers:
            with server.client() as client:
                text = client.hget(f"singleton-run:{{{name}}}:record", "text") or "0 {}"
                token, _, record = text.partition(" ")
                found.append((int(token), record))
        return dict(json.loads(max(found)[1]))

    def delete(self, name: str, round_directory: Path) -> None:
        """Somebody deletes the lock by hand, on all servers."""
        self.five.delete_lock(name)

    def overwrite(self, name: str, round_directory: Path) -> None:
        """Somebody makes the lock another's by hand, on all servers, for the time of a lease."""
        self.five.take_lock(name)
        for server in self.five.servers:
            with server.client() as client:
                client.pexpire(f"singleton-run:{{{name}}}:lock", 2000)


@contextmanager
def opened(name: str, world: str, folder: Path) -> Iterator[Site]:
    """The server, or servers, as `world` says."""
    clock = folder / "clock"
    if name == "redis+sentinel":
        with redis.watched(PATIENCE) as watched:
            yield SentinelSite(name, watched, clock)
        return
    if name == "redis+cluster":
        with redis_cluster.clustered(replicas=1, patience=PATIENCE) as cluster:
            yield ClusterSite(name, cluster, clock)
        return
    if name == "redis+quorum":
        with redis_quorum.quorum(5) as five:
            yield QuorumSite(name, five)
        return
    with ExitStack() as stack:
        flags = redis.user(USER, RIGHTS) if world == "users" else []
        server = redis.Server(folder / "redis", flags)
        if world == "own clock":
            server.environ = with_clock(clock)
        stack.callback(server.kill)
        server.start()
        user = f"{USER}:{redis.QUOTED}@" if world == "users" else ""
        site = RedisSite(name, server, clock, user)
        site.proxies = [stack.enter_context(proxy(server.port)) for _ in range(CONTENDERS)]
        yield site
