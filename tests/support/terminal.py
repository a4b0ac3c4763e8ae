"""A real terminal, with something that runs at it in the foreground."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

from tests.support.harness import LIMIT, environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A terminal of 24 rows. `controlling` is False for one whose signals nobody gets."""

    def __init__(
        self,
        argv: list[str],
        directory: Path,
        *,
        controlling: bool = True,
        environ: Mapping[str, str] | None = None,
        columns: int = 60,
    ) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        take = [sys.executable, "-I", "-S", "-c", _TAKE_TERMINAL] if controlling else []
        self.popen = subprocess.Popen(
            [*take, *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=directory,
            env={**environment(TERM="xterm"), **(environ or {})},
            start_new_session=True,
        )
        os.close(slave)
        self.pid = self.popen.pid
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        os.close(self.master)
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(LIMIT)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self.master, text.encode())

    def read(self, seconds: float) -> bool:
        """Take what has come within that time into `shown`; False if nothing has, or will."""
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)

    def shows(self, text: str, times: int = 1) -> None:
        """Wait until a text has been shown so often."""
        end = time.monotonic() + LIMIT
        while self.shown.count(text) < times:
            has_ended = self.popen.poll() is not None  # asked first, for what comes last is read after it
            more = self.read(0.1)
            assert more or not has_ended, (
                f"ended with {self.popen.returncode} without {text!r}: {self.shown!r}"
            )
            assert time.monotonic() < end, f"{text!r} isn't in {self.shown!r}"

    def wait(self) -> int:
        """The exit status, minus a signal's number; what comes meanwhile is read."""
        end = time.monotonic() + LIMIT
        while self.popen.poll() is None:
            self.read(0.05)
            assert time.monotonic() < end, f"still runs: {self.shown!r}"
        while self.read(0):
            pass
        return self.popen.returncode
