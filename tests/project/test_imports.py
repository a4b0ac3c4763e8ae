"""What is imported on the way to the command: every module there costs milliseconds."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import LONG, TREE, Lab, environment, until

if TYPE_CHECKING:
    from pathlib import Path

# Written on PYTHONPATH, where every Python process imports it at its start: as a process of ours ends, by
# os._exit, it writes down what it had imported.
WATCHER = """
import os, posix, sys
_exit = os._exit
def note():
    with open("/proc/self/cmdline") as file:
        title = file.read().rstrip(chr(0))
    if title.startswith("singleton-run: "):
        with open(os.path.join({directory!r}, title.split()[1] + "." + str(os.getpid())), "w") as file:
            file.write(chr(10).join(sys.modules))
def exit(status):
    note()
    _exit(status)
os._exit = posix._exit = exit
"""
HEAVY = {
    "_pytest",
    "argparse",
    "asyncio",
    "click",
    "collections",
    "contextlib",
    "croniter",
    "ctypes",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "http",
    "importlib.metadata",
    "inspect",
    "json",
    "logging",
    "pathlib",
    "re",
    "rich",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "typing",
}
BACKENDS = {
    "singleton_run_file",
    "singleton_run_leasefile",
    "singleton_run.keeper.process",
}


def imported(lab: Lab, *options: str) -> dict[str, set[str]]:
    """What each of our processes had imported when it ended, by its role."""
    directory = lab.directory / "imports"
    directory.mkdir()
    (lab.directory / "sitecustomize.py").write_text(WATCHER.format(directory=str(directory)))
    environ = environment()
    environ["PYTHONPATH"] = f"{lab.directory}:{environ['PYTHONPATH']}"
    argv = lab.argv("--ttl", LONG, *options, command=["true"])
    argv[1:3] = [str(TREE / "singleton_run" / "data" / "singleton-run")]
    done = subprocess.run(argv, env=environ, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr
    until(lambda: not lab.left(), "all of our processes to end")
    return {file.name.partition(".")[0]: set(file.read_text().split()) for file in directory.iterdir()}


def heavy(modules: set[str]) -> set[str]:
    """Those modules that nobody should pay for, without what this Python imports for any program."""
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, check=True
    )
    own = modules - set(bare.stdout.decode().split())
    return {name for name in own if name in HEAVY or name.partition(".")[0] in HEAVY}


def test_a_plain_call_on_a_file_imports_nothing_heavy(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        found = imported(lab)
    assert found.keys() == {"front", "guard"}
    for modules in found.values():
        assert heavy(modules) == set()
        assert modules & BACKENDS <= {"singleton_run_file"}
        assert "singleton_run.call.click_parser" not in modules
        assert "singleton_run.report.writer" not in modules


def test_no_more_is_imported_for_a_trace_that_is_not_asked_for(tmp_path: Path) -> None:
    with Lab(tmp_path, "leasefile") as lab:
        found = imported(lab, "-v")
    assert found.keys() == {"front", "guard", "keeper", "writer"}
    assert "singleton_run.report.trace" not in set.union(*found.values())


def test_front_and_guard_import_no_backend(tmp_path: Path) -> None:
    with Lab(tmp_path, "leasefile") as lab:
        found = imported(lab)
    assert found.keys() == {"front", "guard", "keeper"}
    for role in ("front", "guard"):
        assert heavy(found[role]) == set()
        assert found[role] & BACKENDS == set()
    assert "singleton_run_leasefile" in found["keeper"]
    assert "singleton_run_file" not in found["keeper"]


def test_what_is_said_is_imported_by_the_writer_alone(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        found = imported(lab, "-vv")
    assert found.keys() == {"front", "guard", "writer"}
    assert "singleton_run.report.writer" in found["writer"]
    assert heavy(found["front"] | found["guard"] | found["writer"]) == set()
    assert "singleton_run.report.writer" not in found["front"] | found["guard"]


@pytest.mark.parametrize("option", ["--wait=1m", "-q", "-vn", "--log-format=json"])
def test_options_do_not_make_it_heavier(tmp_path: Path, option: str) -> None:
    with Lab(tmp_path) as lab:
        found = imported(lab, option)
    assert heavy(found["front"] | found["guard"]) == set()


def test_what_the_reader_does_not_know_is_what_imports_click(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        found = imported(lab, "-E75")
    assert "click" in found["front"]


def test_the_version_is_printed_without_click() -> None:
    def told(word: str) -> str:
        argv = [sys.executable, "-X", "importtime", "-m", "singleton_run", word]
        return subprocess.run(argv, cwd=TREE, capture_output=True, text=True, check=True).stderr

    assert "click" in told("--help")
    assert "click" not in told("--version")
