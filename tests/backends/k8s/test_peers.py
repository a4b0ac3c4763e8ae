"""A Lease that singleton-run shares with leader election by client-go: one at a time, both ways."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.servers import kubeaccess, programs
from tests.support.harness import LIMIT, Lab, environment, kill_tree, labs, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.kubeaccess import Namespace, Pod
    from tests.support.harness import Run

ROUNDS = 20
# Of client-go: short enough to be waited for.
LEASE = 6
TIMES = ("-lease-duration", f"{LEASE}s", "-renew-deadline", "4s", "-retry-period", "200ms")
# Alone in the room, or it says so; stays until it is let go by the third word's file, if there is one.
SCRIPT = """
mkdir "$1/room" || echo overlap >> "$1/log"
echo "$2 $(date +%s.%N)" >> "$1/log"
until [ -z "$3" ] || [ -e "$1/$3" ]; do sleep 0.02; done
rmdir "$1/room"
"""


@pytest.fixture(scope="module")
def pod(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    return namespace.account("ours").pod(tmp_path_factory.mktemp("ours") / "account")


@pytest.fixture(scope="module")
def kubeconfig(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    account = namespace.account("theirs", kubeaccess.LEAST)
    return account.token_kubeconfig(tmp_path_factory.mktemp("theirs"))


@pytest.fixture
def lab(namespace: Namespace, pod: Pod, tmp_path: Path) -> Iterator[Lab]:
    for lab in labs(tmp_path, "k8s-lease"):
        lab.lock = f"k8s-lease://{namespace.name}?service-account={pod.folder}"
        yield lab


@pytest.fixture
def room(lab: Lab, namespace: Namespace, pod: Pod, kubeconfig: Path) -> Iterator[Room]:
    room = Room(lab, namespace, pod, kubeconfig)
    yield room
    room.close()


class Elector:
    """One process of client-go's; what it says goes to a file."""

    def __init__(self, argv: list[str], err: Path) -> None:
        self._err = err
        with err.open("wb") as file:
            self.popen = subprocess.Popen(argv, stderr=file, stdin=subprocess.DEVNULL, env=environment())

    def sees_another(self) -> None:
        """Wait until it has learnt who leads."""
        until(lambda: re.search("^sees .", self._err.read_text(), re.MULTILINE), "it sees a leader")


class Room:
    """Where everybody's commands go in, under one Lease."""

    def __init__(self, lab: Lab, namespace: Namespace, pod: Pod, kubeconfig: Path) -> None:
        self._lab = lab
        self._namespace = namespace
        self._pod = pod
        self._kubeconfig = kubeconfig
        self._folder = lab.directory
        self._electors: list[Elector] = []

    def _command(self, who: str, until_there: str) -> list[str]:
        return ["sh", "-c", SCRIPT, "sh", str(self._folder), who, until_there]

    def ours(self, who: str, until_there: str = "", *options: str) -> Run:
        """A singleton-run that goes in."""
        environ = environment(**self._pod.environ)
        return self._lab.start(*options, command=self._command(who, until_there), environ=environ)

    def theirs(self, who: str, until_there: str = "", *, release: bool = True) -> Elector:
        """An elector that goes in."""
        argv = [programs.elector(), "-kubeconfig", str(self._kubeconfig), *TIMES]
        argv += ["-namespace", self._namespace.name, "-lease", self._lab.name, "-identity", who]
        argv += ["-release"] if release else []
        argv += ["--", *self._command(who, until_there)]
        self._electors.append(Elector(argv, self._folder / f"{who}.err"))
        return self._electors[-1]

    def let_go(self, name: str) -> None:
        """Let those end that wait for this file."""
        (self._folder / name).touch()

    def log(self) -> list[str]:
        """Who has come in, in order; "overlap" is one who found another."""
        path = self._folder / "log"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def came_in(self, who: str) -> float:
        """Wait for somebody to come in; when that was, in Unix seconds."""
        until(lambda: who in self.log(), f"{who} in {self.log()}; {[run.said for run in self._lab.runs]}")
        lines = (self._folder / "log").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.split()[0] == who)

    def lease_end(self) -> float:
        """When the time of the Lease is over that is written in it, in Unix seconds."""
        lease = self._namespace.lease(self._lab.name)
        assert lease is not None
        renewed = dt.datetime.fromisoformat(lease["spec"]["renewTime"])
        return renewed.timestamp() + int(lease["spec"]["leaseDurationSeconds"])

    def empty(self) -> None:
        """Forget who was killed in the room."""
        (self._folder / "room").rmdir()

    def close(self) -> None:
        """End the electors and what they run."""
        for elector in self._electors:
            if elector.popen.poll() is None:
                kill_tree(elector.popen.pid)
            elector.popen.wait(LIMIT)


def test_they_and_we_take_turns(room: Room) -> None:
    """Each waits, and is seen to wait, before the one before it ends."""
    holder: Run | Elector = room.theirs("p0", "go0")
    room.came_in("p0")
    for number in range(1, ROUNDS + 1):
        who, go = f"p{number}", f"go{number}"
        waiter: Run | Elector
        if number % 2:
            waiter = room.ours(who, go)
            waiter.hears("waiting for lock")
        else:
            waiter = room.theirs(who, go)
            waiter.sees_another()
        assert who not in room.log()
        room.let_go(f"go{number - 1}")
        assert holder.popen.wait(LIMIT) == 0
        room.came_in(who)
        holder = waiter
    room.let_go(f"go{ROUNDS}")
    assert holder.popen.wait(LIMIT) == 0
    assert room.log() == [f"p{number}" for number in range(ROUNDS + 1)]


def test_many_at_once_run_one_at_a_time(room: Room) -> None:
    runs: list[Run | Elector] = []
    for number in range(ROUNDS // 2):
        runs += [room.ours(f"ours{number}"), room.theirs(f"theirs{number}")]
    assert [run.popen.wait(LIMIT) for run in runs] == [0] * ROUNDS
    names = [f"{whose}{number}" for whose in ("ours", "theirs") for number in range(ROUNDS // 2)]
    assert sorted(room.log()) == sorted(names)


def test_we_take_over_from_a_killed_one_no_earlier_than_its_leases_end(room: Room) -> None:
    dead = room.theirs("dead", "never", release=False)
    room.came_in("dead")
    ours = room.ours("ours")
    ours.hears("waiting for lock")
    kill_tree(dead.popen.pid)
    end = room.lease_end()
    room.empty()
    assert room.came_in("ours") >= end
    assert ours.wait() == 0, ours.said


def test_they_take_over_from_us_killed_no_earlier_than_our_leases_end(room: Room) -> None:
    dead = room.ours("dead", "never", "--ttl", f"{LEASE}s")
    room.came_in("dead")
    theirs = room.theirs("theirs")
    theirs.sees_another()
    kill_tree(dead.pid)
    end = room.lease_end()
    room.empty()
    assert room.came_in("theirs") >= end
    assert theirs.popen.wait(LIMIT) == 0


def test_one_that_left_without_giving_it_back_has_it_until_its_end(room: Room) -> None:
    left = room.theirs("left", release=False)
    assert left.popen.wait(LIMIT) == 0
    end = room.lease_end()
    refused = room.ours("refused", "", "-n")
    assert refused.wait() == 75, refused.said
    waited = room.ours("waited")
    assert waited.wait() == 0, waited.said
    assert room.came_in("waited") >= end
    assert room.log() == ["left", "waited"]
