"""Programs that people run at a terminal: they notice nothing of us, and leave it as it was."""

from __future__ import annotations

import shlex
import shutil
import termios
from typing import TYPE_CHECKING

import pytest

from tests.process.test_init_terminal import CTRL_C, CTRL_Z, STOPPED, Shell, are, front_of, the
from tests.support.harness import Lab, children_of, gone, labs, state, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGES = {"vi": "vim-tiny", "less": "less", "top": "procps", "sudo": "sudo"}
BARE_VI = ["vi", "-u", "NONE", "-i", "NONE", "-n"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lock under the file backend."""
    yield from labs(tmp_path, "file")


def need(program: str) -> None:
    """Skip where it is missing."""
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program}: apt-get install {PACKAGES[program]}")


def reads_keys(lab: Lab) -> None:
    """Wait until the program sleeps: a signal just before a read is seen by many only after the read."""
    guard = the("guard", lab)
    until(lambda: {state(child) for child in children_of(guard)} == {"S"}, "the program to wait for keys")


@pytest.mark.parametrize(
    ("command", "shown", "leave"),
    [
        ([*BARE_VI, "text"], "third", ":q\n"),  # vi may write to the cursor between two words
        (["less", "text"], "third", "q"),
        (["top"], "PID", "q"),
    ],
    ids=["vi", "less", "top"],
)
def test_a_full_screen_program_stops_goes_on_and_leaves_the_terminal_as_it_was(
    lab: Lab, command: list[str], shown: str, leave: str
) -> None:
    need(command[0])
    (lab.directory / "text").write_text("first line\nsecond line\nthird line\n")
    with Shell("bash", lab.directory) as shell:
        before = shell.settings()
        shell.call(lab.argv(command=command))
        shell.shows(shown)
        until(lambda: shell.settings() != before, "the program to set the terminal")
        front = front_of(lab)
        reads_keys(lab)
        shell.type(CTRL_Z)
        shell.prompt()
        are(front, letter=STOPPED)
        assert shell.settings() == before
        shell.line("fg")
        shell.shows(shown, times=shell.shown.count(shown) + 1)
        until(lambda: state(front) == "S", "the front to go on")
        shell.type(leave)
        shell.prompt()
        shell.status(0)
        assert shell.settings() == before
        shell.leave()


def test_an_editor_gets_the_keys_and_writes_its_file(lab: Lab) -> None:
    need("vi")
    with Shell("bash", lab.directory) as shell:
        shell.call(lab.argv(command=[*BARE_VI, "text"]))
        shell.shows("~")
        shell.type("ione\x1b:wq\n")
        shell.prompt()
        shell.status(0)
        assert (lab.directory / "text").read_text() == "one\n"
        shell.leave()


def test_a_pager_behind_us_keeps_its_keyboard(lab: Lab) -> None:
    need("less")
    with Shell("bash", lab.directory) as shell:
        before = shell.settings()
        shell.line(f"{shlex.join(lab.argv(command=['seq', '1000000']))} | less; echo pi''ped")
        shell.shows("22\r\n23")
        shell.type("G")
        shell.shows("999999\r\n1000000")
        shell.type("q")
        shell.shows("piped")
        shell.prompt()
        assert shell.settings() == before
        until(lambda: not lab.left(), "singleton-run to end")
        shell.leave()


def test_sudo_asks_for_a_password_and_ctrl_c_refuses_it(lab: Lab) -> None:
    need("sudo")
    ask = ["setpriv", "--reuid", "65534", "--clear-groups", "sudo", "-k", "-p", "Say''it: ", "true"]
    with Shell("bash", lab.directory) as shell:
        before = shell.settings()
        shell.call(lab.argv(command=ask))
        shell.shows("Say''it: ")
        until(lambda: not shell.settings()[3] & termios.ECHO, "the terminal not to echo")  # type: ignore[operator]
        reads_keys(lab)
        shell.type("hunter2")
        shell.type(CTRL_C)
        shell.prompt()
        assert "hunter2" not in shell.shown
        assert shell.settings() == before
        until(lambda: not lab.left(), "singleton-run to end")
        shell.leave()


def test_a_stopped_program_is_not_all_that_the_shell_sees(lab: Lab) -> None:
    """`jobs` and `kill %1` find the one job that the shell has started."""
    need("less")
    (lab.directory / "text").write_text("a line\n")
    with Shell("bash", lab.directory) as shell:
        shell.call(lab.argv(command=["less", "text"]))
        shell.shows("a line")
        front = front_of(lab)
        reads_keys(lab)
        shell.type(CTRL_Z)
        shell.prompt()
        are(front, letter=STOPPED)
        shell.line("kill %1")
        until(lambda: not lab.left() and gone(front), "singleton-run to end")
        shell.looks()  # or it may stay for a job that it takes for a stopped one
        shell.leave()
