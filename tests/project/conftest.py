"""What several tests of the project need: the wheel that it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import standalone
from tests.support.installs import build_wheel, build_wheel_for_linux

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tree for any platform."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def wheel_for_linux(wheel: Path) -> Path:
    """The one whose command is the executable. Skips the test where that can't be built."""
    return build_wheel_for_linux(wheel, standalone.executable())
