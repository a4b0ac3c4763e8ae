"""Wall clocks that can be set, each for some of the processes: by libfaketime."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import TREE, environment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.harness import Run

ADVICE = "needs libfaketime: apt-get install faketime"
VIA = f'shift 3; exec "{sys.executable}" "{TREE / "tests" / "support" / "faked.py"}" "$@"'


def library() -> str:
    """The path of libfaketime. Skips the test without one."""
    for folder in (Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib")):
        for path in sorted(
            [*folder.glob("faketime/libfaketime.so.1"), *folder.glob("*/faketime/libfaketime.so.1")]
        ):
            return str(path)
    pytest.skip(ADVICE)


class Clock:
    """A wall clock that is ahead of the true one by some seconds; it can be set at any time.

    What is started with `Lab.start(…, environ=clock.environ(), via=VIA)` goes by it, with all its children.
    The kernel doesn't know of it: whoever waits for somebody to set the clock isn't told.
    """

    def __init__(self, folder: Path, ahead: float = 0.0) -> None:
        self._library = library()
        self._path = folder / f"clock-{id(self)}"
        self.ahead = ahead
        self.set(ahead)

    def set(self, ahead: float) -> None:
        """Let it be ahead by so many seconds from now on."""
        self.ahead = ahead
        new = self._path.with_suffix(".new")
        new.write_text(f"{ahead:+.6f}\n")
        new.rename(self._path)

    def set_to(self, moment: float) -> None:
        """Let it show this moment now, in Unix seconds."""
        self.set(moment - time.time())

    def environ(self, **changes: str) -> dict[str, str]:
        """The environment of a process that goes by it."""
        return environment(
            LD_PRELOAD=self._library,
            FAKETIME_TIMESTAMP_FILE=str(self._path),
            FAKETIME_NO_CACHE="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            NO_FAKE_STAT="1",  # or .pyc files would look too old
            TZ="UTC",
            **changes,
        )


def forget_shared(runs: Iterable[Run]) -> None:
    """Remove what libfaketime has left of processes that ended by themselves, without its leave."""
    for run in runs:
        for name in (f"faketime_shm_{run.pid}", f"sem.faketime_sem_{run.pid}"):
            Path("/dev", "shm", name).unlink(missing_ok=True)
