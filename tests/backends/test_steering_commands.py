"""People steer locks on real servers: pause, resume, release, and check by the command itself."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from singleton_run.api import record, registry
from singleton_run.api.contract import Grant
from singleton_run.api.lock_address import redact
from singleton_run.errors import HELD, LOST, UNAVAILABLE, UNUSABLE, USAGE
from singleton_run_k8s.objects import of_lock
from tests.servers import etcd
from tests.servers.kubeaccess import WATCHING
from tests.support.harness import LIMIT, PROGRAM, environment, gone, kill_tree, until
from tests.support.proxy import DOWN, UP, proxy
from tests.support.steering import Steered
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.etcd import Etcd
    from tests.servers.kubeaccess import Namespace, Pod

SERVERS = ("etcd", "postgres", "k8s-lease", "redis")


@pytest.fixture(scope="module")
def pod(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    return namespace.account("steering", (*WATCHING, "list")).pod(tmp_path_factory.mktemp("pod"))


@pytest.fixture(params=SERVERS)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Steered]:
    with Steered(tmp_path) as lab:
        if request.param == "k8s-lease":
            pod: Pod = request.getfixturevalue("pod")
            lab.put_at(f"k8s-lease://?service-account={pod.folder}", **pod.environ)
        elif request.param in ("postgres", "redis"):
            lab.put_at(request.getfixturevalue(f"{request.param}_server").url)
        else:
            lab.put_at(f"etcd://{request.getfixturevalue('etcd_server').address}")
        yield lab


on_etcd = pytest.mark.parametrize("lab", ["etcd"], indirect=True)


# Pause and resume.


def test_nobody_starts_during_a_pause_and_all_go_on_after_it(lab: Steered) -> None:
    said = lab.does("pause", "--reason", "migration", "--for", "1h")
    assert re.match(rf"paused: {lab.name} until [\d-]+T[\d:]+Z\. Nobody starts before that", said)
    assert "no run of that name yet" in said
    waiter = lab.call()
    waiter.hears("paused by")
    waiter.hears("migration")
    refused = lab.call("-n")
    assert refused.wait() == HELD
    assert "migration" in refused.said
    lab.evidence.check(0)
    said = lab.does("resume")
    assert said.startswith(f"resumed: {lab.name}. It was paused since ")
    assert "(migration)" in said
    assert waiter.wait() == 0, waiter.said
    lab.evidence.check(1)


def test_a_running_command_goes_on_and_the_next_one_waits(lab: Steered) -> None:
    running = lab.hold()
    said = lab.does("suspend", "--yes")
    assert "of that name" not in said
    assert f"paused: {lab.name}. Nobody starts before: singleton-run resume {lab.name}\n" in said
    assert re.search(r"It is held by [\w.-]+:\d+:[0-9a-f]{8} on .*: that goes on until it ends\n", said)
    waiter = lab.call()
    waiter.hears("paused by")
    lab.beats()
    lab.finish()
    assert running.wait() == 0, running.said
    lab.evidence.check(1)
    lab.does("resume")
    assert waiter.wait() == 0, waiter.said
    lab.evidence.check(2)


def test_a_pause_takes_the_place_of_another_and_ends_by_itself(lab: Steered) -> None:
    lab.does("pause", "--reason", "first")
    said = lab.does("pause", "--for", "3s", "--reason", "second")
    assert re.search(r"It was paused already, since .* \(first\): this pause takes its place\n", said)
    waiter = lab.call()
    assert waiter.wait() == 0, waiter.said
    for seconds in ("30s", "90s"):
        if "second" in waiter.said:
            break
        # On a busy machine it may be over before the call comes to see it.
        lab.does("pause", "--for", seconds, "--reason", "second")
        waiter = lab.call()
        assert waiter.wait() == 0, waiter.said
    assert "second" in waiter.said
    assert lab.does("resume").endswith("which is over\n")
    assert lab.does("resume") == f"{lab.name} is not paused\n"


def test_a_pause_that_ends_before_it_begins_is_refused(lab: Steered) -> None:
    for options in (("--until", "2020-01-01T00:00:00Z"), ("--for", "0"), ("--for", "1h", "--until", "08:00")):
        done = lab.people("pause", *options)
        assert (done.returncode, done.stdout) == (USAGE, "")
        assert len(done.stderr.splitlines()) == 1
    assert lab.does("resume") == f"{lab.name} is not paused\n"


@on_etcd
def test_however_many_steer_at_once_each_change_is_made_once(lab: Steered) -> None:
    """Each pause but the first says which it takes the place of, and none is lost."""
    started = [
        subprocess.Popen(
            lab.line("pause", "--reason", f"number {number}"),
            env=environment(**lab.variables),
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(5)
    ]
    said = [process.communicate(timeout=LIMIT)[0] for process in started]
    assert [process.returncode for process in started] == [0] * 5
    replaced = [number for text in said for number in re.findall(r"\((number \d)\): this pause", text)]
    assert len(replaced) == len(set(replaced)) == 4
    (last,) = {f"number {number}" for number in range(5)} - set(replaced)
    assert f"({last})" in lab.does("resume")


# Release.


def test_a_free_lock_has_nothing_to_release_and_a_pause_stays(lab: Steered) -> None:
    assert lab.does("release") == f"{lab.name} is free: there is nothing to release\n"
    lab.does("pause", "--reason", "deploy")
    said = lab.does("release", "--force")
    assert said.startswith(f"{lab.name} is free: there is nothing to release. It is paused since ")
    assert said.endswith(f"(deploy): singleton-run resume {lab.name}\n")
    assert "(deploy)" in lab.does("resume")


def test_a_lock_that_is_held_is_not_released(lab: Steered) -> None:
    lab.hold()
    done = lab.people("release")
    assert (done.returncode, done.stdout) == (HELD, "")
    assert re.search(rf"lock '{lab.name}' is held by [\w.-]+:\d+:\w{{8}} on .* since .*--force", done.stderr)
    done = lab.people("release", "--force")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "--yes" in done.stderr
    lab.beats()


def test_a_lock_that_is_kept_after_its_turn_is_freed(lab: Steered) -> None:
    run = lab.call("--lock-at-least-for", "1h")
    assert run.wait() == 0, run.said
    said = lab.does("release")
    assert re.match(rf"released: {lab.name}, which was kept after [\w.-]+:\d+:\w{{8}}\. It is free\n", said)
    lab.next_one()


def test_a_holder_ends_its_command_before_its_lock_is_free(lab: Steered) -> None:
    run = lab.hold(ttl="30s")
    tree = lab.tree()
    done = lab.people("release", "--force", "--yes")
    assert all(gone(process) for process in tree)
    assert done.returncode == 0, done.stderr
    assert re.match(rf"released: \S+ holds {lab.name} no more\. It is free\n", done.stdout)
    assert "is asked to end its command" in done.stderr
    assert run.wait() == LOST
    assert "is taken away by" in run.said
    lab.next_one()


def test_a_command_that_does_not_listen_is_killed_before_its_lock_is_free(lab: Steered) -> None:
    run = lab.hold("--kill-after", "1s", ttl="30s", words=["ignore"])
    tree = lab.tree()
    done = lab.people("release", "--force", "--yes")
    assert all(gone(process) for process in tree)
    assert done.returncode == 0, done.stderr
    assert run.wait() == LOST


def test_who_waits_for_the_end_of_a_pause_gives_the_lock_back(lab: Steered) -> None:
    lab.does("pause")
    waiter = lab.call("--ttl", "30s")
    waiter.hears("paused by")
    assert "ends its wait for the pause to end" in lab.people("release", "--force").stderr
    done = lab.people("release", "--force", "--yes")
    assert done.returncode == 0, done.stderr
    assert re.search(r"It is free. It is paused since .*: singleton-run resume", done.stdout)
    assert waiter.wait() == LOST
    lab.evidence.check(0)


def test_who_waited_for_the_lock_has_it_then(lab: Steered) -> None:
    lab.hold(ttl="30s")
    waiter = lab.call("--ttl", "30s", command=lab.long_job())
    waiter.hears("waiting for lock")
    done = lab.people("release", "--force", "--yes")
    assert done.returncode == 0, done.stderr
    lab.ready(2)
    lab.evidence.check(2)


@on_etcd
def test_a_person_at_a_terminal_is_asked(lab: Steered, tmp_path: Path) -> None:
    run = lab.hold(ttl="30s")
    for answer, status in (("n", 1), ("", 1), ("yes", 0)):
        with Terminal(lab.line("release", "--force"), tmp_path, environ=lab.variables) as terminal:
            terminal.shows("Go on? [y/N]")
            lab.beats()
            terminal.type(f"{answer}\n")
            terminal.shows("released:" if status == 0 else "nothing was changed")
            assert terminal.wait() == status
    assert run.wait() == LOST


def test_a_machine_that_is_lost_has_its_lock_until_its_lease_ends(lab: Steered) -> None:
    run = lab.hold(ttl="6s")
    kill_tree(run.pid)
    done = lab.people("release", "--force", "--yes")
    assert done.returncode == 0, done.stderr
    assert re.match(rf"released: .*{lab.name}.* It is free\n", done.stdout)
    lab.next_one()


@on_etcd
def test_the_lock_of_a_stranger_is_taken_away_and_said_to_be(lab: Steered, etcd_server: Etcd) -> None:
    stranger = etcd_server.ctl_command("lock", lab.name, "--", "sleep", "600")
    with subprocess.Popen(stranger, env=etcd.environment()) as process:
        until(lambda: etcd_server.keys(f"{lab.name}/"), "etcdctl to have the lock")
        assert lab.people("release").returncode == HELD
        done = lab.people("release", "--force")
        assert done.returncode == USAGE
        assert "is not a singleton-run" in done.stderr
        said = lab.does("release", "--force", "--yes")
        assert re.match(rf"released: {lab.name} was taken away from etcd lease \w+.*\. It is free\n", said)
        lab.next_one()
        process.kill()


@pytest.mark.parametrize("lab", ["postgres", "k8s-lease", "redis"], indirect=True)
def test_whoever_took_the_lock_by_hand_loses_it(lab: Steered, request: pytest.FixtureRequest) -> None:
    lab.next_one()
    if lab.lock.startswith("k8s"):
        request.getfixturevalue("namespace").take_lease(of_lock(lab.name))
    else:
        kind = "redis" if lab.lock.startswith("redis") else "postgres"
        request.getfixturevalue(f"{kind}_server").take_lock(lab.name)
    assert lab.people("release").returncode == HELD
    said = lab.does("release", "--force", "--yes")
    assert re.match(rf"released: {lab.name} was taken away from somebody.*\. It is free\n", said)
    lab.next_one()


@on_etcd
def test_a_holder_that_does_not_hear_of_orders_keeps_its_lock(lab: Steered) -> None:
    """As one of an older version, which renews and never looks at the control."""
    backend = registry.open_backend(lab.lock, environment())
    grant = backend.acquire(lab.name, "vm:1:00000000", 6.0, 5.0)
    assert isinstance(grant, Grant)
    over = threading.Event()

    def renew() -> None:
        while not over.wait(0.5):
            backend.renew(grant, 5.0)

    with ThreadPoolExecutor() as threads:
        renewals = threads.submit(renew)
        done = lab.people("release", "--force", "--yes")
        over.set()
        renewals.result()
    assert (done.returncode, done.stdout) == (HELD, "")
    assert "nothing was taken away" in done.stderr
    backend.renew(grant, 5.0)
    backend.release(grant, record.started(None, lab.name, grant.holder, grant.token, 0.0), 5.0)
    backend.close()
    lab.next_one()


# Check.


def test_a_command_asks_whether_its_lock_is_still_its_own(lab: Steered) -> None:
    run = lab.hold(ttl="30s")
    turn = lab.turn()
    assert turn["SINGLETON_LOCK"] == redact(lab.lock)
    turn["SINGLETON_LOCK"] = lab.lock
    for options in ((), ("--for", "1s"), ("--for=15s",), ("--lock", lab.lock)):
        done = lab.check(turn, *options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = lab.check(turn, "--for", "31s")
    assert done.returncode == LOST
    assert "--for asks for 31s" in done.stderr
    done = lab.check({**turn, "SINGLETON_TOKEN": str(int(turn["SINGLETON_TOKEN"]) - 1)})
    assert done.returncode == LOST
    run.popen.send_signal(signal.SIGTERM)
    run.wait()
    done = lab.check(turn)
    assert done.returncode == LOST
    assert "it is free" in done.stderr
    lab.hold()
    done = lab.check(turn)
    assert done.returncode == LOST
    assert "it is held by" in done.stderr


def test_a_command_may_ask_before_all_else(lab: Steered) -> None:
    """A record says that the command runs only a moment later."""
    run = lab.call("--ttl", "30s", command=[*PROGRAM, "check", "--lock", lab.lock])
    assert run.wait() == 0, run.said


@on_etcd
def test_when_the_server_does_not_answer_nobody_can_tell(lab: Steered, etcd_server: Etcd) -> None:
    lab.hold(ttl="30s")
    turn = lab.turn()
    with proxy(etcd_server.port) as between:
        between.deafen(UP, DOWN)
        done = lab.check({**turn, "SINGLETON_LOCK": f"etcd://{between.address}"})
        assert done.returncode == UNAVAILABLE
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("lab", ["postgres"], indirect=True)
def test_an_address_with_a_password_has_to_be_given_anew(lab: Steered) -> None:
    lab.hold()
    turn = lab.turn()
    assert ":***@" in turn["SINGLETON_LOCK"]
    done = lab.check(turn)
    assert done.returncode == UNUSABLE
    assert "--lock" in done.stderr
    assert lab.check(turn, "--lock", lab.lock).returncode == 0
    assert lab.check({**turn, "SINGLETON_RUN_LOCK": lab.lock}).returncode == 0
