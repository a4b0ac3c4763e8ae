"""`--on`, `--notify` and `--ping`: who is told what, and that none of it holds up the command or the lock."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import select
import shlex
import signal
import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from singleton_run.errors import USAGE
from tests.support import schemas
from tests.support.harness import LONG, TREE, Lab, environment, labs, python, send, until
from tests.support.receiver import Checks, Receiver
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])
SECRET = "a secret"  # noqa: S105 - of this test


@pytest.fixture
def backend() -> str:
    return "file"


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Lab]:
    """A lock under that backend."""
    yield from labs(tmp_path, backend)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def checks() -> Iterator[Checks]:
    made = Checks()
    yield made
    made.close()


def told(lab: Lab) -> list[dict[str, Any]]:
    """The events that hooks have written down, each of which must be as the schema has it."""
    file = lab.directory / "told"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    for event in events:
        schemas.check("event", event)
    return events


def names(lab: Lab) -> list[str]:
    return [event["event"] for event in told(lab)]


def writes(lab: Lab, *events: str) -> list[str]:
    """Options by which each of these events is written down, in one step."""
    command = f'line=$(cat); printf "%s\\n" "$line" >> {lab.directory}/told'
    return [word for event in events for word in ("--on", f"{event}={command}")]


ALL = ("waiting", "acquired", "started", "succeeded", "failed", "interrupted", "lost", "released")


# Hooks.


@BOTH
def test_the_events_of_a_turn_in_order(lab: Lab) -> None:
    run = lab.start(*writes(lab, *ALL), command=["true"])
    assert (run.wait(), run.said) == (0, "")
    until(lambda: len(names(lab)) == 4, "the hooks to have run")
    assert names(lab) == ["acquired", "started", "succeeded", "released"]
    acquired, started, succeeded, released = told(lab)
    assert {event["name"] for event in told(lab)} == {lab.name}
    assert len({event["id"] for event in told(lab)}) == 4
    assert {event["token"] for event in (acquired, started, succeeded, released)} == {acquired["token"]}
    assert succeeded["status"] == 0
    assert succeeded["run"] == started["run"]


def test_who_waits_is_told_once_and_a_failure_has_its_status(lab: Lab) -> None:
    first = lab.start(command=lab.long_job())
    lab.ready()
    second = lab.start(*writes(lab, *ALL), command=["sh", "-c", "exit 3"])
    until(lambda: names(lab) == ["waiting"], "the wait to be told")
    lab.finish()
    assert first.wait() == 0
    assert second.wait() == 3
    until(lambda: len(names(lab)) == 5, "the hooks to have run")
    assert names(lab) == ["waiting", "acquired", "started", "failed", "released"]
    assert told(lab)[3]["status"] == 3


def test_a_hook_has_the_event_in_its_environment_and_our_directory(lab: Lab) -> None:
    script = "echo $SINGLETON_EVENT $SINGLETON_STATUS $SINGLETON_NAME ${SINGLETON_RUN_TTL-none} $PWD >> seen"
    run = lab.start(
        "--on",
        f"failed={script}",
        command=["sh", "-c", "exit 5"],
        environ=environment(SINGLETON_RUN_TTL="60s"),
    )
    assert run.wait() == 5
    seen = lab.directory / "seen"
    until(lambda: seen.exists() and seen.read_text().endswith("\n"), "the hook to have run")
    assert seen.read_text() == f"failed 5 {lab.name} none {lab.directory}\n"


def test_a_hook_is_not_of_the_command_s_tree(lab: Lab) -> None:
    """What it leaves behind is no leftover of the command's, and keeps no lock."""
    run = lab.start("--on", "started=sleep 600 & echo $! > left", "-v", command=lab.long_job())
    lab.ready()
    left = lab.directory / "left"
    until(lambda: left.exists() and left.read_text().endswith("\n"), "the hook to have run")
    lab.finish()
    assert run.wait() == 0
    assert "left process" not in run.said
    lab.next_one()
    process = int(left.read_text())
    send(0, process)
    send(signal.SIGKILL, process)


def test_a_hook_that_hangs_delays_nothing_and_is_ended(lab: Lab) -> None:
    hook = "trap '' TERM; echo $$ > pid; while :; do sleep 600; done"
    run = lab.start("--on", f"acquired={hook}", "--on-timeout", "1s", command=lab.long_job())
    lab.ready()
    file = lab.directory / "pid"
    until(lambda: file.exists() and file.read_text().strip(), "the hook to run")
    run.hears("--on acquired: the command ran for longer than 1s and was ended")
    lab.beats()
    lab.finish()
    assert run.wait() == 0
    lab.next_one()
    lab.evidence.check(turns=2)


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_where_the_kernel_has_no_pidfd_open_hooks_run_one_by_one_too(lab: Lab, error: str) -> None:
    waits = "until [ -e go ]; do sleep 0.01; done; echo $SINGLETON_EVENT >> seen"
    hooks = ["--on", f"acquired={waits}", "--on", "started=echo $SINGLETON_EVENT >> seen"]
    filtered = [sys.executable, str(TREE / "tests" / "support" / "seccomp.py"), "pidfd_open", error]
    run = lab.start(*hooks, command=["true"], via=f'exec {shlex.join(filtered)} "$@"')
    assert run.wait() == 0
    (lab.directory / "go").touch()
    seen = lab.directory / "seen"
    until(lambda: seen.exists() and seen.read_text().count("\n") == 2, "both hooks to have run")
    assert seen.read_text() == "acquired\nstarted\n"
    until(lambda: not lab.left(), "our processes to be gone")
    assert run.said == ""


def test_a_hook_that_fails_is_said_with_its_last_line(lab: Lab) -> None:
    run = lab.start("--on", "started=echo no way >&2; exit 7", command=lab.long_job())
    run.hears("singleton-run: --on started: the command ended with 7: no way\n")
    lab.finish()
    assert run.wait() == 0


def test_a_hook_takes_no_signal_that_is_meant_for_us(lab: Lab) -> None:
    run = lab.start(*writes(lab, *ALL), "-v", command=lab.long_job())
    lab.ready()
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGTERM
    until(lambda: "released" in names(lab), "the hooks to have run")
    assert names(lab) == ["acquired", "started", "interrupted", "released"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--on", "nothing=true"], "is not EVENT=COMMAND; the events are waiting, acquired"),
        (["--on", "lost="], "lost has no command"),
        (["--ping", "hc-ping.com/x"], "begins with https:// or http://"),
        (["--notify", "http://user:secret@example.com/x"], "--notify"),
        (["--ping-log"], "--ping-log says nothing without --ping"),
    ],
)
def test_what_can_not_be_meant_is_refused(lab: Lab, options: list[str], why: str) -> None:
    run = lab.start(*options, command=["true"])
    assert run.wait() == USAGE
    assert why in run.said
    assert "secret" not in run.said


# The webhook.


@BOTH
def test_a_webhook_is_sent_each_event_signed(lab: Lab, receiver: Receiver) -> None:
    environ = environment(SINGLETON_RUN_NOTIFY_SECRET=SECRET)
    run = lab.start("--notify", f"{receiver.url}/x?y=1", command=["true"], environ=environ)
    assert (run.wait(), run.said) == (0, "")
    got = receiver.has(4)
    assert [one.json()["event"] for one in got] == ["acquired", "started", "succeeded", "released"]
    for one in got:
        schemas.check("event", one.json())
        assert (one.method, one.path, one.query) == ("POST", "/x", {"y": "1"})
        digest = hmac.new(SECRET.encode(), one.body, hashlib.sha256).hexdigest()
        assert one.headers["Singleton-Run-Signature"] == f"sha256={digest}"
        assert one.headers["Singleton-Run-Event"] == one.json()["event"]
        assert one.headers["Singleton-Run-Delivery"] == one.json()["id"]
        assert one.headers["Content-Type"] == "application/json"


def test_a_webhook_that_fails_is_sent_again_until_it_works(lab: Lab, receiver: Receiver) -> None:
    receiver.status = 500
    run = lab.start("--notify", f"{receiver.url}/hidden", command=lab.long_job())
    lab.ready()
    run.hears(f"--notify: {receiver.place} answers 500; trying again")
    until(lambda: len(receiver.refused) >= 2, "a second try")
    receiver.status = 200
    lab.finish()
    assert run.wait() == 0
    got = receiver.has(4)
    assert [one.json()["event"] for one in got] == ["acquired", "started", "succeeded", "released"]
    assert receiver.refused[0].json()["id"] == receiver.refused[1].json()["id"] == got[0].json()["id"]
    assert "hidden" not in run.said


def test_a_webhook_that_refuses_is_not_asked_again(lab: Lab, receiver: Receiver) -> None:
    receiver.status = 404
    run = lab.start("--notify", receiver.url, command=lab.long_job())
    run.hears(f"--notify: {receiver.place} answers 404; this isn't sent again")
    lab.finish()
    assert run.wait() == 0


def test_a_webhook_that_never_answers_holds_up_nothing(lab: Lab, receiver: Receiver) -> None:
    receiver.status = None
    run = lab.start("--notify", receiver.url, command=lab.job())
    assert run.wait() == 0
    lab.next_one()
    lab.evidence.check(turns=2)


def test_a_certificate_is_checked(lab: Lab, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    secure = Receiver(context)
    try:
        run = lab.start("--notify", secure.url, command=lab.long_job())
        run.hears("its certificate is not trusted")
        assert secure.requests == []
        lab.finish()
        assert run.wait() == 0
        environ = environment(SSL_CERT_FILE=str(tmp_path / "ca.pem"))
        assert lab.start("--notify", secure.url, command=["true"], environ=environ).wait() == 0
        secure.has(4)
    finally:
        secure.close()


# Pings.


@BOTH
def test_a_run_is_pinged_at_its_start_and_its_end(lab: Lab, checks: Checks) -> None:
    run = lab.start("--ping", checks.check, command=["sh", "-c", "exit 3"])
    assert (run.wait(), run.said) == (3, "")
    start, end = checks.pinged(2)
    assert (start[0], end[0]) == ("start", "3")
    assert start[1] == end[1] != ""


def test_each_run_of_a_schedule_has_an_id_of_its_own(lab: Lab, checks: Checks) -> None:
    run = lab.start("--ping", checks.check, "--every", "1s", command=["true"])
    pings = checks.pinged(4)
    send(signal.SIGTERM, run.pid)
    run.wait()
    assert [kind for kind, _, _ in pings] == ["start", "0"] * 2
    assert pings[0][1] == pings[1][1] != pings[2][1] == pings[3][1]


def test_a_command_that_can_not_be_started_is_pinged_as_a_failure(lab: Lab, checks: Checks) -> None:
    script = lab.directory / "script"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(0o755)
    run = lab.start("--ping", checks.check, command=[str(script)])
    status = run.wait()
    assert status != 0
    assert checks.pinged(1)[0][0] == str(status)


@pytest.mark.parametrize("status", [500, 404, None])
def test_a_ping_that_fails_changes_nothing(lab: Lab, checks: Checks, status: int | None) -> None:
    checks.status = status
    run = lab.start("--ping", checks.check, command=lab.job("status", "4"))
    assert run.wait() == 4
    lab.next_one()


def test_a_monitor_that_is_not_there_changes_nothing(lab: Lab) -> None:
    run = lab.start("--ping", "http://127.0.0.1:9/x", command=lab.long_job())
    run.hears("--ping: 127.0.0.1:9")
    lab.finish()
    assert run.wait() == 0


@pytest.mark.parametrize(
    ("style", "status", "expected"),
    [
        ("cronitor", 0, [{"state": "run"}, {"state": "complete", "status_code": "0"}]),
        ("cronitor", 2, [{"state": "run"}, {"state": "fail", "status_code": "2"}]),
        ("snitch", 2, [{"s": "2"}]),
        ("plain", 0, [{}]),
    ],
)
def test_other_monitors_are_told_in_their_way(
    lab: Lab, receiver: Receiver, style: str, status: int, expected: list[dict[str, str]]
) -> None:
    command = ["sh", "-c", f"exit {status}"]
    run = lab.start("--ping", f"{receiver.url}/p/key?m=x", "--ping-style", style, command=command)
    assert run.wait() == status
    got = receiver.has(len(expected))
    series = {one.query.pop("series", "") for one in got}
    assert len(series) == 1
    assert [one.query for one in got] == [{"m": "x", **words} for words in expected]
    assert {(one.method, one.path) for one in got} == {("GET", "/p/key")}


# The output.

BYTES = bytes(range(256)) * 400


def test_the_output_is_passed_on_byte_for_byte_and_its_end_is_sent(lab: Lab, checks: Checks) -> None:
    code = "import fcntl, os, termios; data = bytes(range(256)) * 400"
    code += "\nwhile data: data = data[os.write(1, data):]"
    # Which of two full pipes is read first is nobody's promise: wait until the first one is empty.
    more = "while any(fcntl.ioctl(1, termios.FIONREAD, bytes(4))): pass\nos.write(2, b'and this')"
    run = lab.start("--ping", checks.check, "--ping-log", command=python(f"{code}\n{more}"))
    assert (run.wait(), run.out, run.said) == (0, BYTES, "and this")
    kind, _, output = checks.pinged(2)[1]
    assert (kind, len(output)) == ("0", 10_000)
    assert (BYTES[-9_992:] + b"and this") == output


@BOTH
def test_the_output_of_each_run_is_sent_with_it(lab: Lab, checks: Checks) -> None:
    count = lab.directory / "count"
    script = f"echo x >> {count}; wc -l < {count}; exit 1"
    run = lab.start("--ping", checks.check, "--ping-log", "--every", "1s", command=["sh", "-c", script])
    pings = checks.pinged(6)
    send(signal.SIGTERM, run.pid)
    run.wait()
    assert [(kind, output) for kind, _, output in pings] == [
        *(("start", b""), ("1", b"1\n")),
        *(("start", b""), ("1", b"2\n")),
        *(("start", b""), ("1", b"3\n")),
    ]
    assert run.out.startswith(b"1\n2\n3\n")


def test_both_streams_into_one_file_keep_their_order(lab: Lab, checks: Checks) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done"
    options = ("--ping", checks.check, "--ping-log")
    run = lab.start(*options, command=["sh", "-c", script], via='exec "$@" 2>&1')
    assert run.wait() == 0
    assert run.out == b"".join(b"out %d\nerr %d\n" % (number, number) for number in range(1, 10))


def test_at_a_terminal_the_output_comes_as_it_is(lab: Lab, checks: Checks, tmp_path: Path) -> None:
    argv = lab.argv("--ping", checks.check, "--ping-log", command=["printf", "a\\033[1mb\\tc\\n"])
    with Terminal(argv, tmp_path) as terminal:
        terminal.shows("a\x1b[1mb\tc\r\n")
        assert checks.pinged(2)[1][2] == b"a\x1b[1mb\tc\n"


def test_a_reader_that_goes_away_is_noticed_by_the_command(lab: Lab, checks: Checks) -> None:
    run = lab.start(
        "--ping", checks.check, "--ping-log", command=["yes"], via='"$@" | head -n 2; exit 0', stdout=None
    )
    assert (run.wait(), run.out) == (0, b"y\ny\n")
    assert checks.pinged(2)[1][0] == str(128 + signal.SIGPIPE)


def test_output_that_nobody_reads_keeps_no_lock(lab: Lab, checks: Checks) -> None:
    """What the command has printed is passed on later; the lock goes to the next one as if it was written."""
    read, write = os.pipe()
    while select.select([], [write], [], 0)[1]:
        os.write(write, b"x" * 4096)
    script = f"echo late; exec {shlex.join(lab.job())}"
    run = lab.start("--ping", checks.check, "--ping-log", command=["sh", "-c", script], stdout=write)
    os.close(write)
    until(lambda: lab.evidence.count("end") == 1, "the command to end")
    lab.next_one()
    with os.fdopen(read, "rb") as reader:
        assert reader.read().endswith(b"xlate\n")
    assert run.wait() == 0


def test_a_reporter_that_is_stopped_or_dead_holds_up_no_output(lab: Lab, checks: Checks) -> None:
    for number in (signal.SIGSTOP, signal.SIGKILL):
        end = lab.directory / f"end-{number}"
        script = f"while [ ! -e {end} ]; do sleep 0.05; done; echo done"
        run = lab.start("--ping", checks.check, "--ping-log", command=["sh", "-c", script])
        send(number, run.one("reporter"))
        end.touch()
        assert (run.wait(), run.out) == (0, b"done\n")


@BOTH
def test_a_killed_guard_costs_neither_the_proof_nor_the_output(lab: Lab, checks: Checks) -> None:
    script = f"echo before; {shlex.join(lab.long_job())}; echo after"
    run = lab.start("--ping", checks.check, "--ping-log", "--ttl", LONG, command=["sh", "-c", script])
    lab.ready()
    send(signal.SIGKILL, run.one("guard"))
    run.hears("the guard of the command was killed")
    lab.finish()
    assert run.wait() == 0
    assert run.out == b"before\nafter\n"
    lab.next_one()
    lab.evidence.check(turns=2)


def test_a_plain_address_is_not_asked_for_after_a_failure(lab: Lab, receiver: Receiver) -> None:
    for status in (1, 0):
        command = ["sh", "-c", f"exit {status}"]
        assert lab.start("--ping", receiver.url, "--ping-style", "plain", command=command).wait() == status
    assert len(receiver.has(1)) == 1
