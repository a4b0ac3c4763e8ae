"""Completion: the files are up to date, and work in a real bash."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from singleton_run.api.registry import BUILT_IN, KERNEL_HELD
from singleton_run.commands.connection import LIMIT
from tests.support.harness import GIVEN, PROGRAM, until

TREE = Path(__file__).parents[2]
BACKENDS = {**KERNEL_HELD, **BUILT_IN}
FILES = {"bash": "singleton-run.bash", "zsh": "_singleton-run", "fish": "singleton-run.fish"}
PATIENCE = 60.0
AWHILE = 2.0


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
    offered = completed(environ, tmp_path, "singleton-run", "--name", "x y", "--no-wait", "--no")
    assert offered == {"--no-loop", "--notify", "--notify-secret"}


def test_backends_complete(environ: dict[str, str], tmp_path: Path) -> None:
    usable = set(BACKENDS) - ({"etcd+grpc"} if GIVEN else set())
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

    def press_until(self, key: str, expected: str) -> None:
        """Press a key until `expected` is shown at once after it."""
        shown = ""

        def done() -> bool:
            nonlocal shown
            os.write(self.master, key.encode())
            while select.select([self.master], [], [], AWHILE)[0]:
                shown += os.read(self.master, 65536).decode()
            return expected in shown

        until(done, f"{expected!r} after {key!r}")

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


# The names of locks.


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    """A directory of locks, two of which have names that bash takes apart."""
    directory = tmp_path / "locks"
    directory.mkdir(mode=0o700)
    for name in ("report", "repair", "db:eu@1", "db:us"):
        (directory / f"{name}.lock").write_text("")
    return directory


def offers(environ: dict[str, str], cwd: Path, *words: str, expected: set[str]) -> None:
    """Names are offered if they come in time, so on a busy machine it may take a second try."""
    until(lambda: completed(environ, cwd, *words) == expected, f"{expected} for {words}")


def test_names_of_locks_complete(environ: dict[str, str], tmp_path: Path, locks: Path) -> None:
    at = {**environ, "SINGLETON_RUN_LOCK": f"file://{locks}"}
    offers(at, tmp_path, "singleton-run", "forget", "re", expected={"report", "repair"})
    assert completed(at, tmp_path, "singleton-run", "forget", "report", "") == set()
    offers(at, tmp_path, "singleton-run", "pause", "--for", "1h", "rep", expected={"report", "repair"})
    offers(at, tmp_path, "singleton-run", "suspend", "repo", expected={"report"})
    for place in (("--lock", "file", ":", f"//{locks}"), ("--lock", "=", "file", ":", f"//{locks}")):
        offers(environ, tmp_path, "singleton-run", "release", *place, "repo", expected={"report"})
        offers(environ, tmp_path, "singleton-run", *place, "resume", "repo", expected={"report"})


def test_a_name_that_bash_takes_apart_completes_after_the_break(
    environ: dict[str, str], tmp_path: Path, locks: Path
) -> None:
    at = {**environ, "SINGLETON_RUN_LOCK": f"file://{locks}"}
    offers(at, tmp_path, "singleton-run", "resume", "d", expected={"db:eu@1", "db:us"})
    offers(at, tmp_path, "singleton-run", "resume", "db", ":", expected={"eu@1", "us"})
    offers(at, tmp_path, "singleton-run", "resume", "db", ":", "eu", "@", expected={"1"})
    offers(at, tmp_path, "singleton-run", "resume", "db", ":", "u", expected={"us"})


def test_zsh_is_offered_whole_names(environ: dict[str, str], tmp_path: Path, locks: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("needs zsh: apt-get install zsh")
    script = f"""
        compdef() {{ }}
        _describe() {{ print -rl -- "${{(@)${{(P)2}}}}" }}
        source {TREE}/completions/_singleton-run
        words=("$@") CURRENT=$#
        _singleton-run
    """

    def offered() -> list[str]:
        result = subprocess.run(
            ["zsh", "-f", "-c", script, "zsh", "singleton-run", "resume", "db:"],
            cwd=tmp_path,
            env={**environ, "SINGLETON_RUN_LOCK": f"file://{locks}"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stderr == ""
        return [line.rstrip(":") for line in result.stdout.splitlines()]

    # A colon that isn't escaped would begin the help.
    until(lambda: offered() == ["db\\:eu@1", "db\\:us"], "the names, whole")


def test_fish_is_offered_options_names_and_programs(
    environ: dict[str, str], tmp_path: Path, locks: Path
) -> None:
    if shutil.which("fish") is None:
        pytest.skip("needs fish: apt-get install fish")
    at = {**environ, "SINGLETON_RUN_LOCK": f"file://{locks}", "HOME": str(tmp_path)}
    script = f"source {TREE}/completions/singleton-run.fish; complete -C $argv[1]"

    def offered(line: str) -> set[str]:
        result = subprocess.run(
            ["fish", "--no-config", "-c", script, line],
            cwd=tmp_path, env=at, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert result.stderr == ""
        return {shown.partition("\t")[0] for shown in result.stdout.splitlines()}

    assert offered("singleton-run --log-f") == {"--log-format"}
    assert offered("singleton-run --log-format ") == {"text", "json"}
    assert offered("singleton-run --name x -- zz-pro") == {"zz-program"}
    until(lambda: offered("singleton-run resume db:") == {"db:eu@1", "db:us"}, "the names, whole")


def test_a_name_completes_at_the_tab_key(environ: dict[str, str], tmp_path: Path, locks: Path) -> None:
    terminal = Terminal({**environ, "SINGLETON_RUN_LOCK": f"file://{locks}"}, tmp_path)
    try:
        terminal.press(f"source {TREE}/completions/singleton-run.bash; echo rea''dy\n", "ready")
        terminal.press("singleton-run resume repo", "repo")
        terminal.press_until("\t", "rt ")
        terminal.press("\x15singleton-run resume db:u", "db:u")
        terminal.press_until("\t", "s ")
    finally:
        terminal.close()


def test_a_place_that_can_not_be_asked_offers_nothing_and_says_nothing(
    environ: dict[str, str], tmp_path: Path
) -> None:
    for lock in ("nonsense", "file:///nowhere/else", "etcd://127.0.0.1:1", "postgres://u@127.0.0.1:1/d"):
        at = {**environ, "SINGLETON_RUN_LOCK": lock}
        assert completed(at, tmp_path, "singleton-run", "resume", "") == set()


def test_a_server_that_does_not_answer_is_not_waited_for(environ: dict[str, str], tmp_path: Path) -> None:
    """Not the ten seconds that a request of a subcommand may take."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        at = {**environ, "SINGLETON_RUN_LOCK": f"etcd://127.0.0.1:{server.getsockname()[1]}"}

        def asked() -> bool:
            """On a busy machine the time can be over before it has connected."""
            began = time.monotonic()
            assert completed(at, tmp_path, "singleton-run", "resume", "") == set()
            assert time.monotonic() - began < LIMIT
            return bool(select.select([server], [], [], 0)[0])

        until(asked, "the server to be asked")
