"""Completion: the files are up to date, and work in a real bash."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from singleton_run.api.registry import BUILT_IN, KERNEL_HELD
from tests.support.harness import GIVEN, PROGRAM

TREE = Path(__file__).parents[2]
BACKENDS = {**KERNEL_HELD, **BUILT_IN}
FILES = {"bash": "singleton-run.bash", "zsh": "_singleton-run", "fish": "singleton-run.fish"}
PATIENCE = 60.0


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has our command and a program that is nowhere else."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in (
        ("singleton-run", f'exec {shlex.join(PROGRAM)} "$@"'),
        ("zz-program", ""),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    (programs / "zz-not-executable").write_text("")
    path = f"{programs}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(TREE), "TERM": "dumb", "INPUTRC": "/dev/null"}


@pytest.mark.parametrize("shell", FILES)
def test_the_files_are_what_the_command_prints(environ: dict[str, str], shell: str) -> None:
    argv = [*PROGRAM, "completion", shell]
    printed = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout
    assert printed == (TREE / "completions" / FILES[shell]).read_text()


def completed(environ: dict[str, str], cwd: Path, *words: str, before: str = "") -> set[str]:
    """What the function offers in a real bash for the last of `words`."""
    script = f"""
        source {TREE}/completions/singleton-run.bash
        {before}
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _singleton_run "$1"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    result = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words],
        cwd=cwd, env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stderr == ""
    return set(result.stdout.splitlines()) - {""}


def test_options_complete(environ: dict[str, str], tmp_path: Path) -> None:
    offered = completed(environ, tmp_path, "singleton-run", "--lo")
    assert offered == {"--lock", "--lock-at-least-for", "--lock-at-most-for", "--log-format"}
    offered = completed(environ, tmp_path, "singleton-run", "--name", "x y", "--no-wait", "--n")
    assert offered == {"--no-loop"}


def test_backends_complete(environ: dict[str, str], tmp_path: Path) -> None:
    usable = set(BACKENDS) - ({"etcd+grpc", "redis", "rediss", "unix"} if GIVEN else set())
    assert completed(environ, tmp_path, "singleton-run", "--lock", "") == usable
    assert completed(environ, tmp_path, "singleton-run", "--lock", "fi") == {"file"}
    assert completed(environ, tmp_path, "singleton-run", "--lock", "=") == usable
    assert completed(environ, tmp_path, "singleton-run", "--lock", "=", "fi") == {"file"}
    assert completed(environ, tmp_path, "singleton-run", "--lock=fi") == {"--lock=file"}


def test_choices_and_subcommands_complete(environ: dict[str, str], tmp_path: Path) -> None:
    assert completed(environ, tmp_path, "singleton-run", "--log-format", "") == {"text", "json"}
    assert completed(environ, tmp_path, "singleton-run", "-n", "--leftovers", "w") == {"wait"}
    assert completed(environ, tmp_path, "singleton-run", "comp") == {"completion"}
    assert completed(environ, tmp_path, "singleton-run", "completion", "") == {"bash", "zsh", "fish"}


def test_after_the_dashes_programs_complete_and_then_files(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "zz-file with blanks").write_text("")
    start = ("singleton-run", "--name", "x", "--")
    assert completed(environ, tmp_path, *start, "zz") == {"zz-program", "zz-file with blanks"}
    assert completed(environ, tmp_path, *start, "zz-program", "zz") == {"zz-file with blanks"}
    assert completed(environ, tmp_path, *start, "./zz") == {"./zz-file with blanks"}
    assert completed(environ, tmp_path, *start, "zz-program", "--", "--lo") == set()


def test_with_bash_completion_the_command_completes_as_by_itself(
    environ: dict[str, str], tmp_path: Path
) -> None:
    for function in ("_comp_command_offset", "_command_offset"):
        stub = f"{function}() {{ COMPREPLY=(from ${{COMP_WORDS[$1]}}); }}"
        offered = completed(environ, tmp_path, "singleton-run", "-n", "--", "git", "che", before=stub)
        assert offered == {"from", "git"}


class Terminal:
    """A real bash behind a pseudo-terminal: keys go in, and what it shows is waited for."""

    def __init__(self, environ: dict[str, str], cwd: Path) -> None:
        self.master, slave = pty.openpty()
        self.shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            cwd=cwd, env=environ, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)

    def press(self, keys: str, expected: str) -> None:
        """Send `keys`; return when `expected` has been shown since, and fail if it never is."""
        os.write(self.master, keys.encode())
        shown = ""
        end = time.monotonic() + PATIENCE
        while expected not in shown:
            ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"waited for {expected!r} after {keys!r} and saw {shown!r}"
            shown += os.read(self.master, 65536).decode()

    def close(self) -> None:
        """End the shell."""
        self.shell.kill()
        self.shell.wait()
        os.close(self.master)


def test_the_tab_key_completes_in_a_real_bash(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "zz-file").write_text("")
    terminal = Terminal(environ, tmp_path)
    try:
        terminal.press(f"source {TREE}/completions/singleton-run.bash; echo rea''dy\n", "ready")
        terminal.press("singleton-run --log\t", "--log-format ")
        terminal.press("j\t", "json ")
        terminal.press("--lock fi\t", "--lock file ")
        terminal.press("--lo\t", "ck-at-")
        terminal.press("m\t", "ost-for ")
        terminal.press("\x15singleton-run --lo\t\t", "--log-format")
        terminal.press("\x15singleton-run --name x -- zz-p\t", "-- zz-program ")
        terminal.press("zz-f\t", "zz-file ")
    finally:
        terminal.close()
