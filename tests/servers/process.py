"""A server's process, whatever the server."""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.support import lanes
from tests.support.harness import stands_still, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Process:
    """It can be stopped for good or for a while, and started again on its data.

    `process` is None before the first start and after a kill. What it says is appended to `log`.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        self._command = command
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self, *settings: str, **how: Any) -> None:
        """Start it with further arguments; it need not serve yet when this returns. `how` is for Popen."""
        lanes.check_server()
        with self._log.open("ab") as log:
            how = {"stdout": log, "stderr": log, **how}
            self.process = subprocess.Popen([*self._command, *settings], **how)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def check(self) -> None:
        """Fail if it has ended."""
        assert self.process is not None
        status = self.process.poll()
        assert status is None, f"{self._command[0]} ended with {status}: {self._log.read_text()[-2000:]}"

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: int) -> None:
        """Send it a signal that ends it, and wait for the end."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(number)
            process.wait()

    def kill(self) -> None:
        """As when the machine fails; it can be started again."""
        self.end(signal.SIGKILL)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP: the kernel still takes connections, nobody answers."""
        self.send(signal.SIGSTOP)
        try:
            # On a busy machine a thread can answer until it has a processor to stop on.
            until(lambda: stands_still(self.pid), "every thread to stop")
            yield
        finally:
            self.send(signal.SIGCONT)
