"""A real Redis Cluster for tests: masters that share the slots, each with replicas if these are asked for."""

from __future__ import annotations

import binascii
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from tests.servers.redis import Server, program
from tests.support.harness import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.servers.etcd import Certificates

SLOTS = 16384
MASTERS = 3
PATIENCE = 2000


def slot_of(name: str) -> int:
    """The slot that the keys of the lock `name` are in, by the text within their braces."""
    return binascii.crc_hqx(name.encode(), 0) % SLOTS


class RedisCluster:
    """Three masters, the first servers of `servers`, then the replicas of each.

    A node that is silent for `patience` ms is taken for dead, and a replica takes its place.
    """

    def __init__(
        self,
        folder: Path,
        replicas: int,
        patience: int,
        flags: Sequence[str] = (),
        certificates: Certificates | None = None,
    ) -> None:
        settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(patience), *flags]
        settings += ["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"]
        count = MASTERS * (1 + replicas)
        self.servers = [Server(folder / str(at), settings, certificates) for at in range(count)]
        hosts = ",".join(server.address for server in self.servers[:MASTERS])
        self.url = f"{'rediss' if certificates else 'redis'}+cluster://{hosts}"

    def start(self) -> RedisCluster:
        """Start all, make them a cluster, and wait until each says that it is whole."""
        for server in self.servers:
            server.start()
        for at, server in enumerate(self.servers):
            server.do("CLUSTER", "SET-CONFIG-EPOCH", str(at + 1))
        until(self._have_met, "all to meet")
        for at, server in enumerate(self.servers):
            with server.client() as client:
                if at < MASTERS:
                    shares = [str(SLOTS * number // MASTERS) for number in (at, at + 1)]
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", shares[0], str(int(shares[1]) - 1))
                else:
                    client.execute_command("CLUSTER", "REPLICATE", _id(self.servers[at % MASTERS]))
        self.wait()
        replicas = len(self.servers) - MASTERS
        until(
            lambda: all(_replicas(server) == replicas for server in self.servers), "all to know the replicas"
        )
        return self

    def _have_met(self) -> bool:
        """Whether all know each other. Two of whom one was too busy to meet the other begin anew."""
        first, *others = self.servers
        for other in others:
            if not (_has_heard_of(first, other) and _has_heard_of(other, first)):
                other.do("CLUSTER", "MEET", "127.0.0.1", str(first.port), str(first.bus))
        return all(len(_nodes(server)) == len(self.servers) for server in self.servers)

    def wait(self) -> None:
        """Until all that run say the cluster is whole, and all replicas have their master's data."""
        running = [server for server in self.servers if server.runs()]
        until(lambda: all(_is_whole(server) for server in running), "the cluster to be whole")

    def owner(self, name: str) -> Server:
        """The master of the lock's slot, by the word of most nodes that answer."""
        found: list[int] = []
        for server in self.servers:
            if server.runs():
                with suppress(RedisError), server.client(socket_timeout=0.5) as client:
                    found += [_port_of(client.execute_command("CLUSTER", "SLOTS"), slot_of(name))]
        port = max(found, key=found.count)
        return next(server for server in self.servers if server.port == port)

    def masters(self) -> list[Server]:
        """The servers that are masters now."""
        return [server for server in self.servers if server.runs() and _is_master(server)]

    def others(self, name: str) -> list[Server]:
        """The masters of other slots."""
        owner = self.owner(name)
        return [server for server in self.masters() if server is not owner]

    def replicas_of(self, server: Server) -> list[Server]:
        """Those with the same slots, whichever of them is the master now."""
        at = self.servers.index(server) % MASTERS
        return [other for other in self.servers[at::MASTERS] if other is not server]

    def begin_move(self, name: str, target: Server) -> Server:
        """Begin to move the lock's slot to `target`, none of its keys yet; the server where it is."""
        source = self.owner(name)
        slot = str(slot_of(name))
        with source.client() as old, target.client() as new:
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(target))
        return source

    def move_keys(self, name: str, source: Server, target: Server) -> int:
        """Move the keys that the slot has; how many."""
        with source.client() as old:
            keys = old.execute_command("CLUSTER", "GETKEYSINSLOT", str(slot_of(name)), "100")
            if keys:
                old.execute_command(
                    "MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "REPLACE", "KEYS", *keys
                )
        return len(keys)

    def end_move(self, name: str, target: Server) -> None:
        """The slot is the target's, as all are told."""
        for server in (target, *(server for server in self.masters() if server is not target)):
            with server.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", str(slot_of(name)), "NODE", _id(target))
        until(lambda: self.owner(name) is target, "the slot to be moved")

    def move(self, name: str) -> Server:
        """Move the lock's slot with its keys to another master, which is returned: what a resharding does."""
        target = self.others(name)[0]
        source = self.begin_move(name, target)
        while self.move_keys(name, source, target):
            pass
        self.end_move(name, target)
        return target

    def delete_lock(self, name: str) -> None:
        """Delete a lock by hand."""
        self.owner(name).delete_lock(name)

    def take_lock(self, name: str) -> None:
        """Make the lock somebody else's, who never renews it."""
        self.owner(name).take_lock(name)

    def restart(self) -> None:
        """All are killed, and are back before anybody has missed them."""
        for server in self.servers:
            server.kill()
        for server in self.servers:
            server.start()
        self.wait()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """None of them answers."""
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server.stopped())
            yield

    def kill(self) -> None:
        """End all."""
        for server in self.servers:
            server.kill()


def _nodes(server: Server) -> list[str]:
    """A line for each node that it knows."""
    return [line for line in server.do("CLUSTER", "NODES").splitlines() if "handshake" not in line]


def _has_heard_of(server: Server, other: Server) -> bool:
    """Whether it knows another, or is about to meet it."""
    return f":{other.port}@" in server.do("CLUSTER", "NODES")


def _replicas(server: Server) -> int:
    """How many replicas it knows of."""
    return sum("slave" in line for line in _nodes(server))


def _id(server: Server) -> str:
    with server.client() as client:
        return str(client.execute_command("CLUSTER", "MYID"))


def _port_of(slots: Sequence[Any], slot: int) -> int:
    """The port of the slot's master, by CLUSTER SLOTS; 0 without one."""
    return next((int(master[1]) for low, high, master, *_ in slots if low <= slot <= high), 0)


def _is_master(server: Server) -> bool:
    with suppress(RedisError), server.client(socket_timeout=0.5) as client:
        return bool(client.info("replication")["role"] == "master")
    return False


def _is_whole(server: Server) -> bool:
    with suppress(RedisError), server.client() as client:
        info = dict(line.split(":") for line in client.execute_command("CLUSTER", "INFO").split())
        replication = client.info("replication")
        followed = replication["role"] == "master" or replication["master_link_status"] == "up"
        return bool(followed and info["cluster_state"] == "ok" and int(info["cluster_size"]) >= MASTERS)
    return False


@contextmanager
def clustered(
    replicas: int = 0,
    patience: int = PATIENCE,
    flags: Sequence[str] = (),
    certificates: Certificates | None = None,
) -> Iterator[RedisCluster]:
    """Three masters, each with so many replicas; `patience` is in ms."""
    program()
    with tempfile.TemporaryDirectory(prefix="singleton-run-") as own:
        cluster = RedisCluster(Path(own), replicas, patience, flags, certificates)
        try:
            yield cluster.start()
        finally:
            cluster.kill()
