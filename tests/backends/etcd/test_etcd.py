"""The lock in etcd as its users meet it: beside etcdctl, through fail-over, lost answers and new tokens."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from singleton_run.api.contract import Grant
from singleton_run.api.control import pause_of, resumed
from singleton_run.errors import Lost, Refused, Unavailable
from singleton_run.system import calls
from singleton_run.testing.peer import Nursery
from singleton_run.testing.suite import record_of
from singleton_run_etcd.address import Address
from tests.servers import etcd
from tests.support.crews import Crews
from tests.support.harness import PROGRAM, Lab, environment, gone, send, until
from tests.support.proxy import DOWN, UP, Proxy, proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from singleton_run.testing import Crew, Peer
    from tests.servers.etcd import Certificates, Cluster, Etcd

PASSWORD = "corr%ect:horse"  # noqa: S105 - of servers that live as long as the tests
QUOTED = "corr%25ect:horse"
# A lease that no test waits for, and one that doesn't lapse while a server is away for a moment.
LONG = 60.0
# The server's clock may run a little faster than ours.
CLOCKS = 0.99


@pytest.fixture(scope="module")
def server(etcd_server: Etcd) -> Etcd:
    return etcd_server


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery("singleton_run_etcd")
    yield nursery
    nursery.close()


@pytest.fixture
def crew_at(nursery: Nursery) -> Iterator[Crews]:
    with Crews(nursery, "singleton_run_etcd:open_backend", "etcd") as crews:
        yield crews


@pytest.fixture
def crew(crew_at: Crews, server: Etcd) -> Crew:
    return crew_at(server.address)


@pytest.fixture
def between(server: Etcd) -> Iterator[Proxy]:
    with proxy(server.port) as between:
        yield between


@pytest.fixture
def lab(tmp_path: Path, server: Etcd) -> Iterator[Lab]:
    """A lock in etcd for the whole program, by the gateway."""
    with Lab(tmp_path) as lab:
        lab.lock = f"etcd://{server.address}"
        yield lab


@pytest.fixture(params=["etcd", pytest.param("etcd+grpc", marks=etcd.NEEDS_GRPC)])
def scheme(request: pytest.FixtureRequest) -> str:
    """Each of the transports."""
    return str(request.param)


# Beside etcdctl.


@contextmanager
def etcdctl_lock(server: Etcd, name: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`etcdctl lock NAME` around a command that makes the file `has`, waits for `go`, and makes `done`."""
    script = 'echo > "$1/has"; until [ -e "$1/go" ]; do sleep 0.02; done; echo > "$1/done"'
    command = server.ctl_command("lock", "--", name, "sh", "-c", script, "sh", str(folder))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=etcd.environment())
    try:
        yield process
    finally:
        folder.joinpath("go").touch()
        process.terminate()
        process.wait()


def queue(server: Etcd, name: str, length: int) -> list[str]:
    """The keys that wait for a lock, once they are so many."""
    until(lambda: len(server.keys(f"{name}/")) >= length, f"{length} keys for {name}")
    return server.keys(f"{name}/")


def test_etcdctl_keeps_us_out(lab: Lab, server: Etcd, tmp_path: Path, scheme: str) -> None:
    lab.lock = f"{scheme}://{server.address}"
    with etcdctl_lock(server, lab.name, tmp_path):
        until(tmp_path.joinpath("has").exists, "etcdctl to have the lock")
        refused = lab.start("-n", command=lab.job())
        assert refused.wait() == 75
        assert "held by etcd lease" in refused.said
        waiting = lab.start(command=lab.job())
        queue(server, lab.name, 2)
        assert lab.evidence.turns() == []
        tmp_path.joinpath("go").touch()
        assert waiting.wait() == 0, waiting.said
    assert len(lab.evidence.turns()) == 1


def test_we_keep_etcdctl_out_and_then_the_record_does_not(
    lab: Lab, server: Etcd, tmp_path: Path, scheme: str
) -> None:
    lab.lock = f"{scheme}://{server.address}"
    holding = lab.start(command=lab.long_job())
    lab.ready()
    with etcdctl_lock(server, lab.name, tmp_path) as waiting:
        queue(server, lab.name, 2)
        assert not tmp_path.joinpath("has").exists()
        lab.finish()
        assert holding.wait() == 0, holding.said
        until(tmp_path.joinpath("has").exists, "etcdctl to have the lock")
        tmp_path.joinpath("go").touch()
        waiting.wait()
        assert tmp_path.joinpath("done").exists()
    assert server.get(f"singleton-run/record/{lab.name}")


def test_etcdctl_and_we_take_turns_in_the_order_of_arrival(crew: Crew, server: Etcd, tmp_path: Path) -> None:
    name = crew.name()
    first, third = crew.peer(), crew.peer()
    grant = first.takes(name, LONG)
    with etcdctl_lock(server, name, tmp_path):
        queue(server, name, 2)
        third.start_get(name, LONG)
        first.release(grant, record_of(grant))
        until(tmp_path.joinpath("has").exists, "etcdctl to have the lock")
        assert crew.peer().read(name)[0] is not None
        assert not tmp_path.joinpath("done").exists()
        tmp_path.joinpath("go").touch()
        third.got()
        assert tmp_path.joinpath("done").exists()


def test_keys_are_as_etcdctl_makes_them(crew: Crew, server: Etcd) -> None:
    name = crew.name()
    peer = crew.peer()
    grant = peer.takes(name, LONG)
    (key,) = server.keys(f"{name}/")
    lease = key.partition("/")[2]
    assert lease == f"{int(lease, 16):x}"
    found = server.get(key)
    assert found["lease"] == int(lease, 16)
    assert found["create_revision"] == grant.token
    # A later keeper writes its generation into the key, which stays the same key for those who wait.
    peer.renew(Grant(**{**grant.as_dict(), "generation": 1}))
    again = server.get(key)
    assert again["version"] == 2
    assert (again["create_revision"], again["lease"]) == (grant.token, int(lease, 16))


def test_nothing_but_the_record_is_left_behind(lab: Lab, server: Etcd) -> None:
    run = lab.start("--ttl", "600s", command=lab.long_job())
    lab.ready()
    (key,) = server.keys(f"{lab.name}/")
    lease = key.partition("/")[2]
    assert lease in server.ctl("lease", "list")
    lab.finish()
    assert run.wait() == 0, run.said
    assert server.keys(f"{lab.name}/") == []
    until(lambda: lease not in server.ctl("lease", "list"), "the lease to be revoked")


def leases(server: Etcd) -> set[int]:
    """Every lease there is."""
    return {int(line, 16) for line in server.ctl("lease", "list").split("\n")[1:] if line}


def test_a_kept_lock_keeps_etcdctl_waiting_until_its_time(
    crew: Crew, crew_at: Crews, server: Etcd, tmp_path: Path, scheme: str
) -> None:
    name = crew.name()
    holder = crew_at(server.address, scheme).peer()
    grant = holder.takes(name, LONG)
    (key,) = server.keys(f"{name}/")
    with etcdctl_lock(server, name, tmp_path):
        waiting = queue(server, name, 2)
        # Long enough for all that is looked at meanwhile.
        holder.release(grant, record_of(grant), 6.0)
        end = holder.began + 6.0 * CLOCKS
        holder.close()
        holder.crash()
        assert server.keys(f"{name}/") == waiting
        found = server.get(key)
        assert found["create_revision"] == grant.token
        assert found["lease"] in leases(server)
        assert int(key.partition("/")[2], 16) not in leases(server)
        assert not tmp_path.joinpath("has").exists()
        crew.peer().is_refused(name, LONG)
        until(tmp_path.joinpath("has").exists, "etcdctl to have the lock")
        assert calls.now() >= end
    assert found["lease"] not in leases(server)


def test_a_release_that_keeps_leaves_one_lease_however_often_it_is_done(crew: Crew, server: Etcd) -> None:
    name = crew.name()
    holder, again = crew.peer(), crew.peer()
    grant = holder.takes(name, LONG)
    holder.release(grant, record_of(grant), LONG)
    holder.close()
    before = leases(server)
    again.release(grant, record_of(grant), LONG)
    again.close()
    assert leases(server) <= before


def test_a_mark_is_in_nobody_s_queue(crew: Crew, crew_at: Crews, server: Etcd, tmp_path: Path) -> None:
    name = crew.name()
    holder = crew.peer()
    grant = holder.takes(name, LONG)
    holder.mark(grant, "v1/rc 2", {"token": grant.token})
    assert server.keys(f"singleton-run/once/{name}/") == [f"singleton-run/once/{name}/v1%2Frc%202"]
    assert len(server.keys(f"{name}/")) == 1
    holder.release(grant, record_of(grant))
    with etcdctl_lock(server, name, tmp_path):
        until(tmp_path.joinpath("has").exists, "etcdctl to have the lock")
    # What is a prefix of the one is a name of the other, and no key of either is the other's.
    prefixed, peer = crew_at(f"{server.address}/{name}").peer(), crew.peer()
    grant = prefixed.takes("a", LONG)
    prefixed.mark(grant, "b", {"prefix": True})
    assert peer.done(name, "a") is None
    assert peer.done(name, "a/b") is None
    assert peer.done("a", "b") is None
    assert prefixed.done("a", "b") == {"prefix": True}


def test_a_mark_that_is_damaged_is_neither_done_nor_to_do(crew: Crew, server: Etcd) -> None:
    name, peer = crew.name(), crew.peer()
    for text in ("rubbish", "[]", "5", "[" * 50_000):
        server.ctl("put", f"singleton-run/once/{name}/v1", text)
        with pytest.raises(Refused, match="damaged: delete it"):
            peer.done(name, "v1")
    assert peer.forget(name, "v1")


def test_a_slash_in_a_name_is_refused_for_it_would_be_in_another_queue(lab: Lab) -> None:
    lab.name += "/b"
    assert lab.start(command=lab.job()).wait() == 2


def test_the_name_under_which_the_records_are_is_refused(crew_at: Crews, server: Etcd) -> None:
    with pytest.raises(Refused, match="another"):
        crew_at(server.address).peer().acquire("singleton-run")
    crew_at(f"{server.address}/some/where").peer().takes("singleton-run")


def test_a_prefix_is_put_before_lock_and_record(crew_at: Crews, server: Etcd) -> None:
    with_prefix, without = crew_at(f"{server.address}/team%20a/jobs/"), crew_at(server.address)
    name = with_prefix.name()
    one, other = with_prefix.peer(), without.peer()
    grant = one.takes(name, LONG)
    other.takes(name, LONG)
    assert len(server.keys(f"team a/jobs/{name}/")) == 1
    one.write(grant, record_of(grant, "running"))
    assert server.get(f"singleton-run/record/team a/jobs/{name}")
    assert one.list() == [name]
    one.release(grant, record_of(grant))
    assert one.list() == [name]


# A lock that is lost.


def test_a_key_that_is_deleted_by_hand_ends_the_command_at_once(lab: Lab, server: Etcd) -> None:
    """The lease lives on, and its keepalives are answered: that is no proof of anything."""
    run = lab.start("--ttl", "600s", command=lab.long_job("leave"))
    lab.ready()
    tree = lab.tree()
    server.delete_lock(lab.name)
    assert run.wait() == 79
    assert "is lost" in run.said
    assert all(gone(process) for process in tree)


@pytest.mark.parametrize("front_first", [True, False])
def test_a_waiter_of_which_only_the_guard_is_left_holds_nobody_up(
    lab: Lab, server: Etcd, scheme: str, *, front_first: bool
) -> None:
    lab.lock = f"{scheme}://{server.address}"
    lab.start("--ttl", "600s", command=lab.long_job())
    lab.ready()
    waiter = lab.start("--ttl", "600s", command=lab.job())
    queue(server, lab.name, 2)
    behind = lab.start(command=lab.job())
    held, _, last = queue(server, lab.name, 3)
    keeper = waiter.one("keeper")
    waiter.one("guard")
    send(signal.SIGKILL, *((waiter.pid, keeper) if front_first else (keeper, waiter.pid)))
    until(lambda: server.keys(f"{lab.name}/") == [held, last], "the dead waiter's key to be gone")
    lab.finish()
    assert behind.wait() == 0
    lab.evidence.check(2)


def test_a_deletion_is_seen_although_the_history_was_compacted(crew: Crew, server: Etcd) -> None:
    name = crew.name()
    holder = crew.peer()
    grant = holder.takes(name, LONG)
    revision = server.ctl("put", "something", "else") and server.get("something")["mod_revision"]
    server.ctl("compact", str(revision))
    # The first hold can't begin at our key's revision any more; after a renewal it can.
    holder.hold(grant, calls.now() + 1.0)
    holder.renew(grant)
    holder.start_hold(grant, calls.now() + LONG)
    server.delete_lock(name)
    holder.result(crew.site.patience)
    with pytest.raises(Lost):
        holder.renew(grant)


# What it costs the server.


def test_a_waiter_has_one_watch_and_a_keepalive_per_third_of_its_ttl(
    crew: Crew, crew_at: Crews, between: Proxy
) -> None:
    name = crew.name()
    crew.peer().takes(name, LONG)
    waiter = crew_at(between.address).peer()
    held = waiter.is_refused(name, 1.5)
    before = requests(between)
    waiter.wait(held, calls.now() + 3.1)
    watch, *others = requests(between)[len(before) :]
    assert (watch, set(others)) == ("/v3/watch", {"/v3/lease/keepalive"})
    assert len(others) <= 6


def test_a_holder_asks_twice_per_renewal_and_never_between(crew_at: Crews, between: Proxy) -> None:
    crew = crew_at(between.address)
    holder = crew.peer()
    grant = holder.takes(crew.name(), LONG)
    # The first hold has to open the watch, and on a busy machine one is given up that takes longer.
    for seconds in (2.0, 0.3, 0.3):
        holder.hold(grant, calls.now() + seconds)
        holder.renew(grant)
    renewal = ["/v3/lease/keepalive", "/v3/kv/txn"]
    assert requests(between) == ["/v3/lease/grant", "/v3/kv/txn", "/v3/watch", *renewal * 3]


def requests(between: Proxy) -> list[str]:
    """The paths of the requests that have come through a proxy."""
    return [part.split(b" ")[0].decode() for part in bytes(between.seen).split(b"POST ")[1:]]


# Connections that break, answers that are lost.


def test_a_waiter_whose_connections_break_keeps_its_place_and_is_woken(
    crew: Crew, crew_at: Crews, between: Proxy, scheme: str
) -> None:
    name = crew.name()
    holder, later = crew.peer(), crew.peer()
    waiter = crew_at(between.address, scheme).peer()
    grant = holder.takes(name, LONG)
    waiter.start_get(name, LONG)
    later.is_refused(name, LONG)
    for _ in range(3):
        between.cut()
        between.mend()
        # Not `accepted`, which counts those too that were cut at once.
        until(lambda: between.connections, "the waiter to come back")
    holder.release(grant, record_of(grant))
    waiter.got()


def test_a_holder_whose_connections_break_sees_a_deletion(
    crew_at: Crews, between: Proxy, server: Etcd
) -> None:
    crew = crew_at(between.address)
    name = crew.name()
    holder = crew.peer()
    grant = holder.takes(name, LONG)
    holder.start_hold(grant, calls.now() + LONG)
    until(lambda: "/v3/watch" in requests(between), "a watch")
    between.cut()
    server.delete_lock(name)
    between.mend()
    holder.result(crew.site.patience)
    with pytest.raises(Lost):
        holder.renew(grant)


@pytest.mark.parametrize("what", ["/v3/lease/grant", "/v3/kv/txn"])
def test_an_acquire_whose_answer_was_lost_is_undone_by_leave(
    crew_at: Crews, between: Proxy, server: Etcd, crew: Crew, what: str
) -> None:
    name = crew.name()
    peer = crew_at(between.address).peer()
    _lose_the_answer_of_acquire(peer, name, between, what)
    if what == "/v3/kv/txn":
        queue(server, name, 1)
    between.mend()
    peer.leave()
    assert server.keys(f"{name}/") == []
    crew.peer().takes(name, LONG)


@pytest.mark.parametrize("what", ["/v3/lease/grant", "/v3/kv/txn"])
def test_an_acquire_whose_answer_was_lost_can_be_repeated(
    crew_at: Crews, between: Proxy, server: Etcd, crew: Crew, what: str
) -> None:
    name = crew.name()
    peer = crew_at(between.address).peer()
    _lose_the_answer_of_acquire(peer, name, between, what)
    between.mend()
    grant = peer.takes(name, LONG)
    assert server.get(server.keys(f"{name}/")[0])["create_revision"] == grant.token
    assert len(server.keys(f"{name}/")) == 1
    peer.renew(grant)


def test_a_lease_lasts_its_whole_time_from_when_the_grant_says(
    crew: Crew, crew_at: Crews, between: Proxy
) -> None:
    """Also for one who had waited, or whose first answer was lost: the lease is older than the grant."""
    name, ttl = crew.name(), 3.0
    holder, waiter, other = crew.peer(), crew.peer(), crew.peer()
    grant = holder.takes(name, LONG)
    held = waiter.is_refused(name, ttl)
    waiter.wait(held, calls.now() + ttl / 3 - 0.1)
    holder.release(grant, record_of(grant))
    granted = waiter.takes(name, ttl).renewed
    assert granted is not None
    waiter.crash()
    new = other.gets(name, LONG)
    assert other.ended >= granted + ttl * CLOCKS
    unlucky = crew_at(between.address).peer()
    other.release(new, record_of(new))
    _lose_the_answer_of_acquire(unlucky, name, between, "/v3/kv/txn", ttl)
    between.mend()
    granted = unlucky.takes(name, ttl).renewed
    assert granted is not None
    unlucky.crash()
    other.gets(name, LONG)
    assert other.ended >= granted + ttl * CLOCKS


def test_a_keeper_that_takes_over_needs_no_resolver(crew: Crew, crew_at: Crews, server: Etcd) -> None:
    grant = crew.peer().takes(crew.name(), LONG)
    known = [["gone.invalid", server.port, [[int(socket.AF_INET), ["127.0.0.1", server.port]]]]]
    assert grant.handle["known"] == [["127.0.0.1", *known[0][1:]]]
    later = {**grant.as_dict(), "generation": 1, "handle": {**grant.handle, "known": known}}
    keeper = crew_at(f"gone.invalid:{server.port}").peer()
    keeper.renew(Grant(**later))
    keeper.release(Grant(**later), record_of(grant))


def _lose_the_answer_of_acquire(peer: Peer, name: str, between: Proxy, what: str, ttl: float = LONG) -> None:
    """Let the server have the request for `what`, and the peer no answer."""
    between.deafen_at(what.encode(), DOWN)
    peer.start_call("acquire", name, peer.holder, ttl)
    with pytest.raises(Unavailable):
        peer.result()


def test_a_release_whose_answer_was_lost_is_repeated_and_done(
    crew: Crew, crew_at: Crews, between: Proxy, scheme: str
) -> None:
    name = crew.name()
    holder, other = crew_at(between.address, scheme).peer(), crew.peer()
    grant = holder.takes(name, LONG)
    record = record_of(grant)
    between.deafen(DOWN)
    with pytest.raises(Unavailable):
        holder.release(grant, record)
    # It was done; the next has even come and gone when it is repeated.
    new = other.gets(name, LONG)
    assert new.record == record
    other.release(new, record_of(new))
    between.mend()
    holder.release(grant, record)
    assert other.read(name) == (
        None,
        record_of(new) | {"start": _start(other, name), "end": _start(other, name)},
    )


def _start(peer: Peer, name: str) -> float:
    record = peer.read(name)[1]
    assert record is not None
    return float(record["start"])


def test_an_endpoint_that_swallows_everything_costs_a_share_of_the_limit(
    crew: Crew, crew_at: Crews, between: Proxy, server: Etcd, scheme: str
) -> None:
    name = crew.name()
    holder = crew_at(f"{between.address},{server.address}", scheme).peer()
    grant = holder.takes(name, LONG)
    between.deafen(UP, DOWN)
    holder.renew(grant)
    holder.release(grant, record_of(grant))
    crew.peer().takes(name, LONG)


def test_a_watch_that_has_gone_deaf_is_opened_where_the_keepalive_was_answered(
    crew: Crew, crew_at: Crews, between: Proxy, server: Etcd
) -> None:
    name = crew.name()
    holder = crew.peer()
    waiter = crew_at(f"{between.address},{server.address}").peer()
    grant = holder.takes(name, LONG)
    waiter.start_get(name, 3.0)
    until(lambda: "/v3/watch" in requests(between), "a watch")
    between.deafen(UP, DOWN)
    holder.release(grant, record_of(grant))
    waiter.got()


# A cluster.


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with etcd.cluster(tmp_path) as cluster:
        yield cluster


def test_lease_and_place_outlive_the_leader(cluster: Cluster, crew_at: Crews, scheme: str) -> None:
    leader = cluster.leader()
    # The leader first: who waits or holds is connected to it.
    addresses = [leader.address, *(member.address for member in cluster.members if member is not leader)]
    crew = crew_at(",".join(addresses), scheme)
    name = crew.name()
    holder, waiter, later = (crew.peer() for _ in range(3))
    grant = holder.takes(name, LONG)
    holder.start_hold(grant, calls.now() + LONG)
    waiter.start_get(name, LONG, patience=LONG)
    later.start_get(name, LONG, patience=LONG)
    other = next(member for member in cluster.members if member is not leader)
    places = queue(other, name, 3)
    leader.kill()
    holder.wake()
    holder.result()
    until(lambda: _renews(holder, grant), "the holder to renew at another member")
    assert queue(other, name, 3) == places
    holder.release(grant, record_of(grant))
    second = waiter.got()
    assert f"{second.handle['lease']:x}" == places[1].partition("/")[2]
    waiter.release(second, record_of(second))
    third = later.got()
    assert f"{third.handle['lease']:x}" == places[2].partition("/")[2]
    assert grant.token < second.token < third.token


def _renews(peer: Peer, grant: Grant) -> bool:
    try:
        peer.renew(grant)
    except Unavailable:
        return False
    return True


def test_a_command_runs_on_while_the_leader_changes(cluster: Cluster, lab: Lab) -> None:
    lab.lock = f"etcd://{cluster.address}"
    holding = lab.start("--ttl", "9s", command=lab.long_job())
    lab.ready()
    waiting = lab.start("--ttl", "9s", command=lab.job())
    waiting.hears("waiting for lock")
    begun = calls.now()
    cluster.leader().kill()
    # A whole lease passes: it must have been renewed.
    until(lambda: calls.now() > begun + 10.0, "the lease to be renewed")
    lab.finish()
    assert holding.wait() == 0, holding.said
    assert waiting.wait() == 0, waiting.said
    lab.evidence.check(2)


def test_a_waiter_whose_keeper_is_killed_keeps_its_place_and_nobody_waits_for_the_dead_one(
    lab: Lab, server: Etcd
) -> None:
    """Its lease is so long that the one behind it would never get the lock if the place were lost."""
    holder = lab.start("--ttl", "600s", command=lab.long_job())
    lab.ready()
    first = lab.start("--ttl", "600s", command=lab.job())
    until(lambda: len(server.keys(f"{lab.name}/")) == 2, "it waits")
    second = lab.start("--ttl", "600s", command=lab.job())
    until(lambda: len(server.keys(f"{lab.name}/")) == 3, "it waits")
    places = server.keys(f"{lab.name}/")
    keeper = first.one("keeper")
    send(signal.SIGKILL, keeper)
    first.one("keeper", but=keeper)
    lab.finish()
    assert [run.wait() for run in (holder, first, second)] == [0, 0, 0], first.said + second.said
    assert len({*places}) == 3
    lab.evidence.check(3)
    assert server.keys(f"{lab.name}/") == []


@pytest.mark.parametrize("front_dies", [False, True], ids=["the command ends", "the front is killed"])
def test_a_later_keeper_writes_the_earlier_runs_too(lab: Lab, server: Etcd, *, front_dies: bool) -> None:
    """The front doesn't know them, so the keeper reads them from the server."""
    for _ in range(2):
        assert lab.start(command=lab.job()).wait() == 0
    run = lab.start(command=lab.long_job())
    lab.ready(3)
    keeper = run.one("keeper")
    send(signal.SIGKILL, keeper)
    run.one("keeper", but=keeper)
    if front_dies:
        run.popen.kill()
    else:
        lab.finish()
    run.wait()

    def record() -> Any:
        found = server.get(f"singleton-run/record/{lab.name}")
        return json.loads(base64.b64decode(found["value"]))

    until(lambda: record()["state"] == ("crashed" if front_dies else "succeeded"), "the record of the end")
    assert [earlier["state"] for earlier in record()["runs"]] == ["succeeded", "succeeded"]


def test_a_member_that_has_lost_the_others_does_not_keep_a_waiter_in_silence(
    cluster: Cluster, crew_at: Crews, scheme: str
) -> None:
    alone = next(member for member in cluster.members if member is not cluster.leader())
    crew = crew_at(alone.address, scheme)
    name = crew.name()
    holder, waiter = crew.peer(), crew.peer()
    holder.takes(name, LONG)
    held = waiter.is_refused(name, LONG)
    waiter.start_wait(held, calls.now() + LONG)
    until(lambda: waiter.process, "the waiter")
    for member in cluster.members:
        if member is not alone:
            member.kill()
    with pytest.raises(Unavailable):
        waiter.result(crew.site.patience)


# TLS and users.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return etcd.Certificates(tmp_path_factory.mktemp("pki") / "certificates")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Etcd]:
    """A server that asks for a client's certificate, and for users: `alice` has her name in hers."""
    folder = tmp_path_factory.mktemp("secured")
    with etcd.running(folder, certificates=certificates, know_users=True) as server:
        server.ctl("user", "add", f"alice:{PASSWORD}")
        server.enable_users(PASSWORD)
        server.ctl("user", "grant-role", "alice", "root")
        yield server


def tls_environ(server: Etcd, **more: str) -> dict[str, str]:
    """What etcdctl's users have in their environment."""
    assert server.certificates is not None
    files = server.certificates
    names = {"CACERT": files.ca, "CERT": files.client_cert, "KEY": files.client_key, "ENDPOINTS": server.url}
    return {f"ETCDCTL_{name}": value for name, value in {**names, **more}.items()}


@pytest.mark.parametrize(
    "login", [{"USER": f"alice:{PASSWORD}"}, {"USER": "alice", "PASSWORD": PASSWORD}], ids=["one", "two"]
)
def test_the_bare_name_takes_the_variables_of_etcdctl(lab: Lab, secured: Etcd, login: dict[str, str]) -> None:
    lab.lock = "etcd"
    run = lab.start(command=lab.job(), environ=environment(**tls_environ(secured, **login)))
    assert run.wait() == 0, run.said
    assert PASSWORD not in run.said
    assert lab.evidence.turns() == [
        secured.get(f"singleton-run/record/{lab.name}") and lab.evidence.turns()[0]
    ]


def assert_handed_on(crew: Crew) -> None:
    """One holds a lock and renews it, another waits for it and gets it."""
    name = crew.name()
    holder, waiter = crew.peer(), crew.peer()
    grant = holder.takes(name, LONG)
    waiter.start_get(name, LONG)
    holder.hold(grant, calls.now() + 0.3)
    holder.renew(grant)
    holder.release(grant, record_of(grant))
    waiter.got()


def test_a_url_says_it_all(crew_at: Crews, secured: Etcd) -> None:
    files = secured.certificates
    assert files is not None
    words = f"cacert={files.ca}&cert={files.client_cert}&key={files.client_key}"
    crew = crew_at(f"alice:{QUOTED}@localhost:{secured.port}/?{words}")
    assert_handed_on(crew)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("localhost:{port}/?cacert={ca}", "certificate"),
        ("localhost:{port}/?cert={cert}&key={key}", "not trusted"),
        ("127.0.0.1:{port}/?cacert={ca}&cert={cert}&key={key}&server-name=other.example", "not trusted"),
        ("localhost:{port}/?cacert={ca}&cert={cert}&key={key}", r"etcd\+grpc://"),
        ("localhost:{port}/?cacert={ca}&cert={user}&key={user_key}", r"etcd\+grpc://"),
    ],
)
def test_what_is_wrong_with_tls_is_said(crew_at: Crews, secured: Etcd, address: str, text: str) -> None:
    """Among it: a user who is known by the certificate alone, which the gateway doesn't pass on."""
    files = secured.certificates
    assert files is not None
    words = {"cert": files.client_cert, "key": files.client_key}
    words |= {"user": files.user_cert, "user_key": files.user_key}
    lock = address.format(port=secured.port, ca=files.ca, **words)
    with pytest.raises(Refused, match=text):
        crew_at(lock).peer().acquire("x")


@etcd.NEEDS_GRPC
def test_a_user_known_by_the_certificate_comes_by_grpc(crew_at: Crews, secured: Etcd) -> None:
    files = secured.certificates
    assert files is not None
    words = f"cacert={files.ca}&cert={files.user_cert}&key={files.user_key}"
    # The server's certificate is for localhost; what we call it is something else.
    crew = crew_at(f"127.0.0.1:{secured.port}/?{words}&server-name=localhost", "etcd+grpc")
    assert_handed_on(crew)


def test_a_server_with_tls_that_is_spoken_to_without_it(crew_at: Crews, secured: Etcd) -> None:
    with pytest.raises(Unavailable, match="TLS"):
        crew_at(f"localhost:{secured.port}").peer().acquire("x")


def test_an_unchecked_certificate_is_said_loudly(lab: Lab, secured: Etcd) -> None:
    lab.lock = "etcd"
    variables = tls_environ(secured, USER=f"alice:{PASSWORD}", CACERT="", INSECURE_SKIP_TLS_VERIFY="true")
    run = lab.start("-q", command=lab.job(), environ=environment(**variables))
    assert run.wait() == 0, run.said
    assert "not checked" in run.said


def test_a_gateway_that_is_off_is_told_with_the_way_out(tmp_path: Path, crew_at: Crews) -> None:
    off = ["--enable-grpc-gateway=false"]
    with etcd.running(tmp_path, off) as server, pytest.raises(Refused, match=r"etcd\+grpc://"):
        crew_at(server.address).peer().acquire("x")


def test_a_token_that_has_ended_is_replaced(tmp_path: Path, crew_at: Crews, scheme: str) -> None:
    """By a restart, which forgets every token, and by a change of the users, which makes them all old."""
    with etcd.running(tmp_path) as server:
        server.enable_users(PASSWORD)
        crew = crew_at(f"root:{QUOTED}@{server.address}", scheme)
        name = crew.name()
        holder, waiter = crew.peer(), crew.peer()
        grant = holder.takes(name, LONG)
        waiter.start_get(name, LONG, patience=LONG)
        server.ctl("user", "add", "somebody:else")
        holder.renew(grant)
        server.kill()
        server.start().serves()
        holder.renew(grant)
        holder.release(grant, record_of(grant))
        waiter.got()


LEAST = ["jobs/", "singleton-run/record/jobs/", "singleton-run/control/jobs/"]
MARKS = "singleton-run/once/jobs/"


def test_three_permissions_are_enough_and_a_fourth_for_marks(
    tmp_path: Path, crew_at: Crews, scheme: str
) -> None:
    """Those of docs/etcd.md, and without any of them it is refused."""
    with etcd.running(tmp_path) as server:
        server.ctl("user", "add", f"worker:{PASSWORD}")
        server.ctl("role", "add", "singleton")
        server.ctl("user", "grant-role", "worker", "singleton")
        server.enable_users(PASSWORD)
        crew = crew_at(f"worker:{QUOTED}@{server.address}/jobs", scheme)
        for prefix in LEAST:
            with pytest.raises(Refused, match="permission"):
                crew.peer().acquire("early")
            server.ctl("role", "grant-permission", "singleton", "readwrite", prefix, "--prefix=true")
        name = crew.name()
        holder, waiter, leaver = crew.peer(), crew.peer(), crew.peer()
        grant = holder.takes(name, LONG)
        leaver.is_refused(name, LONG)
        waiter.start_get(name, LONG, patience=LONG)
        leaver.leave()
        holder.hold(grant, calls.now() + 0.3)
        holder.renew(grant)
        holder.write(grant, record_of(grant, "running"))
        assert holder.read(name)[0] is not None
        assert holder.list() == [name]
        assert holder.steer(name, "", resumed(None))
        assert holder.look(name).control == holder.renew(grant) == resumed(None)
        with pytest.raises(Refused, match="permission"):
            holder.mark(grant, "v1", {})
        with pytest.raises(Refused, match="permission"):
            holder.done(name, "v1")
        server.ctl("role", "grant-permission", "singleton", "readwrite", MARKS, "--prefix=true")
        holder.mark(grant, "v1", {})
        assert holder.done(name, "v1") == {}
        assert holder.forget(name, "v1")
        newcomer = crew.peer()
        holder.release(grant, record_of(grant), 3.0)
        assert newcomer.is_refused(name).until is not None
        got = waiter.got()
        server.delete_lock(f"jobs/{name}")
        with pytest.raises(Lost):
            waiter.renew(got)
        with pytest.raises(Refused, match="permission"):
            crew_at(f"worker:{QUOTED}@{server.address}", scheme).peer().acquire("backup")
        # A single lock without a prefix.
        server.ctl("role", "grant-permission", "singleton", "readwrite", "backup/", "--prefix=true")
        server.ctl("role", "grant-permission", "singleton", "readwrite", "singleton-run/record/backup")
        server.ctl("role", "grant-permission", "singleton", "read", "singleton-run/control/backup")
        single = crew_at(f"worker:{QUOTED}@{server.address}", scheme).peer()
        backup = single.takes("backup", LONG)
        single.renew(backup)
        with pytest.raises(Refused, match="permission"):
            single.steer("backup", "", resumed(None))
        single.release(backup, record_of(backup))
        with pytest.raises(Refused, match="permission"):
            single.list()


# Addresses.


@pytest.mark.parametrize(
    ("lock", "environ", "endpoints"),
    [
        ("etcd", {}, [("127.0.0.1", 2379, False)]),
        ("etcd", {"ETCDCTL_ENDPOINTS": "a,b:1"}, [("a", 2379, False), ("b", 1, False)]),
        ("etcd", {"ETCDCTL_ENDPOINTS": "https://a:1/,http://b"}, [("a", 1, True), ("b", 2379, False)]),
        ("etcd://", {"ETCDCTL_ENDPOINTS": "a"}, [("a", 2379, False)]),
        ("etcd://c:3", {"ETCDCTL_ENDPOINTS": "a"}, [("c", 3, False)]),
        ("etcd://[::1]:3,d", {}, [("::1", 3, False), ("d", 2379, False)]),
        ("etcd://c?tls=true", {}, [("c", 2379, True)]),
        ("etcd://c", {"ETCDCTL_CACERT": "/ca"}, [("c", 2379, True)]),
        ("etcd://c/?cacert=/ca&tls=false", {}, [("c", 2379, False)]),
        ("etcd+grpc://c/?insecure-skip-tls-verify=true", {}, [("c", 2379, True)]),
    ],
)
def test_endpoints(lock: str, environ: dict[str, str], endpoints: list[tuple[str, int, bool]]) -> None:
    assert Address(lock, environ).endpoints == endpoints


@pytest.mark.parametrize(
    ("lock", "environ", "login"),
    [
        ("etcd://u:p%40:%2F@h", {"ETCDCTL_USER": "x:y"}, ("u", "p@:/")),
        ("etcd://u@h", {"ETCDCTL_PASSWORD": "p"}, ("u", "p")),
        ("etcd", {"ETCDCTL_USER": "u:p:q%"}, ("u", "p:q%")),
        ("etcd", {"ETCDCTL_USER": "u", "ETCDCTL_PASSWORD": "p"}, ("u", "p")),
        ("etcd", {}, ("", "")),
    ],
)
def test_logins(lock: str, environ: dict[str, str], login: tuple[str, str]) -> None:
    address = Address(lock, environ)
    assert (address.user, address.password) == login


@pytest.mark.parametrize(
    ("lock", "environ"),
    [
        ("etcd://h:1:2", {}),
        ("etcd://u@h", {}),
        ("etcd://h?cacerts=x", {}),
        ("etcd", {"ETCDCTL_ENDPOINTS": "unix:///run/etcd"}),
        ("etcd", {"ETCDCTL_ENDPOINTS": "a,,b"}),
        ("etcd", {"ETCDCTL_DISCOVERY_SRV": "example.org"}),
        ("etcd", {"ETCDCTL_KEY": "/key"}),
        ("etcd://h/singleton-run", {}),
        ("etcd://h/singleton-run/record/x", {}),
        ("etcd://h/%ff", {}),
    ],
)
def test_what_is_no_address_is_refused(lock: str, environ: dict[str, str]) -> None:
    with pytest.raises(Refused) as caught:
        Address(lock, environ)
    assert caught.value.status == 78


def test_grpc_that_is_not_installed_is_told_with_the_way_to_it(server: Etcd, tmp_path: Path) -> None:
    tmp_path.joinpath("etcd3.py").write_text("raise ImportError(name='etcd3')")
    lock = f"etcd+grpc://{server.address}"
    command = [*PROGRAM, "--lock", lock, "--name", "x", "--", "true"]
    environ = environment()
    environ["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{environ['PYTHONPATH']}"
    answer = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert answer.returncode == 78
    assert "pip install 'singleton-run[etcd-grpc]'" in answer.stderr


# Start-up.

HEAVY = {"ssl", "_ssl", "socket", "json", "http.client", "urllib.parse", "base64", "re", "typing", "enum"}


def test_nothing_heavy_is_imported_on_the_way_to_the_command(server: Etcd) -> None:
    code = """
import sys
from singleton_run_etcd import open_backend
backend = open_backend(sys.argv[1], {})
grant = backend.acquire("imports", "host:1:a", 6.0, 5.0)
backend.renew(grant, 5.0)
backend.release(grant, {}, 5.0)
backend.close()
print(*sys.modules)
"""
    environ = {**os.environ, "PYTHONPATH": environment()["PYTHONPATH"]}
    command = [sys.executable, "-S", "-c", code, f"etcd://{server.address}"]
    answer = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    imported = set(answer.stdout.split())
    assert "singleton_run_etcd.gateway" in imported
    assert imported & HEAVY == set()


def test_a_variable_without_a_name_says_nothing() -> None:
    """Environments that come from Windows have some, as `=C:`."""
    assert Address("etcd://h", {"": "C:"}).endpoints == Address("etcd://h", {}).endpoints


# The control.


@pytest.mark.parametrize("text", ["", "rubbish", "{", '{"version":2}', "{" + " " * 30_000 + "}"])
def test_a_damaged_control_is_a_pause_and_is_replaced(
    server: Etcd, crew_at: Crews, scheme: str, text: str
) -> None:
    crew = crew_at(server.address, scheme)
    name = crew.name()
    server.ctl("put", f"singleton-run/control/{name}", "--", text)
    holder = crew.peer()
    grant = holder.takes(name, LONG)
    seen = holder.look(name)
    assert pause_of(grant.control, 0.0) == pause_of(holder.renew(grant), 0.0) == pause_of(seen.control, 0.0)
    assert pause_of(grant.control, 0.0) is not None
    assert holder.steer(name, seen.version, resumed(None))
    assert holder.renew(grant) == resumed(None)


def test_a_new_control_changes_nothing_of_the_queue(
    server: Etcd, crew_at: Crews, scheme: str, tmp_path: Path
) -> None:
    """The keys of holder and waiter, their leases and creations stay; a foreign waiter waits on."""
    crew = crew_at(server.address, scheme)
    name = crew.name()
    holder, waiter = crew.peer(), crew.peer()
    holder.takes(name, LONG)
    waiter.is_refused(name, LONG)
    with etcdctl_lock(server, name, tmp_path) as other:
        queue(server, name, 3)
        before = places(server, name)
        for number in range(3):
            version = holder.look(name).version
            assert holder.steer(name, version, {**resumed(None), "number": number})
        after = places(server, name)
        assert [entry[:4] for entry in after] == [entry[:4] for entry in before]
        assert after[0][4] > before[0][4], "the holder's key was not put again"
        assert after[1:] == before[1:]
        waiting = holder.look(name).waiting
        assert waiting is not None
        assert [held.holder for held in waiting] == [waiter.holder, f"etcd lease {before[2][2]:x}"]
        assert [held.token for held in waiting] == [created for _, created, *_ in before[1:]]
        assert other.poll() is None


def places(server: Etcd, name: str) -> list[tuple[str, int, int, str, int]]:
    """Key, creation, lease, value and last change of each place in a queue, the oldest first."""
    text = server.ctl("get", f"{name}/", "--prefix", "--sort-by=CREATE", "--write-out=json")
    return [
        (
            entry["key"],
            int(entry["create_revision"]),
            int(entry["lease"]),
            entry.get("value", ""),  # that of etcdctl is empty
            int(entry["mod_revision"]),
        )
        for entry in json.loads(text)["kvs"]
    ]
