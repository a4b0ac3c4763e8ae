"""Builds the wheel, and installs it in each of the ways in which people do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from tests.support.harness import TREE

LAYOUTS = ("venv", "link", "user", "long")
"""A virtual environment, a link to its command as pipx makes it, the user's own site, a path of 200 bytes."""


def clean() -> dict[str, str]:
    """Our environment without variables of Python and of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SINGLETON"))}


def build_wheel(folder: Path) -> Path:
    """The wheel of the tree, built without a network by the hatchling of the group `dev`."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=TREE, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def build_wheel_for_linux(wheel: Path, executable: Path) -> Path:
    """The wheel whose command is the executable, made of the wheel for any platform, beside that."""
    make = [sys.executable, str(TREE / "packaging" / "wheel.py"), str(wheel), str(executable)]
    done = subprocess.run(make, check=True, capture_output=True, text=True)
    return Path(done.stdout.removesuffix("\n"))


def installed(layout: str, wheel: Path, place: Path) -> tuple[Path, dict[str, str]]:
    """The command, installed in that way in a new folder, and the environment in which it is found."""
    place.mkdir()
    environ = clean()
    # The kernel takes a first line of 255 bytes; before Linux 5.1 it took 127.
    venv = place / ("x" * (200 - len(bytes(place))) if layout == "long" else "venv")
    shared = ["--system-site-packages"] if layout == "user" else []
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", *shared, venv], check=True, env=environ)
    install = ["install", "--quiet", "--no-index", "--no-deps", "--ignore-installed"]
    command = venv / "bin" / "singleton-run"
    if layout == "user":
        environ["PYTHONUSERBASE"] = str(place / "user")
        install.append("--user")
        command = place / "user" / "bin" / "singleton-run"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        str(venv / "bin" / "python"),
    ]
    subprocess.run([*pip, *install, str(wheel)], check=True, env=environ)
    if layout == "link":
        link = place / "singleton-run"
        link.symlink_to(command)
        command = link
    return command, environ


def lend_click(place: Path) -> list[Path]:
    """Have click and the like found by what was installed in `place`: a subcommand needs them.

    Returns the files that do it.
    """
    lent = [folder / "lent.pth" for folder in place.glob("*/lib/python*/site-packages")]
    for file in lent:
        file.write_text(f"{Path(click.__file__).parents[1]}\n", encoding="utf-8")
    return lent


def put_script(command: Path, folder: Path, environ: dict[str, str]) -> Path:
    """The script that this command puts into a new folder."""
    folder.mkdir()
    subprocess.run([command, "install", folder], check=True, capture_output=True, env=environ)
    return folder / "singleton-run"
