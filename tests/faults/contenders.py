"""Four contenders on one lock: each calls the wrapper again and again, until the round is over."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.harness import below, gone, parents, send_if_there, title

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CONTENDERS = 4
PAUSE = 0.2
COMMAND = "tests/faults/command.py"


@dataclass
class Call:
    """One call of the wrapper that has ended: its status as subprocess gives it, its stderr, and when."""

    run: str
    key: str
    status: int
    said: str
    when: float


class Contender:
    """One of them. `argv` gives the arguments of the next call, for that key, which come after `wrap`.

    The keys are numbers: how many calls have ended well before. With `loops` a call ends when it is asked to.
    What has ended is in `calls`. With `stderr`, the wrapper's standard error is that descriptor, else
    a file.
    """

    def __init__(
        self,
        number: int,
        argv: Callable[[str], list[str]],
        environ: Mapping[str, str],
        directory: Path,
        *,
        stderr: int | None = None,
        wrap: tuple[str, ...] = (),
        loops: bool = False,
    ) -> None:
        self.number = number
        self.argv = argv
        self.environ = environ
        self.directory = directory
        self.stderr = stderr
        self.wrap = wrap
        self.loops = loops
        self.calls: list[Call] = []
        self.popen: subprocess.Popen[bytes] | None = None
        self.over = threading.Event()
        self.failure: Exception | None = None
        self.thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Begin to call."""
        self.thread.start()

    def stop(self) -> None:
        """Call no more; what runs is left to end, or asked to."""
        self.over.set()
        front = self.processes().get("front") if self.loops else None
        if front is not None:
            send_if_there(signal.SIGTERM, front)

    def join(self, seconds: float) -> bool:
        """Wait for the last call to end; whether it did. One that was just made is asked to end again."""
        end = time.monotonic() + seconds
        while self.thread.is_alive() and time.monotonic() < end:
            self.thread.join(1.0)
            self.stop()
        return not self.thread.is_alive()

    def end(self) -> None:
        """SIGKILL what runs, and wait for its end."""
        self.stop()
        while self.thread.is_alive():
            if self.popen is not None:
                for process in (self.popen.pid, *below(self.popen.pid)):
                    send_if_there(signal.SIGKILL, process)
            self.thread.join(0.1)

    def _work(self) -> None:
        while not self.over.is_set():
            key = str(sum(call.status == 0 for call in self.calls))
            try:
                status = self._call(f"{self.number}.{len(self.calls)}", key)
            except OSError as error:
                self.failure = error
                return
            if status:
                self.over.wait(PAUSE)

    def _call(self, run: str, key: str) -> int:
        path = self.directory / f"stderr.{run}"
        with path.open("wb") as file:
            self.popen = subprocess.Popen(
                [*self.wrap, *self.argv(key)],
                cwd=self.directory,
                env={**self.environ, "FAULTS_RUN": run, "FAULTS_KEY": key},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file if self.stderr is None else self.stderr,
                start_new_session=True,
            )
        status = self.popen.wait()
        when = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.calls.append(Call(run, key, status, path.read_text(errors="replace"), when))
        return status

    def processes(self) -> dict[str, int]:
        """The running call's processes by role: front, guard, keeper, command, where there are.

        The front of a peer is the process that was started.
        """
        if self.popen is None or self.popen.poll() is not None:
            return {}
        every = [self.popen.pid, *below(self.popen.pid)]
        found = {"front": self.popen.pid}
        for process in every:
            name = title(process)
            for role in ("front", "guard", "keeper"):
                if name.startswith(f"singleton-run: {role} of "):
                    found[role] = process
        commands = [process for process in every[1:] if COMMAND in title(process)]
        return {**found, "command": commands[0]} if commands else found


def left(directory: Path, lock: str) -> dict[int, str]:
    """What is still there of that round's wrappers and commands: process ids, and what they are called."""
    words = (str(directory), f" of {lock}", f" for {lock}")
    found = {}
    for process in parents():
        name = title(process).replace("\0", " ")
        if process != os.getpid() and any(word in name for word in words) and not gone(process):
            found[process] = name
    return found
