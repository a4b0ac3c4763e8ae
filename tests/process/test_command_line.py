"""The command line for people: help, version, and one line for what is wrong."""

from __future__ import annotations

import re
import shlex
import subprocess
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleton_run import __version__
from singleton_run.call import click_parser
from singleton_run.call.options import OPTIONS
from singleton_run.errors import USAGE
from tests.support.harness import GIVEN, PROGRAM, TREE, environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOTHING: Mapping[str, str] = MappingProxyType({})
PREFIX = "singleton-run: "


def called(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str, str]:
    """The status of a call, and what it printed on either stream."""
    done = subprocess.run(
        [*PROGRAM, *argv], env=environment(**environ), capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def printed(*argv: str) -> str:
    """What a call that only prints has printed."""
    status, out, err = called(argv, {})
    assert (status, err) == (0, "")
    return out


def refused(*argv: str, environ: Mapping[str, str] = NOTHING) -> str:
    """The line that a wrong call ends with."""
    status, out, err = called(argv, environ)
    assert (status, out) == (USAGE, "")
    assert err.startswith(PREFIX)
    assert err.endswith("\n")
    assert err[:-1].isprintable()
    return err[len(PREFIX) : -1]


@pytest.mark.parametrize(
    "argv", [["--help"], ["-h"], ["--name", "x", "-h", "--", "true"], ["--help", "./backup.sh"]]
)
def test_help_shows_every_option_once_in_its_group(argv: list[str]) -> None:
    text = printed(*argv)
    for option in OPTIONS:
        flags = ", ".join(option.flags)
        assert len([line for line in text.splitlines() if line.startswith(f"  {flags}")]) >= 1
        assert f"\n{option.group}:\n" in text
    flat = " ".join(text.split())
    assert "The lock 'file' is one per user, machine and mount namespace." in flat
    assert "singleton-run --name backup -- ./backup.sh" in flat


def test_the_examples_on_the_help_page_are_calls() -> None:
    examples = [line for line in printed("--help").splitlines() if line.startswith("  singleton-run ")]
    assert len(examples) > 2
    for line in examples:
        words = shlex.split(line, comments=True)
        assert click_parser.parse(words[1:], {}).command


def test_version() -> None:
    assert printed("--version") == f"singleton-run {__version__}\n"


def test_its_licence_is_printed() -> None:
    """And in a file that of all its parts."""
    own = (TREE / "LICENSE").read_text().strip()
    text = printed("licenses")
    assert own in text if GIVEN else own == text.strip()


def test_a_subcommand_has_help() -> None:
    assert "bash" in printed("completion", "--help")


@pytest.mark.parametrize(
    ("argv", "corrected"),
    [
        (["./backup.sh"], ["--", "./backup.sh"]),
        (["--name", "x", "./backup.sh", "a b"], ["--name", "x", "--", "./backup.sh", "a b"]),
        (["-n", "git", "log", "--", "f"], ["-n", "--", "git", "log", "--", "f"]),
        (["-vE5", "echo", "it's", "--help", ""], ["-vE5", "--", "echo", "it's", "--help", ""]),
        (["--lock=file", "x y"], ["--lock=file", "--", "x y"]),
    ],
)
def test_a_command_without_dashes_gets_the_corrected_line(argv: list[str], corrected: list[str]) -> None:
    line = refused(*argv)
    assert line.startswith("put -- before the command: singleton-run ")
    assert shlex.split(line.partition(": ")[2]) == ["singleton-run", *corrected]
    assert click_parser.parse(corrected, {}).command == corrected[corrected.index("--") + 1 :]


def test_the_corrected_line_is_quoted_for_the_example_s_sake() -> None:
    line = refused("--name", "x", "./backup.sh", "a b")
    assert line == "put -- before the command: singleton-run --name x -- ./backup.sh 'a b'"


@pytest.mark.parametrize("word", ["a\nb", "\x1b[31m'\\", "\udcff\udcfe", "tab\there9", "é\x01"])
def test_the_corrected_line_is_one_line_and_a_shell_reads_it_back(word: str) -> None:
    line = refused("echo", word).partition(": ")[2]
    script = f"singleton-run() {{ printf '%s' \"$3\"; }}; {line}"
    shown = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    assert shown == word.encode(errors="surrogateescape")


def test_passwords_are_not_repeated() -> None:
    for argv in (
        ["--lock", "redis://me:hunter2@host", "./backup.sh"],
        ["--lock=redis://me:hunter2@host", "./backup.sh"],
        ["lock", "redis://me:hunter2@host", "--", "./backup.sh"],
        ["--lockredis://me:hunter2@host", "--", "./backup.sh"],
    ):
        assert "hunter2" not in refused(*argv)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "there is no command: put it after --"),
        ("--", "there is no command: put it after --"),
        ("--name x --", "there is no command: put it after --"),
        ("--nmae x -- true", "--name"),
        ("--lo file -- true", "--lo"),
        ("--name -- true", "--name"),
        ("--wait", "--wait"),
        ("--no-wait=1 -- true", "--no-wait"),
        ("completion", "bash"),
        ("completion tcsh", "tcsh"),
    ],
)
def test_a_wrong_call_gets_one_line_that_says_what_to_do(line: str, said: str) -> None:
    message = refused(*line.split())
    assert said in message
    assert "--help" in message or "--name backup --" in message


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/srv/job.lock ./job a", "singleton-run --name job.lock -- ./job a"),
        ("-n /run/job ./job -x", "singleton-run --name job -n -- ./job -x"),
        ("-w 5 f ./job", "singleton-run --name f --wait 5 -- ./job"),
        ("--timeout 900 /tmp/f.lock job", "singleton-run --name f.lock --wait 900 -- job"),
        ("--timeout=900 /tmp/f.lock -- job", "singleton-run --name f.lock --wait 900 -- job"),
        ("-x -E 3 --nb /tmp/ü.lock job", "singleton-run --name lock -E 3 -n -- job"),
        ("-o /tmp/f.lock -c job", "singleton-run --name f.lock -- sh -c job"),
        ("-F f job", "singleton-run --name f -- job"),
        ("-s /tmp/f.lock job", "flock, whose -s is not available"),
        ("-u 9", "open descriptor, which is not available"),
        ("9", "open descriptor, which is not available"),
        ("-n 9", "open descriptor, which is not available"),
        ("--name x -w 5 -- job", "flock's -w is --wait"),
        ("-nx -- true", "flock's -x is always so"),
        ("-c job", "flock's -c is -- sh -c"),
        ("--name x --shared -- job", "flock's --shared is not available"),
    ],
)
def test_a_call_as_of_flock_is_shown_as_ours(line: str, said: str) -> None:
    message = refused(*line.split())
    assert said in message
    _, shown, call = message.partition("which here is: singleton-run ")
    assert not shown or click_parser.parse(shlex.split(call), {}).command


@pytest.mark.parametrize(
    "line", ["./backup.sh /tmp/x.lock", "--name x /tmp/f.lock job", "-n git pull", "-v 9 job"]
)
def test_a_call_that_is_not_flock_s_is_not_taken_for_one(line: str) -> None:
    assert refused(*line.split()).startswith("put -- before the command")


def test_a_wrong_variable_is_named() -> None:
    message = refused("--", "true", environ={"SINGLETON_RUN_QUIET": "may\nbe"})
    assert "SINGLETON_RUN_QUIET" in message
    assert "SINGLETON_RUN_VERBOSE" in refused("--", "true", environ={"SINGLETON_RUN_VERBOSE": "²"})


@pytest.mark.parametrize("word", ["--\n", "--a\x1b[31m", "-\udcff", "--\udcff=x", "-é"])
def test_rubbish_is_shown_on_one_line(word: str) -> None:
    assert refused(word, "--", "true")


@pytest.mark.parametrize(
    "argv",
    [
        *(["--help"], ["--version"], ["completion", "bash"], ["completion", "--help"], ["licenses"]),
        ["--plan", "2", "--cron", "@daily", "--tz", "UTC"],
    ],
)
@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_what_can_not_be_printed_ends_with_one_line_and_an_error(argv: list[str], redirection: str) -> None:
    shell = ["sh", "-c", f'"$@" {redirection}', "sh", *PROGRAM, *argv]
    result = subprocess.run(shell, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 1
    why = "is closed" if redirection == ">&-" else r"can't be written \(No space left on device\)"
    assert re.fullmatch(rf"singleton-run: standard output {why}: it should begin with '\S.*\n", result.stderr)


def test_a_refusal_without_stderr_stays_a_refusal() -> None:
    shell = ["sh", "-c", '"$@" 2>&-', "sh", *PROGRAM, "--nonsense"]
    result = subprocess.run(shell, env=environment(), capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (USAGE, "")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=4))
def test_after_the_dashes_nothing_is_looked_at(arguments: list[str]) -> None:
    assert click_parser.parse(["--", "true", *arguments], {}).command == ["true", *arguments]
