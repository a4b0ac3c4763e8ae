"""The exit status, for each way to end; and what the command is told, keeps, and never sees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import (
    GIVEN,
    LONG,
    PROGRAM,
    TREE,
    Lab,
    environment,
    gone,
    labs,
    send,
    stat_of,
    state,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.harness import Run


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lock under the file backend."""
    yield from labs(tmp_path, "file")


@pytest.fixture
def leased(tmp_path: Path) -> Iterator[Lab]:
    """A lock under a lease."""
    yield from labs(tmp_path, "leasefile")


def sh(script: str) -> list[str]:
    """A command."""
    return ["sh", "-c", script]


def refused(run: Run, status: int, *words: str) -> str:
    """The one line with which a call ends by this status."""
    assert (run.wait(), run.out) == (status, b""), run.said
    assert run.said.startswith("singleton-run: ")
    assert run.said.count("\n") == 1, run.said
    for word in words:
        assert word in run.said
    return run.said


def variables(run: Run) -> dict[str, str]:
    """What `env` has printed."""
    assert run.wait() == 0, run.said
    return dict(line.split("=", 1) for line in run.out.decode().splitlines() if "=" in line)


# The command's own.


@pytest.mark.parametrize("backend", ["file", "leasefile"])
@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -KILL $$", 128 + signal.SIGKILL),
        ("kill -TERM $$", 128 + signal.SIGTERM),
        ("kill -INT $$", -signal.SIGINT),
    ],
)
def test_the_command_s_status_is_ours(tmp_path: Path, backend: str, script: str, status: int) -> None:
    with Lab(tmp_path, backend) as lab:
        run = lab.start(command=sh(script))
        assert (run.wait(), run.said) == (status, "")


def test_as_process_1_an_interrupted_command_is_told_by_number(lab: Lab) -> None:
    script = "import posix; posix.getpid = lambda: 1; from singleton_run.__main__ import main; main()"
    argv = lab.argv(command=sh("kill -INT $$"))
    argv[1:3] = ["-c", script]
    done = subprocess.run(argv, env=environment(), stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, b"")


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGRTMIN + 1]
)
def test_a_signal_to_us_ends_the_command(lab: Lab, number: int) -> None:
    run = lab.start(command=lab.long_job())
    lab.ready()
    send(number, run.pid)
    assert run.wait() == 128 + number
    lab.next_one()


def test_an_interrupt_to_us_ends_the_command_and_then_us(lab: Lab) -> None:
    run = lab.start(
        command=[
            sys.executable,
            "-S",
            "-c",
            "import signal, sys; signal.signal(2, signal.SIG_DFL); print(1, flush=True); signal.pause()",
        ]
    )
    until(lambda: run.out, "the command to run")
    send(signal.SIGINT, run.pid)
    assert run.wait() == -signal.SIGINT


def test_a_command_may_have_its_own_status_for_a_signal(lab: Lab) -> None:
    run = lab.start(command=sh("trap 'exit 12' USR2 TERM; echo; while :; do sleep 0.01; done"))
    until(lambda: run.out, "the command to run")
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 12


def test_every_process_of_the_command_s_group_gets_the_signal(lab: Lab) -> None:
    run = lab.start(command=sh("(trap 'echo child; exit' TERM; echo; while :; do sleep 0.01; done) & wait"))
    until(lambda: run.out, "the command to run")
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGTERM
    assert b"child" in run.out


def test_a_script_without_a_first_line_goes_to_sh(lab: Lab) -> None:
    script = lab.directory / "script"
    script.write_text('exit "$1"\n')
    script.chmod(0o700)
    assert lab.start(command=[str(script), "9"]).wait() == 9


# Ours.


def test_2_for_what_makes_no_sense(lab: Lab) -> None:
    refused(lab.start("--ttl", "1s", command=["true"]), 2, "ttl must be at least 6s")
    assert os.listdir(lab.locks) == []


def test_69_when_the_server_can_not_be_reached(leased: Lab) -> None:
    leased.control("outage").touch()
    for options in (["--wait", "300ms"], ["-n"]):
        run = leased.start("-q", *options, command=leased.job())
        refused(run, 69, "out of reach")
    assert leased.evidence.lines() == []


def test_a_server_that_comes_back_within_the_wait_is_enough(leased: Lab) -> None:
    leased.control("outage").touch()
    run = leased.start(command=leased.job())
    run.hears("out of reach; trying again")
    leased.control("outage").unlink()
    assert run.wait() == 0


def test_69_when_the_backend_breaks(leased: Lab) -> None:
    leased.control("broken").touch()
    run = leased.start(command=leased.job())
    assert run.wait() == 69
    assert "the backend failed: RuntimeError in singleton_run_leasefile.py" in run.said
    assert "Traceback" not in run.said
    assert leased.evidence.lines() == []


@pytest.mark.parametrize("backend", ["file", "leasefile"])
@pytest.mark.parametrize("options", [["-n"], ["--wait", "0"], ["--wait", "200ms"]])
def test_75_when_the_lock_is_held(tmp_path: Path, backend: str, options: list[str]) -> None:
    began = time.time()
    with Lab(tmp_path, backend) as lab:
        first = lab.start(command=lab.long_job())
        lab.ready()
        lab.names_its_holder()
        run = lab.start(*options, command=lab.job())
        assert run.wait() == 75
        last = run.said.splitlines()[-1]
        host = os.uname().nodename
        assert last.startswith(f"singleton-run: lock '{lab.name}' is held by {host}:{first.pid}:")
        years = {time.gmtime(moment).tm_year for moment in (began, time.time())}
        assert any(f" on {host} since {year}-" in last for year in years)
        for status in (0, 3, 255):
            assert lab.start("-E", str(status), *options, command=lab.job()).wait() == status
        lab.finish()
        assert first.wait() == 0
        lab.evidence.check(turns=1)


def test_the_conflict_status_is_for_conflicts_only(lab: Lab) -> None:
    assert lab.start("-E", "3", command=sh("exit 75")).wait() == 75
    assert lab.start("-E", "3", "-n", command=sh("exit 0")).wait() == 0


def test_77_when_the_server_refuses(leased: Lab) -> None:
    leased.control("denied").touch()
    refused(leased.start(command=leased.job()), 77, "says no")
    assert leased.evidence.lines() == []


def test_78_when_this_machine_can_not(leased: Lab) -> None:
    leased.lock = "nonesuch://here"
    known = ["file", "etcd", *(() if GIVEN else ("leasefile",))]
    refused(leased.start(command=leased.job()), 78, "lock backend 'nonesuch'", *known)


def test_78_in_a_pod_without_a_lock_that_reaches_further(tmp_path: Path) -> None:
    argv = [*PROGRAM, "--name", "x", "--", "true"]
    environ = environment(KUBERNETES_SERVICE_HOST="10.0.0.1")
    done = subprocess.run(argv, env=environ, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert "--lock" in done.stderr


ELSEWHERE = """
import sys
sys.platform = "darwin"
# They could not be loaded there.
sys.modules["singleton_run.system.calls"] = sys.modules["singleton_run.system.libc"] = None
from singleton_run.__main__ import main
main()
"""


@pytest.mark.parametrize("words", [["--", "true"], ["--help"], []])
def test_78_where_there_is_no_linux_and_the_docs_say_how(words: list[str]) -> None:
    argv = [sys.executable, "-c", ELSEWHERE, *words]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1)
    assert done.stderr in (TREE / "docs" / "promises.md").read_text()


WITHOUT_POSIX = """
import runpy, sys
sys.modules["posix"] = None  # as on Windows
runpy.run_module("singleton_run", run_name="__main__")
"""


def test_78_on_windows_too() -> None:
    argv = [sys.executable, "-c", WITHOUT_POSIX]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1)
    assert done.stderr in (TREE / "docs" / "promises.md").read_text()


SLOW_TO_END = """
import os, posix, time
main, end = os.getpid(), os._exit
def slow(status):
    if os.getpid() != main:
        time.sleep(0.3)
    end(status)
os._exit = posix._exit = slow
"""


@pytest.mark.parametrize("backend", ["file", "leasefile"])
def test_a_call_under_another_leaves_nothing_behind(tmp_path: Path, backend: str) -> None:
    """The outer call would say so of the inner one's guard and keeper, which end after their front."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_TO_END)
    with Lab(tmp_path, backend) as lab:
        path = os.pathsep.join([str(tmp_path), environment().get("PYTHONPATH", "")])
        run = lab.start(
            command=lab.argv("--name", "inner", command=["true"]), environ=environment(PYTHONPATH=path)
        )
        assert (run.wait(), run.said) == (0, "")


def test_78_for_a_call_under_its_own_lock(lab: Lab) -> None:
    inner = lab.argv(command=["echo", "inner"])
    refused(lab.start(command=inner), 78, "give it another --name")
    inner[inner.index(lab.name)] = "other"
    run = lab.start(command=inner)
    assert (run.wait(), run.out) == (0, b"inner\n")
    again = lab.argv(command=["echo", "inner"])
    refused(lab.start(command=[*inner[:-2], *again]), 78, "give it another --name")


def test_124_when_the_time_is_up(lab: Lab) -> None:
    run = lab.start("--timeout", "100ms", command=lab.long_job())
    assert run.wait() == 124
    assert "--timeout" in run.said
    run = lab.start(
        "--lock-at-most-for", "100ms", "--kill-after", "100ms", command=lab.long_job("leave", "ignore")
    )
    assert run.wait() == 124
    lab.next_one()
    # On a busy machine the time may be up before a command has written a line.
    lab.evidence.check(turns=len(lab.evidence.turns()))


def test_124_even_if_the_command_makes_the_best_of_it(lab: Lab) -> None:
    run = lab.start("--timeout", "100ms", command=sh("trap 'exit 0' TERM; while :; do sleep 0.01; done"))
    assert run.wait() == 124


def test_the_time_is_the_command_s_and_not_the_wait_s(lab: Lab) -> None:
    first = lab.start(command=lab.long_job())
    lab.ready()
    second = lab.start("--timeout", "5s", command=lab.job())
    second.hears("waiting for lock")
    over = time.monotonic() + 5
    until(lambda: time.monotonic() > over, "as much time to be gone as its command has")
    lab.finish()
    assert (first.wait(), second.wait()) == (0, 0)


def test_126_and_127_are_seen_before_anything_is_contacted(lab: Lab) -> None:
    plain = lab.directory / "plain"
    plain.touch(0o600)
    lab.lock = "nonesuch://here"
    refused(lab.start(command=[str(plain)]), 126, "not executable")
    refused(lab.start(command=[str(lab.directory)]), 126, "directory")
    refused(lab.start(command=["singleton-run-nonesuch"]), 127, "not found")
    refused(lab.start(command=["./nonesuch"]), 127, "not found")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system: sudo make test-process")
def test_126_on_a_file_system_that_lets_nothing_be_executed_does_not_blame_the_mode(lab: Lab) -> None:
    program = lab.directory / "place" / "program"
    program.parent.mkdir()
    mount = f"mount -t tmpfs -o noexec none {program.parent} && cp /bin/true {program}"
    run = lab.start(command=[str(program)], via=f'exec unshare -m sh -c \'{mount} && exec "$@"\' sh "$@"')
    refused(run, 126, "noexec")
    assert "chmod" not in run.said


def test_126_and_127_for_what_only_shows_at_the_start(lab: Lab) -> None:
    script = lab.directory / "script"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(0o700)
    refused(lab.start(command=[str(script)]), 127, "can't be executed")
    script.write_text("#!/usr\n")
    refused(lab.start(command=[str(script)]), 126, "can't be executed")
    lab.next_one()


# What the command gets.


@pytest.mark.parametrize("backend", ["file", "leasefile"])
def test_the_command_is_told_of_its_lock(tmp_path: Path, backend: str) -> None:
    with Lab(tmp_path, backend) as lab:
        first = variables(run := lab.start(command=["env"]))
        second = variables(lab.start(command=["env"]))
        assert first["SINGLETON_NAME"] == lab.name
        assert first["SINGLETON_HOLDER"].startswith(f"{os.uname().nodename}:{run.pid}:")
        assert int(second["SINGLETON_TOKEN"]) > int(first["SINGLETON_TOKEN"]) > 0
        assert second["SINGLETON_ID"] != first["SINGLETON_ID"] != ""


def test_our_options_are_taken_out_of_the_environment_and_nothing_else(lab: Lab) -> None:
    ours = {
        "SINGLETON_RUN_NAME": lab.name,
        "SINGLETON_RUN_LOCK": lab.lock,
        "SINGLETON_RUN_TIMEOUT": "60s",
        "SINGLETON_RUN_QUIET": "1",
        "SINGLETON_RUN_CONFLICT_EXIT_CODE": "3",
    }
    stale = {"SINGLETON_SLOT": "an outer call's", "SINGLETON_ATTEMPT": "2"}
    environ = environment(**ours, **stale, SINGLETON_RUN_PORT="tcp://10.0.0.1:80", OTHER="é ü")
    seen = variables(lab.start(command=["env"], environ=environ))
    assert not {*ours, *stale} & seen.keys()
    assert (seen["SINGLETON_RUN_PORT"], seen["OTHER"]) == ("tcp://10.0.0.1:80", "é ü")
    added = {
        "SINGLETON_NAME",
        "SINGLETON_TOKEN",
        "SINGLETON_HOLDER",
        "SINGLETON_TTL",
        "SINGLETON_LOCK",
        "SINGLETON_ID",
        "SINGLETON_HELD",
    }
    assert seen.keys() - environ.keys() <= added | {"_", "PWD", "OLDPWD", "SHLVL"}
    assert all(seen[name] == value for name, value in environ.items() if name not in {*ours, *stale, "_"})


def test_a_variable_stands_for_its_option(lab: Lab) -> None:
    first = lab.start(command=lab.long_job())
    lab.ready()
    environ = environment(SINGLETON_RUN_NO_WAIT="1", SINGLETON_RUN_CONFLICT_EXIT_CODE="3")
    assert lab.start(command=lab.job(), environ=environ).wait() == 3
    lab.finish()
    assert first.wait() == 0


def test_a_password_is_seen_by_nobody(leased: Lab) -> None:
    leased.lock = leased.lock.replace("://", "://me:hunter2@")
    run = leased.start("-vv", command=["env"])
    run.wait()
    assert b"hunter2" not in run.out
    assert "hunter2" not in run.said


def test_ps_shows_neither_the_command_nor_the_address_in_our_processes(leased: Lab) -> None:
    run = leased.start("-vv", command=leased.long_job())  # with less its writer ends after a second
    leased.ready()
    found = {}
    for process in (run.pid, run.one("guard"), run.one("keeper"), run.one("writer")):
        found[process] = Path(f"/proc/{process}/cmdline").read_bytes()
        assert str(leased.locks).encode() not in found[process]
        assert b"job.py" not in found[process]
    assert found[run.pid].rstrip(b"\0") == f"singleton-run: front of {leased.name}".encode()
    leased.finish()
    assert run.wait() == 0


def test_the_command_s_input_and_output_are_its_own(lab: Lab) -> None:
    data = bytes(range(256)) * 4000
    done = subprocess.run(
        lab.argv("-vv", command=["cat"]), input=data, capture_output=True, env=environment(), check=False
    )
    assert (done.returncode, done.stdout) == (0, data)
    assert data[:200] not in done.stderr


def test_nothing_of_ours_keeps_the_command_s_output_open(lab: Lab) -> None:
    read, write = os.pipe()
    run = lab.start("-v", command=sh("exec >&-; echo $$ > pid; while :; do sleep 0.01; done"), stdout=write)
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)
    assert run.popen.poll() is None
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGTERM


def test_the_command_inherits_nothing_of_ours(lab: Lab) -> None:
    command = sh("ls /proc/self/fd | wc -l; grep -E 'Sig(Blk|Ign)' /proc/self/status")
    run = lab.start("-vv", command=command)
    bare = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert run.wait() == 0
    assert _without_glibcs(run.out) == _without_glibcs(bare.stdout)


def _without_glibcs(shown: bytes) -> list[bytes | int]:
    """The lines, masks as numbers: glibc's posix_spawn leaves signals 32 and 33, its own, ignored."""
    lines = [line.partition(b":\t") for line in shown.splitlines()]
    return [int(mask, 16) & ~(0b11 << 31) if mask else word for word, _, mask in lines]


def test_a_descriptor_that_was_passed_to_us_is_passed_on(lab: Lab) -> None:
    via = f'exec 7>{lab.directory}/seven; exec "$@"'
    assert lab.start(command=sh("echo seven >&7"), via=via).wait() == 0
    assert (lab.directory / "seven").read_text() == "seven\n"


# Signals that were ignored, and what the command leaves behind.


def test_what_nohup_ignores_stays_ignored(lab: Lab) -> None:
    first = lab.start(command=lab.long_job(), via="trap '' HUP; exec \"$@\"")
    lab.ready()
    second = lab.start(command=lab.job(), via="trap '' HUP; exec \"$@\"")
    second.hears("waiting for lock")
    process = next(iter(lab.tree()))
    ignored = next(
        line for line in Path(f"/proc/{process}/status").read_text().splitlines() if "SigIgn" in line
    )
    assert int(ignored.split()[1], 16) & 1
    send(signal.SIGHUP, first.pid, second.pid)
    lab.beats()
    lab.finish()
    assert (first.wait(), second.wait()) == (0, 0)


@pytest.mark.parametrize("backend", ["file", "leasefile"])
def test_leftovers_are_asked_to_end_then_killed_and_named(tmp_path: Path, backend: str) -> None:
    with Lab(tmp_path, backend) as lab:
        run = lab.start("--kill-after", "300ms", command=lab.job("leave", "status", "5"))
        lab.ready()
        assert run.wait() == 5
        over = time.clock_gettime(time.CLOCK_BOOTTIME)
        lab.next_one()
        lab.evidence.check(turns=2)
        turn = lab.evidence.turns()[0]
        left = lab.evidence.processes(turn) - {lab.evidence.lines()[0].process}
        assert len(left) == 2
        for process in left:
            assert f"the command left process {process} behind ({sys.executable}" in run.said
        end = next(line for line in lab.evidence.lines() if line.what == "end")
        assert over - end.when >= 0.3


def test_leftovers_that_listen_are_not_killed(lab: Lab) -> None:
    script = (
        "(trap 'echo > bye; exit' TERM; echo > up; while :; do sleep .1; done) & until test -e up; do :; done"
    )
    assert lab.start("--kill-after", "60s", command=sh(script)).wait() == 0
    assert (lab.directory / "bye").exists()


def test_leftovers_get_the_stop_signal_that_was_asked_for(lab: Lab) -> None:
    script = (
        "(trap 'echo > bye; exit' USR1; echo > up; while :; do sleep .1; done) & until test -e up; do :; done"
    )
    assert lab.start("--stop-signal", "USR1", "--kill-after", "60s", command=sh(script)).wait() == 0
    assert (lab.directory / "bye").exists()


@pytest.mark.parametrize("backend", ["file", "leasefile"])
def test_leftovers_are_waited_for(tmp_path: Path, backend: str) -> None:
    with Lab(tmp_path, backend) as lab:
        script = "(until test -e go; do sleep 0.01; done; echo > gone) & exit 6"
        first = lab.start("--leftovers", "wait", command=sh(script))
        first.hears("the command left process")
        second = lab.start("--ttl", LONG, command=sh("test -e gone"))
        second.hears("waiting for lock")
        assert first.popen.poll() is None
        (lab.directory / "go").touch()
        assert (first.wait(), second.wait()) == (6, 0)


def test_while_leftovers_are_waited_for_a_signal_reaches_them(lab: Lab) -> None:
    run = lab.start("--leftovers", "wait", command=sh("(echo $$; exec sleep 60) & exit 6"))
    run.hears("the command left process")
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 6


@pytest.mark.parametrize("backend", ["file", "leasefile"])
def test_leftovers_are_ignored_and_this_is_said(tmp_path: Path, backend: str) -> None:
    with Lab(tmp_path, backend) as lab:
        run = lab.start("--leftovers", "ignore", command=lab.job("leave", "status", "6"))
        assert run.wait() == 6
        assert "runs on without the lock" in run.said
        lab.beats()
        lab.next_one()
        assert len(lab.evidence.survivors()) == 2


def test_kill_after_is_for_the_command_as_well(lab: Lab) -> None:
    run = lab.start("--kill-after", "100ms", command=lab.long_job("ignore"))
    lab.ready()
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGKILL
    lab.next_one()


def test_without_kill_after_a_command_has_all_the_time_it_wants(lab: Lab) -> None:
    run = lab.start(command=lab.long_job("ignore"))
    lab.ready()
    send(signal.SIGTERM, run.pid)
    lab.beats()
    lab.finish()
    assert run.wait() == 0


def test_zombies_are_reaped(lab: Lab) -> None:
    script = "(sleep 0 & echo $! > pid) ; echo; while :; do sleep 0.01; done"
    run = lab.start(command=sh(script))
    until(lambda: run.out, "the command to run")
    orphan = int((lab.directory / "pid").read_text())
    until(lambda: state(orphan) == "" or stat_of(orphan) is None, "the orphan to be reaped")
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGTERM
    assert gone(orphan)
