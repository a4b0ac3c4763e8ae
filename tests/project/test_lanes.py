"""A test is held to its lane."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.servers.process import Process
from tests.support import lanes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _back() -> Iterator[None]:
    """At the end the lane is this test's own again: fixtures may start what they like."""
    yield
    lanes.enter(lanes.PROCESS)


def test_a_fast_test_that_starts_a_process_fails() -> None:
    lanes.enter(lanes.FAST)
    with pytest.raises(AssertionError, match="fast lane"):
        subprocess.run([sys.executable, "-c", ""], check=True)


@pytest.mark.parametrize("lane", [lanes.FAST, lanes.PROCESS])
def test_outside_its_lane_a_test_that_starts_a_server_fails(tmp_path: Path, lane: str) -> None:
    lanes.enter(lane)
    with pytest.raises(AssertionError, match="servers"):
        Process(["true"], tmp_path / "log").begin()


def test_a_test_has_the_lane_of_its_folder_unless_it_is_marked(request: pytest.FixtureRequest) -> None:
    assert lanes.lane_of(request.node) == lanes.PROCESS
    request.node.add_marker(lanes.SERVERS, append=False)
    assert lanes.lane_of(request.node) == lanes.SERVERS
