"""The installed command starts wherever the wheel is put, and passes on what it was started with."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.installs import LAYOUTS, clean, installed

if TYPE_CHECKING:
    from pathlib import Path

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
