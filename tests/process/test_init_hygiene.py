"""What the command gets from whoever started us is what it would get without us, and we keep none of it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import (
    LIMIT,
    Lab,
    Run,
    below,
    environment,
    labs,
    open_files,
    ours,
    python,
    send,
    title,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Lab]:
    """A lock under that backend."""
    yield from labs(tmp_path, backend)


def held_by(process: int) -> set[str]:
    """What a process has open from descriptor 3 on, and as stdin and stdout."""
    return {file for number, file in open_files(process).items() if number != 2}


def pipe_name(descriptor: int) -> str:
    """What /proc calls a pipe."""
    return os.readlink(f"/proc/self/fd/{descriptor}")


def closed(read: int) -> bool:
    """Whether nobody has the other end of a pipe, through which nothing comes."""
    try:
        assert os.read(read, 1) == b""
    except BlockingIOError:
        return False
    return True


def started(lab: Lab) -> None:
    """Wait until the front knows that the command runs."""
    until((lab.directory / "up").exists, "the command to run")


# Standard input and output, and other descriptors, are the command's alone.

RUN = "import pathlib, signal; {}; pathlib.Path('up').touch(); signal.pause()"


@BOTH
def test_what_the_command_closes_is_closed(lab: Lab) -> None:
    """For whoever reads its output or another descriptor of it: end-of-file, while it runs on."""
    ends = []
    for name in ("one", "seven"):
        os.mkfifo(lab.directory / name)
        ends.append(os.open(lab.directory / name, os.O_RDONLY | os.O_NONBLOCK))
    command = python(RUN.format("import os; os.close(1); os.close(7)"))
    run = lab.start("-vv", command=command, via='exec "$@" > one 7> seven')
    started(lab)
    for end in ends:
        until(partial(closed, end), "the end of what the command closed")
        os.close(end)
    assert run.popen.poll() is None
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGTERM


@BOTH
def test_who_writes_to_a_command_that_does_not_read_gets_sigpipe(lab: Lab) -> None:
    read, write = os.pipe()
    run = lab.start("-vv", command=python(RUN.format("import os; os.close(0)")), stdin=read)
    os.close(read)
    started(lab)

    def refused() -> bool:
        try:
            os.write(write, b"x")
        except BrokenPipeError:
            return True
        return False

    until(refused, "nobody to read any more")
    os.close(write)
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGTERM


@BOTH
def test_a_command_whose_output_nobody_reads_dies_of_sigpipe(lab: Lab) -> None:
    read, write = os.pipe()
    os.close(read)
    run = lab.start(command=["sh", "-c", "while :; do echo; done"], stdout=write)
    os.close(write)
    assert run.wait() == 128 + signal.SIGPIPE


@BOTH
def test_none_of_our_processes_has_what_was_passed_to_the_command(lab: Lab) -> None:
    via = 'exec "$@" < "$PWD/zero" > "$PWD/one" 7> "$PWD/seven"'
    passed = [lab.directory / name for name in ("zero", "one", "seven")]
    passed[0].touch()
    run = lab.start("-vv", command=python(RUN.format("pass")), via=via)
    started(lab)
    told = until(lambda: re.findall(r"the command runs as process (\d+)\n", run.said), "the command's id")
    command = int(told[0])
    everyone = ours(lab.name)
    assert len(everyone) >= 3
    shared = {str(path) for path in passed}
    until(lambda: held_by(command) == shared, "the command to have that alone")
    until(lambda: not any(held_by(process) & shared for process in everyone), "all of it to be let go")
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 128 + signal.SIGTERM


# What a process inherits.

SHOW = r"""
import os, re, resource, signal, sys
def show(name, value): print(name, value)
status = open("/proc/self/status").read()
for name in sys.argv[1].split():
    for value in re.findall(rf"^{name}:[ \t]*(.*)", status, re.M):
        if name in ("SigIgn",):
            value = format(int(value, 16) & ~0x180000000, "x")  # what the C library keeps for itself
        show(name, value)
for name in sorted(name for name in vars(resource) if name.startswith("RLIMIT_")):
    show(name, resource.getrlimit(getattr(resource, name)))
show("nice", os.getpriority(os.PRIO_PROCESS, 0))
show("scheduler", (os.sched_getscheduler(0), os.sched_getaffinity(0)))
show("directory", os.getcwd())
show("root", os.readlink("/proc/self/root"))
umask = os.umask(0)
show("umask", umask)
for name in ("oom_score_adj", "cgroup", "timerslack_ns", "loginuid", "personality", "coredump_filter"):
    try:
        show(name, open(f"/proc/self/{name}").read())
    except OSError as error:
        show(name, error.errno)
for entry in sorted(os.listdir("/proc/self/fd"), key=int):
    try:
        show("fd", (entry, os.readlink(f"/proc/self/fd/{entry}"), os.get_blocking(int(entry))))
    except OSError:  # that of the listing
        pass
for name, value in sorted(os.environ.items()):
    if not name.startswith("SINGLETON_"):
        show("variable", (name, value))
"""
STATUS = (
    "Umask Uid Gid Groups NoNewPrivs Seccomp SigBlk SigIgn ShdPnd SigPnd CapInh CapPrm CapEff CapBnd CapAmb "
    "Cpus_allowed Mems_allowed CoreDumping THP_enabled Speculation_Store_Bypass"
)
SETTINGS = {
    "plain": ":",
    "umask": "umask 077",
    "limits": "ulimit -S -n 200; ulimit -S -f 5000; ulimit -c 0; ulimit -S -s 4096",
    "nice": "renice -n 5 -p $$ >/dev/null",
    "oom": "echo 300 > /proc/self/oom_score_adj",
    "nohup": "trap '' HUP INT QUIT USR1 TSTP",
    "descriptors": "exec 5<>five 9</dev/null",
    "closed": "exec <&- 2>&-",
    "environment": "export A=1 LANG=C LC_ALL=POSIX; unset PATH",
    "slack": "echo 123456 > /proc/self/timerslack_ns",
}


@pytest.mark.parametrize("name", SETTINGS)
@BOTH
def test_the_command_inherits_what_it_would_without_us(lab: Lab, name: str) -> None:
    script = lab.directory / "show.py"
    script.write_text(SHOW)
    command = [sys.executable, "-I", str(script), STATUS]
    shown = []
    for argv in (command, lab.argv("-vv", command=command)):
        done = subprocess.run(
            ["sh", "-c", f'{SETTINGS[name]}; exec "$@"', "sh", *argv],
            env=environment(),
            cwd=lab.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            start_new_session=True,
            timeout=LIMIT,
        )
        shown.append(re.sub(r"pipe:\[\d+\]", "pipe", done.stdout.decode()).splitlines())
    assert shown[0] == shown[1]
    assert len(shown[0]) > 40


def behind(script: str) -> str:
    """What starts a call through a Python script, which ends with the call in its place."""
    return f'exec {shlex.join([sys.executable, "-c", script])} "$@"'


BLOCKING = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGCHLD, signal.SIGTERM])
os.execv(sys.argv[1], sys.argv[1:])
"""


@BOTH
def test_a_signal_mask_is_handed_on_and_does_not_blind_us(lab: Lab) -> None:
    mask = "sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    pause = f"signal.signal(2, signal.SIG_DFL); print({mask}, flush=True); signal.pause()"
    command = python(f"import signal; {pause}")
    run = lab.start(command=command, via=behind(BLOCKING))
    until(lambda: run.out == b"[10, 15, 17]\n", "the command to run")
    send(signal.SIGINT, run.pid)
    assert run.wait() == -signal.SIGINT


IGNORING = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""


@BOTH
def test_children_have_a_status_though_whoever_started_us_wanted_none(lab: Lab) -> None:
    """With SIGCHLD ignored the kernel reaps by itself, and tells nobody how it went."""
    command = ["sh", "-c", "grep SigIgn /proc/self/status; exit 5"]
    run = lab.start(command=command, via=behind(IGNORING))
    assert (run.wait(), run.said) == (5, "")
    assert not int(run.out.split()[1], 16) & 1 << (signal.SIGCHLD - 1)


@BOTH
def test_a_job_in_the_background_of_a_script_stays_deaf_to_ctrl_c(lab: Lab) -> None:
    """A shell without job control has it ignore SIGINT and SIGQUIT; that holds for the command as well."""
    (lab.directory / "script").write_text(
        f"{shlex.join(lab.argv(command=lab.long_job('status', '6')))} & wait $!\n"
    )
    run = Run(["sh", "script"], lab.directory)
    lab.ready()
    front = until(
        lambda: [process for process in below(run.pid) if title(process).startswith("singleton-run: front")],
        "a front",
    )[0]
    command = lab.evidence.lines()[0].process
    send(signal.SIGINT, front, command)
    send(signal.SIGQUIT, front, command)
    lab.beats()
    lab.finish()
    assert run.wait() == 6


@BOTH
def test_sigpipe_and_the_limit_of_a_file_s_size_end_the_command_as_ever(lab: Lab) -> None:
    """Python ignores both for itself."""
    run = lab.start(command=["sh", "-c", "ulimit -f 1; exec dd if=/dev/zero of=big bs=64k count=1"])
    assert run.wait() == 128 + signal.SIGXFSZ
    run = lab.start(command=["sh", "-c", "kill -PIPE $$; exit 3"])
    assert run.wait() == 128 + signal.SIGPIPE


# The working directory is the command's alone.


@BOTH
def test_the_working_directory_is_not_kept_busy(lab: Lab, backend: str) -> None:
    """Under a lock with a keeper front and keeper stay: another keeper may open relative paths."""
    program = lab.directory / "program"
    program.write_text("#!/bin/sh\npwd; exec sleep 1000\n")
    program.chmod(0o755)
    run = lab.start("-vv", command=["./program"])  # with less its writer ends after a second
    until(lambda: run.out.endswith(b"\n"), "the command to run")
    assert run.out.decode().strip() == str(lab.directory)
    left = [run.one("guard"), run.one("writer"), *([run.pid] if backend == "file" else [])]
    until(
        lambda: {os.readlink(f"/proc/{process}/cwd") for process in left} == {"/"},
        "our processes to leave the directory",
    )
    run.popen.send_signal(signal.SIGTERM)
    assert run.wait() == 143, run.said
