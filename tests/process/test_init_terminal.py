"""At a terminal, below a shell: what the command would see, and the shell of it, without us in between."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import struct
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process.test_init_signals import END, Listening
from tests.support.harness import LONG, Lab, below, gone, ours, python, send, state, title, until
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "--noediting", "-i"],
    "dash": ["dash", "-i"],
    "zsh": ["zsh", "-f", "+Z", "-i"],
}
IN_EACH = pytest.mark.parametrize("name", SHELLS)
PROMPT = "ready> "
STOPPED = "T"
CTRL_C, CTRL_Z, QUIT = "\x03", "\x1a", "\x1c"
PAUSE = """
import signal
signal.signal(2, signal.SIG_DFL)
print('run', 'ning', sep='', flush=True)
signal.pause()
"""
DEAF = PAUSE.replace("SIG_DFL", "SIG_IGN")

FULL_SCREEN = r"""
import os, signal, termios, tty
for _ in range(2):
    before = termios.tcgetattr(0)
    tty.setraw(0)
    os.write(1, b"full screen")
    while (key := os.read(0, 1)) not in (b"\x1a", b"q"):
        os.write(1, b"<%d>" % ord(key))
    termios.tcsetattr(0, termios.TCSADRAIN, before)
    if key != b"q":
        os.kill(0, signal.SIGTSTP)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Listening]:
    """A lock under the file backend."""
    with Listening(tmp_path) as lab:
        yield lab


class Shell(Terminal):
    """An interactive shell at a terminal of its own."""

    def __init__(self, name: str, directory: Path, variables: Mapping[str, str] | None = None) -> None:
        if shutil.which(name) is None:
            pytest.skip(f"there is no {name}: apt-get install {name}")
        environ = {"PS1": PROMPT, "HOME": str(directory), "HISTFILE": "", "ENV": "", **(variables or {})}
        super().__init__(SHELLS[name], directory, environ=environ)
        self.prompts = 0
        self.prompt()

    def prompt(self) -> None:
        """Wait until the shell asks for the next line."""
        self.prompts += 1
        self.shows(PROMPT, times=self.prompts)

    def line(self, text: str) -> None:
        """Type a line."""
        self.type(text + "\n")

    def call(self, argv: list[str]) -> None:
        """Have a command run in the foreground."""
        self.line(shlex.join(argv))

    def stop(self, *processes: int) -> None:
        """Press Ctrl-Z until they are stopped: the shell may just be about to continue them.

        What is being shown meanwhile may be lost: with each the terminal throws away what is under way.
        """

        def press() -> bool:
            self.type(CTRL_Z)
            return {state(process) for process in processes} == {STOPPED}

        until(press, f"{processes} to be stopped")

    def looks(self) -> None:
        """Have the shell ask the kernel about its jobs, which it does when it waits for a program.

        By itself it may never do so: bash forgets the SIGCHLD that comes while it tells of a stopped job.
        """
        self.line("/bin/true")

    def status(self, number: int) -> None:
        """The last command's status is this."""
        self.line("echo status=$?.")
        self.shows(f"status={number}.")
        self.prompt()

    @property
    def foreground(self) -> int:
        """The process group that has the terminal."""
        return os.tcgetpgrp(self.master)

    def settings(self) -> list[object]:
        """How the terminal is set."""
        return termios.tcgetattr(self.master)

    def leave(self) -> None:
        """End the shell."""
        self.line("exit")
        self.wait()


def the(role: str, lab: Lab) -> int:
    """The one process of ours that calls itself so."""

    def look() -> int:
        wanted = f"singleton-run: {role} of {lab.name}"
        found = [process for process in ours(lab.name) if title(process) == wanted]
        return found[0] if len(found) == 1 else 0

    return until(look, f"a {role}")


def front_of(lab: Lab) -> int:
    """The one front."""
    return the("front", lab)


def front_below(shell: Shell) -> int:
    """The front that the shell has started, while others wait or run too."""
    return next(process for process in below(shell.pid) if title(process).startswith("singleton-run"))


def are(*processes: int, letter: str) -> None:
    """Wait until all of them are in that state."""
    until(lambda: {state(process) for process in processes} == {letter}, f"{processes} to be in {letter}")


def rests(process: int, lab: Lab) -> bool:
    """Whether a process doesn't run at all while the command goes on."""
    ran = Path(f"/proc/{process}/schedstat")
    before = ran.read_text()
    lab.beats()
    return ran.read_text() == before


def listening(lab: Listening) -> int:
    """The command's process id, once it listens."""
    return until(lambda: lab.process("command"), "the command to listen")


# What the terminal sends arrives, and once.


@IN_EACH
def test_what_the_terminal_sends_comes_once(lab: Listening, name: str) -> None:
    with Shell(name, lab.directory) as shell:
        shell.call(lab.argv(command=lab.listener()))
        listening(lab)
        front = front_of(lab)
        come = []
        for key, number in ((CTRL_C, signal.SIGINT), (QUIT, signal.SIGQUIT), (CTRL_Z, signal.SIGTSTP)) * 2:
            shell.type(key)
            come.append(int(number))
            lab.hears(*come)
        for columns in (70, 80):
            fcntl.ioctl(shell.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            come.append(int(signal.SIGWINCH))
            lab.hears(*come)
        # It was not stopped, so nobody was.
        assert shell.foreground == os.getpgid(front) == os.getpgid(lab.process("command"))
        send(END, front)
        shell.prompt()
        shell.status(0)
        assert lab.heard() == [*come, END]
        shell.leave()


@IN_EACH
def test_what_a_process_sends_goes_on_to_the_command(lab: Listening, name: str) -> None:
    with Shell(name, lab.directory) as shell:
        shell.call(lab.argv(command=lab.listener()))
        listening(lab)
        front = front_of(lab)
        come = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGRTMIN):
            send(number, front)
            come.append(int(number))
            lab.hears(*come)
        send(END, front)
        shell.prompt()
        shell.leave()


def test_what_stops_its_own_group_is_not_stopped_again(lab: Listening) -> None:
    """The front is in that group: passed on, the signal might come after the shell's `fg`."""
    with Shell("bash", lab.directory) as shell:
        shell.call(lab.argv(command=lab.listener("stop")))
        lab.hears(signal.SIGTSTP)
        front = front_of(lab)
        send(signal.SIGUSR1, front)
        lab.hears(signal.SIGTSTP, signal.SIGUSR1)
        send(END, front)
        shell.prompt()
        shell.leave()


def test_only_the_front_is_in_the_command_s_group_and_all_are_in_its_session(tmp_path: Path) -> None:
    """So nothing that the terminal sends comes to guard and keeper, and it stays the shell's."""
    with Listening(tmp_path, "leasefile") as lab, Shell("bash", lab.directory) as shell:
        shell.call(lab.argv(command=lab.listener()))
        command = listening(lab)
        front, guard, keeper = (the(role, lab) for role in ("front", "guard", "keeper"))
        assert {os.getsid(process) for process in (command, front, guard, keeper)} == {shell.pid}
        assert os.getpgid(command) == os.getpgid(front) == front == shell.foreground
        assert (os.getpgid(guard), os.getpgid(keeper)) == (guard, keeper)
        send(END, front)
        shell.prompt()
        shell.leave()


@IN_EACH
def test_a_loop_in_a_shell_ends_by_ctrl_c(lab: Lab, name: str) -> None:
    with Shell(name, lab.directory) as shell:
        call = shlex.join(lab.argv(command=python(PAUSE)))
        shell.line(f"for i in 1 2 3; do {call}; done; echo sur''vived")
        shell.shows("running")
        shell.type(CTRL_C)
        shell.prompt()
        shell.line("echo ag''ain")
        shell.shows("again")
        assert shell.shown.count("running") == 1
        assert "survived" not in shell.shown
        until(lambda: not lab.left(), "singleton-run to end")
        shell.leave()


# Stop and go on.


@IN_EACH
@pytest.mark.parametrize("backend", ["file", "leasefile"])
def test_ctrl_z_stops_both_and_fg_and_bg_go_on(tmp_path: Path, name: str, backend: str) -> None:
    with Lab(tmp_path, backend) as lab, Shell(name, lab.directory) as shell:
        shell.call(lab.argv("--ttl", LONG, command=lab.long_job("status", "3")))
        lab.ready()
        front, guard = front_of(lab), the("guard", lab)
        command = lab.evidence.lines()[0].process
        shell.type(CTRL_Z)
        shell.prompt()
        are(front, command, letter=STOPPED)
        assert shell.foreground == os.getpgid(shell.pid)
        second = lab.start("--ttl", LONG, command=lab.job())
        second.hears("waiting for lock")
        shell.line("bg")
        lab.beats()
        until(lambda: state(front) == "S", "the front to go on")
        assert shell.foreground == os.getpgid(shell.pid)
        shell.line("fg")
        until(lambda: shell.foreground == os.getpgid(front), "the job to have the terminal")
        shell.stop(front, command)
        until(lambda: shell.foreground == os.getpgid(shell.pid), "the shell to have the terminal")
        shell.line("fg")
        lab.beats()
        until(lambda: rests(guard, lab), "the guard to have nothing to do")
        assert second.popen.poll() is None
        lab.finish()
        until(lambda: shell.foreground == os.getpgid(shell.pid), "the shell to have the terminal")
        shell.line("echo status=$?.")
        shell.shows("status=3.")
        assert second.wait() == 0
        shell.leave()
        lab.evidence.check(turns=2)


@IN_EACH
def test_a_command_that_stops_itself_gives_the_shell_its_prompt(lab: Lab, name: str) -> None:
    """As vim, su and a shell's `suspend` do; and it goes on by `fg`."""
    script = ["sh", "-c", "kill -STOP $$; echo again''; read line; exit $line"]
    with Shell(name, lab.directory) as shell:
        shell.call(lab.argv(command=script))
        shell.prompt()
        front = front_of(lab)
        are(front, letter=STOPPED)
        shell.line("fg")
        shell.shows("again\r\n")
        until(lambda: state(front) == "S", "the front to go on")
        shell.line("5")
        shell.prompt()
        shell.status(5)
        shell.leave()


def test_who_continues_the_command_continues_us(lab: Lab) -> None:
    """No shell does it so; an administrator may."""
    with Shell("bash", lab.directory) as shell:
        shell.call(lab.argv(command=["sh", "-c", "echo $$ > pid; kill -STOP $$; exit 6"]))
        shell.prompt()
        front = front_of(lab)
        are(front, letter=STOPPED)
        send(signal.SIGCONT, int((lab.directory / "pid").read_text()))
        until(lambda: gone(front), "singleton-run to end")
        lab.start(command=["true"]).wait()
        shell.leave()


def test_a_stopped_command_that_is_killed_is_told_of_at_once(lab: Lab) -> None:
    with Shell("bash", lab.directory) as shell:
        shell.call(lab.argv(command=lab.long_job()))
        lab.ready()
        front = front_of(lab)
        shell.type(CTRL_Z)
        shell.prompt()
        are(front, letter=STOPPED)
        send(signal.SIGKILL, lab.evidence.lines()[0].process)
        until(lambda: gone(front), "singleton-run to end")
        lab.next_one()
        shell.leave()


@IN_EACH
@pytest.mark.parametrize("backend", ["file", "leasefile"])
def test_who_is_stopped_while_waiting_lets_others_go_first(tmp_path: Path, name: str, backend: str) -> None:
    """As flock(1) does; on a server the place lapses. By `fg` it waits anew."""
    with Lab(tmp_path, backend) as lab, Shell(name, lab.directory) as shell:
        first = lab.start(command=lab.long_job())
        lab.ready()
        # A file, because the kernel may drop what was written to a terminal just before a Ctrl-Z.
        shell.call(lab.argv(command=["touch", "done"]))
        shell.shows("waiting for")
        front = front_below(shell)
        shell.type(CTRL_Z)
        shell.prompt()
        are(front, letter=STOPPED)
        lab.finish()
        assert first.wait() == 0
        assert lab.start(command=["test", "!", "-e", "done"]).wait() == 0
        assert not (lab.directory / "done").exists()
        shell.line("fg")
        until((lab.directory / "done").exists, "the command to run")
        shell.prompt()
        shell.status(0)
        shell.leave()


@pytest.mark.parametrize("backend", ["file", "leasefile"])
def test_a_stopped_waiter_goes_with_its_shell(tmp_path: Path, backend: str) -> None:
    with Lab(tmp_path, backend) as lab:
        first = lab.start(command=lab.long_job())
        lab.ready()
        with Shell("bash", lab.directory) as shell:
            shell.call(lab.argv(command=["touch", "done"]))
            shell.shows("waiting for")
            front = next(
                process for process in below(shell.pid) if title(process).startswith("singleton-run")
            )
            shell.type(CTRL_Z)
            shell.prompt()
            are(front, letter=STOPPED)
            shell.popen.kill()
        until(lambda: gone(front), "the waiter to end")
        lab.finish()
        assert first.wait() == 0
        lab.next_one()
        assert not (lab.directory / "done").exists()


def test_where_no_shell_could_continue_it_nothing_stops(lab: Listening) -> None:
    """As `ssh -t HOST COMMAND` and an engine's `run -it`: the kernel stops no such process."""
    counts = (
        "import time; print('up', flush=True)\nwhile not input().startswith('end'): print('on', flush=True)"
    )
    for argv in (python(counts), lab.argv(command=python(counts))):
        with Terminal(argv, lab.directory) as terminal:
            terminal.shows("up")
            for times in (1, 2, 3):
                terminal.type(CTRL_Z)
                terminal.type("x\n")
                terminal.shows("on\r\n", times=times)
            terminal.type("end\n")
            assert terminal.wait() == 0


def test_where_no_shell_could_continue_it_a_wait_goes_on(lab: Lab) -> None:
    first = lab.start(command=lab.long_job())
    lab.ready()
    # A file, because the kernel may drop what was written to a terminal just before a Ctrl-Z.
    with Terminal(lab.argv(command=["touch", "done"]), lab.directory) as terminal:
        terminal.shows("waiting for")
        terminal.type(CTRL_Z)
        lab.finish()
        assert (first.wait(), terminal.wait()) == (0, 0)
    assert (lab.directory / "done").exists()


@IN_EACH
@pytest.mark.parametrize("backend", ["file", "leasefile"])
def test_a_stopped_job_does_not_outlive_its_shell(tmp_path: Path, name: str, backend: str) -> None:
    """Nobody could continue it any more: the kernel would hang it up, and the lock would stay for ever."""
    with Lab(tmp_path, backend) as lab:
        with Shell(name, lab.directory) as shell:
            shell.call(lab.argv("--ttl", LONG, command=lab.long_job()))
            lab.ready()
            front = front_of(lab)
            shell.type(CTRL_Z)
            shell.prompt()
            are(front, lab.evidence.lines()[0].process, letter=STOPPED)
            second = lab.start("--ttl", LONG, command=lab.job())
            second.hears("waiting for lock")
            shell.popen.kill()
        assert second.wait() == 0
        lab.evidence.check(turns=2)


# The keyboard.


@IN_EACH
def test_who_reads_what_the_command_writes_keeps_the_keyboard(lab: Lab, name: str) -> None:
    """As in `singleton-run … | less`: quitting it ends the command by SIGPIPE."""
    reader = python(
        "import sys\n"
        "tty = open('/dev/tty')\n"
        "print('page:', sys.stdin.readline().strip(), flush=True)\n"
        "print('typed:', tty.readline().strip(), flush=True)\n"
    )
    writer = ["sh", "-c", "while :; do echo line; done"]
    with Shell(name, lab.directory) as shell:
        shell.line(f"{shlex.join(lab.argv(command=writer))} | {shlex.join(reader)}; echo bo''th ended")
        shell.shows("page: line")
        shell.line("q")
        shell.shows("typed: q")
        shell.shows("both ended")
        until(lambda: not lab.left(), "singleton-run to end")
        shell.leave()


def test_a_password_is_asked_for_and_not_shown(lab: Lab) -> None:
    ask = "import getpass; print(len(getpass.getpass('Pass''word: ')), 'letters', flush=True)"
    with Shell("bash", lab.directory) as shell:
        before = shell.settings()
        shell.call(lab.argv(command=[sys.executable, "-I", "-c", ask]))
        shell.shows("Password: ")
        until(lambda: not shell.settings()[3] & termios.ECHO, "the terminal not to echo")  # type: ignore[operator]
        shell.line("hunter2")
        shell.shows("7 letters")
        assert "hunter2" not in shell.shown
        shell.prompt()
        assert shell.settings() == before
        shell.leave()


@IN_EACH
def test_a_shell_with_job_control_inside(lab: Lab, name: str) -> None:
    """Its jobs are its own: what is stopped and interrupted there is neither it nor us."""
    inside = SHELLS["bash"]
    job = shlex.join(lab.long_job())
    with Shell(name, lab.directory) as shell:
        before = shell.settings()
        shell.call(lab.argv(command=["env", "PS1=inside> ", *inside]))
        shell.shows("inside> ", times=2)  # the first is what was typed
        front = front_of(lab)
        shell.line(job)
        lab.ready()
        jobs = lab.evidence.lines()[0].process
        shell.type(CTRL_Z)
        shell.shows("inside> ", times=3)
        are(jobs, letter=STOPPED)
        assert state(front) != STOPPED
        assert shell.foreground not in (os.getpgid(front), os.getpgid(jobs), os.getpgid(shell.pid))
        shell.line("fg")
        until(lambda: shell.foreground == os.getpgid(jobs), "the job to have the terminal")
        lab.beats()
        shell.type(CTRL_C)
        shell.shows("inside> ", times=4)
        assert gone(jobs)
        shell.line("suspend")
        shell.prompt()
        are(front, letter=STOPPED)
        assert shell.foreground == os.getpgid(shell.pid)
        shell.line("fg")
        shell.line("exit 7")
        until(lambda: gone(front), "singleton-run to end")
        shell.prompt()
        shell.status(7)
        assert shell.settings() == before
        shell.leave()


@IN_EACH
def test_a_full_screen_program_stops_its_group_and_goes_on(lab: Lab, name: str) -> None:
    """As vim does by Ctrl-Z, which in its mode is a key like any other."""
    (lab.directory / "screen.py").write_text(FULL_SCREEN)
    screen = [sys.executable, "-I", "-S", "screen.py"]
    with Shell(name, lab.directory) as shell:
        before = shell.settings()
        shell.call(lab.argv(command=screen))
        shell.shows("full screen")
        shell.type(CTRL_C)
        shell.shows("<3>")
        front = front_of(lab)
        shell.type(CTRL_Z)
        shell.prompt()
        are(front, letter=STOPPED)
        assert shell.settings() == before
        shell.line("fg")
        shell.shows("full screen", times=2)
        shell.type("x")
        shell.shows("<120>")
        shell.type("q")
        shell.prompt()
        shell.status(0)
        assert shell.settings() == before
        shell.leave()


# In the background.


@IN_EACH
def test_in_the_background_it_does_not_stop_on_output(lab: Lab, name: str) -> None:
    go = lab.directory / "go"
    os.mkfifo(go)
    command = ["sh", "-c", "echo fr''om; read line < go; echo the''re"]
    with Shell(name, lab.directory) as shell:
        shell.line(shlex.join(lab.argv("-v", command=command)) + " &")
        shell.shows("from")
        front = front_of(lab)
        shell.shows("the command runs as process")
        assert shell.foreground == os.getpgid(shell.pid) != os.getpgid(front)
        go.write_text("\n")
        shell.shows("there")
        until(lambda: not lab.left(), "singleton-run to end")
        shell.line("wait")  # zsh doesn't exit before it has seen that
        shell.leave()


@IN_EACH
def test_in_the_background_it_stops_when_it_wants_the_keyboard_and_the_shell_knows(
    lab: Lab, name: str
) -> None:
    command = ["sh", "-c", 'read line < /dev/tty; echo "got:$line"; exit 8']
    with Shell(name, lab.directory) as shell:
        shell.line(shlex.join(lab.argv(command=command)) + " &")
        front = front_of(lab)
        are(front, letter=STOPPED)
        shell.looks()  # bash's fg doesn't continue what it takes for a running job
        shell.line("fg")
        until(lambda: shell.foreground == os.getpgid(front), "the job to have the terminal")
        shell.line("word")
        shell.shows("got:word")
        until(lambda: not lab.left(), "singleton-run to end")
        shell.leave()


# Stops.


def test_ctrl_c_is_a_stop_that_kill_after_counts_from(lab: Lab) -> None:
    with Shell("bash", lab.directory) as shell:
        shell.call(lab.argv("--kill-after", "100ms", command=python(DEAF)))
        shell.shows("running")
        shell.type(CTRL_C)
        shell.prompt()
        shell.status(128 + signal.SIGKILL)
        shell.leave()


def test_ctrl_c_reaches_what_the_command_left_behind(lab: Lab) -> None:
    command = python(
        "import os, signal\n"
        "signal.signal(2, signal.SIG_DFL)\n"
        "if os.fork(): os._exit(9)\n"
        "os.setsid()\n"
        "signal.pause()\n"
    )
    with Shell("bash", lab.directory) as shell:
        shell.call(lab.argv("--leftovers", "wait", command=command))
        shell.shows("the command left process")
        shell.type(CTRL_C)
        shell.prompt()
        shell.status(9)
        shell.leave()


def test_a_terminal_that_goes_away_ends_the_command(lab: Listening) -> None:
    run = python("import signal; signal.signal(1, signal.SIG_DFL); print('u''p', flush=True); signal.pause()")
    for argv in (lab.argv(command=run), ["bash", "-c", shlex.join(lab.argv(command=run)) + "; true"]):
        with Terminal(argv, lab.directory) as terminal:
            terminal.shows("up")
        until(lambda: not lab.left(), "singleton-run to end")
