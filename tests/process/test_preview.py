"""What only asks: --plan prints slots, and forget takes the mark of a key away."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import UNAVAILABLE, UNUSABLE, USAGE
from tests.support.harness import LIMIT, PROGRAM, environment

if TYPE_CHECKING:
    from pathlib import Path

BERLIN = ("--tz", "Europe/Berlin")


def run(*argv: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *argv],
        env=environment(**changes), capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip


def planned(*argv: str, **changes: str) -> list[list[str]]:
    """The lines that a plan consists of, each as local time, UTC and note."""
    done = run(*argv, **changes)
    assert (done.returncode, done.stderr) == (0, "")
    return [[*re.split("  +", line), ""][:3] for line in done.stdout.splitlines()]


def times(rows: list[list[str]]) -> list[float]:
    """The slots, which local time and UTC agree on."""
    result = []
    for local, utc, _ in rows:
        at = datetime.strptime(local, "%a %Y-%m-%d %H:%M:%S %z").timestamp()
        assert at == datetime.fromisoformat(utc).timestamp()
        result.append(at)
    return result


def test_a_year_of_a_job_at_half_past_two_has_both_changes() -> None:
    plan = planned("--plan", "800", "--cron", "30 2 * * *", *BERLIN)
    assert len(plan) == 800
    # A whole calendar year: from one change to the same one of the next year it may be less than 365 days.
    rows = [row for row in plan if year(row) == year(plan[0]) + 1]
    assert len(rows) in (365, 366)
    notes = [note for _, _, note in rows if note]
    assert sorted(notes) == ["repeated hour: once", "skipped 02:30 → 03:00"]
    skipped, repeated = (next(row[0] for row in rows if word in row[2]) for word in ("skipped", "repeated"))
    assert skipped.endswith("03:00:00 +0200")
    assert repeated.endswith("02:30:00 +0200")
    days = [datetime.strptime(local, "%a %Y-%m-%d %H:%M:%S %z").date() for local, _, _ in rows]
    assert all((later - earlier).days == 1 for earlier, later in pairwise(days))
    times(plan)


def year(row: list[str]) -> int:
    """In which year a slot is, by local time."""
    return int(row[0].split()[1][:4])


def test_a_wildcard_job_has_the_repeated_hour_twice() -> None:
    rows = planned("--plan", "366", "--cron", "*/30 2 * 10 0", *BERLIN)
    # Whole years: the plan may begin and end in the middle of a repeated hour.
    notes = [row[2] for row in rows if year(rows[0]) < year(row) < year(rows[-1])]
    assert notes.count("repeated hour: first time") >= 20
    assert notes.count("repeated hour: first time") == notes.count("repeated hour: second time")
    assert times(rows) == sorted(set(times(rows)))


def test_a_plan_runs_nothing(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    rows = planned("--plan=3", "--cron", "@hourly", "--name", "x", "--", "touch", str(ran))
    assert len(rows) == 3
    assert not ran.exists()


def test_a_plan_begins_now_without_a_record_and_follows_the_grid_with_one(tmp_path: Path) -> None:
    lock = ("--lock", f"file://{tmp_path}", "--name", "grid")
    slots = times(planned("--plan", "3", "--every", "1h", *lock))
    assert [slot - slots[0] for slot in slots] == [0, 3600, 7200]
    assert run("--every", "1h", "--no-loop", *lock, "--", "true").returncode == 0
    records = [path for path in tmp_path.iterdir() if '"grid"' in path.read_text(errors="replace")]
    grid = json.loads(re.search(r"\{.*\}", records[0].read_text(), re.DOTALL)[0])  # type: ignore[index]
    grid = (grid.get("record") or grid)["slot"]["grid"]
    slots = times(planned("--plan", "3", "--every", "1h", *lock))
    assert {(slot - int(grid)) % 3600 for slot in slots} == {0}
    # By another schedule the grid begins with the last slot.
    slots = times(planned("--plan", "3", "--every", "2h", *lock))
    assert {(slot - int(grid)) % 3600 for slot in slots} == {0}


def test_a_plan_says_how_much_later_each_slot_starts() -> None:
    words = ("--plan", "20", "--cron", "@daily", "--jitter", "10m", "--name", "x")
    rows = planned(*words, TZ="UTC")
    assert all(re.fullmatch(r"starts [\dms.]+ later", note) for _, _, note in rows)
    assert len({note for _, _, note in rows}) > 10
    again = planned(*words, TZ="UTC")
    # Midnight may have passed meanwhile.
    assert again in (rows, [*rows[1:], again[-1]])


def test_a_plan_at_a_terminal_is_a_table() -> None:
    primary, secondary = pty.openpty()
    argv = [*PROGRAM, "--plan", "2", "--cron", "0 11 * * *", *BERLIN]
    with subprocess.Popen(argv, env=environment(COLUMNS="100"), stdout=secondary) as process:
        os.close(secondary)
        shown = b""
        try:
            while chunk := os.read(primary, 4096):
                shown += chunk
        except OSError:  # Linux says EIO when the other end is closed
            pass
    os.close(primary)
    assert process.returncode == 0
    text = shown.decode()
    assert "cron 0 11 * * * Europe/Berlin" in text
    assert "local time" in text
    assert text.count("11:00:00 +0") == 2


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--plan", "3"], "--every or --cron"),
        (["--plan", "0", "--cron", "@daily"], "from 1 to 1000"),
        (["--plan", "1001", "--cron", "@daily"], "from 1 to 1000"),
        (["--plan", "x", "--cron", "@daily", "--", "true"], "from 1 to 1000"),
        (["--plan", "3", "--every", "1h"], "--name or the command"),
        (["--plan", "3", "--cron", "0 24 * * *"], "the hour '24'"),
        (["--plan", "3", "--cron", "@daily", "--once", "x"], "contradict"),
        (["forget", "a/b", "x"], "'/'"),
        (["forget", "a", ""], "the key is empty"),
        (["forget", "a", "x" * 257], "too long"),
        (["forget", "a"], "KEY"),
        (["forget", "--lock", "/var/lock/x", "a", "x"], "is a path"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(argv: list[str], said: str) -> None:
    done = run(*argv)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_plan_that_nobody_reads_ends_quietly() -> None:
    line = '"$@" --plan 1000 --cron "* * * * *" --tz UTC | head -1; echo "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *PROGRAM],
        env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines()[1] in ("0", "1")


def test_a_key_that_is_forgotten_runs_again(tmp_path: Path) -> None:
    lock = f"file://{tmp_path}"
    call = ("--lock", lock, "--name", "x", "--once", "v 1", "--", "echo", "ran")
    assert [run(*call).stdout for _ in range(2)] == ["ran\n", ""]
    done = run("forget", "--lock", lock, "x", "v 1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("forgotten: 'v 1' under x")
    assert [run(*call).stdout for _ in range(2)] == ["ran\n", ""]
    # The lock is named in any of three ways.
    assert run("--lock", lock, "forget", "x", "v 1").returncode == 0
    done = run("forget", "x", "v 1", SINGLETON_RUN_LOCK=lock, SINGLETON_RUN_NAME="a name/that is none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "singleton-run: nothing to forget: 'v 1' has not succeeded under x\n"


def test_a_key_can_be_forgotten_by_a_command_under_that_lock(tmp_path: Path) -> None:
    lock = f"file://{tmp_path}"
    inner = [*PROGRAM, "forget", "--lock", lock, "x", "k"]
    done = run("--lock", lock, "--name", "x", "--", *inner)
    assert done.returncode == 1
    assert "nothing to forget" in done.stderr


def test_in_a_pod_the_default_lock_is_refused_for_forget_too() -> None:
    done = run("forget", "x", "k", KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert done.returncode == UNUSABLE


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = run("--plan", "3", "--every", "1h", "--name", "x", "--lock", "etcd://127.0.0.1:1")
    assert done.returncode == UNAVAILABLE
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_ends_a_plan_that_waits_for_a_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LIMIT)
        lock = f"etcd://127.0.0.1:{server.getsockname()[1]}"
        argv = [*PROGRAM, "--plan", "3", "--every", "1h", "--name", "x"]
        with subprocess.Popen([*argv, "--lock", lock], env=environment(), stderr=subprocess.PIPE) as process:
            connection, _ = server.accept()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=LIMIT)
            connection.close()
    assert process.returncode == -signal.SIGINT
    assert said == b""
