"""The script that `install` writes starts without site and PYTHON* variables, and finds everything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path

import click
import pytest

from singleton_run.errors import UNUSABLE
from tests.project.test_start import VARIABLES, call
from tests.support.harness import TREE
from tests.support.installs import LAYOUTS, clean, installed, lend_click, put_script

STRANGERS = TREE / "tests" / "example_backends"
NOISE = 'import os; os.write(2, b"the user\'s own code runs\\n")\n'


def with_click(layout: str, wheel: Path, place: Path) -> tuple[Path, dict[str, str]]:
    """`installed`, with click: a subcommand needs it."""
    command, environ = installed(layout, wheel, place)
    lend_click(place)
    return command, environ


def imported(script: Path, locks: Path, environ: dict[str, str]) -> set[str]:
    """The modules that a plain call of the script imports."""
    interpreter, option = script.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#!").split()
    argv = [interpreter, option, "-X", "importtime", str(script), "--lock", f"file://{locks}", "--", "true"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.fixture(scope="module")
def place(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a virtual environment, and in `tools` the script that its command has written."""
    place = tmp_path_factory.mktemp("script") / "place"
    command, environ = with_click("venv", wheel, place)
    put_script(command, place / "tools", environ)
    return place


@pytest.fixture(scope="module")
def script(place: Path) -> Path:
    return place / "tools" / "singleton-run"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_starts_without_site_in(layout: str, wheel: Path, tmp_path: Path) -> None:
    command, environ = with_click(layout, wheel, tmp_path / "place")
    script = put_script(command, tmp_path / "tools", environ)
    done = call(script, tmp_path / "locks", "sh", "-c", "exit 7", environ=environ)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"")
    names = imported(script, tmp_path / "locks", environ)
    assert "singleton_run.late_site" in names
    assert names.isdisjoint({"site", "os"})


def test_an_editable_installation_is_found(tmp_path: Path) -> None:
    tree = os.path.join(os.path.dirname(sys.executable), "singleton-run")
    script = put_script(Path(tree), tmp_path / "tools", clean())
    done = call(script, tmp_path / "locks", "echo", "started", environ=clean())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"started\n", b"")


def test_a_zip_file_is_found(tmp_path: Path) -> None:
    for package in (TREE / "singleton_run", *TREE.glob("backends/*")):
        shutil.copytree(package, tmp_path / "app" / package.name)
    shutil.copytree(Path(click.__file__).parent, tmp_path / "app" / "click")
    zipapp.create_archive(tmp_path / "app", tmp_path / "app.pyz", main="singleton_run.__main__:main")
    (tmp_path / "tools").mkdir()
    install = [sys.executable, str(tmp_path / "app.pyz"), "install", str(tmp_path / "tools")]
    subprocess.run(install, env=clean(), check=True, capture_output=True)
    script = tmp_path / "tools" / "singleton-run"
    done = call(script, tmp_path / "locks", "echo", "started", environ=clean())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"started\n", b"")


def test_a_stranger_s_backend_is_found(place: Path, script: Path, tmp_path: Path) -> None:
    """It is in a folder that only site knows: a .pth file names it."""
    (packages,) = place.glob("venv/lib/python*/site-packages")
    (packages / "strangers.pth").write_text(f"{STRANGERS}\n", encoding="utf-8")
    argv = [str(script), "--lock", f"leasefile://{tmp_path}", "--name", "a", "--", "echo", "started"]
    done = subprocess.run(argv, env=clean(), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"started\n", b"")


def test_what_the_user_s_python_would_run_does_not_run_here(script: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for name in ("sitecustomize.py", "usercustomize.py", "os.py", "start.py"):
        (own / name).write_text(NOISE, encoding="utf-8")
    environ = {**clean(), "PYTHONPATH": str(own), "PYTHONSTARTUP": str(own / "start.py")}
    done = call(script, tmp_path / "locks", "sh", "-c", 'echo "$PYTHONPATH"', environ=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{own}\n".encode(), b"")


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_of_python_is_the_command_s(name: str, script: Path, tmp_path: Path) -> None:
    environ = {**clean(), name: VARIABLES[name]}
    done = call(script, tmp_path / "locks", "sh", "-c", f'echo "${name}"', environ=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{VARIABLES[name]}\n".encode(), b"")


def test_arguments_and_environment_go_on_byte_for_byte(script: Path, tmp_path: Path) -> None:
    odd = {"a.b": os.fsdecode(b"\xff"), "BASH_FUNC_f%%": "() { :; }", "": "no name"}
    environ = {**clean(), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **odd}
    del environ[""]
    done = call(script, tmp_path / "locks", "cat", "/proc/self/environ", environ=environ)
    entries = done.stdout.removesuffix(b"\0").split(b"\0")
    given = [os.fsencode(f"{name}={value}") for name, value in environ.items()]
    assert (done.returncode, done.stderr) == (0, b"")
    assert [entry for entry in entries if not entry.startswith(b"SINGLETON_")] == given
    done = call(script, tmp_path / "locks", "printf", b"\xfe", environ=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\xfe", b"")


def test_it_installs_itself_again(script: Path, tmp_path: Path) -> None:
    again = put_script(script, tmp_path / "tools", clean())
    assert again.read_bytes() == script.read_bytes()


def test_help_and_licences_come_from_it_too(script: Path) -> None:
    for word, said in (("--version", b"singleton-run"), ("licenses", b"Apache License")):
        done = subprocess.run([script, word], env=clean(), capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert said in done.stdout


def test_where_the_package_is_gone_it_is_one_line(wheel: Path, tmp_path: Path) -> None:
    command, environ = with_click("venv", wheel, tmp_path / "place")
    script = put_script(command, tmp_path / "tools", environ)
    (package,) = tmp_path.glob("place/venv/lib/python*/site-packages/singleton_run")
    shutil.rmtree(package)
    done = call(script, tmp_path / "locks", "true", environ=environ)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (UNUSABLE, b"", 1)
    assert done.stderr.startswith(b"singleton-run: No module named 'singleton_run' in ")


@pytest.mark.parametrize("name", ["a blank", "x" * 240])
def test_a_python_that_no_script_can_name_is_one_line(name: str, wheel: Path, tmp_path: Path) -> None:
    command, environ = with_click("venv", wheel, tmp_path / name)
    argv = [str(command.with_name("python")), "-m", "singleton_run", "install", str(tmp_path)]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (UNUSABLE, "", 1)
    assert "call `python -m singleton_run`" in done.stderr
    assert not (tmp_path / "singleton-run").exists()
