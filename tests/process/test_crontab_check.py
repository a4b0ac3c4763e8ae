"""What only asks: `crontab --check` and `crontab --plan N`, for people and for CI."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import USAGE
from tests.process.test_preview import run
from tests.support.crontabs import reader_of_pipe
from tests.support.harness import LIMIT, PROGRAM, environment, gone, until

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """\
CRON_TZ=Europe/Berlin
# singleton-run: name=digest timeout=10m
0 6 * * * ./digest --to team
*/20 * * * * ./sync
"""


def _columns(text: str) -> list[list[str]]:
    return [re.split("  +", line) for line in text.splitlines()]


def test_check_prints_each_line_with_its_name_and_tells_who_has_none(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_text(TABLE)
    done = run("crontab", str(table), "--check", "--lock", "etcd")
    assert done.returncode == 0
    first, second = _columns(done.stdout)
    assert first == [f"{table}:3", "digest", "0 6 * * *", "./digest --to team"]
    assert second[::2] == [f"{table}:4", "*/20 * * * *"]
    assert f"no name is given to the lines {table}:4:" in done.stderr


def test_check_lists_every_fault_as_file_line_and_sentence(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_text(f"{TABLE}61 * * * * x\n@reboot y\n# singleton-run: retry=2\n@daily z\r\n")
    done = run("crontab", str(table), "--check")
    assert (done.returncode, done.stdout) == (USAGE, "")
    lines = done.stderr.splitlines()
    assert all(line.startswith(f"{table}:") for line in lines)
    assert [int(line.removeprefix(f"{table}:").partition(":")[0]) for line in lines] == [8, 5, 6, 7]
    assert "'retry' is no option for a line: is retries meant?" in lines[3]


def test_a_directory_stands_for_its_files_and_what_is_passed_over_is_said(tmp_path: Path) -> None:
    for name in ("b-job", "a_job", "job.bak", ".placeholder", "job~"):
        (tmp_path / name).write_text(f"@daily root ./{name}\n")
    (tmp_path / "folder").mkdir()
    done = run("crontab", str(tmp_path), "--system", "--check")
    assert done.returncode == 0
    assert [row[0] for row in _columns(done.stdout)] == [f"{tmp_path}/a_job:1", f"{tmp_path}/b-job:1"]
    for name in ("job.bak", "job~"):
        assert f"{tmp_path}/{name} is passed over" in done.stderr
    assert "placeholder" not in done.stderr


def test_a_file_that_can_not_be_read_is_a_fault(tmp_path: Path) -> None:
    done = run("crontab", str(tmp_path / "none"), "--check")
    assert done.returncode == USAGE
    assert done.stderr == f"{tmp_path}/none: the file can't be read: No such file or directory\n"


@pytest.mark.parametrize("option", [[], ["--check"], ["--output", "raw", "--watch"]])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_what_waits_for_a_pipe(option: list[str], number: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    call = subprocess.Popen([*PROGRAM, "crontab", str(tmp_path / "pipe"), *option], env=environment())
    waits = until(lambda: reader_of_pipe(call.pid), "somebody to wait for a writer")
    call.send_signal(number)
    assert call.wait(LIMIT) == -number
    until(lambda: gone(waits), "the reader to end")


@pytest.mark.parametrize("option", [["--check"], ["--plan", "1"]])
def test_what_can_not_be_printed_is_said(option: list[str], tmp_path: Path) -> None:
    (tmp_path / "table").write_text(TABLE)
    shell = ["sh", "-c", '"$@" >/dev/full', "sh", *PROGRAM, "crontab", str(tmp_path / "table"), *option]
    done = subprocess.run(shell, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("singleton-run: standard output can't be written")


def test_plan_prints_the_next_times_of_all_lines_together(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_text(TABLE)
    done = run("crontab", str(table), "--plan", "80")
    rows = _columns(done.stdout)
    assert (done.returncode, len(rows)) == (0, 80)
    times = [row[1] for row in rows]
    assert all(earlier <= later for earlier, later in pairwise(times))
    digests = [row for row in rows if row[2] == "digest"]
    assert len(digests) in (1, 2)
    assert all(" 06:00:00 +0" in row[0] for row in digests)


def test_plan_and_check_with_a_fault_in_the_call(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_text(TABLE)
    for options, said in (
        (["--plan", "0"], "--plan"),
        (["--check", "--ttl", "1s"], "ttl must be at least 6s"),
    ):
        done = run("crontab", str(table), *options)
        assert (done.returncode, done.stdout) == (USAGE, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", [["--check"], ["--plan", "3"], []])
def test_a_crontab_without_a_line_is_refused(option: list[str], tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_text("# nothing\nA=1\n")
    for place in (table, tmp_path / "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        done = run("crontab", str(place), "--lock", f"file://{tmp_path}", *option)
        assert (done.returncode, done.stdout) == (USAGE, "")
        assert done.stderr == f"singleton-run: there is no line to run in {place}: is it the right file?\n"
