"""As the first process of a container: in a process namespace of its own, and in what containers lack.

The namespace is real; signals come from outside of it, as an engine's do.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.process.test_init_signals import EVERY, Listening, one_by_one
from tests.support.harness import (
    Lab,
    Run,
    below,
    children_of,
    ours,
    parents,
    python,
    send,
    state,
    title,
    until,
)
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEW = ["unshare", "--mount", "--pid", "--fork"]
pytestmark = pytest.mark.skipif(
    subprocess.run([*NEW, "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0,
    reason="process namespaces need root and CAP_SYS_ADMIN: sudo, or docker run --privileged",
)
BOTH = pytest.mark.parametrize("backend", ["file", "leasefile"])
SOMEBODY = 4711  # who has no entry in the password database
# May read everything, for Python may lie where only root can; may write and signal what is its own.
AS_SOMEBODY = [
    "setpriv",
    *("--reuid", str(SOMEBODY), "--regid", str(SOMEBODY), "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]

# As in a container that has run for long; and where the ids are about to start again.
HIGH = "echo 30000 > /proc/sys/kernel/ns_last_pid"
LAST = "echo $(($(cat /proc/sys/kernel/pid_max) - 40)) > /proc/sys/kernel/ns_last_pid"


@pytest.fixture
def lab(tmp_path: Path, backend: str) -> Iterator[Listening]:
    """A lock under that backend."""
    with Listening(tmp_path, backend) as lab:
        yield lab


class Container:
    """singleton-run as process 1. `before` is a script that makes the namespace what it has to be."""

    def __init__(
        self,
        lab: Lab,
        *options: str,
        command: list[str],
        before: str = "",
        proc: bool = True,
        user: tuple[str, ...] = (),
    ) -> None:
        argv = [*user, *lab.argv(*options, command=command)]
        new = [*NEW, "--kill-child", *(["--mount-proc"] if proc else [])]
        script = f'{before or ":"} && exec "$@"'
        self.run = Run([*new, "sh", "-c", script, "sh", *argv], lab.directory)
        lab.runs.append(self.run)

    @property
    def first(self) -> int:
        """The process id, out here, of what is process 1 in there."""
        return next(iter(below(self.run.pid)), 0)

    def send(self, number: int) -> None:
        """Send a signal to process 1 from outside."""
        send(number, self.first)

    def zombies(self) -> list[int]:
        """What has ended below process 1 and wasn't waited for, by the ids out here."""
        listed = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
        inside = os.readlink(f"/proc/{self.first}/ns/pid")
        return [process for process in listed if state(process) == "Z" and _namespace(process) == inside]


def _namespace(process: int) -> str:
    try:
        return os.readlink(f"/proc/{process}/ns/pid")
    except OSError:
        return ""


@BOTH
@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -KILL $$", 128 + signal.SIGKILL),
        ("kill -TERM $$", 128 + signal.SIGTERM),
        ("kill -INT $$", 128 + signal.SIGINT),
        ("kill -TERM 1; while :; do :; done", 128 + signal.SIGTERM),
    ],
)
def test_the_status_of_process_1(lab: Listening, script: str, status: int) -> None:
    container = Container(lab, command=["sh", "-c", script])
    assert container.run.wait() == status, container.run.said
    assert container.run.said == ""


@BOTH
def test_it_is_process_1(lab: Listening) -> None:
    container = Container(lab, command=["sh", "-c", "head -c 23 /proc/1/cmdline; echo; kill -0 1"])
    assert container.run.wait() == 0
    assert container.run.out == b"singleton-run: front of\n"


@BOTH
def test_every_signal_from_outside_reaches_the_command(lab: Listening) -> None:
    container = Container(lab, command=lab.listener("child"))
    until(lambda: lab.process("command") and lab.process("child"), f"them to listen; {container.run.said}")
    one_by_one(lab, container.first, EVERY, "child")
    container.send(signal.SIGRTMAX)
    assert container.run.wait() == 0


@BOTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_a_command_that_catches_nothing_ends_by_its_default(lab: Listening, number: int) -> None:
    """Process 1 itself would be spared by the kernel; the command is not process 1."""
    container = Container(lab, command=lab.long_job())
    lab.ready()
    container.send(number)
    assert container.run.wait() == 128 + number


ORPHANS = """
import os, signal, time
for _ in range(100):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
        os._exit(0)
    os.wait()
open("up", "w").close()
signal.pause()
"""


@BOTH
def test_orphans_are_reaped_at_once(lab: Listening) -> None:
    container = Container(lab, command=python(ORPHANS))
    until((lab.directory / "up").exists, "the command to leave its orphans")
    until(lambda: not container.zombies(), "them to be reaped")
    assert container.run.popen.poll() is None
    container.send(signal.SIGTERM)
    assert container.run.wait() == 128 + signal.SIGTERM


@BOTH
def test_orphans_of_what_was_started_from_outside_are_reaped_too(lab: Listening) -> None:
    """As an engine's `exec` and probes start it: process 1 inherits what they leave."""
    container = Container(lab, command=lab.long_job("status", "4"))
    lab.ready()
    enter = ["nsenter", "--target", str(container.first), "--pid", "--mount"]
    left = lab.directory / "left"
    leave = f"for i in 1 2 3 4 5; do (sh -c 'echo >> {left}; exit 3' &); done"
    entered = Run([*enter, "sh", "-c", leave], lab.directory)
    assert entered.wait() == 0
    until(lambda: left.exists() and len(left.read_text()) == 5, "all of them")
    until(lambda: not container.zombies(), "them to be reaped")
    lab.finish()
    assert container.run.wait() == 4
    assert container.run.said == ""


def test_an_orphan_s_id_that_is_the_command_s_later(tmp_path: Path) -> None:
    """Ids are used again, after some hours; the orphan's end is not the command's."""
    with Listening(tmp_path) as lab:
        first = lab.start(command=lab.long_job())
        lab.ready()
        os.mkfifo(lab.directory / "go")
        # With less the writer would end after a second, and the next one might get the command's id.
        container = Container(lab, "-vv", command=["sh", "-c", "read line < go; exit 4"])
        container.run.hears("waiting for lock")
        guard = container.run.one("guard")
        ours_now = children_of(container.first)
        enter = ["nsenter", "--target", str(container.first), "--pid", "--mount"]
        number = 20000
        next_id = f"echo {number - 1} > /proc/sys/kernel/ns_last_pid"
        orphan = f"(sh -c 'echo $$ > {lab.directory}/orphan; exit 3' &)"
        assert Run([*enter, "sh", "-c", f"{next_id}; {orphan}"], lab.directory).wait() == 0
        told = lab.directory / "orphan"
        until(lambda: told.exists() and told.read_text().endswith("\n"), "the orphan to run")
        until(lambda: children_of(container.first) == ours_now, "it to be reaped")
        orphan_id = int(told.read_text())
        next_id = f"echo {orphan_id - 1} > /proc/sys/kernel/ns_last_pid"
        assert Run([*enter, "sh", "-c", next_id], lab.directory).wait() == 0
        lab.finish()
        assert first.wait() == 0
        container.run.hears(f"the command runs as process {orphan_id}")
        send(signal.SIGKILL, guard)
        container.run.hears("the guard of the command was killed")
        (lab.directory / "go").write_text("\n")
        assert container.run.wait() == 4


LEAVES = """
(setsid sh -c 'echo > locks/one; exec sleep 1000' &)
(sh -c 'echo > locks/two; exec sleep 1000' &)
until test -e locks/one -a -e locks/two; do :; done
exit 4
"""


@BOTH
def test_what_is_left_behind_is_ended_before_the_lock_is_given_back(lab: Listening) -> None:
    container = Container(lab, command=["sh", "-c", LEAVES])
    assert container.run.wait() == 4
    assert container.run.said.count("asked to end") == 2


@BOTH
@pytest.mark.parametrize(
    "before",
    [
        "umount -l /proc",
        "mount -t tmpfs none /proc",
        "test -e /proc/$$/stat",
        f"{HIGH} && umount -l /proc",
        f"{LAST} && umount -l /proc",
    ],
    ids=["none", "empty", "foreign", "none and high ids", "none and the last ids"],
)
def test_without_a_proc_of_its_own(lab: Listening, before: str) -> None:
    """Not even an empty one, or that of another namespace, where the same number is somebody else."""
    command = ["sh", "-c", f"for i in $(seq 100); do (:); done; {LEAVES}"]
    container = Container(lab, "-vv", command=command, before=before, proc=False)
    assert container.run.wait() == 4, container.run.said
    assert container.run.said.count("(?), asked to end") == 2
    assert "hang" not in container.run.said


@BOTH
def test_without_any_proc_what_was_found_once_gets_the_next_signal_too(lab: Listening) -> None:
    command = ["sh", "-c", f"for i in $(seq 100); do (:); done; {LEAVES}"]
    before = f"{LAST} && umount -l /proc"
    container = Container(lab, "--leftovers", "wait", command=command, before=before, proc=False)
    until(lambda: container.run.said.count("the command left process") == 2, "both to be found")
    container.send(signal.SIGTERM)
    assert container.run.wait() == 4


@BOTH
def test_without_any_proc_a_killed_guard_is_replaced(lab: Listening) -> None:
    command = lab.long_job("leave", "status", "4")
    container = Container(lab, "--kill-after", "200ms", command=command, before="umount -l /proc", proc=False)
    lab.ready()
    words = "\0".join(command)
    (running,) = [process for process in below(container.first) if title(process) == words]
    send(signal.SIGKILL, parents()[running])
    container.run.hears("the guard of the command was killed")
    lab.beats()
    lab.finish()
    assert container.run.wait() == 4


@BOTH
def test_an_arbitrary_user(lab: Listening) -> None:
    for directory in (lab.directory, lab.locks):
        os.chown(directory, SOMEBODY, SOMEBODY)
    script = "setsid sleep 1000 & id -u > up; until test -e finish; do sleep 0.01; done; exit 4"
    first = Container(lab, command=["sh", "-c", script], user=tuple(AS_SOMEBODY))
    until((lab.directory / "up").exists, f"the command to run; {first.run.said}")
    second = Container(lab, command=["id", "-u"], user=tuple(AS_SOMEBODY))
    second.run.hears("waiting for lock")
    lab.finish()
    assert (first.run.wait(), second.run.wait()) == (4, 0)
    assert "asked to end" in first.run.said
    assert second.run.out == f"{SOMEBODY}\n".encode()


@BOTH
def test_a_read_only_root(lab: Listening) -> None:
    writable = f"mount --bind {lab.locks} {lab.locks}"
    before = f"{writable} && mount -o remount,bind,ro / && ! touch {lab.directory}/x 2>&-"
    container = Container(lab, "-vv", command=["sh", "-c", LEAVES], before=before)
    assert container.run.wait() == 4, container.run.said
    assert "Traceback" not in container.run.said
    lab.lock = f"file://{lab.directory}/new"
    container = Container(lab, command=["true"], before=before)
    assert container.run.wait() == 78
    assert "Read-only file system" in container.run.said


@BOTH
def test_at_a_terminal_whose_process_group_can_not_be_seen_from_inside(lab: Listening) -> None:
    """As from a login through `unshare` or `nsenter`: the group has no id in there."""
    ask = ["sh", "-c", 'echo up; read line; echo "got:$line"; exit 4']
    for command in (lab.listener(), ask):
        with Terminal(
            [*NEW, "--kill-child", "--mount-proc", *lab.argv(command=command)], lab.directory
        ) as terminal:
            if command == ask:
                terminal.shows("up")
                terminal.type("word\n")
                terminal.shows("got:word")
                assert terminal.wait() == 4
                continue
            until(lambda: lab.process("command"), "the command to listen")
            terminal.type("\x03")
            lab.hears(signal.SIGINT)
            terminal.type("\x03")
            lab.hears(signal.SIGINT, signal.SIGINT)
            (front,) = [process for process in ours(lab.name) if "front" in title(process)]
            send(signal.SIGRTMAX, front)
            assert terminal.wait() in (0, -signal.SIGINT)
            assert lab.heard() == [signal.SIGINT, signal.SIGINT, signal.SIGRTMAX]
