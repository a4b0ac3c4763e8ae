"""The lock without a server: where it lies, what is refused, what its token and record survive."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import resource
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run.api.contract import Grant, Held, Look
from singleton_run.api.control import pause_of, paused, resumed
from singleton_run.api.record import ended, started
from singleton_run.errors import UNUSABLE, Refused, Unavailable
from singleton_run.names import LONGEST
from singleton_run.system import calls
from singleton_run_file import open_backend
from tests.support import seccomp
from tests.support.harness import PROGRAM, Lab, environment, labs, send, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from singleton_run_file.backend import FileBackend
    from tests.support.harness import Run

NOBODY = 65534
DEFAULT = "from singleton_run_file import default_directory; print(default_directory())"
# A process that believes to be another user sees its own files as a stranger's; for tests without root.
ANOTHER = "import posix; posix.geteuid = lambda: 54321; from singleton_run.__main__ import main; main()"
# Loaded at the start of every Python: a guard that is slow to close its lock, and to end.
SLOW_GUARD = """
import os, posix, time
close, leave = os.close, os._exit
def wait(wanted):
    if wanted and b"guard of" in open("/proc/self/cmdline", "rb").read():
        time.sleep(0.3)
def slow_close(descriptor):
    wait(os.readlink(f"/proc/self/fd/{descriptor}").endswith(".lock"))
    close(descriptor)
def slow_leave(status):
    wait(True)
    leave(status)
os.close = posix.close = slow_close
os._exit = posix._exit = slow_leave
"""
# A user of the machine, who then enters a user namespace in which he is another, and alone.
BECOMES = """if True:
    import ctypes, os, pwd
    from singleton_run.errors import Refused
    from singleton_run_file import default_directory, open_backend
    libc = ctypes.CDLL(None)
    os.setresuid({outer}, {outer}, {outer})
    outside = open_backend("file", {{}})
    outside.acquire("x", "host:1:a", 0.0, 0.0)
    print("outside", default_directory())
    assert libc.prctl(4, 1, 0, 0, 0) == 0 and libc.unshare(0x10000000) == 0
    with open("/proc/self/uid_map", "w") as file:
        file.write("{inner} {outer} 1")
    print("inside", default_directory())
    inside = open_backend("file", {{}}).acquire("x", "host:1:a", 0.0, 0.0)
    print(type(inside).__name__.lower())
    try:
        open_backend("file:///usr/lib/locks", {{}})
    except Refused as error:
        print(str(error).partition("exchanged, for ")[2].partition(":")[0])
"""
HIDDEN = "/usr/lib has an owner whom this user namespace hides (take the lock before you enter it)"
LEGAL = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:@+"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lock in a directory of its own."""
    yield from labs(tmp_path, "file")


def token(run: Run) -> int:
    """The token that a command has printed."""
    assert run.wait() == 0, run.said
    return int(run.out)


def printed(lab: Lab) -> int:
    """The token of one more turn."""
    return token(lab.start(command=["sh", "-c", "echo $SINGLETON_TOKEN"]))


def refused(run: Run, *words: str) -> None:
    """The call ended by 78 and one line that says what to do."""
    assert (run.wait(), run.said.count("\n")) == (78, 1), run.said
    for word in words:
        assert word in run.said


# One at a time.


def test_ten_at_once_run_one_after_the_other(lab: Lab) -> None:
    runs = [lab.start("--kill-after", "50ms", command=lab.job("leave")) for _ in range(10)]
    assert [run.wait() for run in runs] == [0] * 10
    lab.evidence.check(turns=10)


def test_whoever_waits_longest_is_next(lab: Lab) -> None:
    first = lab.start(command=lab.long_job())
    lab.ready()
    order = lab.directory / "order"
    runs = []
    for number in range(4):
        runs.append(lab.start(command=["sh", "-c", f"echo {number} >> {order}"]))
        until(partial(queues, runs[-1].one("guard")), "it to queue")
    lab.finish()
    assert [run.wait() for run in (first, *runs)] == [0] * 5
    assert order.read_text().split() == ["0", "1", "2", "3"]


def queues(process: int) -> bool:
    """Whether a process waits in flock(2), by the list that the kernel keeps of those who do."""
    locks = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f" {process} " in line for line in locks)


@pytest.mark.parametrize(("first_line", "status"), [("#!/bin/true", 0), ("#!/nonexistent/interpreter", 127)])
def test_whoever_sees_that_it_has_ended_finds_the_lock_free(lab: Lab, first_line: str, status: int) -> None:
    (lab.directory / "sitecustomize.py").write_text(SLOW_GUARD)
    script = lab.directory / "script"
    script.write_text(first_line + "\n")
    script.chmod(0o700)
    path = f"{lab.directory}{os.pathsep}{environment()['PYTHONPATH']}"
    for _ in range(2):
        run = lab.start("-n", command=[str(script)], environ=environment(PYTHONPATH=path))
        assert run.wait() == status


def test_different_names_and_different_directories_do_not_wait_for_each_other(
    lab: Lab, tmp_path: Path
) -> None:
    first = lab.start(command=lab.long_job())
    lab.ready()
    with Lab(tmp_path) as other:
        assert other.start("-n", command=["true"]).wait() == 0
        other.lock = lab.lock
        assert other.start("-n", command=["true"]).wait() == 0
    lab.finish()
    assert first.wait() == 0


@pytest.mark.parametrize("name", [LEGAL, "a", "@", "+x", ":0", "A" * LONGEST, "_..", "x.lock", "x.json"])
def test_every_legal_name_is_a_lock(lab: Lab, name: str) -> None:
    lab.name = name
    first = lab.start(command=["sh", "-c", "echo; read line"], stdin=subprocess.PIPE)
    until(lambda: first.out, "the command to run")
    assert lab.start("-n", command=["true"]).wait() == 75
    until((lab.locks / f"{name}.json").exists, "the record")
    assert {file.name for file in lab.locks.iterdir()} == {f"{name}.lock", f"{name}.json"}
    assert first.popen.stdin is not None
    first.popen.stdin.close()
    assert first.wait() == 1
    assert lab.start("-n", command=["true"]).wait() == 0


@pytest.mark.parametrize("name", ["", "a/b", "a b", ".a", "-a", "..", "é", "a\nb", "A" * (LONGEST + 1)])
def test_an_illegal_name_is_refused_and_never_cut(lab: Lab, name: str) -> None:
    lab.name = name
    run = lab.start(command=["true"])
    assert (run.wait(), run.said.count("\n")) == (2, 1), run.said
    assert list(lab.locks.iterdir()) == []


def test_names_that_differ_in_their_last_letter_are_two_locks(lab: Lab) -> None:
    lab.name = "A" * LONGEST
    first = lab.start(command=lab.long_job())
    lab.ready()
    lab.name = "A" * (LONGEST - 1) + "B"
    assert lab.start("-n", command=["true"]).wait() == 0
    lab.finish()
    assert first.wait() == 0


def test_to_look_at_a_lock_is_not_to_hold_it(lab: Lab) -> None:
    printed(lab)
    backend = open_backend(lab.lock, {})
    looker = os.fork()
    if not looker:
        while True:
            backend.read(lab.name, 0.0)
    try:
        for _ in range(3000):
            assert isinstance(backend.acquire(lab.name, "host:1:a", 0.0, 0.0), Grant)
            backend.leave(0.0)
    finally:
        send(signal.SIGKILL, looker)
        os.waitpid(looker, 0)


@pytest.mark.parametrize("dead", [False, True])
def test_a_look_sees_who_holds_the_lock(lab: Lab, *, dead: bool) -> None:
    printed(lab)
    looker, holder = open_backend(lab.lock, {}), open_backend(lab.lock, {})
    assert looker.read(lab.name, 0.0)[0] is None
    if not dead:
        holder.acquire(lab.name, "host:1:a", 0.0, 0.0)
    else:  # /proc/locks in a container doesn't show it, whose open file a living process has
        holder.open(lab.name)
        process = os.fork()
        if not process:
            holder.acquire(lab.name, "host:1:a", 0.0, 0.0)
            os._exit(0)
        os.waitpid(process, 0)
    assert isinstance(looker.read(lab.name, 0.0)[0], Held)
    holder.close()
    assert looker.read(lab.name, 0.0)[0] is None


def test_a_look_sees_that_flock_holds_the_lock(lab: Lab) -> None:
    printed(lab)
    looker = open_backend(lab.lock, {})
    argv = ["flock", str(lab.locks / f"{lab.name}.lock"), "sh", "-c", "echo; read line"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert isinstance(looker.read(lab.name, 0.0)[0], Held)
        child.communicate(b"\n")
    assert looker.read(lab.name, 0.0)[0] is None


def test_a_look_sees_the_lock_where_proc_does_not_show_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    printed(lab)
    monkeypatch.setattr("singleton_run_file.lock_file._LOCKS", "/nonexistent/locks")
    looker, holder = open_backend(lab.lock, {}), open_backend(lab.lock, {})
    run = lab.start(command=lab.long_job())
    lab.ready()
    assert isinstance(looker.read(lab.name, 0.0)[0], Held)
    lab.finish()
    assert run.wait() == 0
    assert looker.read(lab.name, 0.0)[0] is None
    assert isinstance(holder.acquire(lab.name, "host:1:a", 0.0, 0.0), Grant)
    assert isinstance(looker.read(lab.name, 0.0)[0], Held)


# Where it lies.


def test_the_default_directory_depends_on_the_user_alone() -> None:
    def directory(**changes: str) -> str:
        argv = [sys.executable, "-c", DEFAULT]
        return subprocess.run(
            argv, env=environment(**changes), capture_output=True, text=True, check=True
        ).stdout.strip()

    own = directory(
        HOME="/nonexistent", XDG_RUNTIME_DIR="/nonexistent", XDG_STATE_HOME="/nonexistent", TMPDIR="/"
    )
    assert own == directory()
    home = pwd.getpwuid(os.geteuid()).pw_dir
    assert own == ("/var/lib/singleton-run" if os.geteuid() == 0 else f"{home}/.local/state/singleton-run")


@pytest.mark.parametrize(
    ("user", "said"), [("pwd.getpwall()[1].pw_uid", ".local/state/singleton-run"), ("54321", "has no entry")]
)
def test_another_user_has_another_default(user: str, said: str) -> None:
    script = f"import posix, pwd; user = {user}; posix.geteuid = lambda: user\n"
    script += "from singleton_run.errors import Refused\ntry:\n    "
    script += DEFAULT.replace("; ", "\n    ") + "\nexcept Refused as error: print(error)"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True
    )
    assert said in done.stdout
    assert "--lock file:///" in done.stdout or done.stdout.startswith("/")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a home directory and becomes its user")
@pytest.mark.parametrize("inner", [0, 7])
def test_in_a_user_namespace_it_is_the_directory_of_the_user_outside(tmp_path: Path, inner: int) -> None:
    """Where the machine's files belong to a user that isn't mapped, we are no root."""
    user = pwd.getpwnam("games")
    os.chown(tmp_path, user.pw_uid, user.pw_gid)
    tmp_path.chmod(0o755)
    shell = f'mount --bind {tmp_path} {user.pw_dir} && exec "$@"'
    script = BECOMES.format(outer=user.pw_uid, inner=inner)
    argv = ["unshare", "-m", "sh", "-c", shell, "sh", sys.executable, "-c", script]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=True)
    place = f"{user.pw_dir}/.local/state/singleton-run"
    assert done.stdout.splitlines() == [
        f"outside {place}",
        f"inside {place}",
        "held",
        HIDDEN,
    ]


def test_a_directory_is_made_and_for_its_owner_alone(lab: Lab) -> None:
    lab.lock += "/new/deep"
    os.umask(before := os.umask(0))
    try:
        os.umask(0)
        assert lab.start(command=["true"]).wait() == 0
    finally:
        os.umask(before)
    made = lab.locks / "new" / "deep"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in made.iterdir()} == {0o600}


def test_a_directory_may_have_any_name(lab: Lab) -> None:
    place = lab.directory / "a b%é"
    place.mkdir(mode=0o700)
    lab.lock = f"file://{lab.directory}/a%20b%25%c3%a9"
    assert lab.start(command=["true"]).wait() == 0
    assert (place / f"{lab.name}.lock").exists()
    lab.lock = f"file://{lab.directory}/a%2"
    refused(lab.start(command=["true"]), "hexadecimal")
    lab.lock = "file://relative/path"
    refused(lab.start(command=["true"]), "absolute")


def test_a_directory_that_is_a_symbolic_link_is_refused(lab: Lab) -> None:
    link = lab.directory / "link"
    link.symlink_to(lab.locks)
    lab.lock = f"file://{link}"
    refused(lab.start(command=["true"]), "symbolic link", "--lock file:///")
    assert list(lab.locks.iterdir()) == []


def test_a_directory_that_is_a_file_is_refused(lab: Lab) -> None:
    (lab.directory / "file").touch()
    lab.lock = f"file://{lab.directory}/file"
    refused(lab.start(command=["true"]), "not a directory", "--lock file:///")


def test_a_directory_that_can_not_be_made_is_refused(lab: Lab) -> None:
    lab.lock = "file:///proc/nonesuch/locks"
    refused(lab.start(command=["true"]), "can't be made", "--lock file:///")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_directory_that_others_can_write_is_refused(lab: Lab, mode: int) -> None:
    lab.locks.chmod(mode)
    refused(lab.start(command=["true"]), "can be written by others", "--lock file:///")


def as_another(lab: Lab, *mine: Path) -> Run:
    """A run to which these files belong to somebody else."""
    if os.geteuid() == 0:
        for path in mine:
            os.chown(path, NOBODY, NOBODY)
        return lab.start(command=["true"])
    argv = lab.argv(command=["true"])
    argv[1:3] = ["-c", ANOTHER]
    return lab.start(command=argv, via='while [ "$1" != -- ]; do shift; done; shift; exec "$@"')


def test_a_stranger_s_directory_is_refused(lab: Lab) -> None:
    refused(as_another(lab, lab.locks), "belongs to another user", "--lock file:///")


def test_a_stranger_s_lock_file_is_refused(lab: Lab) -> None:
    assert lab.start(command=["true"]).wait() == 0
    if os.geteuid() == 0:
        refused(as_another(lab, lab.locks / f"{lab.name}.lock"), "isn't a plain file of yours")
    else:
        refused(as_another(lab, lab.locks), "belongs to another user")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("call", ["status", "pause"])
def test_what_is_no_lock_file_is_named_to_who_looks(
    lab: Lab, make: Callable[[Path], None], call: str
) -> None:
    make(lab.locks / f"{lab.name}.lock")
    argv = [*PROGRAM, call, lab.name, "--lock", lab.lock]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
    line = f"singleton-run: {lab.name}.lock isn't a plain file: remove it\n"
    assert (done.returncode, done.stderr) == (UNUSABLE, line)


def test_a_lock_file_that_is_a_link_is_refused(lab: Lab) -> None:
    target = lab.directory / "precious"
    target.write_text("precious")
    lock = lab.locks / f"{lab.name}.lock"
    lock.symlink_to(target)
    refused(lab.start(command=["true"]), "symbolic link")
    lock.unlink()
    lock.hardlink_to(target)
    refused(lab.start(command=["true"]), "isn't a plain file of yours")
    assert target.read_text() == "precious"
    lock.unlink()
    os.mkfifo(lock)
    refused(lab.start(command=["true"]), "isn't a plain file of yours")
    lock.unlink()
    lock.mkdir()
    refused(lab.start(command=["true"]), f"{lab.name}.lock")


def test_a_record_that_is_a_link_is_neither_read_nor_followed(lab: Lab) -> None:
    target = lab.directory / "precious"
    target.write_text("precious")
    record = lab.locks / f"{lab.name}.json"
    record.symlink_to(target)
    (lab.locks / f".{lab.name}.tmp").symlink_to(target)
    lab.start(command=["true"]).wait()
    assert target.read_text() == "precious"


# What stays.


def test_the_files_stay_and_are_the_same(lab: Lab) -> None:
    printed(lab)
    lock = lab.locks / f"{lab.name}.lock"
    before = lock.stat().st_ino
    printed(lab)
    run = lab.start(command=lab.long_job())
    lab.ready()
    send(signal.SIGKILL, run.pid)
    lab.next_one()
    assert lock.stat().st_ino == before
    assert {file.name for file in lab.locks.iterdir()} == {lock.name, f"{lab.name}.json"}


def test_a_lock_file_that_was_replaced_is_not_two_locks(lab: Lab) -> None:
    first = lab.start(command=lab.long_job())
    lab.ready()
    second = lab.start(command=lab.job())
    second.hears("waiting for lock")
    guard = second.one("guard")
    lock = lab.locks / f"{lab.name}.lock"
    lock.rename(lab.locks / "old")
    third = lab.start(command=lab.long_job())
    lab.ready(2)
    # The second has waited for a file that nobody else will ever lock: it must not take it for the lock.
    send(signal.SIGTERM, first.pid)
    assert first.wait() == 143
    second.one("guard", but=guard)
    assert lab.evidence.count("start") == 2
    lab.finish()
    assert (third.wait(), second.wait()) == (0, 0)
    assert len(lab.evidence.turns()) == 3


def test_the_token_grows_from_turn_to_turn(lab: Lab) -> None:
    tokens = [printed(lab) for _ in range(3)]
    assert tokens == sorted(set(tokens))
    assert tokens[0] > 1_700_000_000_000_000


def test_the_token_grows_when_the_clock_was_set_back(lab: Lab) -> None:
    printed(lab)
    future = (time.time_ns() // 1000) * 2
    (lab.locks / f"{lab.name}.lock").write_text(f"{future:020d}\n")
    assert [printed(lab), printed(lab)] == [future + 1, future + 2]


@pytest.mark.parametrize(
    "damage", [b"", b"rubbish", b"\0" * 20, b"-5", b"1e9", "٣٣".encode(), b"\xff\xfe" * 30]
)
def test_the_token_grows_over_a_damaged_one(lab: Lab, damage: bytes) -> None:
    before = printed(lab)
    (lab.locks / f"{lab.name}.lock").write_bytes(damage)
    assert printed(lab) > before


def test_the_token_grows_over_a_removed_file(lab: Lab) -> None:
    before = printed(lab)
    (lab.locks / f"{lab.name}.lock").unlink()
    assert printed(lab) > before


# The record.


def record(lab: Lab) -> Any:
    """What lies beside the lock."""
    return json.loads((lab.locks / f"{lab.name}.json").read_text())


def test_the_record_says_how_each_run_went(lab: Lab) -> None:
    before = time.time()
    assert lab.start(command=["true"]).wait() == 0
    first = record(lab)
    assert (first["version"], first["state"], first["status"], first["name"]) == (1, "succeeded", 0, lab.name)
    assert first["runs"] == []
    assert before - 1 < first["start"] <= first["end"] < time.time() + 1
    assert lab.start(command=["sh", "-c", "exit 3"]).wait() == 3
    assert (record(lab)["state"], record(lab)["status"]) == ("failed", 3)
    run = lab.start(command=lab.long_job())
    lab.ready()
    until(lambda: record(lab)["state"] == "running", "the record of a run under way")
    assert (record(lab)["end"], record(lab)["status"]) == (None, None)
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 143
    assert (record(lab)["state"], record(lab)["status"]) == ("interrupted", 143)
    runs = record(lab)["runs"]
    assert [one["state"] for one in runs] == ["failed", "succeeded"]


def test_a_run_that_was_cut_off_is_a_crash_and_the_last_fifty_are_kept(lab: Lab) -> None:
    run = lab.start(command=lab.long_job())
    lab.ready()
    until((lab.locks / f"{lab.name}.json").exists, "the record")
    send(signal.SIGKILL, run.pid)
    lab.next_one()
    assert [one["state"] for one in record(lab)["runs"]] == ["crashed"]
    many = {**record(lab), "runs": record(lab)["runs"] * 50}
    (lab.locks / f"{lab.name}.json").write_text(json.dumps(many))
    lab.next_one()
    assert [one["state"] for one in record(lab)["runs"]] == ["succeeded", *["crashed"] * 49]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"version": 1}',
        b'{"version": 99, "state": "running"}',
        b'{"version": 1, "state": 5, "runs": {}, "token": "x", "holder": null}',
        b'{"version": 1, "state": "running", "runs": [1], "token": 1, "holder": "h:1:2", "start": "now"}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_record_is_ignored(lab: Lab, damage: bytes) -> None:
    path = lab.locks / f"{lab.name}.json"
    path.write_bytes(damage)
    assert lab.start(command=["true"]).wait() == 0
    assert (record(lab)["state"], record(lab)["runs"]) == ("succeeded", [])
    first = lab.start(command=lab.long_job())
    lab.ready()
    until(lambda: record(lab)["state"] == "running", "the record of the run")
    path.write_bytes(damage)
    second = lab.start("-n", command=["true"])
    assert second.wait() == 75
    assert second.said == f"singleton-run: lock '{lab.name}' is held\n"
    lab.finish()
    assert first.wait() == 0


def test_a_record_that_can_not_be_written_is_said_and_the_command_runs(lab: Lab) -> None:
    (lab.locks / f"{lab.name}.json").mkdir()
    run = lab.start(command=["sh", "-c", "exit 3"])
    assert run.wait() == 3
    assert "can't be written" in run.said
    assert (lab.locks / f"{lab.name}.json").is_dir()


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes: a write stops there, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 1, 60, 100])
def test_a_record_or_mark_is_written_whole_or_not_at_all(lab: Lab, size: int) -> None:
    backend = open_backend(lab.lock, {})
    grant = backend.acquire(lab.name, "host:1:a", 0.0, 0.0)
    assert isinstance(grant, Grant)
    first = started(None, lab.name, "host:1:a", grant.token, 1.0)
    backend.write(grant, first, 0.0)
    with no_file_beyond(size), pytest.raises(Unavailable, match="File too large"):
        backend.write(grant, ended(first, "succeeded", 0, 2.0), 0.0)
    assert record(lab) == first
    with no_file_beyond(size), pytest.raises(Unavailable, match="File too large"):
        backend.mark(grant, "v1", {"holder": "h" * 300}, 0.0)
    assert backend.done(lab.name, "v1", 0.0) is None


@pytest.mark.parametrize("size", [0, 10, 20])
def test_a_token_that_can_not_be_written_whole_is_given_to_nobody(lab: Lab, size: int) -> None:
    with no_file_beyond(size), pytest.raises(Refused, match="can't be written"):
        asked(lab)
    before = printed(lab)
    with no_file_beyond(size), pytest.raises(Refused, match="can't be written"):
        asked(lab)
    assert printed(lab) > before


@pytest.mark.parametrize("size", [21, 30, 60])
def test_a_time_that_can_not_be_written_whole_is_said(lab: Lab, size: int) -> None:
    backend = open_backend(lab.lock, {})
    grant = backend.acquire(lab.name, "host:1:a", 0.0, 0.0)
    assert isinstance(grant, Grant)
    run = started(None, lab.name, "host:1:a", grant.token, 1.0)
    with no_file_beyond(size), pytest.raises(Unavailable, match="File too large"):
        backend.release(grant, run, 0.0, 60.0)
    assert isinstance(asked(lab), Grant)


def test_a_slot_whose_start_can_not_be_written_down_is_not_started(lab: Lab) -> None:
    job = ["sh", "-c", f"mkdir {lab.directory}/ran-$SINGLETON_TOKEN"]
    environ = environment(PYTHONDONTWRITEBYTECODE="1")  # Python itself would leave half a cache file
    via = 'exec prlimit --fsize=200 "$@"'
    run = lab.start("--every", "1h", command=job, environ=environ, via=via)
    run.hears("can't be written")
    send(signal.SIGTERM, run.pid)
    run.wait()
    assert list(lab.directory.glob("ran-*")) == []
    assert lab.start("--every", "1h", "--no-loop", command=job).wait() == 0
    assert len(list(lab.directory.glob("ran-*"))) == 1


# A lock that is kept after its turn.


def kept(lab: Lab, seconds: float) -> tuple[FileBackend, float]:
    """A backend that has given the lock back, to be had after so many seconds; when that is, at the least."""
    backend = open_backend(lab.lock, {})
    grant = backend.acquire(lab.name, "host:1:a", 0.0, 0.0)
    assert isinstance(grant, Grant)
    end = calls.now() + seconds
    backend.release(
        grant, ended(started(None, lab.name, "host:1:a", grant.token, 1.0), "succeeded", 0, 2.0), 0.0, seconds
    )
    return backend, end


def asked(lab: Lab) -> Grant | Held:
    """What one who comes now is told."""
    return open_backend(lab.lock, {}).acquire(lab.name, "host:2:b", 0.0, 0.0)


def test_a_kept_lock_is_waited_for_by_the_guard_and_lost_to_the_command(lab: Lab) -> None:
    _, end = kept(lab, 5.0)
    assert lab.start("-n", command=["true"]).wait() == 75
    run = lab.start(command=["true"])
    assert run.wait() == 0
    assert calls.now() >= end
    assert "waiting for lock" in run.said
    assert lab.start("-n", command=["true"]).wait() == 0


def test_whoever_waits_for_a_kept_lock_is_next(lab: Lab) -> None:
    _, end = kept(lab, 5.0)
    first = lab.start(command=lab.long_job())
    until(partial(locks, first.one("guard")), "the guard to have the file")
    assert calls.now() < end
    second = lab.start(command=["true"])
    until(partial(queues, second.one("guard")), "it to queue")
    lab.ready()
    assert calls.now() >= end
    assert second.popen.poll() is None
    lab.finish()
    assert (first.wait(), second.wait()) == (0, 0)


def locks(process: int) -> bool:
    """Whether a process has a lock of flock(2)."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" not in line and "FLOCK" in line and f" {process} " in line for line in lines)


def test_a_kept_lock_is_free_for_flock(lab: Lab) -> None:
    kept(lab, 60.0)
    path = lab.locks / f"{lab.name}.lock"
    assert subprocess.run(["flock", "-n", str(path), "true"], check=False).returncode == 0
    assert isinstance(asked(lab), Held)


def rewritten(lab: Lab, change: Callable[[list[str]], None]) -> None:
    """Change the words that say until when the lock is kept."""
    path = lab.locks / f"{lab.name}.lock"
    token, line = path.read_text().splitlines()
    words = line.split()
    change(words)
    path.write_text(f"{token}\n{' '.join(words)}\n")


def test_after_a_reboot_the_wall_clock_says_how_long_a_lock_is_kept(lab: Lab) -> None:
    def reboot(words: list[str], wall: float) -> None:
        words[0], words[1], words[3] = "1.0", str(wall), "another-boot"

    kept(lab, 60.0)
    rewritten(lab, lambda words: reboot(words, time.time() + 30.0))
    held = asked(lab)
    assert isinstance(held, Held)
    assert held.until is not None
    assert 20.0 < held.until - calls.now() < 30.0
    # A machine whose clock begins in 1970: no longer than the whole time.
    rewritten(lab, lambda words: reboot(words, time.time() + 1e9))
    held = asked(lab)
    assert isinstance(held, Held)
    assert held.until is not None
    assert 50.0 < held.until - calls.now() <= 60.0
    rewritten(lab, lambda words: reboot(words, time.time() - 1.0))
    assert isinstance(asked(lab), Grant)


@pytest.mark.parametrize(
    "damage", [b"rubbish\n", b"1 2 3\n", b"nan nan nan nan\n", b"\xff\xfe\n", b"\0" * 500]
)
def test_a_time_that_is_damaged_is_ignored(lab: Lab, damage: bytes) -> None:
    kept(lab, 60.0)
    path = lab.locks / f"{lab.name}.lock"
    path.write_bytes(path.read_bytes()[:21] + damage)
    assert isinstance(asked(lab), Grant)
    assert path.stat().st_size == 21


# What people ask of a lock.


def locked(lab: Lab) -> tuple[FileBackend, Grant]:
    """A backend that has the lock, and its grant."""
    backend = open_backend(lab.lock, {})
    grant = backend.acquire(lab.name, "host:1:a", 0.0, 0.0)
    assert isinstance(grant, Grant)
    return backend, grant


@pytest.mark.parametrize("damage", [b"", b"rubbish", b"\xff\xfe", b"1\n{}", b"1\n" + b" " * 30_000 + b"{}"])
def test_a_damaged_control_is_a_pause_and_is_replaced(lab: Lab, damage: bytes) -> None:
    backend, grant = locked(lab)
    path = lab.locks / f"{lab.name}.control"
    path.write_bytes(damage)
    seen = backend.look(lab.name, 1.0)
    assert pause_of(seen.control, 0.0) == pause_of(backend.renew(grant, 1.0), 0.0) != None  # noqa: E711
    assert backend.steer(lab.name, seen.version, resumed(None), 1.0)
    assert backend.renew(grant, 1.0) == resumed(None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_control_that_is_a_link_is_not_followed(lab: Lab) -> None:
    backend, grant = locked(lab)
    elsewhere = lab.directory / "elsewhere"
    elsewhere.write_text(f"1\n{json.dumps(resumed(None))}")
    (lab.locks / f"{lab.name}.control").symlink_to(elsewhere)
    (lab.locks / f".{lab.name}.control.tmp").symlink_to(elsewhere)
    assert pause_of(backend.renew(grant, 1.0), 0.0)
    with pytest.raises(Refused, match="symbolic link"):
        backend.steer(lab.name, backend.look(lab.name, 1.0).version, paused_now(), 1.0)
    assert json.loads(elsewhere.read_text().partition("\n")[2]) == resumed(None)


def paused_now() -> dict[str, Any]:
    """A control that pauses the lock."""
    return paused(None, by="ann@desk", at=1.0, until=None, reason="because")


@pytest.mark.parametrize("call", ["pause", "forget"])
def test_a_disk_that_can_not_be_written_ends_what_people_call_as_it_ends_a_run(lab: Lab, call: str) -> None:
    """78: the user must mend it, and to try again is of no use."""
    environ = environment(PYTHONDONTWRITEBYTECODE="1")
    full = lab.start(command=["true"], environ=environ, via='exec prlimit --fsize=0 "$@"')
    assert full.wait() == UNUSABLE
    assert lab.start("--once", "v1", command=["true"]).wait() == 0
    if call == "forget":
        marks = lab.locks / f"{lab.name}.once"
        marks.rename(lab.locks / "elsewhere")
        marks.symlink_to("elsewhere")
    words = ["v1"] if call == "forget" else []
    argv = ["prlimit", "--fsize=0", *PROGRAM, call, lab.name, *words, "--lock", lab.lock]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == UNUSABLE, done.stderr
    assert "can't be written" in done.stderr


def test_who_steers_beside_one_who_hangs_gives_up_in_time(lab: Lab) -> None:
    backend, _ = locked(lab)
    with flocked(lab.locks), pytest.raises(Unavailable, match="another process holds the directory"):
        backend.steer(lab.name, "", paused_now(), 0.3)
    assert backend.steer(lab.name, "", paused_now(), 0.3)


@contextmanager
def flocked(path: Path) -> Iterator[None]:
    """Somebody has a plain flock(2) on that file or directory."""
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


def test_a_version_survives_a_removed_control_and_a_clock_that_was_set_back(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, _ = locked(lab)
    versions = []
    for seconds in (3, 2, 1):
        monkeypatch.setattr(time, "time_ns", lambda: seconds * 10**9)  # noqa: B023 - called in this round
        assert backend.steer(lab.name, backend.look(lab.name, 1.0).version, paused_now(), 1.0)
        versions.append(backend.look(lab.name, 1.0).version)
    assert len(set(versions)) == 3


def test_a_kept_lock_that_is_freed_is_had_by_the_guard_that_waits(lab: Lab) -> None:
    """It is at the head of the queue and has the file locked, yet the lock counts as kept."""
    backend, end = kept(lab, 600.0)
    run = lab.start(command=["true"])
    until(partial(locks, run.one("guard")), "the guard to have the file")
    seen = backend.look(lab.name, 1.0)
    assert seen.state == Look.KEPT
    assert backend.free(lab.name, seen, 1.0)
    assert run.wait() == 0
    assert calls.now() < end


def test_a_lock_that_a_process_has_is_freed_by_nobody_and_it_is_told_which(lab: Lab) -> None:
    run = lab.start(command=lab.long_job())
    lab.ready()
    backend = open_backend(lab.lock, {})
    until(lambda: backend.look(lab.name, 1.0).record, "the record")
    seen = backend.look(lab.name, 1.0)
    assert seen.state == Look.HELD
    assert seen.holder is not None
    assert seen.record is not None
    assert seen.holder.token == seen.record["token"]
    with pytest.raises(Refused, match=rf"held by process {run.popen.pid} on {seen.holder.host}, and is free"):
        backend.free(lab.name, seen, 1.0)
    lab.finish()
    assert run.wait() == 0
    assert not backend.free(lab.name, seen, 1.0)


def test_a_look_at_a_lock_that_flock_has_names_nobody(lab: Lab) -> None:
    """The record of our last run, even of one that crashed, is not of that holder."""
    backend, grant = locked(lab)
    run = started(None, lab.name, "host:1:a", grant.token, 1.0)
    backend.write(grant, run, 0.0)
    backend.close()
    reader = open_backend(lab.lock, {})
    with flocked(lab.locks / f"{lab.name}.lock"):
        seen = reader.look(lab.name, 1.0)
        assert (seen.state, seen.record) == (Look.HELD, run)
        assert seen.holder is not None
        assert (seen.holder.holder, seen.holder.token) == ("", None)
        with pytest.raises(Refused, match="held by a process, and"):
            reader.free(lab.name, seen, 1.0)


HOLDS_WITHOUT_INOTIFY = """if True:
    import os, sys
    from singleton_run.system import calls
    from singleton_run_file import open_backend, watching
    watching._LOOK_EVERY = 0.05
    backend = open_backend(sys.argv[1], {})
    grant = backend.acquire(sys.argv[2], "host:1:a", 0.0, 0.0)
    print(grant.control, flush=True)
    backend.hold(grant, calls.FOREVER, os.pipe()[0])
    print(backend.renew(grant, 0.0)["pause"]["by"], flush=True)
"""


def test_where_the_kernel_tells_of_no_changes_a_holder_looks_now_and_then(lab: Lab) -> None:
    refuse = [sys.executable, seccomp.__file__, "inotify_init1", "EMFILE"]
    argv = [*refuse, sys.executable, "-c", HOLDS_WITHOUT_INOTIFY, lab.lock, lab.name]
    with subprocess.Popen(argv, stdout=-1, text=True, env=environment()) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "None\n"
        assert open_backend(lab.lock, {}).steer(lab.name, "", paused_now(), 1.0)
        assert holder.stdout.readline() == "ann@desk\n"


# Keys that are done.


def test_a_mark_is_a_file_that_says_its_key(lab: Lab) -> None:
    backend = open_backend(lab.lock, {})
    grant = backend.acquire(lab.name, "host:1:a", 0.0, 0.0)
    assert isinstance(grant, Grant)
    backend.mark(grant, "../../v1", {"token": grant.token}, 0.0)
    folder = lab.locks / f"{lab.name}.once"
    (file,) = folder.iterdir()
    assert json.loads(file.read_text()) == {"key": "../../v1", "mark": {"token": grant.token}}
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o700, 0o600)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"key": "v1"}', b'{"mark": 1}', b"\xff", b"[" * 100_000]
)
def test_a_damaged_mark_is_neither_done_nor_to_do(lab: Lab, damage: bytes) -> None:
    backend = open_backend(lab.lock, {})
    grant = backend.acquire(lab.name, "host:1:a", 0.0, 0.0)
    assert isinstance(grant, Grant)
    backend.mark(grant, "v1", {}, 0.0)
    (file,) = (lab.locks / f"{lab.name}.once").iterdir()
    file.write_bytes(damage)
    with pytest.raises(Refused, match="is damaged: delete it"):
        backend.done(lab.name, "v1", 0.0)
    assert backend.forget(lab.name, "v1", 0.0)
    assert backend.done(lab.name, "v1", 0.0) is None


def test_marks_are_not_written_through_a_link(lab: Lab) -> None:
    elsewhere = lab.directory / "elsewhere"
    elsewhere.mkdir()
    (lab.locks / f"{lab.name}.once").symlink_to(elsewhere)
    backend = open_backend(lab.lock, {})
    grant = backend.acquire(lab.name, "host:1:a", 0.0, 0.0)
    assert isinstance(grant, Grant)
    with pytest.raises(Unavailable, match="can't be written"):
        backend.mark(grant, "v1", {}, 0.0)
    with pytest.raises(Refused, match="can't be read"):
        backend.done(lab.name, "v1", 0.0)
    assert list(elsewhere.iterdir()) == []


LACKING = """
import resource, sys
from singleton_run.api import registry
from singleton_run.errors import Refused

backend = registry.open_backend(sys.argv[1], {})
grant = backend.acquire("a", "h:1:a", 30.0, 0.0)
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
try:
    print(backend.renew(grant, 0.0))
except Refused as refused:
    print(refused.status, refused)
"""


def test_a_lack_of_descriptors_is_said_and_is_no_pause(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", LACKING, f"file://{tmp_path}"]
    tmp_path.chmod(0o700)
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("78 this machine refuses what a run takes (Too many open files)")
