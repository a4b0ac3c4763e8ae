"""Python or kernel lack something: a run works without it, or is refused in one line before it locks.

`SINGLETON_RUN_TEST_PYTHON=/path/to/python3 make test-process` runs this lane under another Python: a
stand-alone one as uv installs it, or one built for musl. It needs none of our packages of its own.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import UNUSABLE, USAGE
from tests.support import seccomp
from tests.support.harness import PROGRAM, TREE, Lab, environment, gone, labs, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SUPPORT = TREE / "tests" / "support"
# It has a process in a session of its own, and ends with 7 at SIGTERM.
APART = "setsid sh -c 'echo $$; exec sleep 1000'"  # it tells its id when it can be ended by a signal
COMMAND = ["sh", "-c", f'trap "exit 7" TERM; {APART} & while :; do sleep 0.01; done']
NEEDED = ("prctl", "signalfd4", "timerfd_create", "timerfd_settime")
SPARED = ("close_range", "memfd_create", "pidfd_open", "pidfd_send_signal")


@pytest.fixture(params=["file", "leasefile"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    yield from labs(tmp_path, request.param)


def works(lab: Lab, *, environ: Mapping[str, str] | None = None, via: str = "") -> None:
    """The command runs, hears SIGTERM, its status is told, and nothing of it or of us is left."""
    run = lab.start(command=COMMAND, environ=environ, via=via)
    until(lambda: run.out.endswith(b"\n") or run.popen.poll() is not None, "the command to run")
    assert run.out, run.said
    run.popen.send_signal(signal.SIGTERM)
    assert run.wait() == 7, run.said
    assert gone(int(run.out))
    until(lambda: not lab.left(), "our processes to be gone")
    assert "Traceback" not in run.said


def refused(
    lab: Lab, *, word: str, via: str = "", environ: Mapping[str, str] | None = None, status: int = UNUSABLE
) -> None:
    """No command runs, one line on stderr has `word`, and nothing was locked or is left."""
    before = sorted(lab.locks.iterdir())
    run = lab.start(command=["echo", "ran"], via=via, environ=environ)
    assert run.wait() == status, run.said
    assert run.said.count("\n") == 1, run.said
    assert word in run.said
    assert run.out == b""
    assert sorted(lab.locks.iterdir()) == before
    assert lab.left() == []


def refusing(call: str, error: str) -> str:
    """A shell script that starts its arguments where the kernel refuses the call."""
    return f'exec {shlex.join([sys.executable, str(SUPPORT / "seccomp.py"), call, error])} "$@"'


@pytest.mark.parametrize(
    "missing", ["pidfd_open", "setsid", "posix_spawn", "closerange", "pidfd_open setsid closerange"]
)
def test_an_os_module_that_lacks_something_does(lab: Lab, missing: str) -> None:
    environ = environment(WITHOUT=missing)
    environ["PYTHONPATH"] = f"{SUPPORT / 'poorer'}:{environ['PYTHONPATH']}"
    works(lab, environ=environ)


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
@pytest.mark.parametrize("call", SPARED)
def test_a_kernel_that_refuses_what_can_be_done_otherwise_does(lab: Lab, call: str, error: str) -> None:
    works(lab, via=refusing(call, error))


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
@pytest.mark.parametrize("call", NEEDED)
def test_a_kernel_that_refuses_what_is_needed_is_named_in_one_line(lab: Lab, call: str, error: str) -> None:
    refused(lab, via=refusing(call, error), word=call.rstrip("4"))


def test_a_kernel_without_clone3_does(lab: Lab) -> None:
    works(lab, via=refusing("clone3", "ENOSYS"))


def test_every_call_of_the_table_can_be_refused() -> None:
    assert {*NEEDED, *SPARED, "clone3", "epoll_create1", "faccessat2", "fsync", "inotify_init1"} == set(
        seccomp.NUMBERS
    )


MODULES = (
    "_ctypes",
    "_socket",
    "_ssl",
    "click",
    "croniter",
    "datetime",
    "fcntl",
    "importlib.metadata",
    "json",
    "math",
    "mmap",
    "rich",
    "select",
    "ssl",
    "zoneinfo",
)
CALLS = (
    "--help",
    "--plan 1 --cron @daily",
    "--name {name} -n -- true",
    "--name {name} --every 1h --no-loop -- true",
    "--name {name} -n --lock etcd://127.0.0.1:1/?tls=true -- true",
    "--name {name} -n --lock k8s-lease -- true",
    "--name {name} -n --lock nonesuch -- true",
)


@pytest.mark.parametrize("module", MODULES)
def test_a_python_that_lacks_a_module_does_or_names_it_in_one_line(tmp_path: Path, module: str) -> None:
    environ = environment(HIDDEN=module, HOME=str(tmp_path), SINGLETON_RUN_LOCK=f"file://{tmp_path}/locks")
    environ["PYTHONPATH"] = f"{SUPPORT / 'hiding'}:{environ['PYTHONPATH']}"
    for call in CALLS:
        argv = [*PROGRAM, *call.format(name=f"lab-{module}").split()]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        assert done.stderr.count("\n") <= 1, (call, done.stderr)
        assert "Traceback" not in done.stderr, call
        assert "fault" not in done.stderr, (call, done.stderr)
        if "can't be imported" in done.stderr:
            assert done.returncode == UNUSABLE, (call, done.stderr)


LOCALES = ["", "C", "POSIX", "xx_XX.UTF-8", "de_DE.ISO-8859-1", "\udcff"]


@pytest.mark.parametrize("locale", LOCALES)
def test_a_machine_that_lacks_the_locale_does(lab: Lab, locale: str) -> None:
    environ = environment(LANG=locale, LC_ALL=locale, LC_CTYPE=locale)
    run = lab.start(command=["printf", "%s", "\u00e4\udcff"], environ=environ)
    assert (run.wait(), run.out, run.said) == (0, b"\xc3\xa4\xff", "")
    lab.name = "\u00e4\udcff"
    refused(lab, environ=environ, word="name", status=USAGE)
    done = subprocess.run([*PROGRAM, "--help"], env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


MOUNTS = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems: sudo make test-process")
LACKING = {
    "/dev": "mount -t tmpfs none /dev",
    "/proc": "mount -t tmpfs none /proc",
    "/dev and /proc": "mount -t tmpfs none /dev; mount -t tmpfs none /proc",
}


@MOUNTS
@pytest.mark.parametrize("closed", ["", "<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("lacking", LACKING)
def test_a_machine_without_dev_or_proc_does(lab: Lab, lacking: str, closed: str) -> None:
    via = f'exec unshare -m sh -c \'{LACKING[lacking]}; exec "$@" {closed}\' sh "$@"'
    run = lab.start(command=["sh", "-c", "echo ran > ran; exit 7"], via=via)
    assert run.wait() == 7, run.said
    assert (lab.directory / "ran").read_text() == "ran\n"
    assert run.said == ""
    until(lambda: not lab.left(), "our processes to be gone")


@MOUNTS
@pytest.mark.parametrize("lacking", LACKING)
def test_a_machine_without_dev_or_proc_is_told_what_befell_the_command(lab: Lab, lacking: str) -> None:
    """By the writer, whose standard descriptors are closed: its pipe must not have such a number."""
    via = f'exec unshare -m sh -c \'{LACKING[lacking]}; exec "$@"\' sh "$@"'
    run = lab.start("--timeout", "1s", command=["sleep", "60"], via=via)
    assert run.wait() == 124, run.said
    assert "ran into its --timeout" in run.said


@MOUNTS
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Nowhere/Land", "../../etc/passwd", ""])
@pytest.mark.parametrize("way", ["--tz", "TZ"])
def test_a_machine_that_lacks_time_zones_does_or_says_so_in_one_line(way: str, zone: str) -> None:
    via = 'mount -t tmpfs none /usr/share/zoneinfo; exec "$@"'
    words = ["--plan", "2", "--cron", "0 11 * * *", *(["--tz", zone] if way == "--tz" else [])]
    environ = environment(PYTHONTZPATH="", TZ=zone if way == "TZ" else "UTC")
    argv = ["unshare", "-m", "sh", "-c", via, "sh", *PROGRAM, *words]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode in (0, USAGE, UNUSABLE), done.stderr
    assert done.stderr.count("\n") == (done.returncode != 0), done.stderr
    assert "Traceback" not in done.stderr
    assert "fault" not in done.stderr
