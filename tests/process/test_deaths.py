"""What holds when our processes are killed, stopped or hang: one command at a time, and its status.

One test, or more, for each row of the table in docs/design.md. The command leaves behind a process
that hides and one that ignores SIGTERM; what is judged is what these processes wrote themselves.
"""

from __future__ import annotations

import fcntl
import json
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.harness import LONG, Lab, gone, labs, send, send_if_there, state, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.harness import Run

BOTH = pytest.mark.parametrize("backend", ["file", "kernel+ofdfile", "leasefile"])


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Lab]:
    """A lock under that backend."""
    yield from labs(tmp_path, backend)


@pytest.fixture
def leased(tmp_path: Path) -> Iterator[Lab]:
    """A lock under a lease."""
    yield from labs(tmp_path, "leasefile")


def running(lab: Lab, *words: str, ttl: str = LONG) -> Run:
    """A long job that has left its processes behind."""
    run = lab.start("--ttl", ttl, "--kill-after", "200ms", command=lab.long_job("leave", *words))
    lab.ready()
    return run


def waiting(lab: Lab, *, ttl: str = LONG) -> Run:
    """Another that waits for the same lock, to run a short job."""
    run = lab.start("--ttl", ttl, command=lab.job())
    run.hears("waiting for lock")
    return run


def stopped(*processes: int) -> None:
    """Stop processes, and wait until they are."""
    send(SIGSTOP, *processes)
    until(lambda: all(state(process) == "T" for process in processes), "processes to stop")


# Front.


@BOTH
def test_when_the_front_is_killed_the_next_one_starts_at_once_and_alone(lab: Lab) -> None:
    first = running(lab, "ignore")
    second = waiting(lab)
    send(SIGKILL, first.pid)
    assert second.wait() == 0
    lab.evidence.check(turns=2)
    first.hears("killed")
    assert lab.evidence.count("end") == 1


@BOTH
def test_when_the_front_is_killed_while_it_waits_nothing_of_it_stays(lab: Lab) -> None:
    first = running(lab)
    second = waiting(lab)
    roles = ("guard", "keeper", "waiting")
    helpers = until(lambda: [process for role in roles for process in second.all(role)], "helpers that wait")
    send(SIGKILL, second.pid)
    until(lambda: all(gone(process) for process in helpers), "what the waiting front had forked to end")
    lab.finish()
    assert first.wait() == 0
    lab.next_one()
    lab.evidence.check(turns=2)


@BOTH
def test_a_stopped_front_changes_nothing_but_when_its_status_is_told(lab: Lab) -> None:
    run = running(lab, "status", "5")
    stopped(run.pid)
    lab.finish()
    until(lambda: lab.evidence.count("end"), "the command to end")
    second = waiting(lab)
    assert len(lab.evidence.turns()) == 1
    send(SIGCONT, run.pid)
    assert (run.wait(), second.wait()) == (5, 0)
    lab.evidence.check(turns=2)


@BOTH
def test_a_guard_that_is_stopped_after_the_command_sees_the_end_of_what_that_left_behind(lab: Lab) -> None:
    script = "(until test -e go; do sleep 0.01; done) & exit 6"
    run = lab.start("--ttl", LONG, "--leftovers", "wait", command=["sh", "-c", script])
    run.hears("the command left process")
    stopped(run.one("guard"))
    (lab.directory / "go").touch()
    assert run.wait() == 6
    lab.next_one()


@BOTH
def test_a_front_that_is_stopped_and_then_killed_is_killed(lab: Lab) -> None:
    first = running(lab)
    second = waiting(lab)
    stopped(first.pid)
    send(SIGKILL, first.pid)
    assert second.wait() == 0
    lab.evidence.check(turns=2)


# Guard.


@BOTH
def test_when_the_guard_is_killed_the_command_goes_on_below_the_front(lab: Lab) -> None:
    run = running(lab, "status", "3")
    send(SIGKILL, run.one("guard"))
    run.hears("the guard of the command was killed")
    second = waiting(lab)
    lab.beats()
    lab.finish()
    assert (run.wait(), second.wait()) == (3, 0)
    lab.evidence.check(turns=2)
    assert lab.evidence.count("end") == 2


@BOTH
def test_after_the_guard_the_front_is_the_one_that_stops_the_command(lab: Lab) -> None:
    run = running(lab)
    send(SIGKILL, run.one("guard"))
    run.hears("the guard of the command was killed")
    send(SIGTERM, run.pid)
    assert run.wait() == 128 + SIGTERM
    lab.next_one()
    lab.evidence.check(turns=2)


@BOTH
def test_a_guard_that_is_killed_while_it_waits_is_replaced(lab: Lab) -> None:
    first = running(lab)
    second = waiting(lab)
    guard = second.one("guard")
    send(SIGKILL, guard)
    second.one("guard", but=guard)
    lab.finish()
    assert (first.wait(), second.wait()) == (0, 0)
    lab.evidence.check(turns=2)


@BOTH
def test_a_stopped_guard_is_woken_by_the_signal_that_it_has_to_pass_on(lab: Lab) -> None:
    run = running(lab)
    second = waiting(lab)
    stopped(run.one("guard"))
    send(SIGTERM, run.pid)
    assert (run.wait(), second.wait()) == (128 + SIGTERM, 0)
    lab.evidence.check(turns=2)


@BOTH
def test_a_stopped_guard_is_woken_when_the_command_has_ended(lab: Lab) -> None:
    run = running(lab, "status", "5")
    second = waiting(lab)
    stopped(run.one("guard"))
    lab.finish()
    assert (run.wait(), second.wait()) == (5, 0)
    lab.evidence.check(turns=2)


# Keeper.


def test_when_the_keeper_is_killed_another_resumes_and_the_command_notices_nothing(leased: Lab) -> None:
    run = running(leased, "status", "4")
    second = waiting(leased)
    keeper = 0
    for _ in range(3):
        keeper = run.one("keeper", but=keeper)
        send(SIGKILL, keeper)
    run.one("keeper", but=keeper)
    run.hears("another takes over")
    leased.finish()
    assert (run.wait(), second.wait()) == (4, 0)
    leased.evidence.check(turns=2)


def test_when_the_keeper_is_killed_while_it_waits_another_waits_on(leased: Lab) -> None:
    first = running(leased)
    second = waiting(leased)
    keeper = second.one("keeper")
    send(SIGKILL, keeper)
    second.one("keeper", but=keeper)
    leased.finish()
    assert (first.wait(), second.wait()) == (0, 0)
    leased.evidence.check(turns=2)


# Two at once.


def test_front_and_guard_killed_the_keeper_ends_the_command_and_gives_the_lock_back(leased: Lab) -> None:
    run = running(leased, "ignore")
    second = waiting(leased)
    guard = run.one("guard")
    stopped(run.pid)
    send(SIGKILL, guard, run.pid)
    assert second.wait() == 0
    leased.evidence.check(turns=2)
    until(lambda: not leased.left(), "the keeper to end")


def test_front_and_guard_killed_in_the_other_order_are_the_same(leased: Lab) -> None:
    run = running(leased, "ignore")
    second = waiting(leased)
    guard = run.one("guard")
    send(SIGKILL, run.pid, guard)
    assert second.wait() == 0
    leased.evidence.check(turns=2)


def test_guard_and_keeper_killed_the_front_goes_on_with_another_keeper(leased: Lab) -> None:
    run = running(leased, "status", "6")
    second = waiting(leased)
    keeper = run.one("keeper")
    send(SIGKILL, run.one("guard"), keeper)
    run.one("keeper", but=keeper)
    leased.beats()
    leased.finish()
    assert (run.wait(), second.wait()) == (6, 0)
    leased.evidence.check(turns=2)


def test_without_proof_that_the_command_is_gone_the_lock_is_kept_and_this_is_said(leased: Lab) -> None:
    run = running(leased)
    first_keeper = run.one("keeper")
    send(SIGKILL, first_keeper)
    keeper = run.one("keeper", but=first_keeper)
    second = waiting(leased)
    guard = run.one("guard")
    stopped(run.pid)
    send(SIGKILL, guard, run.pid)
    run.hears("is kept: nothing proves that its command is gone")
    assert state(keeper) not in ("", "Z")
    assert second.popen.poll() is None
    leased.evidence.check(turns=1)


# What takes as long as a lease does: all of it at the same time, each in a lab of its own.


def front_and_keeper_killed(lab: Lab) -> None:
    """The guard ends the command; nobody is left to give the lock back, so its lease is waited out."""
    run = running(lab, "ignore", ttl="15s")
    second = waiting(lab, ttl="15s")
    command = lab.tree()
    send(SIGKILL, run.pid, run.one("keeper"))
    until(lambda: all(gone(process) for process in command), "the command to be killed")
    assert len(lab.evidence.turns()) == 1
    assert second.wait() == 0
    lab.evidence.check(turns=2)


def keepers_killed_for_longer_than_a_lease(lab: Lab) -> None:
    """Whoever resumes also renews: the lock stays, and the token with it."""
    run = running(lab, "status", "4", ttl="6s")
    second = waiting(lab, ttl="6s")
    started = lab.evidence.lines()[0].when
    keeper = 0
    while lab.evidence.lines()[-1].when < started + 8:
        keeper = run.one("keeper", but=keeper)
        send(SIGKILL, keeper)
        before = lease_of(lab)["until"]
        until(partial(is_renewed, lab, before), "the next keeper to renew")
    lab.finish()
    assert (run.wait(), second.wait()) == (4, 0)
    lab.evidence.check(turns=2)


def lease_of(lab: Lab) -> Any:
    """What the file says that stands for a server."""
    return json.loads((lab.locks / f"{lab.name}.lease").read_text())


def is_renewed(lab: Lab, before: float) -> bool:
    """Whether the lease ends later now."""
    return bool(lease_of(lab)["until"] > before)


def keeper_stopped(lab: Lab) -> None:
    """It counts as hanging when it misses a renewal; the next one comes in time."""
    run = running(lab, "status", "7", ttl="36s")
    second = waiting(lab, ttl="36s")
    keeper = run.one("keeper")
    stopped(keeper)
    run.hears("hangs; another takes over")
    run.one("keeper", but=keeper)
    until(lambda: gone(keeper), "the keeper that hangs to be killed")
    lab.finish()
    assert (run.wait(), second.wait()) == (7, 0)
    lab.evidence.check(turns=2)


def keeper_stopped_before_the_release(lab: Lab) -> None:
    """The lock is given back by another, not by the end of its lease."""
    run = running(lab, "status", "7", ttl=LONG)
    second = waiting(lab)
    keeper = run.one("keeper")
    stopped(keeper)
    lab.finish()
    assert (run.wait(), second.wait()) == (7, 0)
    assert gone(keeper)
    lab.evidence.check(turns=2)


def library_stuck(lab: Lab) -> None:
    """So does one whose call to the server never returns."""
    run = running(lab, "status", "8", ttl="36s")
    second = waiting(lab, ttl="36s")
    lab.control("stuck").touch()
    run.hears("hangs; another takes over")
    lab.control("stuck").unlink()
    lab.finish()
    assert (run.wait(), second.wait()) == (8, 0)
    lab.evidence.check(turns=2)


def server_out_of_reach(lab: Lab) -> None:
    """First the command is asked to stop, and what does not listen is killed before the lease is over."""
    run = running(lab, "ignore", ttl="6s")
    second = waiting(lab, ttl="6s")
    lab.control("outage").touch()
    run.hears("can't be renewed in time, so the command is stopped")
    assert run.wait() == 79
    assert lab.evidence.lines()[-1].when < lease_of(lab)["until"]
    lab.control("outage").unlink()
    assert second.wait() == 0
    lab.evidence.check(turns=2)


def server_back_after_the_stop(lab: Lab) -> None:
    """A late renewal lifts the kill: a command that ends by itself has the time for it."""
    run = lab.start("--ttl", "12s", command=lab.long_job("ignore"))
    lab.ready()
    lab.control("outage").touch()
    run.hears("can't be renewed in time, so the command is stopped")
    lab.control("outage").unlink()
    started = lab.evidence.lines()[0].when
    until(lambda: lab.evidence.lines()[-1].when > started + 13, "the command to live on")
    lab.finish()
    assert run.wait() == 79
    assert lab.evidence.count("end") == 1
    lab.next_one()
    lab.evidence.check(turns=2)


def front_stopped_for_longer_than_a_lease(lab: Lab) -> None:
    """The keeper goes on renewing."""
    run = running(lab, "status", "9", ttl="6s")
    second = waiting(lab, ttl="6s")
    stopped(run.pid)
    started = lab.evidence.lines()[0].when
    until(lambda: lab.evidence.lines()[-1].when > started + 8, "the lease to be over, were it not renewed")
    assert state(run.pid) == "T"
    send(SIGCONT, run.pid)
    lab.finish()
    assert (run.wait(), second.wait()) == (9, 0)
    lab.evidence.check(turns=2)


def front_stopped_while_renewals_fail(lab: Lab) -> None:
    """The keeper wakes it, and it stops the command."""
    run = running(lab, ttl="6s")
    second = waiting(lab, ttl="6s")
    stopped(run.pid)
    lab.control("outage").touch()
    assert run.wait() == 79
    lab.control("outage").unlink()
    assert second.wait() == 0
    lab.evidence.check(turns=2)


def front_and_guard_stopped_while_renewals_fail(lab: Lab) -> None:
    """Stopped again and again whenever they are woken: then the keeper kills the command itself."""
    run = running(lab, "ignore", ttl="6s")
    second = waiting(lab, ttl="6s")
    guard = run.one("guard")
    command = lab.tree()
    lab.control("outage").touch()

    def stop_again() -> bool:
        for process in (run.pid, guard):
            send_if_there(SIGSTOP, process)
        return all(gone(process) for process in command)

    until(stop_again, "the keeper to kill the command")
    lab.control("outage").unlink()
    send_if_there(SIGCONT, run.pid)
    assert (run.wait(), second.wait()) == (79, 0), run.said
    lab.evidence.check(turns=2)


def all_frozen_past_the_lease(lab: Lab) -> None:
    """Whoever runs first looks at the lease first: the command is killed, and runs no more."""
    run = running(lab, "ignore", ttl="6s")
    ours = [run.pid, run.one("guard"), run.one("keeper")]
    command = lab.tree()
    stopped(*command)
    stopped(*ours)
    second = waiting(lab, ttl="6s")
    assert second.wait() == 0
    assert {word.rpartition(":")[2] for word in lab.evidence.survivors()} == {"T"}
    for process in ours:
        send_if_there(SIGCONT, process)
    assert run.wait() == 79
    assert all(gone(process) for process in command)
    assert len(lab.evidence.turns()) == 2
    ended = [line.turn for line in lab.evidence.lines()]
    assert ended == sorted(ended)


def lease_taken_by_another(lab: Lab) -> None:
    """A lock that was given to somebody else is lost: the command is killed without a word before."""
    run = running(lab, "ignore", ttl="6s")
    another = {"token": 9, "holder": "x:1:1", "until": 0, "since": 0, "record": None}
    with (lab.locks / "server").open("a") as server:
        fcntl.flock(server, fcntl.LOCK_EX)  # or a renewal that has begun would undo it
        (lab.locks / f"{lab.name}.lease").write_text(json.dumps(another))
    assert run.wait() == 79
    assert "is lost, so the command is killed" in run.said
    lab.next_one()
    lab.evidence.check(turns=2)


def backend_breaks(lab: Lab) -> None:
    """A keeper that crashes is replaced, in vain; the command is stopped before the lease ends."""
    run = running(lab, "ignore", ttl="6s")
    lab.control("broken").touch()
    run.hears("the backend failed: RuntimeError in singleton_run_leasefile.py")
    assert run.wait() == 79
    lab.control("broken").unlink()
    assert "Traceback" not in run.said
    lab.next_one()
    lab.evidence.check(turns=2)


SLOW = (
    front_and_keeper_killed,
    keepers_killed_for_longer_than_a_lease,
    keeper_stopped,
    keeper_stopped_before_the_release,
    library_stuck,
    server_out_of_reach,
    server_back_after_the_stop,
    front_stopped_for_longer_than_a_lease,
    front_stopped_while_renewals_fail,
    front_and_guard_stopped_while_renewals_fail,
    all_frozen_past_the_lease,
    lease_taken_by_another,
    backend_breaks,
)


@pytest.fixture(scope="module")
def under_way(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[object, Future[None]]]:
    """Those of SLOW that were asked for, all started at once."""
    wanted = {
        item.callspec.params.get("story") for item in request.session.items if hasattr(item, "callspec")
    }
    directory = tmp_path_factory.mktemp("slow")

    def tell(story: Callable[[Lab], None]) -> None:
        with Lab(directory, "leasefile") as lab:
            story(lab)

    with ThreadPoolExecutor(len(SLOW)) as pool:
        yield {story: pool.submit(tell, story) for story in SLOW if story in wanted}


@pytest.mark.parametrize("story", SLOW, ids=lambda story: story.__name__)
def test_over_the_length_of_a_lease(story: object, under_way: dict[object, Future[None]]) -> None:
    under_way[story].result()
