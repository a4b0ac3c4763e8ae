"""What several tests of the project need: the wheel that it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.installs import build_wheel

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tree."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))
