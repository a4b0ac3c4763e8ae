"""What the repository says in several places is the same in all of them, and the wheel has everything."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from singleton_run import __version__
from singleton_run.api.registry import BUILT_IN, KERNEL_HELD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = {**KERNEL_HELD, **BUILT_IN}
SHARED = {
    "share/bash-completion/completions/singleton-run",
    "share/zsh/site-functions/_singleton-run",
    "share/fish/vendor_completions.d/singleton-run.fish",
    "share/man/man1/singleton-run.1",
}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))


def _packages(project: dict[str, Any]) -> list[Path]:
    return [ROOT / name for name in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]


def test_backends_are_the_same_in_the_tree_the_wheel_and_the_table(project: dict[str, Any]) -> None:
    folders = {path.name for path in ROOT.glob("backends/*") if path.joinpath("__init__.py").exists()}
    listed = {path.name for path in _packages(project)} - {"singleton_run"}
    assert folders == listed == set(BACKENDS.values())


def test_nothing_makes_the_folder_of_backends_a_package() -> None:
    assert not ROOT.joinpath("backends", "__init__.py").exists()


def test_every_backend_has_an_extra_and_all_names_them_all(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    assert {BACKENDS[extra] for extra in extras if extra in BACKENDS} == set(BACKENDS.values())
    named = {extra for line in extras["all"] for extra in re.findall(r"[\w-]+", line.partition("[")[2])}
    assert named == set(extras) - {"all"}


def test_the_wheel_has_every_file_of_every_package(project: dict[str, Any], wheel: Path) -> None:
    expected = {
        path.relative_to(package.parent).as_posix()
        for package in _packages(project)
        for path in [*package.rglob("*.py"), package / "py.typed"]
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name and ".data/" not in name}
    assert packed == expected


def test_the_wheel_installs_a_command_that_runs_completions_and_man_page(wheel: Path, tmp_path: Path) -> None:
    # --ignore-installed, or pip would take the tree's own installation away for it.
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--ignore-installed"]
    install += ["--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*install, "--prefix", str(tmp_path), str(wheel)], check=True, capture_output=True)
    (package,) = tmp_path.glob("**/singleton_run/__init__.py")
    answer = subprocess.run(
        [tmp_path / "bin" / "singleton-run", "--version"],
        env={**os.environ, "PYTHONPATH": str(package.parent.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert __version__ in answer.stdout
    # Ours, and not one that pip made of an entry point: that imports `re` before us.
    ours = ROOT.joinpath("singleton_run", "data", "singleton-run").read_text(encoding="utf-8")
    installed = tmp_path.joinpath("bin", "singleton-run").read_text(encoding="utf-8")
    assert installed.partition("\n")[2] == ours.partition("\n")[2]
    assert {path for path in SHARED if tmp_path.joinpath(path).exists()} == SHARED


def test_the_changelog_is_headed_by_this_version() -> None:
    headings = re.findall(
        r"^## \[(.+?)\] - (.+)$",
        ROOT.joinpath("CHANGELOG.md").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    version, date = headings[0]
    assert version == __version__
    assert date == "Unreleased" or re.fullmatch(r"\d{4}-\d\d-\d\d", date)


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports when it runs; what only types need is left out."""

    def walk(node: ast.AST) -> Iterator[str]:
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for other in node.orelse:
                    yield from walk(other)
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{alias.name}" for alias in names)
            case _:
                for child in ast.iter_child_nodes(node):
                    yield from walk(child)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")))


def test_a_backend_imports_nothing_of_the_core_but_the_api_and_the_errors() -> None:
    files = list(ROOT.glob("backends/*/*.py"))
    assert files
    for path in files:
        core = [name for name in imported(path) if re.match(r"singleton_run(\.|$)", name)]
        strange = [name for name in core if not re.match(r"singleton_run\.(api|errors)(\.|$)", name)]
        assert strange == [], path


def test_the_core_names_no_backend_but_in_the_registry() -> None:
    """Not by its package, nor by its scheme as a whole word of the program."""
    named = {*BACKENDS, *BACKENDS.values()}
    for path in set(ROOT.glob("singleton_run/**/*.py")) - {ROOT / "singleton_run/api/registry.py"}:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not named & ({name.partition(".")[0] for name in imported(path)} | words), path


def test_the_rooms_of_the_core_import_each_other_in_no_circle() -> None:
    rooms = {path.parent.name for path in ROOT.glob("singleton_run/*/__init__.py")}
    graph: dict[str, set[str]] = {room: set() for room in rooms}
    for room in rooms:
        for path in ROOT.glob(f"singleton_run/{room}/**/*.py"):
            for name in imported(path):
                other = name.split(".")[1] if name.startswith("singleton_run.") else ""
                graph[room] |= {other} & rooms - {room}
    assert graph["front"]
    assert list(TopologicalSorter(graph).static_order())


MOST_LINES, MOST_ATTRIBUTES = 45, 20


def too_large(tree: ast.AST) -> Iterator[str]:
    """The functions and classes in which one can't see what they do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > MOST_LINES:
                yield f"{node.name} has {lines} lines"
        elif isinstance(node, ast.ClassDef):
            stored = (
                part.attr
                for part in ast.walk(node)
                if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store)
                if isinstance(part.value, ast.Name) and part.value.id == "self"
            )
            attributes = len(set(stored))
            if attributes > MOST_ATTRIBUTES:
                yield f"{node.name} has {attributes} attributes"


def test_what_is_too_large_is_seen() -> None:
    body = "\n".join(f"        self.a{number} = {number}" for number in range(MOST_ATTRIBUTES + 1))
    assert list(too_large(ast.parse(f"class A:\n    def __init__(self):\n{body}"))) == ["A has 21 attributes"]
    body = "\n".join("    pass" for _ in range(MOST_LINES))
    assert list(too_large(ast.parse(f"def f():\n{body}"))) == ["f has 46 lines"]


def test_no_function_and_no_class_is_too_large() -> None:
    files = [*ROOT.glob("singleton_run/**/*.py"), *ROOT.glob("backends/*/*.py")]
    assert files
    for path in files:
        assert list(too_large(ast.parse(path.read_text(encoding="utf-8")))) == [], path
