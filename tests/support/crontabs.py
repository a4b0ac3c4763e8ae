"""Crontabs that are run: their lines write down what starts and ends, and replicas are found and killed."""

from __future__ import annotations

import signal
import uuid
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.harness import (
    PROGRAM,
    Run,
    below,
    children_of,
    gone,
    kill_tree,
    open_files,
    send_if_there,
    title,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from tests.support.harness import Stream


class Start:
    """A start of a line's command: the line's name, its slot (Unix seconds), and the command's process."""

    def __init__(self, text: str) -> None:
        _, self.name, slot, process = text.split("|")
        self.slot = datetime.fromisoformat(slot).timestamp() if slot else 0.0
        self.process = int(process)


class Table:
    """A crontab in a directory of its own, with locks there unless `lock` names others."""

    def __init__(self, directory: Path, lock: str = "") -> None:
        self.tag = f"t{uuid.uuid4().hex[:8]}"
        self.directory = directory / self.tag
        self.directory.mkdir()
        (self.directory / "locks").mkdir(mode=0o700)
        self.lock = lock or f"file://{self.directory}/locks"
        self.file = self.directory / "crontab"
        self.evidence = self.directory / "evidence"
        self.evidence.touch()
        self.runs: list[Run] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        for run in self.runs:
            if run.popen.poll() is None:
                kill_tree(run.pid)
                run.popen.wait()

    def name(self, word: str) -> str:
        """The name of a line."""
        return f"{self.tag}.{word}"

    def line(self, word: str, when: str, command: str, options: str = "") -> str:
        """A line with a name of its own."""
        return f"# singleton-run: name={self.name(word)} {options}\n{when} {command}\n"

    def noted(self, word: str, when: str, then: str = "", options: str = "", first: str = ":") -> str:
        """A line whose command does what comes `first`, and writes down its start and its end.

        What it does `then` comes between the two.
        """
        facts = "|$SINGLETON_NAME|$SINGLETON_SLOT|$$"
        start, end = (f'echo "{kind}{facts}" >> {self.evidence}' for kind in ("start", "end"))
        return self.line(word, when, f"{first}; {start}; {then or ':'}; {end}", options)

    def write(self, *lines: str) -> None:
        """Write the crontab."""
        self.file.write_text("".join(lines))

    def argv(self, *options: str) -> list[str]:
        """The call that runs it."""
        return [*PROGRAM, "crontab", str(self.file), "--lock", self.lock, *options]

    def start(
        self, *options: str, stdout: Stream | None = None, environ: Mapping[str, str] | None = None
    ) -> Run:
        """Start a replica."""
        run = Run(self.argv(*options), self.directory, stdout=stdout, environ=environ)
        self.runs.append(run)
        return run

    def starts(self, word: str = "", kind: str = "start") -> list[Start]:
        """The starts of a line's command, or of all lines', in their order; by `kind`, the ends."""
        lines = self.evidence.read_text().splitlines(keepends=True)
        found = [Start(line.strip()) for line in lines if line.startswith(kind) and line.endswith("\n")]
        return [start for start in found if not word or start.name == self.name(word)]

    def started(self, word: str, count: int = 1) -> list[Start]:
        """Wait for so many starts of a line's command."""
        until(lambda: len(self.starts(word)) >= count, f"{count} starts of {word}; {self.said()}")
        return self.starts(word)

    def ended(self, word: str, count: int = 1) -> None:
        """Wait for so many ends of a line's command."""
        until(lambda: len(self.starts(word, "end")) >= count, f"{count} ends of {word}; {self.said()}")

    def said(self) -> str:
        """What the replicas have said."""
        return " | ".join(run.said for run in self.runs)

    def front(self, run: Run, word: str) -> int:
        """Wait for the process of a line."""
        return self.front_below(run.pid, word)

    def front_below(self, parent: int, word: str) -> int:
        """Wait for the process of a line, below that parent."""
        wanted = f"singleton-run: front of {self.name(word)}"
        return until(
            lambda: next((child for child in children_of(parent) if title(child) == wanted), 0),
            f"{wanted}; {self.said()}",
        )

    def at_rest(self, run: Run, lines: int) -> list[int]:
        """Wait until a replica has a process for so many lines, and each waits for its time; all of these."""

        def look() -> list[int]:
            fronts = [child for child in children_of(run.pid) if _is_at_rest(child)]
            return fronts if len(fronts) == lines and len(_ours_below(run.pid)) <= lines + 1 else []

        return until(look, f"{lines} lines at rest; {self.said()}")


def stop(run: Run) -> int:
    """SIGTERM; the exit status, after which nothing of it is left."""
    run.popen.send_signal(signal.SIGTERM)
    return run.wait()


def kill_below(run: Run, *roles: str) -> None:
    """SIGKILL what shows one of these roles below a replica."""
    for process in below(run.pid):
        if title(process).removeprefix("singleton-run: ").startswith(roles):
            send_if_there(signal.SIGKILL, process)


def reader_of_pipe(process: int) -> int:
    """Which process, this one or one below it, waits for a named pipe to be written to; 0 if none does."""
    for one in (process, *below(process)):
        with suppress(OSError):
            if Path(f"/proc/{one}/wchan").read_text() == "wait_for_partner":
                return one
    return 0


def left_of(pids: list[int]) -> list[int]:
    """Which of the processes still are there."""
    return [process for process in pids if not gone(process)]


def memory(process: int) -> int:
    """A process's share of memory (PSS), in KiB."""
    with open(f"/proc/{process}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


def switches(process: int) -> int:
    """How often a process was switched away from: not once without a wake-up."""
    with open(f"/proc/{process}/status") as file:
        return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)


def _ours_below(process: int) -> list[int]:
    return [each for each in below(process) if title(each).startswith("singleton-run: ")]


def _is_at_rest(process: int) -> bool:
    """Whether the process of a line sleeps until its time: with two timers, its signals, and no helper."""
    if not title(process).startswith("singleton-run: front of") or below(process):
        return False
    return sum("timerfd" in file for file in open_files(process).values()) == 2
