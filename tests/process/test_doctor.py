"""`doctor` on this machine alone: kernel, time zones, the directory of locks, and how it says all that."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import UNUSABLE, USAGE
from tests.support.harness import LIMIT, PROGRAM, TREE, environment
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

GRADES = ("ok   ", "warn ", "BAD  ")


class Told:
    """What a call of doctor said, and its exit status."""

    def __init__(self, *words: str, via: str = 'exec "$@"', **environ: str) -> None:
        argv = ["sh", "-c", via, "sh", *PROGRAM, "doctor", *words]
        done = subprocess.run(
            argv, env=environment(**environ), capture_output=True, text=True, timeout=LIMIT, check=False
        )
        self.status, self.lines, self.said = done.returncode, done.stdout.splitlines(), done.stderr

    def of(self, grade: str) -> list[str]:
        """The lines of a grade, without it."""
        return [line[5:] for line in self.lines if line.startswith(f"{grade:4} ")]


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    path = tmp_path / "locks"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def in_memory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


def test_a_machine_that_is_well_ends_with_0_and_no_file_is_made(locks: Path) -> None:
    told = Told("--lock", f"file://{locks}")
    assert told.status == 0
    assert told.said == ""
    assert told.of("BAD") == []
    assert all(line.startswith(GRADES) for line in told.lines)
    for words in ("child subreaper", "pidfd_open works", "/proc is mounted", f"flock works in {locks}"):
        assert any(words in line for line in told.of("ok")), words
    assert list(locks.iterdir()) == []


def test_it_needs_neither_a_terminal_nor_any_descriptor_but_stdout(locks: Path) -> None:
    told = Told("--lock", f"file://{locks}", via='exec setsid "$@" <&- 2>&-')
    assert told.status == 0
    assert told.lines


def test_a_directory_that_others_can_write_is_bad(locks: Path) -> None:
    locks.chmod(0o777)
    told = Told("--lock", f"file://{locks}")
    assert told.status == UNUSABLE
    (line,) = told.of("BAD")
    assert "can be written by others: name one with --lock" in line


def test_a_directory_that_can_not_be_written_is_bad() -> None:
    told = Told("--lock", "file:///proc/self")
    assert told.status == UNUSABLE
    assert told.of("BAD")


def test_a_directory_that_a_reboot_empties_is_warned_of(in_memory: Path) -> None:
    told = Told("--lock", f"file://{in_memory}")
    assert told.status == 0
    assert any(f"{in_memory} is on tmpfs" in line for line in told.of("warn"))


def test_a_pod_without_a_lock_of_the_cluster_is_bad_and_one_that_wants_it_so_is_warned(locks: Path) -> None:
    told = Told(KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert told.status == UNUSABLE
    assert "one per container: say --lock k8s-lease" in told.of("BAD")[0]
    told = Told(KUBERNETES_SERVICE_HOST="10.0.0.1", SINGLETON_RUN_LOCK=f"file://{locks}")
    assert told.status == 0
    assert any("one per container" in line for line in told.of("warn"))


@pytest.mark.parametrize(("call", "grade"), [("prctl", "BAD"), ("pidfd_open", "warn")])
def test_a_kernel_that_refuses_a_call_is_told(locks: Path, call: str, grade: str) -> None:
    filtered = [sys.executable, str(TREE / "tests" / "support" / "seccomp.py"), call, "EPERM"]
    told = Told("--lock", f"file://{locks}", via=f'exec {shlex.join(filtered)} "$@"')
    assert told.status == (UNUSABLE if grade == "BAD" else 0)
    assert any(call in line and "Operation not permitted" in line for line in told.of(grade)), told.lines


def test_a_filter_that_refuses_a_call_that_no_run_needs_makes_nothing_bad(locks: Path) -> None:
    filtered = [sys.executable, str(TREE / "tests" / "support" / "seccomp.py"), "faccessat2", "EPERM"]
    told = Told("--lock", f"file://{locks}", via=f'exec {shlex.join(filtered)} "$@"')
    assert (told.status, told.of("BAD")) == (0, [])


def test_a_time_zone_that_is_unknown_is_warned_of(locks: Path) -> None:
    told = Told("--lock", f"file://{locks}", TZ="Europe/Nowhere")
    assert told.status == 0
    assert any("for --cron: TZ is 'Europe/Nowhere'" in line for line in told.of("warn"))


@pytest.mark.parametrize(
    "words", [["a/b"], ["--ttl", "3s"], ["--ttl", "soon"], ["--kill-after", "-1"], ["--lock", "/srv"]]
)
def test_a_call_that_can_not_be_read_is_one_line_and_2(words: list[str]) -> None:
    told = Told(*words)
    assert told.status == USAGE
    assert told.lines == []
    assert told.said.count("\n") == 1


def test_a_lock_that_there_is_none_of_is_bad_and_its_password_is_hidden() -> None:
    told = Told("--lock", "nosuch://me:geheim@host/x")
    assert told.status == UNUSABLE
    assert "there is no lock backend" in told.of("BAD")[0] or "isn't in this executable" in told.of("BAD")[0]
    assert "geheim" not in str(told.lines) + told.said


def test_variables_count_and_options_beat_them(locks: Path) -> None:
    told = Told(SINGLETON_RUN_LOCK="etcd://127.0.0.1:1", SINGLETON_RUN_TTL="12s", SINGLETON_RUN_WAIT="never")
    assert any("--ttl 12s: " in line for line in told.of("ok"))
    told = Told("--lock", f"file://{locks}", SINGLETON_RUN_LOCK="etcd://127.0.0.1:1")
    assert told.status == 0


def test_a_command_whose_stop_takes_longer_than_a_lost_lock_is_warned_of() -> None:
    told = Told("--lock", "etcd://127.0.0.1:1", "--ttl", "30s", "--kill-after", "1m")
    assert any(line.startswith("--kill-after 1m doesn't hold") for line in told.of("warn"))


def test_a_server_that_is_away_is_bad() -> None:
    told = Told("--lock", "etcd://127.0.0.1:1")
    assert told.status == UNUSABLE
    assert "127.0.0.1:1: connection refused: start it" in told.of("BAD")[-1]


def test_for_a_file_there_is_nothing_to_set_up(locks: Path) -> None:
    told = Told("--setup", "--lock", f"file://{locks}")
    assert (told.status, told.lines) == (0, [])
    assert "nothing" in told.said


def test_a_reader_that_goes_away_ends_it(locks: Path) -> None:
    told = Told("--lock", f"file://{locks}", via='"$@" | true')
    assert (told.status, told.said) == (0, "")


@pytest.mark.parametrize(
    ("changes", "has"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_at_a_terminal_grades_have_colours_unless_nobody_wants_them(
    locks: Path, tmp_path: Path, changes: dict[str, str], has: bool
) -> None:
    argv = [*PROGRAM, "doctor", "--lock", f"file://{locks}"]
    with Terminal(argv, tmp_path, environ=changes) as terminal:
        assert terminal.wait() == 0
    assert ("\x1b[32mok  \x1b[m pidfd_open works" in terminal.shown) == has
    assert ("ok   pidfd_open works" in terminal.shown) != has


def test_its_help_has_examples() -> None:
    told = Told("--help")
    assert told.status == 0
    assert any("singleton-run doctor --setup --lock postgres | psql" in line for line in told.lines)
