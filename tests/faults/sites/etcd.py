"""etcd: one server behind four proxies, or a cluster of three."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.contenders import CONTENDERS
from tests.faults.sites.site import Site, fill, small_disk
from tests.servers import etcd
from tests.support.harness import until
from tests.support.proxy import proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.sites.site import Record
    from tests.servers.etcd import Cluster, Etcd

ROLE = "app"
PASSWORD = "first"  # noqa: S105 - of a server that lives as long as a round
WORLDS = {
    "quota": ["--quota-backend-bytes", str(24 << 20)],
}
MEGABYTE = b"x" * (1 << 20)


class EtcdSite(Site):
    """One server, by one of the two transports. `user` is USER:PASSWORD@, or nothing."""

    def __init__(self, name: str, server: Etcd, disk: Path, user: str = "") -> None:
        super().__init__(name)
        self.server = server
        self.disk = disk
        self.user = user
        self.filler: Path | None = None
        self.is_frozen = False
        self.limit: tuple[int, int] | None = None
        self.password = PASSWORD
        self.is_over_quota = False

    def lock(self, contender: int, round_directory: Path) -> str:
        """By the contender's own proxy."""
        return f"{self.name}://{self.user}{self.proxies[contender].address}"

    def environ(self, contender: int) -> dict[str, str]:
        """Nothing said of other servers."""
        return dict(etcd.environment())

    def crash(self) -> None:
        """SIGKILL."""
        self.server.kill()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.server.send(signal.SIGSTOP)
        self.is_frozen = True

    def fill_disk(self) -> None:
        """No room on its disk; written to until it notices."""
        self.filler = fill(self.disk)
        self._put_until_refused()

    def forbid_writes(self) -> None:
        """Its database is at its quota: from then on it can only be read, and made smaller."""
        self.is_over_quota = True
        self._put_until_refused()

    def _put_until_refused(self) -> None:
        command = self.server.ctl_command("put", "filler")
        for _ in range(400):
            put = subprocess.run(
                command, input=MEGABYTE, capture_output=True, env=etcd.environment(), check=False
            )
            if put.returncode:
                return
        raise AssertionError("etcd takes whatever is written")

    def refuse_connections(self) -> None:
        """It has no descriptor left for another connection, and old ones are cut off."""
        process = self.server.pid
        open_now = len(list(Path(f"/proc/{process}/fd").iterdir()))
        soft, hard = resource.prlimit(process, resource.RLIMIT_NOFILE)
        self.limit = (soft, hard)
        resource.prlimit(process, resource.RLIMIT_NOFILE, (max(3, open_now - 2), hard))
        for between in self.proxies:
            between.cut()
            between.mend()

    def change_password(self) -> None:
        """The contenders' password isn't right any more."""
        self._set_password("second")

    def _set_password(self, password: str) -> None:
        if password != self.password:
            command = self.server.ctl_command("user", "passwd", ROLE, "--interactive=false")
            words = f"{password}\n".encode()
            subprocess.run(command, input=words, check=True, capture_output=True, env=etcd.environment())
            self.password = password

    def heal(self) -> None:
        """Whatever was done is undone; it is started if it has ended."""
        if self.is_frozen:
            self.is_frozen = False
            self.server.send(signal.SIGCONT)
        if self.filler is not None:
            self.filler.unlink(missing_ok=True)
            self.filler = None
        if self.limit is not None:
            resource.prlimit(self.server.pid, resource.RLIMIT_NOFILE, self.limit)
            self.limit = None
        if not self.server.runs():
            self.server.kill()
            self.server.start()
        self._make_room()
        self.server.serves()
        self._set_password(PASSWORD)

    def _make_room(self) -> None:
        if self.is_over_quota:
            self.is_over_quota = False
            status = json.loads(self.server.ctl("endpoint", "status", "-w", "json"))[0]["Status"]
            self.server.ctl("compact", str(status["header"]["revision"]))
            self.server.ctl("defrag")
            self.server.ctl("alarm", "disarm")

    def record(self, name: str, round_directory: Path) -> Record:
        """The record's key."""
        found = self.server.ctl("get", "--print-value-only", f"singleton-run/record/{name}")
        return dict(json.loads(found or "{}"))

    def delete(self, name: str, round_directory: Path) -> None:
        """Somebody deletes the holder's key by hand."""
        self.server.delete_lock(name)

    def overwrite(self, name: str, round_directory: Path) -> None:
        """Somebody writes another value to the holder's key, which so loses its lease."""
        self.server.ctl("put", self.server.keys(f"{name}/")[0], "somebody's")


class ClusterSite(EtcdSite):
    """Three servers, asked without a proxy."""

    def __init__(self, name: str, members: Cluster, folder: Path) -> None:
        super().__init__(name, members.members[0], folder)
        self.members = members
        self.stopped: Etcd | None = None

    def lock(self, contender: int, round_directory: Path) -> str:
        """All three addresses."""
        return f"{self.name}://{self.members.address}"

    def kill_leader(self) -> None:
        """SIGKILL to the member that leads."""
        self.members.leader().kill()

    def stop_leader(self) -> None:
        """SIGSTOP to the member that leads."""
        self.stopped = self.members.leader()
        self.stopped.send(signal.SIGSTOP)

    def move_leader(self) -> None:
        """Another member is made the leader."""
        leader = self.members.leader()
        others = [member for member in self.members.members if member is not leader]
        status = json.loads(others[0].ctl("endpoint", "status", "-w", "json"))[0]["Status"]
        leader.ctl("move-leader", f"{status['header']['member_id']:x}")
        until(lambda: self.members.leader() is not leader, "another leader")

    def heal(self) -> None:
        """All three serve."""
        if self.stopped is not None:
            self.stopped.send(signal.SIGCONT)
            self.stopped = None
        for member in self.members.members:
            if member.process is None:
                member.start()
        for member in self.members.members:
            member.serves()


@contextmanager
def opened(name: str, world: str, folder: Path) -> Iterator[Site]:
    """One server as `world` says."""
    if world == "cluster":
        with etcd.cluster(folder) as members:
            yield ClusterSite(name, members, folder)
        return
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk", 220)) if world == "small disk" else folder
        server = stack.enter_context(etcd.running(disk, WORLDS.get(world, [])))
        user = _make_user(server) if world == "users" else ""
        site = EtcdSite(name, server, disk, user)
        site.proxies = [stack.enter_context(proxy(server.port)) for _ in range(CONTENDERS)]
        yield site


def _make_user(server: Etcd) -> str:
    """A user that may do everything in the keys, and what is put into a URL for it."""
    server.ctl("role", "add", ROLE)
    server.ctl("role", "grant-permission", ROLE, "readwrite", "", "--prefix=true")
    server.ctl("user", "add", f"{ROLE}:{PASSWORD}")
    server.ctl("user", "grant-role", ROLE, ROLE)
    server.enable_users("root")
    return f"{ROLE}:{PASSWORD}@"
