"""Starts the real singleton-run, finds its processes, and judges what the commands wrote."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import IO, Self

    Stream = IO[bytes] | int

Value = TypeVar("Value")

TREE = Path(__file__).parents[2]
JOB = TREE / "tests" / "support" / "job.py"
# The Python that runs singleton-run in the tests: ours, or the one that whoever runs them names.
PYTHON = os.environ.get("SINGLETON_RUN_TEST_PYTHON", sys.executable)
# The file that is tested in place of the tree, if whoever runs the tests names one, and what the tests start.
GIVEN = os.environ.get("SINGLETON_RUN", "")
PROGRAM = [str(TREE / GIVEN)] if GIVEN else [PYTHON, "-m", "singleton_run"]
leased_at = ""
# Only a failure takes that long, however busy the machine is. A ttl of LONG seconds is one that no test
# waits for.
LIMIT = 120.0
LONG = "600s"


def until(condition: Callable[[], Value], what: str, limit: float = LIMIT) -> Value:
    """Wait for a condition to hold; what it gave. An AssertionError says what didn't come."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {limit:.0f} s: {what}"
        time.sleep(0.005)


def environment(**changes: str) -> dict[str, str]:
    """An environment in which the tree's singleton-run and the stranger's backend are found.

    Of the servers that whoever runs the tests may have it says nothing.
    """
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SINGLETON", "KUBERNETES_", "ETCDCTL_")) and name != "PYTHONDONTWRITEBYTECODE"
    }
    places = [TREE / "tests" / "example_backends", TREE, TREE / "backends"]
    if sys.executable != PYTHON:
        places.append(Path(sysconfig.get_path("purelib")))
    environ["PYTHONPATH"] = os.pathsep.join(map(str, places))
    return {**environ, **changes}


def python(script: str) -> list[str]:
    """The command that is this script, by a Python that starts fast."""
    return [sys.executable, "-I", "-S", "-c", script]


def full_pipe() -> tuple[int, int]:
    """A pipe that takes nothing more, with empty lines in it."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"\n" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    return read, write


def stat_of(process: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on, None if there is no such process."""
    try:  # a name before them may be cut in the middle of a letter
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def state(process: int) -> str:
    """A process's state letter; empty if it is gone."""
    fields = stat_of(process)
    return "" if fields is None else fields[0]


def all_stopped(process: int) -> bool:
    """Whether each thread of a process has been stopped by a signal."""
    try:
        tasks = Path(f"/proc/{process}/task").glob("*/stat")
        stats = [path.read_text(errors="replace") for path in tasks]
    except (FileNotFoundError, ProcessLookupError):  # a thread that ended while we looked
        return False
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def gone(process: int) -> bool:
    """Whether a process is gone, or only waits to be reaped."""
    return state(process) in ("", "Z", "X")


def stands_still(process: int) -> bool:
    """Whether a process runs nothing: each thread has been stopped by a signal, or the process has ended."""
    return gone(process) or all_stopped(process)


def title(process: int) -> str:
    """What a process shows as its arguments."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def open_files(process: int) -> dict[int, str]:
    """What a process has open, by descriptor; without what it closes while we look."""
    found = {}
    try:
        for name in os.listdir(f"/proc/{process}/fd"):
            try:
                found[int(name)] = os.readlink(f"/proc/{process}/fd/{name}")
            except FileNotFoundError:
                continue
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return found


def parents() -> dict[int, int]:
    """The parent of every process there is."""
    found = {}
    for entry in os.listdir("/proc"):
        fields = stat_of(int(entry)) if entry.isdecimal() else None
        if fields is not None:
            found[int(entry)] = int(fields[1])
    return found


def children_of(process: int) -> list[int]:
    """A process's children, zombies among them."""
    return [child for child, parent in parents().items() if parent == process]


def below(process: int) -> list[int]:
    """Every descendant of a process, zombies left out."""
    children: dict[int, list[int]] = {}
    for child, parent in parents().items():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    todo = [process]
    while todo:
        for child in children.get(todo.pop(), []):
            todo.append(child)
            if not gone(child):
                found.append(child)
    return found


def ours(name: str) -> list[int]:
    """Every process of singleton-run under that lock name."""
    titles = {
        f"singleton-run: {role} {name}"
        for role in ("front of", "guard of", "keeper of", "writer for", "reporter for", "output of")
    }
    return [process for process in parents() if title(process) in titles and not gone(process)]


def send(number: int, first: int, *others: int) -> None:
    """Send a signal to each, as close together as can be. The first's end may have ended the others."""
    os.kill(first, number)
    for process in others:
        send_if_there(number, process)


def send_if_there(number: int, process: int) -> None:
    """Send a signal to a process that may have ended already."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass


def kill_tree(*processes: int) -> None:
    """SIGKILL processes and all below them, as when a machine is lost; returns when they are gone.

    First all are stopped, so that nobody does anything about another's death.
    """
    found: list[int] = []
    while new := [each for top in processes for each in (top, *below(top)) if each not in found]:
        for each in new:
            send_if_there(signal.SIGSTOP, each)
        found += new
    for each in reversed(found):
        send_if_there(signal.SIGKILL, each)
        until(lambda: gone(each), "the process to be gone")  # noqa: B023 - called at once


class Line:
    """A line of evidence. `turn` is the fencing token that its process was given."""

    def __init__(self, text: str) -> None:
        turn, process, born, self.what, when = text.split()
        self.turn = int(turn)
        self.process = int(process)
        self.born = born
        self.when = float(when)


class Slot:
    """A start for a slot: the slot's time, and when it was by the command's clock (Unix seconds)."""

    def __init__(self, line: Line) -> None:
        _, self.name, attempt, started = line.what.split("=")
        self.time = datetime.fromisoformat(self.name).timestamp()
        self.attempt = int(attempt)
        self.started = float(started)
        self.turn = line.turn


class Evidence:
    """The file to which the commands, and they alone, append what they do (see `job`)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[Line]:
        """Every whole line."""
        if not self.path.exists():
            return []
        return [Line(text) for text in self.path.read_text().splitlines(keepends=True) if text[-1] == "\n"]

    def count(self, what: str) -> int:
        """How many lines say that."""
        return sum(line.what == what for line in self.lines())

    def turns(self) -> list[int]:
        """The fencing tokens of the commands, in the order of their starts."""
        return [line.turn for line in self.lines() if line.what == "start"]

    def slots(self) -> list[Slot]:
        """The slots for which commands were started, in the order of their starts."""
        return [Slot(line) for line in self.lines() if line.what.startswith("slot=")]

    def processes(self, turn: int) -> set[int]:
        """Every process that has written in a turn."""
        return {line.process for line in self.lines() if line.turn == turn}

    def survivors(self) -> list[str]:
        """The processes of earlier turns that a command saw at its start."""
        return [line.what for line in self.lines() if line.what.startswith("alive:")]

    def check(self, turns: int, *, unburied: bool = False) -> None:
        """One at a time: so many turns, each silent and without a process from the next's start on.

        With `unburied` one may have ended and not be reaped yet, because whoever had to do that was killed.
        """
        lines = self.lines()
        started: list[int] = []
        for line in lines:
            if line.what == "start":
                assert line.turn not in started
                started.append(line.turn)
            assert line.turn == started[-1], f"turn {line.turn} wrote {line.what!r} during {started[-1]}"
        assert [one for one in self.survivors() if not (unburied and one.endswith(":Z"))] == []
        assert started == sorted(started), "a token that does not grow"
        assert len(started) == turns

    def kill_all(self) -> None:
        """End what a failed test may have left."""
        for line in self.lines():
            fields = stat_of(line.process)
            if fields is not None and fields[19] == line.born:
                send_if_there(signal.SIGKILL, line.process)


class Run:
    """One singleton-run that was started; its standard error goes to a file."""

    def __init__(
        self,
        argv: list[str],
        directory: Path,
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream | None = None,
        stderr: Stream | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        number = uuid.uuid4().hex[:8]
        self._out = directory / f"{number}.out"
        self._err = directory / f"{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                argv,
                cwd=directory,
                env=environment() if environ is None else environ,
                stdin=stdin,
                stdout=out if stdout is None else stdout,
                stderr=err if stderr is None else stderr,
                start_new_session=True,
            )
        self.pid = self.popen.pid

    @property
    def out(self) -> bytes:
        """What has come on standard output."""
        return self._out.read_bytes()

    @property
    def said(self) -> str:
        """What has come on standard error."""
        return self._err.read_text(errors="replace")

    def wait(self) -> int:
        """The exit status, minus a signal's number, once it has ended."""
        return self.popen.wait(LIMIT)

    def hears(self, text: str) -> None:
        """Wait until standard error has this text."""
        until(lambda: text in self.said, f"{text!r} on stderr, which has {self.said!r}")

    def all(self, role: str) -> list[int]:
        """The processes of a role below the front: guard, keeper, writer, reporter; "waiting" for a lock."""
        start = f"singleton-run: {role} "
        return [process for process in below(self.pid) if title(process).startswith(start)]

    def one(self, role: str, *, but: int = 0) -> int:
        """The one process of a role, other than `but`, once it is there."""

        def look() -> int:
            found = [process for process in self.all(role) if process != but]
            return found[0] if len(found) == 1 else 0

        return until(look, f"a {role}, where there is {[title(process) for process in below(self.pid)]}")


class Lab:
    """A lock of its own for a test, and what was started under it. `backend` is its scheme.

    A file that is tested knows no stranger's backend: any other scheme stands for a lock at `leased_at`.
    """

    def __init__(self, directory: Path, backend: str = "file") -> None:
        self.name = self._own_name = f"lab-{uuid.uuid4().hex[:8]}"
        self.directory = directory / self.name
        self.locks = self.directory / "locks"
        self.locks.mkdir(parents=True, mode=0o700)
        self.lock = leased_at if GIVEN and backend != "file" else f"{backend}://{self.locks}"
        self.evidence = Evidence(self.directory / "evidence")
        self.runs: list[Run] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        for run in self.runs:
            if run.popen.poll() is None:
                run.popen.kill()
        for process in ours(self._own_name):
            send_if_there(signal.SIGKILL, process)
        self.evidence.kill_all()
        for run in self.runs:
            run.popen.wait(LIMIT)

    def argv(self, *options: str, command: list[str]) -> list[str]:
        """The call of singleton-run under this lab's lock."""
        place = ["--lock", self.lock, "--name", self.name]
        return [*PROGRAM, *place, *options, "--", *command]

    def start(
        self,
        *options: str,
        command: list[str],
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream | None = None,
        stderr: Stream | None = None,
        environ: Mapping[str, str] | None = None,
        via: str = "",
    ) -> Run:
        """Start a command under the lock; `via` is a shell script that starts it as "$@"."""
        argv = self.argv(*options, command=command)
        if via:
            argv = ["sh", "-c", via, "sh", *argv]
        run = Run(argv, self.directory, stdin=stdin, stdout=stdout, stderr=stderr, environ=environ)
        self.runs.append(run)
        return run

    def job(self, *words: str) -> list[str]:
        """The command that leaves evidence."""
        return [sys.executable, "-I", "-S", str(JOB), str(self.evidence.path), *words]

    def long_job(self, *words: str) -> list[str]:
        """The same, which ends when `finish` is called."""
        return self.job(*words, "until", str(self.directory / "finish"))

    def finish(self) -> None:
        """Let the long jobs end."""
        (self.directory / "finish").touch()

    def ready(self, jobs: int = 1) -> None:
        """Wait until so many jobs have started all that they start."""
        until(lambda: self.evidence.count("ready") >= jobs, f"{jobs} jobs to run; {self._said()}")

    def names_its_holder(self) -> None:
        """Wait until others are told who has it: a file's record is written while the command starts."""
        if self.lock.startswith("file:"):
            until((self.locks / f"{self.name}.json").exists, f"the record; {self._said()}")

    def beats(self, more: int = 20) -> None:
        """Wait until the commands have shown so often that they still run."""
        before = self.evidence.count("beat")
        until(lambda: self.evidence.count("beat") > before + more, "the command to go on")

    def tree(self) -> set[int]:
        """The processes of the command that started last."""
        return self.evidence.processes(self.evidence.turns()[-1])

    def next_one(self) -> None:
        """Whoever comes next gets the lock, runs alone, and ends well."""
        turns = len(self.evidence.turns())
        run = self.start(command=self.job())
        assert run.wait() == 0, run.said
        assert len(self.evidence.turns()) == turns + 1

    def left(self) -> list[str]:
        """The titles of our processes that still are there under this lab's name."""
        return [title(process) for process in ours(self.name)]

    def _said(self) -> str:
        return " | ".join(run.said for run in self.runs)

    def control(self, fault: str) -> Path:
        """The file that makes the stranger's backend fail: outage, stuck, denied or broken."""
        return self.locks / fault


def labs(directory: Path, backend: str) -> Iterator[Lab]:
    """For fixtures: a lab, and its end."""
    with Lab(directory, backend) as lab:
        yield lab
