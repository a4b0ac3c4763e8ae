"""-vv: what our processes tell each other, ask and decide; nothing waits for it, and no secret is in it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.harness import (
    LONG,
    Lab,
    Run,
    children_of,
    environment,
    full_pipe,
    labs,
    open_files,
    python,
    send,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.etcd import Etcd
    from tests.servers.postgres import Postgres

TRACE = ("-vv", "--log-format", "json", "--ttl", LONG)
CANARY = "sEcReT7f"
BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])
# Ignores a signal that is queued as often as it is sent.
UNMOVED = "import signal, time; signal.signal({0}, signal.SIG_IGN); open('up', 'w'); time.sleep(1000)"


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Lab]:
    """A lock under that backend."""
    yield from labs(tmp_path, backend)


@pytest.fixture
def leased(tmp_path: Path) -> Iterator[Lab]:
    """A lock under a lease."""
    yield from labs(tmp_path, "leasefile")


def lines_of(run: Run) -> list[dict[str, Any]]:
    """The lines of a run's trace that have come as a whole."""
    whole = run.said[: run.said.rfind("\n") + 1].splitlines()
    lines = [json.loads(line) for line in whole if line.startswith("{")]
    return [line for line in lines if line["level"] == "trace"]


def did(run: Run) -> list[tuple[str, ...]]:
    """What was told: by whom, which event, and of what if that is said."""
    return [
        tuple(line[word] for word in ("process", "event", "what") if word in line) for line in lines_of(run)
    ]


def messages_of(run: Run) -> set[tuple[str, ...]]:
    """Which messages were sent and heard, and by whom."""
    return {line for line in did(run) if line[1] in ("sent", "heard")}


def both(sender: str, hearer: str, *names: str) -> set[tuple[str, ...]]:
    """The messages of one direction, at both ends."""
    return {
        (process, event, name) for process, event in ((sender, "sent"), (hearer, "heard")) for name in names
    }


OF_A_RUN = both("guard", "front", "started", "ended", "gone")


# What is told.


def test_of_a_turn_each_message_is_told_at_both_ends(leased: Lab) -> None:
    run = leased.start(*TRACE, command=leased.job())
    assert run.wait() == 0
    expected = (
        OF_A_RUN
        | both("front", "guard", "start")
        | both("keeper", "front", "granted", "settled")
        | both("front", "keeper", "running", "settle")
    )
    # The keeper reads the proof itself once the front is gone, if it is still there then.
    assert messages_of(run) - {("keeper", "heard", "gone")} == expected
    proofs = {tuple(line.get("facts", {})) for line in lines_of(run) if line.get("what") == "gone"}
    # The guard sends it to the keeper after the front, which may end meanwhile.
    assert proofs - {()} == {("proved",)}


def test_of_waiting_a_signal_and_leftovers_too(leased: Lab) -> None:
    script = "trap : USR1; touch up; i=0; while ! test -e finish; do sleep 0.01; done; "
    script += "while [ $i -lt 60 ]; do sleep 60 & i=$((i+1)); done"
    first = leased.start(*TRACE, "--kill-after", "100ms", command=["sh", "-c", script])
    until((leased.directory / "up").exists, "the command to run")
    second = leased.start(*TRACE, command=leased.job())
    until(lambda: ("front", "heard", "held") in messages_of(second), "the second to wait")
    send(signal.SIGTERM, second.pid)
    assert second.wait() == 128 + signal.SIGTERM
    send(signal.SIGUSR1, first.pid)
    until(lambda: ("guard", "heard", "signal") in messages_of(first), "the signal to be heard")
    leased.finish()
    first.wait()
    expected = both("keeper", "front", "held", "settled") | both("front", "keeper", "leave")
    assert expected <= messages_of(second)
    expected = both("guard", "front", "leftover", "more_leftovers") | both("front", "guard", "signal")
    assert expected <= messages_of(first)


def test_of_trouble_a_refusal_a_loss_and_a_failed_start_too(leased: Lab) -> None:
    leased.control("outage").touch()
    first = leased.start(*TRACE, "--ttl", "6s", command=leased.long_job())
    until(lambda: ("front", "heard", "trouble") in messages_of(first), "the trouble to be heard")
    leased.control("outage").unlink()
    leased.ready()
    with (leased.locks / "server").open("a") as server:
        fcntl.flock(server, fcntl.LOCK_EX)  # or a request that has begun would undo it
        (leased.locks / f"{leased.name}.lease").unlink()
    assert first.wait() == 79
    assert both("keeper", "front", "trouble", "lost") | both("front", "guard", "kill") <= messages_of(first)
    leased.control("denied").touch()
    second = leased.start(*TRACE, command=leased.job())
    assert second.wait() == 77
    assert both("keeper", "front", "gave_up") <= messages_of(second)
    leased.control("denied").unlink()
    program = leased.directory / "program"
    program.write_text("#!/nonexistent\n")
    program.chmod(0o755)
    third = leased.start(*TRACE, command=["./program"])
    assert third.wait() == 127
    assert both("guard", "front", "failed") <= messages_of(third)


@BOTH
def test_of_a_slot_too(lab: Lab) -> None:
    run = lab.start(*TRACE, "--every", "1h", "--no-loop", command=lab.job())
    assert run.wait() == 0
    assert both("keeper", "front", "ready", "granted") | OF_A_RUN <= messages_of(run)
    again = lab.start(*TRACE, "--every", "1h", "--no-loop", command=lab.job())
    assert again.wait() == 0
    assert both("keeper", "front", "rest") <= messages_of(again)


@pytest.mark.parametrize("backend", ["file"])
def test_of_a_guard_that_waits_for_a_file_too(lab: Lab) -> None:
    lab.start(command=lab.long_job())
    lab.ready()
    run = lab.start(*TRACE, command=lab.job())
    until(lambda: ("guard", "begin") in did(run), "a guard")
    lab.finish()
    assert run.wait() == 0
    assert both("guard", "front", "locked") | OF_A_RUN <= messages_of(run)
    assert ("front", "request", "open") in did(run)
    locked = [line["facts"]["answer"] for line in lines_of(run) if line.get("what") == "flock"]
    assert locked == ["BlockingIOError", "done"]


def test_of_the_lease_it_tells_each_renewal_and_what_follows_from_it(leased: Lab) -> None:
    run = leased.start(*TRACE, "--ttl", "6s", command=leased.long_job())
    leased.ready()

    def renewals(process: str) -> list[dict[str, Any]]:
        leases = [line for line in lines_of(run) if line["event"] == "lease" and line["process"] == process]
        return [line["facts"] for line in leases if line["facts"]["renewed"]]

    until(lambda: len(renewals("keeper")) >= 2, "the lease to be renewed")
    leased.finish()
    assert run.wait() == 0
    for facts in renewals("keeper"):
        spans = [round(facts["end"] - facts[name], 3) for name in ("renew", "stop", "kill", "enforce")]
        assert spans == [4.0, 2.0, 1.0, 0.5]
    assert {("keeper", "does", "renew"), ("keeper", "did", "renew")} <= set(did(run))


def test_a_keeper_that_is_replaced_is_told(leased: Lab) -> None:
    run = leased.start(*TRACE, command=leased.long_job())
    leased.ready()
    keeper = run.one("keeper")
    send(signal.SIGKILL, keeper)
    run.one("keeper", but=keeper)
    leased.finish()
    assert run.wait() == 0
    told = did(run)
    assert told.count(("keeper", "begin")) == 2
    assert [line[2] for line in told if line[:2] == ("front", "decides")] == ["acquire", "acquire", "settle"]


@BOTH
def test_it_goes_on_when_the_front_is_killed(lab: Lab) -> None:
    run = lab.start(*TRACE, command=lab.long_job("leave"))
    lab.ready()
    send(signal.SIGKILL, run.pid)
    last = ("keeper", "did", "release") if "leasefile" in lab.lock else ("guard", "sent", "gone")
    until(lambda: last in did(run), "what guard and keeper do then")
    until(lambda: not lab.left(), "the writer to end with them")


def test_text_is_a_line_each_with_the_time_since_the_start(leased: Lab) -> None:
    run = leased.start("-vv", "--ttl", LONG, command=leased.job())
    assert run.wait() == 0
    lines = [line.removeprefix("singleton-run: ").split(" ") for line in run.said.splitlines()]
    traced = [line for line in lines if line[0].startswith("+")]
    assert traced[0][1:3] == ["front", "begin"]
    assert {line[1] for line in traced} == {"front", "guard", "keeper"}
    assert all(float(line[0]) >= 0 for line in traced)
    assert f"lock={leased.lock}" in traced[0]
    assert "got lock" in run.said


# What it leaves alone.


@BOTH
def test_without_it_nothing_of_it_is_there(lab: Lab) -> None:
    read, write = full_pipe()  # or the writer ends after a second
    run = lab.start("-v", "--log-format", "json", "--ttl", LONG, command=lab.long_job(), stderr=write)
    os.close(write)
    lab.ready()
    everyone = (run.pid, run.one("writer"), run.one("guard"))

    def shared() -> list[str]:
        opened = [{file for number, file in open_files(one).items() if number != 2} for one in everyone]
        return [file for file in set.intersection(*opened) if file.startswith("pipe:")]

    until(lambda: not shared(), "the writer to let go of what it has inherited")
    lab.finish()
    assert {json.loads(line)["level"] for line in reading(read) if line.startswith("{")} == {"info"}
    assert run.wait() == 0


def test_a_terminal_that_hangs_keeps_no_renewal_waiting_and_what_is_lost_is_said(leased: Lab) -> None:
    """As one that is held by Ctrl-S, or a reader that was stopped."""
    number = signal.SIGRTMIN
    read, write = full_pipe()
    command = python(UNMOVED.format(int(number)))
    run = leased.start(*TRACE, "--ttl", "6s", command=command, stderr=write)
    os.close(write)
    until((leased.directory / "up").exists, "the command to run")
    for _ in range(1000):  # each is told four times, of which the pipe takes none
        send(number, run.pid)
    lease = leased.locks / f"{leased.name}.lease"
    ends = {json.loads(lease.read_text())["until"]}

    def renewed_thrice() -> bool:
        ends.add(json.loads(lease.read_text())["until"])
        return len(ends) > 3

    until(renewed_thrice, "three renewals")
    assert run.popen.poll() is None
    assert children_of(run.one("guard"))
    lines = reading(read)
    send(signal.SIGTERM, run.pid)
    said = [json.loads(line) for line in lines if line.startswith("{")]
    assert run.wait() == 128 + signal.SIGTERM
    lost = {line["process"]: line["facts"]["lines"] for line in said if line["event"] == "dropped"}
    assert lost.keys() >= {"front", "guard"}
    assert sum(lost.values()) + sum(line["level"] == "trace" for line in said) > 3000


def reading(descriptor: int) -> Iterator[str]:
    """The lines that come out of a pipe until its end."""
    with os.fdopen(descriptor, encoding="utf-8") as pipe:
        yield from pipe


# What it never tells.


@BOTH
def test_neither_arguments_nor_variables_are_in_it(lab: Lab) -> None:
    script = f'sh -c "sleep 60; : {CANARY}" {CANARY} & sleep 0'
    environ = environment(SOME_PASSWORD=CANARY, SINGLETON_RUN_RETRY_DELAY="", PGPASSWORD=CANARY)
    run = lab.start(*TRACE, command=["sh", "-c", script, CANARY], environ=environ)
    assert run.wait() == 0
    assert any(line.get("what") == "leftover" for line in lines_of(run))
    assert CANARY not in json.dumps(lines_of(run))


def requests_of(run: Run) -> list[tuple[str, str, str]]:
    """The requests that a run's trace tells of: kind, key and answer."""
    told = [line for line in lines_of(run) if line["event"] == "request"]
    assert all(line["process"] == "keeper" and line["facts"]["ms"] > 0 for line in told)
    return [(line["what"], line["facts"]["key"], line["facts"]["answer"]) for line in told]


@pytest.mark.servers
@pytest.mark.parametrize("scheme", ["etcd", "etcd+grpc"])
def test_each_request_to_etcd_is_told(etcd_server: Etcd, tmp_path: Path, scheme: str) -> None:
    with Lab(tmp_path) as lab:
        lab.lock = f"{scheme}://{etcd_server.address}"
        run = lab.start(*TRACE, "--ttl", "6s", command=lab.long_job())
        lab.ready()
        renewal = ("/v3/lease/keepalive", "LeaseKeepAliveRequest")
        until(
            lambda: [kind for kind, key, _ in requests_of(run) if kind in renewal or key.startswith(renewal)],
            "a renewal",
        )
        lab.finish()
        assert run.wait() == 0
        told = requests_of(run)
    if scheme == "etcd":
        paths = {key.split()[0] for _, key, _ in told}
        assert paths >= {"/v3/lease/grant", "/v3/kv/txn", "/v3/watch", "/v3/lease/keepalive"}
        good, watch = f"200 from {etcd_server.address}", "/v3/watch"
    else:
        kinds = {kind for kind, _, _ in told}
        assert kinds >= {"LeaseGrantRequest", "TxnRequest", "WatchCreateRequest", "LeaseKeepAliveRequest"}
        good, watch = "OK", "WatchCreateRequest"
    # The front may say that the command runs, or has ended, just while the holder opens its watch.
    watches = [(kind, key, answer) for kind, key, answer in told if kind == watch or key.startswith(watch)]
    assert {answer for _, _, answer in watches} <= {good, "Interrupted"}
    assert {answer for request in told if request not in watches for answer in request[2:]} == {good}
    assert any(key.split()[-1].startswith(f"{lab.name}/") for _, key, _ in told)


@pytest.mark.servers
def test_each_request_to_postgres_is_told(postgres_server: Postgres, tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        lab.lock = postgres_server.url
        run = lab.start(*TRACE, "--ttl", "6s", command=lab.long_job())
        lab.ready()
        until(lambda: any(key == f"renew {lab.name}" for _, key, _ in requests_of(run)), "a renewal")
        lab.finish()
        assert run.wait() == 0
        told = requests_of(run)
    assert told[0] == ("connect", f"127.0.0.1:{postgres_server.port}", "logged in as app")
    keys = {key for kind, key, _ in told if kind == "query"}
    assert keys >= {"hello", f"acquire {lab.name}", f"renew {lab.name}", f"release {lab.name}"}
