"""The lane that each test runs in, by its folder or by its own mark; and that it starts nothing else.

`fast` starts no process, `process` starts processes, `servers` real servers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

FAST, PROCESS, SERVERS = LANES = ("fast", "process", "servers")
# By the beginning of the path. What is not named here is of the lane of servers.
_FOLDERS = {
    "unit": FAST,
    "process": PROCESS,
    "images": PROCESS,
    "project": PROCESS,
    "simulation": PROCESS,
    "backends/file": PROCESS,
    "backends/http": PROCESS,
}
_TESTS = Path(__file__).parents[1]
_STARTING = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"}
_current = SERVERS


def lane_of(item: pytest.Item) -> str:
    """The lane that the test, its class or its module is marked with, else that of its folder."""
    for mark in item.iter_markers():
        if mark.name in LANES:
            return mark.name
    path = item.path.relative_to(_TESTS).as_posix()
    return next((lane for folder, lane in _FOLDERS.items() if path.startswith(f"{folder}/")), SERVERS)


def enter(lane: str) -> None:
    """From now on a test of this lane runs in this process."""
    global _current  # noqa: PLW0603 - one test runs at a time
    _current = lane


def forbid_processes_in_fast_tests() -> None:
    """From now on whoever starts a process fails if the test that runs is of the fast lane."""
    import croniter  # noqa: F401 - this import itself starts one: file(1), to know how wide an integer is

    def check(event: str, _: object) -> None:
        assert event not in _STARTING or _current != FAST, "a test of the fast lane starts a process"

    sys.addaudithook(check)


def check_server() -> None:
    """Fail if the test that runs may not start a server."""
    assert _current == SERVERS, "a test that starts a server is marked with `servers`"
