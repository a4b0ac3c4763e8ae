"""The same line under a lock in etcd and in Postgres, two terminals in one; `make demo` calls it.

The servers are started for it, and nothing of them or of us stays behind. One that can't be had is left out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import etcd, postgres
from tests.support.harness import below, environment, gone, title, until

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPT = 'echo "deploys, token $SINGLETON_TOKEN; Enter ends it"; read -r _; echo "is done"'
OURS = "singleton-run: "
PATIENCE = 20.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHOWN = "singleton-run --lock {} --name deploy -- ./deploy.sh"


came: list[int] = []
"""The signals that ask us to end. They are only noted, so that none interrupts what cleans up."""


def go_on() -> None:
    """Exit if we were asked to end."""
    if came:
        sys.exit(128 + came[0])


class Terminal:
    """A line that runs as in a terminal of its own; what it prints comes out with a label before it."""

    def __init__(self, label: str, argv: Sequence[str]) -> None:
        self._label = label
        self._heard: list[tuple[float, str]] = []
        self._started: list[int] = []
        self._process = subprocess.Popen(
            argv,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._copy)
        self._reader.start()

    def _copy(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._heard.append((time.monotonic(), line))
            print(f"[{self._label}] {line}", end="", flush=True)

    def hears(self, text: str) -> float:
        """Wait until it prints that; when it did, in seconds."""

        def look() -> float:
            go_on()
            over = not self._reader.is_alive()
            found = [when for when, line in self._heard if text in line]
            assert found or not over, f"{self._label} has ended without {text!r}"
            return found[0] if found else 0.0

        return until(look, f"{text!r} from {self._label}")

    def kill(self) -> float:
        """`kill -9` of the wrapper; when, in seconds."""
        self._started = below(self._process.pid)
        print(f"    kill -9 {self._process.pid}", flush=True)
        now = time.monotonic()
        self._process.kill()
        return now

    def runs_on(self) -> list[str]:
        """What there was when the wrapper was killed, is none of its own, and still is there."""
        titles = [title(process) for process in self._started]
        return [shown for shown in titles if shown and not shown.startswith(OURS)]

    def enter(self) -> None:
        """Press Enter, and wait until it has ended well."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        status = self._process.wait(PATIENCE)
        assert status == 0, f"{self._label} ended with {status}"

    def close(self) -> None:
        """Have it end, and wait until nothing of it is left."""
        if self._process.poll() is None:
            self._started = below(self._process.pid)
            self._process.terminate()
        try:
            self._process.wait(PATIENCE)
            until(lambda: all(map(gone, self._started)), f"the end of all that {self._label} has started")
        finally:
            for process in (self._process.pid, *self._started):
                if not gone(process):
                    os.kill(process, signal.SIGKILL)
            self._reader.join()


def show(server: str, lock: str) -> None:
    """A runs, B waits, A's wrapper is killed, B runs."""
    print(f"\n== The same line, the lock in {server} ==")
    shown = lock.partition("?")[0]
    print(f"$ {SHOWN.format(shown)}", flush=True)
    argv = ["singleton-run", "--lock", lock, "--name", "deploy", "--", "sh", "-c", SCRIPT]
    with ExitStack() as stack:
        terminals = []
        for label, sign in (("A", "deploys"), ("B", "waiting for lock")):
            terminals.append(Terminal(label, argv))
            stack.callback(terminals[-1].close)
            terminals[-1].hears(sign)
        first, second = terminals
        killed = first.kill()
        started = second.hears("deploys")
        assert not first.runs_on(), f"of A's command there still is {first.runs_on()}"
        after = round((started - killed) * 1000)
        print(f"    A's command is gone, and B's has started, {after} ms after the kill", flush=True)
        second.enter()


def show_etcd() -> None:
    """With an etcd of its own."""
    with tempfile.TemporaryDirectory(prefix="singleton-run-") as folder, etcd.running(Path(folder)) as server:
        show("etcd", f"etcd://{server.address}")


def show_postgres() -> None:
    """With a PostgreSQL of its own."""
    with postgres.running() as server:
        show("Postgres", server.url)


def play() -> None:
    """Show it with each server that can be had."""
    for each in (show_etcd, show_postgres):
        try:
            go_on()
            each()
        except pytest.skip.Exception as missing:
            print(f"\n== Left out: {missing} ==", flush=True)
        except (AssertionError, subprocess.TimeoutExpired) as failure:
            sys.exit(f"demo: {failure}")


def main() -> None:
    """Play in a session of its own, or Ctrl-C would end the servers before those who need them to end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    player = os.fork()
    if not player:
        os.setsid()
    for number in SIGNALS:
        signal.signal(number, lambda number, _: os.kill(player, number) if player else came.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if not player:
        play()
        return
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(player, 0)[1]))


if __name__ == "__main__":
    main()
