"""What `make demo` calls runs to its end, shows what it promises, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import etcd, postgres
from tests.support import harness

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.servers

LIMIT = 120
PLAYER = [sys.executable, "-m", "docs.demo"]
# The last words of each part.
KILLED = r"    kill -9 \d+\n(.*\n)*    A's command is gone, and B's has started, \d+ ms after the kill\n"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for temporary files that PostgreSQL, which may run as another user, can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def environ(place: Path, tmp_path: Path) -> Mapping[str, str]:
    """Where `singleton-run` is this tree's, and temporary files go to `place`."""
    script = tmp_path / "singleton-run"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(harness.PROGRAM)} "$@"\n')
    script.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return harness.environment(PATH=path, TMPDIR=str(place))


def _play(argv: list[str], environ: Mapping[str, str]) -> str:
    answer = subprocess.run(
        argv,
        cwd=harness.TREE,
        env=environ,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


def _left(place: Path) -> list[str]:
    """Processes whose arguments name a file in `place`, and what is in it."""
    titles = [harness.title(process) for process in harness.parents()]
    return [*(title for title in titles if str(place) in title), *os.listdir(place)]


def test_the_file_lock_is_shown(environ: Mapping[str, str], place: Path) -> None:
    printed = _play(["sh", "docs/demo.sh"], environ)
    assert "ten ran, none overlapped" in printed
    assert re.search(r"job \d+ is gone, and the second copy has started", printed)
    assert _left(place) == []


def test_etcd_and_postgres_are_shown(environ: Mapping[str, str], place: Path) -> None:
    etcd.program("etcd")
    postgres.binaries()
    first, second = _play(PLAYER, environ).split("== The same line, the lock in ")[1:]
    for part, scheme in ((first, "etcd"), (second, "postgresql")):
        assert f"$ singleton-run --lock {scheme}://" in part
        assert "[B] singleton-run: waiting for lock 'deploy'" in part
        assert re.search(KILLED, part), part
        assert "[B] is done\n" in part
    assert _left(place) == []


def test_what_is_missing_is_named_and_left_out(environ: Mapping[str, str], place: Path) -> None:
    nowhere = {"ETCD_BIN": str(place / "none"), "POSTGRES_BIN": str(place / "none")}
    lines = _play(PLAYER, {**environ, **nowhere}).split("\n")
    assert [line for line in lines if line] == [line for line in lines if "== Left out: needs" in line]
    assert sum("in ETCD_BIN" in line or "pip install" in line for line in lines) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_the_middle_and_cleans_up(
    environ: Mapping[str, str], place: Path, number: signal.Signals
) -> None:
    etcd.program("etcd")
    with subprocess.Popen(
        PLAYER, cwd=harness.TREE, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as player:
        assert player.stdout is not None
        for line in player.stdout:
            if line.startswith("[B]"):
                # As a terminal does it: to the whole process group.
                os.killpg(player.pid, number)
                break
        assert "[B] deploys" not in player.stdout.read().partition("    A's command")[2]
        assert player.wait(LIMIT) == 128 + number
    assert _left(place) == []
