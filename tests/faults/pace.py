"""How quick the machine is during a round: what a bare interpreter takes to start."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time

SLOW = 0.1
"""Seconds, in the median: several times what is usual. A slot of two seconds may be lost to that alone."""


class Pace(threading.Thread):
    """Starts an interpreter every second, until `typical` is asked for."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        self._times: list[float] = []

    def run(self) -> None:
        """See the class."""
        while not self._over.is_set():
            began = time.monotonic()
            subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=False)
            self._times.append(time.monotonic() - began)
            self._over.wait(1.0)

    def typical(self) -> float:
        """The median of the times up to now, in seconds."""
        self._over.set()
        self.join()
        return statistics.median(self._times)
