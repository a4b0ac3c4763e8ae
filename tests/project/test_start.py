"""The installed command starts wherever the wheel is put, and passes on what it was started with."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

LAYOUTS = ["venv", "link", "user", "long"]
# All else of the core is loaded by `preload`.
ORDINARY = {"singleton_run", "singleton_run.__main__", "singleton_run.preload", "singleton_run.errors"}
VARIABLES = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "7",
    "PYTHONINSPECT": "1",
    "PYTHONIOENCODING": "ascii",
    "PYTHONNOUSERSITE": "1",
    "PYTHONOPTIMIZE": "2",
    "PYTHONPYCACHEPREFIX": "/nonexistent",
    "PYTHONSAFEPATH": "1",
    "PYTHONSTARTUP": "/nonexistent",
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "0",
    "PYTHONWARNINGS": "error",
}


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SINGLETON"))}


def installed(layout: str, wheel: Path, place: Path) -> tuple[Path, dict[str, str]]:
    """The command, installed in that way, and the environment in which it is found."""
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


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in a virtual environment."""
    return installed("venv", wheel, tmp_path_factory.mktemp("start") / "place")[0]


def call(
    command: Path, locks: Path, *words: str | bytes, environ: dict[str, str]
) -> subprocess.CompletedProcess[bytes]:
    locks.mkdir(mode=0o700, exist_ok=True)
    argv = [str(command), "--lock", f"file://{locks}", "--name", "a", "--", *words]
    return subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_starts_and_loads_quickly_in(layout: str, wheel: Path, tmp_path: Path) -> None:
    command, environ = installed(layout, wheel, tmp_path / "place")
    done = call(command, tmp_path / "locks", "sh", "-c", "exit 7", environ=environ)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"")
    environ["PYTHONPROFILEIMPORTTIME"] = "1"
    told = call(command, tmp_path / "locks", "true", environ=environ).stderr.decode()
    names = {line.rpartition("|")[2].strip() for line in told.splitlines()}
    assert {name for name in names if name.partition(".")[0] == "singleton_run"} == ORDINARY


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_of_python_is_the_command_s(name: str, venv: Path, tmp_path: Path) -> None:
    environ = {**clean(), name: VARIABLES[name]}
    done = call(venv, tmp_path / "locks", "sh", "-c", f'echo "${name}"', environ=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{VARIABLES[name]}\n".encode(), b"")


def test_arguments_and_environment_go_on_byte_for_byte(venv: Path, tmp_path: Path) -> None:
    environ = {
        **clean(),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "a.b": os.fsdecode(b"\xff"),
        "BASH_FUNC_f%%": "() { :; }",
    }
    done = call(venv, tmp_path / "locks", "cat", "/proc/self/environ", environ=environ)
    entries = done.stdout.removesuffix(b"\0").split(b"\0")
    given = [os.fsencode(f"{name}={value}") for name, value in environ.items()]
    assert (done.returncode, done.stderr) == (0, b"")
    assert [entry for entry in entries if not entry.startswith(b"SINGLETON_")] == given
    done = call(venv, tmp_path / "locks", "printf", b"\xfe", environ=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\xfe", b"")
