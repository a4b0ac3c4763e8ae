"""The lock in Kubernetes through deaths, stops, lost answers and permissions that are taken away."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import Unavailable
from singleton_run.system import calls
from singleton_run.testing import Crew, Site
from singleton_run.testing.peer import Nursery
from singleton_run.testing.suite import record_of
from singleton_run_k8s.objects import of_lock
from tests.backends.k8s.test_k8s import PodLab, lock_of
from tests.servers import kube, kubeaccess
from tests.support.harness import gone, kill_tree, ours, until
from tests.support.proxy import DOWN, Proxy, proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from singleton_run.testing import Peer
    from tests.servers.kubeaccess import Account, Namespace, Pod

LONG = 600.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kube.Server]:
    """One to hurt."""
    with kube.running(tmp_path_factory.mktemp("kube")) as server:
        yield server


@pytest.fixture(scope="module")
def place(server: kube.Server) -> Namespace:
    return kubeaccess.own(server).namespace()


@pytest.fixture(scope="module")
def account(place: Namespace) -> Account:
    return place.account("worker", kubeaccess.WATCHING, events=True)


@pytest.fixture
def pod(account: Account, tmp_path: Path) -> Pod:
    return account.pod(tmp_path / "pod")


@pytest.fixture
def lab(tmp_path: Path, pod: Pod) -> Iterator[PodLab]:
    with PodLab(tmp_path, "k8s-lease") as lab:
        lab.pod, lab.lock = pod, lock_of(pod)
        yield lab


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery("singleton_run_k8s")
    yield nursery
    nursery.close()


@pytest.fixture
def between(server: kube.Server) -> Iterator[Proxy]:
    with proxy(server.port) as between:
        yield between


@pytest.fixture
def crew(nursery: Nursery, pod: Pod, between: Proxy) -> Iterator[Crew]:
    """Processes that reach the server by a proxy."""
    environ = {**pod.environ, "KUBERNETES_SERVICE_PORT": str(between.port)}
    crew = Crew(Site("singleton_run_k8s:open_backend", lock_of(pod), [], print, environ=environ), nursery)
    yield crew
    crew.leave()


def holder_of(place: Namespace, name: str) -> str:
    found = place.lease(of_lock(name))
    assert found is not None
    return str(found["spec"].get("holderIdentity", ""))


def renewed_at(place: Namespace, name: str) -> str:
    """When the Lease was renewed last, as is written in it."""
    found = place.lease(of_lock(name))
    assert found is not None
    return str(found["spec"]["renewTime"])


# The server.


def test_a_server_that_is_killed_and_comes_back_is_not_noticed(
    lab: PodLab, server: kube.Server, place: Namespace
) -> None:
    # A server takes its time to start.
    holding = lab.start("--ttl", "90s", command=lab.long_job())
    lab.ready()
    waiting = lab.start("--ttl", "90s", command=lab.job())
    waiting.hears("waiting for lock")
    before = renewed_at(place, lab.name)
    server.kill()
    lab.beats()
    server.start().serves()
    until(lambda: renewed_at(place, lab.name) != before, "a renewal")
    assert len(lab.evidence.turns()) == 1
    lab.finish()
    assert holding.wait() == 0, holding.said
    assert waiting.wait() == 0, waiting.said
    lab.evidence.check(2)


@pytest.mark.parametrize("which", ["the API server", "its etcd"])
def test_a_server_that_hangs_for_too_long_stops_the_command_before_the_lease_ends(
    lab: PodLab, server: kube.Server, which: str
) -> None:
    run = lab.start("--ttl", "6s", command=lab.long_job("leave"))
    lab.ready()
    with server.stopped() if which == "the API server" else server.etcd.stopped():
        began = calls.now()
        assert run.wait() == 79, run.said
        tree = lab.tree()
        assert all(gone(process) for process in tree)
    last = max(line.when for line in lab.evidence.lines())
    assert last <= began + 6.0
    lab.next_one()
    lab.evidence.check(2)


def test_a_watch_that_is_too_old_is_begun_anew(crew: Crew, server: kube.Server) -> None:
    """The history is compacted while the server is away: it can't say what became of the Lease."""
    name = crew.name()
    holder, waiter = crew.peer(), crew.peer()
    grant = holder.takes(name, LONG)
    waiter.start_get(name, LONG, LONG)
    server.kill()
    server.etcd.ctl("put", "something", "else")
    fields = server.etcd.get("something")
    server.etcd.ctl("compact", str(fields["mod_revision"]))
    server.start().serves()
    until(lambda: renewed(holder, grant), "the holder to find the server again")
    holder.release(grant, record_of(grant))
    assert waiter.got().token > grant.token


def renewed(holder: Peer, grant: object) -> bool:
    try:
        holder.renew(grant)  # type: ignore[arg-type]  # mypy: `until` wants no value of it
    except Unavailable:
        return False
    return True


# Answers that are lost.


def test_a_renewal_and_a_release_whose_answers_were_lost_have_happened(
    crew: Crew, place: Namespace, between: Proxy
) -> None:
    name = crew.name()
    holder = crew.peer()
    grant = holder.takes(name, LONG)
    before = place.lease(name)
    between.deafen(DOWN)
    with pytest.raises(Unavailable):
        holder.renew(grant)
    until(lambda: place.lease(name) != before, "the renewal to arrive")
    between.mend()
    holder.renew(grant)
    between.deafen(DOWN)
    with pytest.raises(Unavailable):
        holder.release(grant, record_of(grant))
    until(lambda: holder_of(place, name) == "", "the release to arrive")
    between.mend()
    holder.release(grant, record_of(grant))
    crew.peer().takes(name)


@pytest.mark.parametrize("then", ["acquire", "leave"])
def test_a_lock_that_was_given_without_an_answer_is_had_or_given_back(
    crew: Crew, place: Namespace, between: Proxy, then: str
) -> None:
    name = crew.name()
    holder, waiter = crew.peer(), crew.peer()
    grant = holder.takes(name, LONG)
    held = waiter.is_refused(name, LONG)
    waiter.start_wait(held, calls.now() + LONG)
    holder.release(grant, record_of(grant))
    waiter.result()
    # It knows by its watch that the lock is free, and takes it by one request.
    between.deafen(DOWN)
    with pytest.raises(Unavailable):
        waiter.acquire(name, LONG)
    until(lambda: holder_of(place, name) == waiter.holder, "the lock to be given")
    between.mend()
    if then == "acquire":
        assert waiter.takes(name, LONG).token > grant.token
        crew.peer().is_refused(name)
    else:
        waiter.leave()
        crew.peer().takes(name)


def test_a_broken_connection_is_made_anew(crew: Crew, between: Proxy) -> None:
    name = crew.name()
    holder, waiter = crew.peer(), crew.peer()
    grant = holder.takes(name, LONG)
    waiter.start_get(name, LONG, LONG)
    between.cut()
    between.mend()
    holder.renew(grant)
    holder.release(grant, record_of(grant))
    waiter.got()


# Deaths, and permissions.


def test_when_everything_of_the_holder_was_killed_one_attempt_has_it_once_the_lease_is_over(
    lab: PodLab, place: Namespace
) -> None:
    lab.start("--ttl", "6s", command=lab.long_job())
    lab.ready()
    kill_tree(*ours(lab.name))
    refused = lab.start("-n", command=lab.job())
    assert refused.wait() == 75, refused.said
    until(lambda: lab.start("-n", command=lab.job()).wait() == 0, "one attempt to have the lock")
    lab.evidence.check(2)
    assert holder_of(place, lab.name) == ""


def test_a_waiter_follows_a_holder_of_whom_everything_was_killed(lab: PodLab) -> None:
    holding = lab.start("--ttl", "6s", command=lab.long_job())
    lab.ready()
    waiting = lab.start(command=lab.job())
    waiting.hears("waiting for lock")
    kill_tree(holding.pid)
    assert waiting.wait() == 0, waiting.said
    lab.evidence.check(2)


def test_permissions_that_are_taken_away_stop_the_command_in_time(
    lab: PodLab, place: Namespace, tmp_path: Path
) -> None:
    account = place.account("sacked", kubeaccess.WATCHING)
    lab.pod = account.pod(tmp_path / "sacked")
    lab.lock = lock_of(lab.pod)
    run = lab.start("--ttl", "6s", command=lab.long_job())
    lab.ready()
    account.allow(())
    assert run.wait() == 79, run.said
    assert re.search("may not (get|update) leases", run.said)
    refused = lab.start(command=lab.job())
    assert refused.wait() == 77
    assert "kubectl create role" in refused.said
    account.allow(kubeaccess.WATCHING)
    until(lambda: lab.start("-n", command=lab.job()).wait() == 0, "the lock to be free")


def test_a_token_that_has_ended_stops_the_command_and_another_in_time_saves_it(
    lab: PodLab, account: Account
) -> None:
    good = account.token()
    run = lab.start("--ttl", "9s", command=lab.long_job())
    lab.ready()
    lab.pod.put_token(account.short_token(-1))
    run.hears("refuses the login")
    lab.pod.put_token(good)
    # Two renewals later it runs as if nothing had been.
    calls.wait(calls.now() + 6.5, [])
    lab.beats()
    lab.pod.put_token(account.short_token(-1))
    assert run.wait() == 79, run.said
