"""`singleton-run install DIRECTORY`: the executable is there as a whole, or it is one line and a status.

Where no file is tested, the tree's singleton-run is told that it is one; what it copies then is its Python.
The script that it writes otherwise is tested in tests/project/test_installed_script.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from singleton_run.errors import UNUSABLE, USAGE
from tests.support.harness import GIVEN, PROGRAM, PYTHON, TREE, environment

ALONE = """
import sys
sys.builtin_module_names += ("_singleton_run",)
from singleton_run.__main__ import main
main()
"""
FILE = PROGRAM if GIVEN else [PYTHON, "-c", ALONE]
WHOLE = Path(FILE[0]).resolve()
KILLED_AT_FSYNC = [sys.executable, str(TREE / "tests" / "support" / "seccomp.py"), "fsync", "KILL"]
INSTALLERS = 8
MOUNTS = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems: sudo make test-process")


def install(*words: object, before: str = "") -> subprocess.CompletedProcess[str]:
    """An installation that has ended; `before` is a script that first changes mounts of its own."""
    argv = [*FILE, "install", *map(str, words)]
    if before:
        argv = ["unshare", "-m", "sh", "-c", f'{before} && exec "$@"', "sh", *argv]
    return subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)


def refused(directory: Path, why: str, before: str = "") -> None:
    """It ends with one line that says why."""
    done = install(directory, before=before)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (UNUSABLE, "", 1), done.stderr
    line = f"singleton-run: {directory}/singleton-run can't be written ({why}): "
    assert done.stderr.startswith(line), done.stderr


def is_whole(path: Path) -> bool:
    """Whether it is the executable, for everybody to be run."""
    return path.stat().st_mode == 0o100755 and path.read_bytes() == WHOLE.read_bytes()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o777])
def test_it_is_all_that_is_there_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        done = install(tmp_path)
    finally:
        os.umask(before)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"installed: {tmp_path}/singleton-run\n"
    assert os.listdir(tmp_path) == ["singleton-run"]
    assert is_whole(tmp_path / "singleton-run")


def test_an_older_one_is_replaced_and_who_runs_it_goes_on(tmp_path: Path) -> None:
    old = tmp_path / "singleton-run"
    old.write_text("#!/bin/sh\necho old\n")
    old.chmod(0o755)
    with old.open() as still_open:
        assert install(tmp_path).returncode == 0
        assert still_open.read().endswith("echo old\n")
    assert is_whole(old)


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "singleton-run").symlink_to(precious)
    assert install(folder).returncode == 0
    assert precious.read_text() == "precious"
    assert is_whole(folder / "singleton-run")


def test_many_at_once_do_not_meet(tmp_path: Path) -> None:
    """As the containers of a pod that has a volume on the node."""
    argv = [*FILE, "install", str(tmp_path)]
    some = [subprocess.Popen(argv, env=environment(), stdout=subprocess.DEVNULL) for _ in range(INSTALLERS)]
    assert [one.wait() for one in some] == [0] * INSTALLERS
    assert os.listdir(tmp_path) == ["singleton-run"]
    assert is_whole(tmp_path / "singleton-run")


def test_one_that_is_killed_in_the_middle_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    argv = [*KILLED_AT_FSYNC, *FILE, "install", str(tmp_path)]
    done = subprocess.run(argv, env=environment(), capture_output=True, check=False)
    assert done.returncode == -signal.SIGSYS
    assert not (tmp_path / "singleton-run").exists()
    assert install(tmp_path).returncode == 0
    assert is_whole(tmp_path / "singleton-run")


def test_no_directory_is_one_line(tmp_path: Path) -> None:
    refused(tmp_path / "none", "No such file or directory")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "Not a directory")


def test_a_directory_of_that_name_is_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "singleton-run").mkdir()
    refused(tmp_path, "Is a directory")
    assert os.listdir(tmp_path) == ["singleton-run"]


@MOUNTS
def test_a_directory_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    refused(tmp_path, "Read-only file system", before=f"mount -t tmpfs -o ro none {tmp_path}")


@MOUNTS
def test_a_full_disk_is_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    """What was there before still is."""
    script = f"""
        mount -t tmpfs -o size=8k none {tmp_path} && echo old > {tmp_path}/singleton-run
        "$@"
        status=$?
        cat {tmp_path}/singleton-run && ls -A {tmp_path}
        exit $status
    """
    argv = ["unshare", "-m", "sh", "-c", script, "sh", *FILE, "install", str(tmp_path)]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (UNUSABLE, "old\nsingleton-run\n")
    assert "(No space left on device)" in done.stderr
    assert done.stderr.count("\n") == 1


@MOUNTS
def test_without_proc_it_is_one_line(tmp_path: Path) -> None:
    done = install(tmp_path, before="mount -t tmpfs none /proc")
    assert (done.returncode, done.stderr.count("\n"), os.listdir(tmp_path)) == (UNUSABLE, 1, [])
    assert done.stderr.endswith("(No such file or directory): mount /proc\n")


@pytest.mark.parametrize("words", [[], ["/tmp", "/tmp"], ["--force", "/tmp"]])  # noqa: S108 - nothing is written
def test_one_directory_is_named(words: list[str]) -> None:
    done = install(*words)
    assert (done.returncode, done.stderr.count("\n")) == (USAGE, 1)
