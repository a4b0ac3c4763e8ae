"""A test run takes nothing from whoever started it, and leaves no process behind, even when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import TREE, below, gone, until
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

# Processes as tests start them: a child that ignores what can be ignored, and an orphan in a session of its
# own without environment. Each appends its process id to a file.
LEAVES = """
import os, subprocess, time
CHILD = 'trap "" TERM INT HUP; echo $$ >> {pids}; sleep 600; sleep 600'
ORPHAN = r'setsid sh -c "echo \\$\\$ >> {pids}; exec sleep 600" &'
def test_it():
    subprocess.Popen(['sh', '-c', CHILD])
    subprocess.run(['env', '-i', '/bin/sh', '-c', ORPHAN], check=True)
    while not os.path.exists({finish!r}):
        time.sleep(0.01)
"""
# What a program that a test starts gets from it.
TELLS = """
import json, os, subprocess, sys
ASK = '''
import json, os, signal, sys
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
os.close(os.open("made", os.O_CREAT, 0o666))
mode = os.stat("made").st_mode & 0o777
print(json.dumps([lines["SigIgn"].strip(), lines["SigBlk"].strip(), mode, sys.dont_write_bytecode]))
'''
def test_it():
    asked = subprocess.run([sys.executable, '-c', ASK], cwd={folder!r}, capture_output=True, check=True)
    with open({answer!r}, 'wb') as file:
        file.write(asked.stdout)
"""
# Those that a caller can have ignored, as bits. Two are ignored by Python in itself, two are the C library's.
SIGNALS = sum(1 << n - 1 for n in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ})


def pytest_of(path: Path, *options: str) -> list[str]:
    """The call of a pytest of its own with the plugin, for one file."""
    plugin = ["-p", "tests.support.session", "-p", "no:cacheprovider", "-c", os.devnull]
    return [sys.executable, "-m", "pytest", "-q", *plugin, "--rootdir", str(path.parent), *options, str(path)]


class Leaving:
    """A test run of one test that starts two processes and waits."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._pids, self.finish = folder / "pids", folder / "finish"
        path = folder / "test_leaving.py"
        path.write_text(LEAVES.format(pids=self._pids, finish=str(self.finish)))
        self.popen = subprocess.Popen(
            pytest_of(path, *options), cwd=TREE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        until(lambda: len(self.pids()) == 2, "both processes to run")
        self.all = {*self.pids(), *below(self.popen.pid)}

    def pids(self) -> list[int]:
        """The processes that the test has started."""
        return [int(line) for line in self._pids.read_text().split()] if self._pids.exists() else []

    def leaves_nothing(self) -> None:
        """Wait until nothing is left of it."""
        until(lambda: all(map(gone, self.all)), f"{self.all} to be gone")


@pytest.fixture(params=["one process", "workers"])
def leaving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Leaving]:
    options = ["-n", "1"] if request.param == "workers" else ["-p", "no:xdist"]
    run = Leaving(tmp_path, *options)
    yield run
    for process in (run.popen.pid, *run.all):
        if not gone(process):
            os.kill(process, signal.SIGKILL)
    run.popen.wait()


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_whichever_process_of_a_run_is_killed_nothing_is_left(leaving: Leaving, generation: int) -> None:
    process = leaving.popen.pid
    for _ in range(generation):
        process = int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])
    os.kill(process, signal.SIGKILL)
    leaving.leaves_nothing()
    assert leaving.popen.wait() == (-signal.SIGKILL, 128 + signal.SIGKILL)[generation > 0]


def test_when_the_whole_process_group_is_killed_nothing_is_left(leaving: Leaving) -> None:
    os.killpg(leaving.popen.pid, signal.SIGKILL)
    leaving.leaves_nothing()


def test_a_run_that_ends_by_itself_leaves_nothing(leaving: Leaving) -> None:
    leaving.finish.touch()
    assert leaving.popen.wait() == 0
    assert all(map(gone, leaving.all))


def test_ctrl_c_ends_the_tests_in_order_and_leaves_nothing(tmp_path: Path) -> None:
    path, pids, finish = tmp_path / "test_leaving.py", tmp_path / "pids", tmp_path / "finish"
    path.write_text(LEAVES.format(pids=pids, finish=str(finish)))
    with Terminal(pytest_of(path, "-p", "no:xdist"), tmp_path) as terminal:
        until(lambda: pids.exists() and pids.read_text().count("\n") == 2, "both processes to run")
        terminal.type("\x03")
        assert terminal.wait() == pytest.ExitCode.INTERRUPTED
        assert "! KeyboardInterrupt !" in terminal.shown
    assert all(map(gone, map(int, pids.read_text().split())))


@pytest.mark.parametrize("line", ["raise AssertionError", "import nothing.such", "x = 1"])
def test_a_run_ends_with_the_status_of_its_tests(tmp_path: Path, line: str) -> None:
    path = tmp_path / "test_ending.py"
    path.write_text(f"def test_it():\n    {line}\n" if line[0] != "x" else "x = 1\n")
    status = subprocess.run(pytest_of(path), cwd=TREE, stdout=subprocess.DEVNULL, check=False).returncode
    assert status == {"x = 1": pytest.ExitCode.NO_TESTS_COLLECTED}.get(line, pytest.ExitCode.TESTS_FAILED)


@pytest.mark.parametrize("workers", [["-p", "no:xdist"], ["-n", "1"]], ids=["one process", "workers"])
def test_what_the_caller_has_set_is_not_handed_on_to_what_a_test_starts(
    tmp_path: Path, workers: list[str]
) -> None:
    path, answer = tmp_path / "test_telling.py", tmp_path / "answer"
    path.write_text(TELLS.format(folder=str(tmp_path), answer=str(answer)))
    ignoring = ["sh", "-c", 'trap "" INT HUP QUIT TERM CHLD; umask 077; exec "$@"', "sh"]
    subprocess.run(
        [*ignoring, *pytest_of(path, *workers)],
        cwd=TREE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1, signal.SIGTERM)),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    ignored, blocked, mode, writes_none = json.loads(answer.read_text())
    assert (int(ignored, 16) & SIGNALS, int(blocked, 16), mode, writes_none) == (0, 0, 0o644, False)
