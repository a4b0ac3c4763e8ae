"""The executable that needs no Python, of this tree, for tests."""

from __future__ import annotations

import os
import shutil
from functools import cache
from typing import TYPE_CHECKING

import build
import pytest

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = "x86_64"
SOMEBODY = 12345
"""A user and a group that have no names."""
ADVICE = (
    "needs the executable's base: `make standalone` builds it (as root on Debian 12 or later, 10 minutes)"
)


@cache
def folder() -> Path:
    """Where the executable, its importer and all that is made beside it are. Skips the test without it."""
    if not build.is_kept(MACHINE):
        pytest.skip(ADVICE)
    return build.finished(MACHINE)


def executable() -> Path:
    """Its path. Skips the test without it."""
    return folder() / build.name_of(MACHINE)


def put(root: Path) -> Path:
    """A root directory with nothing but the executable, as /singleton-run, and SOMEBODY's own /locks."""
    (root / "locks").mkdir(mode=0o755, parents=True)
    os.chown(root / "locks", SOMEBODY, SOMEBODY)
    shutil.copy(executable(), root / "singleton-run")
    (root / "singleton-run").chmod(0o755)
    return root
