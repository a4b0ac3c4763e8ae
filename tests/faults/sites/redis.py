"""Redis: one server behind four proxies; a primary with Sentinels; a cluster; five independent servers."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from singleton_run_redis.errors import RIGHTS
from tests.faults.contenders import CONTENDERS
from tests.faults.sites.site import Site, fill, small_disk, with_clock
from tests.servers import redis, redis_cluster, redis_quorum
from tests.support.harness import until
from tests.support.proxy import proxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from redis import Redis

    from tests.faults.sites.site import Record
    from tests.servers.redis import Server, Watched
    from tests.servers.redis_cluster import RedisCluster
    from tests.servers.redis_quorum import Quorum

USER = "app"
PATIENCE = 1000
OVERWRITTEN = 2000  # ms, the time of a lease


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

    def crash(self) -> None:
        """SIGKILL."""
        self.server.kill()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.server.send(signal.SIGSTOP)
        self.is_frozen = True

    def fill_memory(self) -> None:
        """It has all the memory that it may take, and deletes nothing to make room."""
        self.server.limit_memory(1)

    def forbid_writes(self) -> None:
        """It is made a replica of a primary that isn't there."""
        self.server.do("REPLICAOF", "127.0.0.1", "1")

    def refuse_connections(self) -> None:
        """It takes no connection but ours, and old ones are ended."""
        self.door = self.server.client(single_connection_client=True)
        self.door.config_set("maxclients", 1)
        for kind in ("normal", "pubsub"):
            self.door.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def change_password(self) -> None:
        """The contenders' password isn't right any more, and they have no connection."""
        self.server.do("ACL", "SETUSER", USER, "resetpass", ">second")
        self.server.do("CLIENT", "KILL", "USER", USER)

    def end_sessions(self) -> None:
        """An administrator ends every connection."""
        self.server.end_sessions()

    def flush_scripts(self) -> None:
        """The server knows no script any more, and no client is told."""
        self.server.flush_scripts()

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
        self.server.limit_memory(0)
        self.server.do("REPLICAOF", "NO", "ONE")
        if self.user:
            self.server.do("ACL", "SETUSER", USER, "resetpass", f">{redis.PASSWORD}")

    def record(self, name: str, round_directory: Path) -> Record:
        """The record's key."""
        found = self.holds(name).do("HGET", f"singleton-run:{{{name}}}:record", "text")
        return dict(json.loads(found or "{}"))

    def holds(self, name: str) -> Server:
        """The server that has the lock."""
        return self.server

    def delete(self, name: str, round_directory: Path) -> None:
        """Somebody deletes the lock by hand, and tells those who wait."""
        self.holds(name).delete_lock(name)

    def overwrite(self, name: str, round_directory: Path) -> None:
        """Somebody makes the lock another's by hand, for the time of a lease."""
        self.holds(name).take_lock(name, OVERWRITTEN)


class ReplicatedSite(RedisSite):
    """Servers with replicas, of which one takes over; asked without a proxy."""

    def __init__(self, name: str, servers: Watched | RedisCluster, clock: Path) -> None:
        super().__init__(name, servers.servers[0], clock)
        self.servers = servers
        self.lost: Server | None = None

    def lock(self, contender: int, round_directory: Path) -> str:
        """The address of all."""
        return self.servers.url

    def kill_leader(self, name: str) -> None:
        """SIGKILL to the server that has the lock."""
        self.lost = self.holds(name)
        self.lost.kill()
        self._wait_for_another(name, self.lost)

    def stop_leader(self, name: str) -> None:
        """SIGSTOP to the server that has the lock."""
        self.lost = self.holds(name)
        self.lost.send(signal.SIGSTOP)
        self.is_frozen = True
        self._wait_for_another(name, self.lost)

    def _wait_for_another(self, name: str, before: Server) -> None:
        until(lambda: self.holds(name) is not before, "another server to have the lock")

    def heal(self) -> None:
        """All serve; the one that was lost is a replica, as the others tell it."""
        lost, self.lost = self.lost, None
        if self.is_frozen and lost is not None:
            self.is_frozen = False
            lost.send(signal.SIGCONT)
        elif lost is not None:
            lost.start()
        self.servers.wait()


class SentinelSite(ReplicatedSite):
    """A primary and two replicas, which three Sentinels watch over."""

    def __init__(self, name: str, watched: Watched, clock: Path) -> None:
        super().__init__(name, watched, clock)
        self.watched = watched

    def holds(self, name: str) -> Server:
        """The primary."""
        return self.watched.primary()

    def move_leader(self, name: str) -> None:
        """An administrator has the Sentinels choose another primary."""
        before = self.watched.primary()
        with self.watched.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", redis.SERVICE)
        self._wait_for_another(name, before)


class ClusterSite(ReplicatedSite):
    """Three masters with a replica each."""

    def __init__(self, name: str, cluster: RedisCluster, clock: Path) -> None:
        super().__init__(name, cluster, clock)
        self.cluster = cluster

    def holds(self, name: str) -> Server:
        """The master of the lock's slot."""
        return self.cluster.owner(name)

    def move_leader(self, name: str) -> None:
        """An administrator has the replica take over, which first has all that the master has."""
        before = self.cluster.owner(name)
        self.cluster.replicas_of(before)[0].do("CLUSTER", "FAILOVER")
        self._wait_for_another(name, before)

    def move_slot(self, name: str) -> None:
        """The lock's slot and keys go to another master."""
        self.cluster.move(name)


class QuorumSite(Site):
    """Five servers that don't know each other, each behind a proxy of its own; three are a majority.

    `clocks` have the difference of each one's clock, `disk` is where their data are, if that is a small one.
    """

    def __init__(
        self, name: str, five: Quorum, clocks: Sequence[Path] = (), disk: Path | None = None
    ) -> None:
        super().__init__(name)
        self.five = five
        self.clocks = clocks
        self.disk = disk
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

    def fill_some(self, count: int) -> None:
        """They have all the memory that they may take, and delete nothing to make room."""
        for server in self.five.servers[:count]:
            server.limit_memory(1)
            self.broken.callback(server.limit_memory, 0)

    def fill_disk(self) -> None:
        """The disk of all of them has no room left."""
        assert self.disk is not None
        self.broken.callback(fill(self.disk).unlink)

    def empty_some(self, count: int) -> None:
        """They have forgotten everything."""
        for server in self.five.servers[:count]:
            server.do("FLUSHALL")

    def end_sessions(self) -> None:
        """An administrator ends every connection to each of them."""
        for server in self.five.servers:
            server.end_sessions()

    def flush_scripts(self) -> None:
        """None knows a script any more."""
        for server in self.five.servers:
            server.flush_scripts()

    def step_clocks(self, count: int, seconds: int) -> None:
        """The clocks of so many leap, and stay there."""
        for clock in self.clocks[:count]:
            clock.write_text(f"{seconds:+d}\n")

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
        self.five.take_lock(name, milliseconds=OVERWRITTEN)

    def delete_some(self, name: str, count: int) -> None:
        """Somebody deletes the lock by hand, on so many servers, once it is somebody's on all."""
        until(lambda: self._is_on_all(name), "the holder to have the lock on all servers")
        self.five.delete_lock(name, count)

    def overwrite_some(self, name: str, count: int) -> None:
        """Somebody makes the lock another's by hand, on so many servers, once it is somebody's on all."""
        until(lambda: self._is_on_all(name), "the holder to have the lock on all servers")
        self.five.take_lock(name, count, OVERWRITTEN)

    def _is_on_all(self, name: str) -> bool:
        holders = self.five.holders(name)
        return holders[0] is not None and len(set(holders)) == 1


@contextmanager
def _five(name: str, world: str, folder: Path) -> Iterator[QuorumSite]:
    """Five servers: on a small disk, or each with a clock of its own, as `world` says."""
    with ExitStack() as stack:
        disk, clocks, environ = None, [], []
        if world == "small disk":
            disk = stack.enter_context(small_disk(folder / "disk", 2))
        if world == "own clock":
            clocks = [folder / f"clock{number}" for number in range(5)]
            environ = [with_clock(clock) for clock in clocks]
        five = stack.enter_context(redis_quorum.quorum(5, place=disk, environ=environ))
        yield QuorumSite(name, five, clocks, disk)


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
        with _five(name, world, folder) as five:
            yield five
        return
    with ExitStack() as stack:
        flags = redis.user(USER, RIGHTS) if world == "users" else []
        server = redis.Server(folder / "redis", [*redis.DURABLE, *flags])
        if world == "own clock":
            server.environ = with_clock(clock)
        stack.callback(server.kill)
        server.start()
        user = f"{USER}:{redis.QUOTED}@" if world == "users" else ""
        site = RedisSite(name, server, clock, user)
        site.proxies = [stack.enter_context(proxy(server.port)) for _ in range(CONTENDERS)]
        yield site
