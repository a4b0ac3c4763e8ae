"""What a site is: a place for locks, on a real server, which faults can reach."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.proxy import Proxy

Record = dict[str, Any]
CLOCK = Path(__file__).with_name("clock.c")


class Site:
    """One place for locks. `leased` is false where the kernel frees a lock with its last holder.

    `proxies` are before the server, one for each contender. `heal` undoes whatever was done to the
    server; every other method breaks something, and those that a site doesn't have can't happen there.
    """

    leased = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.proxies: list[Proxy] = []

    def lock(self, contender: int, round_directory: Path) -> str:
        """The lock's URL for one contender."""
        raise NotImplementedError

    def environ(self, contender: int) -> dict[str, str]:
        """What the wrapper needs to know besides."""
        return {}

    def heal(self) -> None:
        """The server serves, as at the beginning, on the data that it had."""

    def record(self, name: str, round_directory: Path) -> Record:
        """The lock's record; empty if there is none."""
        raise NotImplementedError


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """A file system of that size, mounted at a folder that is made. Skips where that isn't allowed."""
    need_root("to mount a small file system")
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    """Leave no room there; the file that has to go to make room again."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def need_root(why: str) -> None:
    """Skip unless we are root."""
    if os.geteuid():
        pytest.skip(f"needs root {why}: sudo make faults")


def with_clock(file: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is off by the seconds that `file` says.

    Its other clocks and its timers are as they are, which libfaketime doesn't leave alone. Skips
    where there is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler: apt-get install gcc libc6-dev")
    library = file.with_name("clock.so")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, CLOCK], check=True)
    library.chmod(0o755)
    file.write_text("0\n")
    file.chmod(0o644)
    return {"LD_PRELOAD": str(library), "FAULTS_CLOCK": str(file)}
