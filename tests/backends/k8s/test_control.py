"""What people ask of a lock in Kubernetes: the control in its Lease's annotation, and what is told of it."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run.api import control as controls
from singleton_run.api.contract import Grant, Held, Look
from singleton_run.errors import Lost, Unavailable
from singleton_run.system import calls, pipes
from singleton_run.testing.suite import record_of
from singleton_run_k8s import open_backend
from singleton_run_k8s.lease import CONTROL
from singleton_run_k8s.objects import of_lock
from tests.servers import kubeaccess, programs
from tests.support.backend_calls import (
    LIMIT,
    LONG,
    Opened,
    holding,
    pause,
    paused_by_damage,
    steer,
    steered_by_many,
    take,
)
from tests.support.harness import environment, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from singleton_run_k8s.backend import LeaseBackend
    from tests.servers.kubeaccess import Cluster, Namespace, Pod

    Open = Opened[LeaseBackend]

AWHILE = 1.0


@pytest.fixture(scope="module")
def pod(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    account = namespace.account("steered", (*kubeaccess.WATCHING, "list"), events=True)
    return account.pod(tmp_path_factory.mktemp("pod"))


@pytest.fixture
def opened(pod: Pod) -> Iterator[Open]:
    """Opens a backend in the pod and closes it at the end."""
    with Opened(lambda: opened_in(pod)) as opened:
        yield opened


@pytest.fixture
def name() -> str:
    return f"t{os.urandom(6).hex()}"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that are sent from now on, in order: GET, PUT and so on, WATCH for a watch."""
    kinds: list[str] = []

    class Tracer:
        def request(self, work: Callable[[], Any], kind: str, key: Callable[[], str], _: object) -> Any:
            result = work()
            kinds.append("WATCH" if "watch=true" in key() else kind)
            return result

    monkeypatch.setattr(pipes, "tracer", Tracer())
    return kinds


def opened_in(pod: Pod) -> LeaseBackend:
    return open_backend(f"k8s-lease://?service-account={pod.folder}", pod.environ)


def told(seen: Look) -> tuple[str, str | None]:
    return seen.state, None if seen.holder is None else seen.holder.holder


# The control.


def test_a_control_comes_with_each_answer_and_takes_no_request_more(
    opened: Open, name: str, asked: list[str]
) -> None:
    one, other = opened(), opened()
    one.release(take(one, name), {"runs": []}, LIMIT)
    assert other.look(name, LIMIT).version == ""
    assert other.steer(name, "", pause(), LIMIT)
    asked.clear()
    grant = take(one, name)
    assert one.renew(grant, LIMIT) == pause()
    assert asked == ["GET", "PUT", "PUT"]
    held = other.acquire(name, "host:2:b", LONG, LIMIT)
    assert isinstance(held, Held)
    assert held.token == grant.token
    assert grant.control == held.control == pause()
    seen = other.look(name, LIMIT)
    resumed = controls.resumed(seen.control)
    assert other.steer(name, seen.version, resumed, LIMIT)
    assert one.renew(grant, LIMIT) == resumed


@pytest.mark.parametrize("name", ["t-steered-first", "Steered_First@eu"])
def test_a_lease_is_made_for_the_control_and_is_free(opened: Open, namespace: Namespace, name: str) -> None:
    backend = opened()
    assert not backend.steer(name, "nonsense", pause(), LIMIT)
    assert namespace.lease(of_lock(name)) is None
    assert backend.steer(name, "", pause(), LIMIT)
    assert told(backend.look(name, LIMIT)) == (Look.FREE, None)
    assert backend.read(name, LIMIT) == (None, None)
    assert name in backend.list(LIMIT)
    assert take(backend, name).control == pause()


def test_only_the_present_version_is_replaced(opened: Open, name: str) -> None:
    backend = opened()
    versions = [""]
    for number in range(3):
        for version in versions[:-1]:
            assert not backend.steer(name, version, pause("late"), LIMIT)
        assert backend.steer(name, versions[-1], pause(str(number)), LIMIT)
        versions.append(backend.look(name, LIMIT).version)
    assert len(set(versions)) == 4
    assert backend.look(name, LIMIT).control == pause("2")


def test_a_control_s_version_stays_while_all_else_changes(
    opened: Open, namespace: Namespace, name: str
) -> None:
    holder, person = opened(), opened()
    steer(person, name, pause())
    version = person.look(name, LIMIT).version
    grant = take(holder, name)
    holder.renew(grant, LIMIT)
    holder.write(grant, record_of(grant), LIMIT)
    namespace.annotate_lease(name)
    holder.release(grant, record_of(grant), LIMIT, LONG)
    assert person.steer(name, version, controls.resumed(pause()), LIMIT)
    assert told(person.look(name, LIMIT)) == (Look.KEPT, grant.holder)


def test_of_many_who_steer_at_once_one_wins_each_time_and_renewals_go_on(opened: Open, name: str) -> None:
    holder = opened()
    grant = take(holder, name)
    people = [opened() for _ in range(3)]
    steered_by_many(holder, grant, name, people, 5)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 2}', "x" * 5000])
def test_a_damaged_control_pauses_the_lock_until_it_is_replaced(
    opened: Open, namespace: Namespace, name: str, damage: str
) -> None:
    annotations = {"metadata": {"annotations": {CONTROL: damage}}}
    paused_by_damage(opened(), name, lambda: namespace.change_lease(name, annotations))


def test_a_steer_that_comes_late_changes_nothing_that_came_before_it(
    opened: Open, cluster: Cluster, name: str
) -> None:
    """It is given up while the server is stopped, and reaches it after somebody else's change."""
    server = cluster.own_server()
    holder, late = opened(), opened()
    grant = take(holder, name)
    seen = late.look(name, LIMIT)
    assert seen.version == ""
    holder.renew(grant, LIMIT)
    with server.stopped():
        with pytest.raises(Unavailable):
            late.steer(name, "", pause("late"), 0.3)
        with pytest.raises(Unavailable):
            late.free(name, seen, 0.3)
    assert holder.renew(grant, LIMIT) is None
    steer(holder, name, pause())
    assert holder.renew(grant, LIMIT) == pause()


# Who is told.


def test_a_holder_is_told_of_a_steer_and_not_of_its_own_renewals(
    opened: Open, name: str, namespace: Namespace, asked: list[str]
) -> None:
    holder, person = opened(), opened()
    grant = take(holder, name)
    holder.close()  # which sends the Event
    asked.clear()
    with holding(holder, grant):
        until(lambda: asked == ["WATCH"], "the holder watches")
    for _ in range(3):
        holder.renew(grant, LIMIT)
        namespace.annotate_lease(name)
        with holding(holder, grant) as ended:
            until(lambda: knows_latest(holder, namespace, name), "the watch tells of it")
            with pytest.raises(TimeoutError):
                within(ended, AWHILE / 2)
    # It knows the version that the watch told, so the stranger's annotations cost no request.
    assert asked == ["WATCH", "PUT", "PUT", "PUT"]
    with holding(holder, grant) as ended:
        steer(person, name, pause())
        ended()
    asked.clear()
    assert holder.renew(grant, LIMIT) == pause()
    assert asked == ["PUT"]
    with holding(holder, grant) as ended:
        steer(person, name, controls.resumed(pause()))
        ended()


def knows_latest(holder: LeaseBackend, namespace: Namespace, name: str) -> bool:
    own, found = holder._own, namespace.lease(name)  # noqa: SLF001 - nothing else shows it
    assert own is not None
    assert found is not None
    return bool(own["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"])


def within(ended: Callable[[], None], seconds: float) -> None:
    pool = ThreadPoolExecutor()
    try:
        pool.submit(ended).result(seconds)
    finally:
        pool.shutdown(wait=False)


def test_a_steer_before_the_watch_or_beside_a_record_is_not_missed(opened: Open, name: str) -> None:
    holder, person = opened(), opened()
    grant = take(holder, name)
    steer(person, name, pause("before the watch"))
    with holding(holder, grant) as ended:
        ended()
    holder.renew(grant, LIMIT)
    steer(person, name, pause("beside a record"))
    holder.write(grant, record_of(grant, "running"), LIMIT)
    with holding(holder, grant) as ended:
        ended()
    assert holder.renew(grant, LIMIT) == pause("beside a record")


@pytest.mark.parametrize("how", ["delete", "take", "free"])
def test_a_holder_is_told_that_its_lease_is_gone(
    opened: Open, namespace: Namespace, name: str, how: str
) -> None:
    holder, person = opened(), opened()
    grant = take(holder, name)
    with holding(holder, grant) as ended:
        if how == "delete":
            namespace.delete_lease(name)
        elif how == "take":
            namespace.take_lease(name)
        else:
            assert person.free(name, person.look(name, LIMIT), LIMIT)
        ended()
    with pytest.raises(Lost):
        holder.renew(grant, LIMIT)


def test_a_holder_whose_lease_was_shortened_by_hand_renews_it(
    opened: Open, namespace: Namespace, name: str
) -> None:
    """Or who waits would have it while the holder's command runs on."""
    holder = opened()
    grant = take(holder, name)
    with holding(holder, grant) as ended:
        namespace.change_lease(name, {"spec": {"leaseDurationSeconds": 1}})
        ended()
    holder.renew(grant, LIMIT)
    found = namespace.lease(name)
    assert found is not None
    assert found["spec"]["leaseDurationSeconds"] == grant.ttl


def test_a_holder_whose_lease_has_another_s_acquire_time_does_not_blame_itself(
    opened: Open, namespace: Namespace, name: str
) -> None:
    holder = opened()
    grant = take(holder, name)
    namespace.change_lease(name, {"spec": {"acquireTime": None}})
    with pytest.raises(Lost, match="somebody has changed the acquireTime of its Lease"):
        holder.renew(grant, LIMIT)


@pytest.mark.parametrize("how", ["delete", "take"])
def test_a_holder_is_told_what_a_write_of_its_record_found_out(
    opened: Open, namespace: Namespace, name: str, how: str
) -> None:
    """Whoever writes the record goes on without it, so the hold has to end."""
    holder = opened()
    grant = take(holder, name)
    if how == "delete":
        namespace.delete_lease(name)
    else:
        namespace.take_lease(name)
    with pytest.raises(Lost):
        holder.write(grant, record_of(grant, "running"), LIMIT)
    with holding(holder, grant) as ended:
        ended()
    with pytest.raises(Lost):
        holder.renew(grant, LIMIT)


def test_a_short_command_takes_no_watch_and_one_that_has_waited_no_second(
    opened: Open, name: str, asked: list[str]
) -> None:
    holder, waiter = opened(), opened()
    grant = take(holder, name)
    asked.clear()
    # However slow the machine is, this command is a short one.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("singleton_run_k8s.backend._SAY_AFTER", LONG)
        with holding(holder, grant):
            waiter.look(name, LIMIT)  # as long as a watch would take to open
    held = waiter.acquire(name, "host:2:b", LONG, LIMIT)
    assert isinstance(held, Held)
    never, end = os.pipe()
    with ThreadPoolExecutor() as pool:
        wait = pool.submit(waiter.wait, held, calls.now() + LONG, never)
        until(lambda: "WATCH" in asked, "it watches")
        holder.release(grant, record_of(grant), LIMIT)
        wait.result(4 * LIMIT)
    os.close(never)
    os.close(end)
    taken = take(waiter, name, "host:2:b")
    with holding(waiter, taken) as ended:
        steer(holder, name, pause())
        ended()
    assert asked.count("WATCH") == 1
    assert waiter.renew(taken, LIMIT) == pause()


def test_without_the_permission_to_watch_it_holds_all_the_same(
    namespace: Namespace, tmp_path: Path, name: str
) -> None:
    holder = opened_in(namespace.account("no-watch", kubeaccess.LEAST).pod(tmp_path / "pod"))
    try:
        grant = take(holder, name)
        began = calls.now()
        with holding(holder, grant, AWHILE) as ended:
            ended()
        assert calls.now() >= began + AWHILE
        steer(holder, name, pause())
        assert holder.renew(grant, LIMIT) == pause()
    finally:
        holder.close()


def test_a_server_that_goes_away_does_not_end_the_hold(opened: Open, cluster: Cluster, name: str) -> None:
    server = cluster.own_server()
    holder, person = opened(), opened()
    grant = take(holder, name)
    with server.stopped():
        with pytest.raises(Unavailable):
            holder.renew(grant, 0.3)
        began = calls.now()
        with holding(holder, grant, AWHILE) as ended:
            ended()
        assert calls.now() >= began + AWHILE
    until(lambda: renewed(holder, grant), "the server to answer")
    with holding(holder, grant) as ended:
        steer(person, name, pause())
        ended()
    assert holder.renew(grant, LIMIT) == pause()


def renewed(holder: LeaseBackend, grant: Grant) -> bool:
    try:
        holder.renew(grant, LIMIT)
    except Unavailable:
        return False
    return True


def test_a_holder_under_a_pause_tells_its_token_a_moment_later(
    opened: Open, name: str, asked: list[str]
) -> None:
    """For an order to it, since it writes no record. Under none there is nothing to tell by itself."""
    holder, person = opened(), opened()
    steer(person, name, pause())
    grant = take(holder, name)
    with holding(holder, grant) as ended:
        ended()
    holder.renew(grant, LIMIT)
    seen = person.look(name, LIMIT)
    assert seen.holder is not None
    assert seen.holder.token == grant.token
    asked.clear()
    with holding(holder, grant) as ended:
        until(lambda: "WATCH" in asked, "it watches")
        with pytest.raises(TimeoutError):
            within(ended, AWHILE / 2)


# What is told.


def test_each_state_by_the_server_s_clock(opened: Open, namespace: Namespace, name: str) -> None:
    holder, person = opened(), opened()
    assert told(person.look(name, LIMIT)) == (Look.FREE, None)
    grant = take(holder, name)
    seen = person.look(name, LIMIT)
    assert told(seen) == (Look.HELD, grant.holder)
    assert seen.waiting is None
    assert seen.holder is not None
    # Neither a renewal nor a record has told it yet.
    assert seen.holder.token is None
    assert seen.holder.until == pytest.approx(calls.now() + LONG, abs=LIMIT)
    holder.write(grant, record_of(grant, "running"), LIMIT)
    seen = person.look(name, LIMIT)
    assert seen.holder is not None
    assert seen.holder.token == grant.token
    holder.release(grant, record_of(grant), LIMIT, LONG)
    seen = person.look(name, LIMIT)
    assert told(seen) == (Look.KEPT, grant.holder)
    assert seen.record == record_of(grant) | {"start": seen.record["start"], "end": seen.record["end"]}  # type: ignore[index]
    namespace.take_lease(name, 1)
    until(
        lambda: told(person.look(name, LIMIT)) == (Look.EXPIRED, "somebody"),
        "the Lease to expire at first sight",
    )
    seen = person.look(name, LIMIT)
    assert seen.holder is not None
    assert seen.holder.token is None


def test_a_lock_is_freed_of_the_turn_that_was_seen_and_of_no_other(opened: Open, name: str) -> None:
    holder, person = opened(), opened()
    free = person.look(name, LIMIT)
    assert not person.free(name, free, LIMIT)
    earlier = take(holder, name)
    unknown = person.look(name, LIMIT)
    holder.renew(earlier, LIMIT)
    known = person.look(name, LIMIT)
    holder.release(earlier, record_of(earlier), LIMIT)
    grant = take(holder, name)
    holder.renew(grant, LIMIT)
    for seen in (free, unknown, known):
        assert not person.free(name, seen, LIMIT)
    assert holder.renew(grant, LIMIT) is None
    wrong = Look(Look.HELD, Held(grant.holder, token=grant.token + 1), None)
    assert not person.free(name, wrong, LIMIT)
    assert person.free(name, person.look(name, LIMIT), LIMIT)
    with pytest.raises(Lost):
        holder.renew(grant, LIMIT)
    with pytest.raises(Lost):
        holder.release(grant, record_of(grant), LIMIT)
    assert take(person, name).token > grant.token


def test_a_lock_is_freed_though_its_holder_renews_at_the_same_time(opened: Open, name: str) -> None:
    holder, person = opened(), opened()
    grant = take(holder, name)
    seen = person.look(name, LIMIT)
    with ThreadPoolExecutor() as pool:
        freeing = pool.submit(person.free, name, seen, LIMIT)
        while not freeing.done():
            with suppress(Lost):
                holder.renew(grant, LIMIT)
        assert freeing.result()
    with pytest.raises(Lost):
        holder.renew(grant, LIMIT)


def test_a_lock_that_is_kept_is_freed(opened: Open, name: str) -> None:
    holder = opened()
    grant = take(holder, name)
    holder.release(grant, record_of(grant), LIMIT, LONG)
    assert holder.free(name, holder.look(name, LIMIT), LIMIT)
    assert take(holder, name).record is not None


def test_events_tell_who_steers(opened: Open, namespace: Namespace, name: str) -> None:
    """Each is given a moment and no second one, so on a busy machine it may take another try."""

    def story(number: int) -> list[str]:
        holder, person, lock = opened(), opened(), f"{name}-{number}"
        grant = take(holder, lock)
        control = pause()
        steer(person, lock, control)
        order = controls.ordered(control, holder=grant.holder, token=grant.token, by="bob@desk", at=2.0)
        steer(person, lock, order)
        steer(person, lock, controls.resumed(order))
        person.free(lock, person.look(lock, LIMIT), LIMIT)
        person.close()
        about = [event for event in namespace.events() if event["involvedObject"]["name"] == lock]
        return sorted(event["message"] for event in about)

    expected = [
        "host:1:a is to release the lease, by bob@desk",
        "host:1:a was taken off the lease",
        "paused by ann@desk",
        "resumed",
    ]
    numbers = iter(range(1000))
    until(lambda: story(next(numbers)) == expected, "what was steered to be told")


# Beside leader election by client-go.


@pytest.fixture(scope="module")
def kubeconfig(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    account = namespace.account("elector", kubeaccess.LEAST)
    return account.token_kubeconfig(tmp_path_factory.mktemp("elector"))


@contextmanager
def elector(namespace: Namespace, kubeconfig: Path, name: str, go: Path) -> Iterator[None]:
    """One process of client-go's that leads until it is let go, by the file `go`."""
    argv = [programs.elector(), "-kubeconfig", str(kubeconfig), "-identity", "theirs", "-release"]
    argv += ["-lease-duration", "6s", "-renew-deadline", "4s", "-retry-period", "200ms"]
    argv += ["-namespace", namespace.name, "-lease", name]
    argv += ["--", "sh", "-c", 'until [ -e "$1" ]; do sleep 0.02; done', "sh", str(go)]
    process = subprocess.Popen(argv, env=environment(), stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        go.touch()
        process.wait(60)


def test_a_control_stays_under_a_foreign_holder(
    opened: Open, namespace: Namespace, kubeconfig: Path, name: str, tmp_path: Path
) -> None:
    person = opened()
    steer(person, name, pause())
    with elector(namespace, kubeconfig, name, tmp_path / "go"):
        until(lambda: told(person.look(name, LIMIT)) == (Look.HELD, "theirs"), "they lead")
        seen = person.look(name, LIMIT)
        assert seen.control == pause()
        assert seen.holder is not None
        assert seen.holder.token is None
        # While they renew the Lease all the time.
        for number in range(10):
            steer(person, name, pause(str(number)))
    assert told(person.look(name, LIMIT)) == (Look.FREE, None)
    assert take(person, name).control == pause("9")


def test_a_foreign_holder_is_taken_off_for_who_waits(
    opened: Open, namespace: Namespace, kubeconfig: Path, name: str, tmp_path: Path
) -> None:
    """It takes the Lease again if nobody else does."""
    person, waiter = opened(), opened()
    never, end = os.pipe()
    with elector(namespace, kubeconfig, name, tmp_path / "go"), ThreadPoolExecutor() as pool:
        until(lambda: told(person.look(name, LIMIT)) == (Look.HELD, "theirs"), "they lead")

        def wait() -> Grant:
            while True:
                got = waiter.acquire(name, "host:2:b", LONG, LIMIT)
                if isinstance(got, Grant):
                    return got
                waiter.wait(got, calls.now() + LONG, never)

        waiting = pool.submit(wait)
        while not waiting.done():
            seen = person.look(name, LIMIT)
            if told(seen) == (Look.HELD, "theirs"):
                person.free(name, seen, LIMIT)
        grant = waiting.result()
        assert waiter.renew(grant, LIMIT) is None
    os.close(never)
    os.close(end)
