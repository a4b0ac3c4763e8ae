"""The reporter is a helper: slow, full, stopped or killed it changes nothing about lock and command."""

from __future__ import annotations

import os
import stat
import subprocess
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import HELD, UNUSABLE, USAGE
from tests.support.harness import PROGRAM, Lab, gone, labs, open_files, python, send, state, title, until
from tests.support.ports import free_port
from tests.support.scrape import Scrape, get, scrape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.harness import Run

NEW = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Lab]:
    """A lock under that backend."""
    yield from labs(tmp_path, backend)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Lab]:
    """A lock `file`."""
    yield from labs(tmp_path, "file")


@pytest.fixture
def address() -> str:
    """An address for --metrics-addr."""
    return f"127.0.0.1:{free_port()}"


def pipe_of(run: Run, reporter: int) -> int:
    """The front's end of the pipe to the reporter, opened anew."""
    heard = {target for target in open_files(reporter).values() if target.startswith("pipe:")}
    number = next(number for number, target in open_files(run.pid).items() if target in heard)
    return os.open(f"/proc/{run.pid}/fd/{number}", os.O_WRONLY | os.O_NONBLOCK)


def kill(run: Run) -> None:
    send(SIGKILL, run.one("reporter"))


def stop(run: Run) -> None:
    reporter = run.one("reporter")
    send(SIGSTOP, reporter)
    until(lambda: state(reporter) == "T", "the reporter to stop")


def fill(run: Run) -> None:
    stop(run)
    pipe = pipe_of(run, run.one("reporter"))
    for size in (4096, 1):
        try:
            while True:
                os.write(pipe, b"x" * size)
        except BlockingIOError:
            continue
    os.close(pipe)


HARM = pytest.mark.parametrize("harm", [kill, stop, fill])


def renewed(lab: Lab, times: int = 3) -> None:
    """Wait until the lease was renewed so often."""
    path = lab.locks / f"{lab.name}.lease"
    for _ in range(times):
        before = path.stat().st_mtime_ns
        until(lambda: path.stat().st_mtime_ns != before, "a renewal")  # noqa: B023 - called at once


@HARM
def test_a_lease_is_renewed_and_handed_over_whatever_the_reporter_does(
    tmp_path: Path, address: str, harm: Callable[[Run], None]
) -> None:
    with Lab(tmp_path, "leasefile") as lab:
        first = lab.start("--ttl", "6s", "--metrics-addr", address, command=lab.long_job())
        lab.ready()
        get(address, "/healthz")
        harm(first)
        renewed(lab)
        second = lab.start("--ttl", "6s", command=lab.job())
        second.hears("waiting for lock")
        lab.beats()
        lab.finish()
        assert first.wait() == 0, first.said
        assert second.wait() == 0, second.said
        lab.evidence.check(turns=2)
        assert "lost" not in first.said


@HARM
@BOTH
def test_slots_go_on_whatever_the_reporter_does(lab: Lab, harm: Callable[[Run], None], address: str) -> None:
    run = lab.start("--every", "1s", "--metrics-addr", address, command=lab.job())
    until(lab.evidence.slots, "a slot")
    get(address, "/healthz")
    harm(run)
    before = len(lab.evidence.slots())
    until(lambda: len(lab.evidence.slots()) >= before + 3, "more slots")
    send(SIGTERM, run.pid)
    assert run.wait() in (0, 128 + SIGTERM), run.said
    # The next call gets the address at once, though a reporter that is stopped still has the socket.
    again = lab.start("--metrics-addr", address, command=lab.job())
    assert again.wait() == 0, again.said


@BOTH
def test_a_reporter_that_died_is_replaced_and_knows_what_is(lab: Lab, address: str) -> None:
    run = lab.start("--ttl", "600s", "--metrics-addr", address, command=lab.long_job())
    lab.ready()
    first = run.one("reporter")
    until(lambda: scrape(address).value("running") == 1, "the reporter to be told")
    send(SIGKILL, first)
    until(lambda: gone(first), "the reporter to be gone")
    run.one("reporter", but=first)
    told = scrape(address)
    assert (told.value("held"), told.value("running")) == (1, 1)
    assert told.value("last_start_timestamp_seconds") is not None
    assert told.value("acquisitions_total") == 0, "what its forerunner counted is not counted again"
    lab.finish()
    assert run.wait() == 0


@BOTH
def test_it_has_neither_the_lock_nor_what_the_command_writes_to(lab: Lab, address: str) -> None:
    run = lab.start("--metrics-addr", address, command=lab.long_job())
    lab.ready()
    get(address, "/healthz")
    reporter = run.one("reporter")
    opened = open_files(reporter)
    assert not [target for target in opened.values() if str(lab.locks) in target]
    assert [os.path.basename(opened[number]) for number in (0, 1)] == ["null", "null"]
    assert os.getpgid(reporter) == os.getsid(reporter) == reporter
    lab.finish()
    assert run.wait() == 0


@pytest.mark.parametrize("leftovers", ["kill", "wait"])
def test_a_front_in_the_guard_s_place_does_not_take_it_for_the_command_s(
    files: Lab, address: str, leftovers: str
) -> None:
    run = files.start("--leftovers", leftovers, "--metrics-addr", address, command=files.long_job())
    files.ready()
    get(address, "/healthz")
    reporter = run.one("reporter")
    send(SIGKILL, run.one("guard"))
    run.hears("the guard of the command was killed")
    assert not gone(reporter)
    files.finish()
    assert run.wait() == 0, run.said
    files.evidence.check(turns=1)
    assert "reporter" not in run.said


@BOTH
def test_it_ends_with_the_front_and_delays_nobody(lab: Lab, address: str, tmp_path: Path) -> None:
    file = tmp_path / "run.prom"
    run = lab.start("--metrics-addr", address, "--metrics-file", str(file), command=lab.long_job())
    lab.ready()
    reporter = run.one("reporter")
    until(lambda: scrape(address).value("running") == 1, "the reporter to be told")
    send(SIGKILL, run.pid)
    until(lambda: gone(reporter), "the reporter to be gone")
    told = Scrape(file.read_text())
    assert told.value("runs_total", result="crashed") == 1
    assert (told.value("held"), told.value("running")) == (0, 0)
    lab.next_one()


def test_a_stopped_reporter_does_not_keep_the_caller_s_pipes_open(files: Lab, address: str) -> None:
    """Whoever reads our output to its end does not wait for the reporter."""
    read, write = os.pipe()
    run = files.start("--metrics-addr", address, command=files.long_job(), stdout=write)
    os.close(write)
    files.ready()
    stop(run)
    files.finish()
    assert run.wait() == 0
    while os.read(read, 4096):
        pass
    os.close(read)


def test_an_address_that_is_taken_is_refused_before_anything_runs(files: Lab, address: str) -> None:
    first = files.start("--metrics-addr", address, command=files.long_job())
    files.ready()
    second = files.start("--metrics-addr", address, "-n", command=files.job())
    assert second.wait() == UNUSABLE
    assert second.said.count("\n") == 1
    assert "in use" in second.said
    files.finish()
    assert first.wait() == 0
    files.evidence.check(turns=1)


@pytest.mark.parametrize("given", ["9090", "a:b", ":99999", "unix:", "::1:80", "unix:/" + 107 * "x"])
def test_an_address_of_no_form_is_refused(files: Lab, given: str) -> None:
    run = files.start("--metrics-addr", given, command=files.job())
    assert run.wait() == USAGE
    assert run.said.count("\n") == 1


def test_a_host_that_is_no_address_is_refused_without_a_look_up(files: Lab) -> None:
    run = files.start("--metrics-addr", "somewhere.invalid:9090", command=files.job())
    assert run.wait() == USAGE
    assert "give an IP address" in run.said


def test_a_socket_in_a_file_is_served_replaced_and_removed(files: Lab, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'x.sock'}"
    first = files.start("--metrics-addr", address, command=files.long_job())
    files.ready()
    assert get(address, "/healthz") == (200, "ok\n")
    send(SIGKILL, first.pid)
    first.wait()
    assert (tmp_path / "x.sock").exists()
    second = files.start("--metrics-addr", address, command=files.long_job())
    files.ready(2)
    assert get(address, "/healthz") == (200, "ok\n")
    files.finish()
    assert second.wait() == 0
    assert not (tmp_path / "x.sock").exists()


def test_the_file_goes_on_from_run_to_run(files: Lab, tmp_path: Path) -> None:
    file = tmp_path / "backup.prom"

    def told(runs: int) -> Scrape:
        """What the file says after so many runs: it is written beside our exit, and not before it."""

        def look() -> Scrape | None:
            found = Scrape(file.read_text()) if file.exists() else Scrape("")
            ended = sum(sample.value for sample in found.samples if sample.name == "singleton_run_runs_total")
            return found if ended == runs and found.value("held") == 0 else None

        result = until(look, f"{runs} runs in the file")
        assert result is not None
        return result

    options = ("--metrics-file", file.name)
    assert files.start(*options, command=["true"], via=f'cd {tmp_path} && exec "$@"').wait() == 0
    first = told(1)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert first.value("runs_total", result="succeeded") == 1
    assert files.start("--metrics-file", str(file), command=["false"]).wait() == 1
    second = told(2)
    assert second.value("runs_total", result="succeeded") == 1
    assert second.value("runs_total", result="failed") == 1
    assert second.value("run_seconds_count") == 2
    assert second.value("last_success_timestamp_seconds") == first.value("last_success_timestamp_seconds")
    until(lambda: [path for path in tmp_path.iterdir() if "prom" in path.name] == [file], "no half file")


def test_who_meets_a_held_lock_leaves_the_holder_s_file_alone(files: Lab, tmp_path: Path) -> None:
    file = tmp_path / "backup.prom"
    first = files.start("--metrics-file", str(file), command=files.long_job())
    files.ready()
    until(lambda: file.exists() and Scrape(file.read_text()).value("running") == 1, "the file")
    second = files.start("-n", "--metrics-file", str(file), command=files.job())
    reporters = second.all("reporter")
    assert second.wait() == HELD
    until(lambda: all(map(gone, reporters)), "the reporter to be gone")
    assert Scrape(file.read_text()).value("held") == 1
    files.finish()
    assert first.wait() == 0


def test_a_file_in_no_directory_is_refused(files: Lab, tmp_path: Path) -> None:
    run = files.start("--metrics-file", str(tmp_path / "no" / "x.prom"), command=files.job())
    assert run.wait() == UNUSABLE
    assert run.said.count("\n") == 1


def test_without_an_option_there_is_none(files: Lab) -> None:
    run = files.start(command=files.long_job())
    files.ready()
    assert run.all("reporter") == []
    files.finish()
    assert run.wait() == 0


@BOTH
def test_a_command_that_is_stopped_and_a_waiter_that_is_stopped(lab: Lab, address: str) -> None:
    """A hung command is no trouble of ours; a front that is stopped is."""
    run = lab.start("--ttl", "600s", "--metrics-addr", address, command=lab.long_job())
    lab.ready()
    job = lab.evidence.lines()[-1].process
    send(SIGSTOP, job)
    assert get(address, "/healthz") == (200, "ok\n")
    send(SIGSTOP, run.pid)
    until(lambda: state(run.pid) == "T", "the front to stop")
    status, text = get(address, "/healthz")
    assert (status, "front is stopped" in text) == (503, True)
    send(SIGCONT, run.pid)
    send(SIGCONT, job)
    lab.finish()
    assert run.wait() == 0


def test_many_that_connect_and_say_nothing_do_not_keep_others_out(files: Lab, address: str) -> None:
    import socket

    run = files.start("--metrics-addr", address, command=files.long_job())
    files.ready()
    get(address, "/healthz")
    host, _, port = address.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(150)]
    silent[0].sendall(b"GET /healthz HTTP/1.1\r\nX: ")
    assert get(address, "/healthz") == (200, "ok\n")
    for one in silent:
        one.close()
    files.finish()
    assert run.wait() == 0


def test_what_is_no_request_gets_an_answer(files: Lab, address: str) -> None:
    run = files.start("--metrics-addr", address, command=files.long_job())
    files.ready()
    assert get(address, "/nowhere")[0] == 404
    assert get(address, "/metrics", "POST")[0] == 405
    assert get(address, "/metrics", "HEAD") == (200, "")
    assert get(address, "/metrics?x=" + "y" * 9000)[0] == 400
    files.finish()
    assert run.wait() == 0


def test_its_title_names_the_lock(files: Lab, address: str) -> None:
    run = files.start("--metrics-addr", address, command=python("input()"), stdin=-1)
    assert title(run.one("reporter")) == f"singleton-run: reporter for {files.name}"
    run.popen.communicate(b"\n")
    assert run.wait() == 0


def test_below_another_singleton_run_it_is_waited_for_and_left_to_nobody(files: Lab, tmp_path: Path) -> None:
    file = tmp_path / "inner.prom"
    inner = ["--lock", files.lock, "--name", f"{files.name}-inner", "--metrics-file", str(file), "--", "true"]
    outer = files.start(command=[*PROGRAM, *inner])
    assert outer.wait() == 0
    assert outer.said == ""
    assert Scrape(file.read_text()).value("runs_total", result="succeeded") == 1


@pytest.mark.skipif(
    subprocess.run([*NEW, "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0,
    reason="process namespaces need root and CAP_SYS_ADMIN: sudo, or docker run --privileged",
)
@BOTH
def test_as_process_1_we_wait_for_what_it_has_to_write(lab: Lab, tmp_path: Path) -> None:
    """The kernel kills every process of a container with its first one."""
    file = tmp_path / "run.prom"
    run = lab.start("--metrics-file", str(file), command=["false"], via=f'exec {" ".join(NEW)} "$@"')
    assert run.wait() == 1
    assert Scrape(file.read_text()).value("runs_total", result="failed") == 1


@pytest.mark.skipif(
    subprocess.run([*NEW, "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0,
    reason="process namespaces need root and CAP_SYS_ADMIN: sudo, or docker run --privileged",
)
def test_as_process_1_we_wait_no_longer_than_we_say(files: Lab, tmp_path: Path) -> None:
    file = tmp_path / "run.prom"
    options = ("--metrics-file", str(file))
    run = files.start(*options, command=files.long_job(), via=f'exec {" ".join(NEW)} "$@"')
    files.ready()
    stop(run)  # it is continued once at our end: a debugger or a frozen cgroup would hold it for good
    files.finish()
    assert run.wait() == 0
