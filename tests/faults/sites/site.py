"""What a site is: a place for locks, on a real server, which faults can reach."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.proxy import Proxy

Record = dict[str, Any]


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

    def environ(self) -> dict[str, str]:
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


def faketime() -> str:
    """The path of the library that gives a process another wall clock. Skips without it."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("needs libfaketime: apt-get install faketime")
    return str(found[0])


def with_clock(file: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is off by what `file` says, as in "+3600"."""
    file.write_text("+0\n")
    file.chmod(0o644)
    return {
        "LD_PRELOAD": faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
