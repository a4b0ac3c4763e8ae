"""The programs that are compared, and where to get those that are missing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

PYTHON = sys.executable
OURS = Path(sys.executable).with_name("singleton-run")
PACKAGES = {"flock": "util-linux", "tini": "tini", "dumb-init": "dumb-init"}


def program(name: str) -> str | None:
    """The full path of a program, None if it is not installed."""
    return shutil.which(name)


def advice(name: str) -> str:
    """How to get a program that is missing."""
    if name == OURS.name:
        return "make venv"
    return f"apt-get install {PACKAGES[name]}"


def ours(folder: Path, *command: str) -> list[str] | None:
    """What runs `command` behind singleton-run, its lock in `folder`; None if that is not installed."""
    if not OURS.exists():
        return None
    return [str(OURS), "--lock", f"file://{folder}", "--name", "b", "--", *command]


def flock(folder: Path, *command: str) -> list[str] | None:
    """What runs `command` behind flock, its lock in `folder`; None if that is not installed."""
    path = program("flock")
    return [path, str(folder / "flock"), *command] if path else None
