"""The quick loader loads what a plain call needs, as the import statement does, and nothing stale."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from singleton_run import preload
from singleton_run.api.registry import LOADED_FIRST
from tests.support.harness import TREE, environment

if TYPE_CHECKING:
    from pathlib import Path

# What is imported before there is a loader.
ORDINARY = {"singleton_run", "singleton_run.__main__", "singleton_run.preload", "singleton_run.errors"}
FILE = LOADED_FIRST["singleton_run_file"]
LISTED = (*preload.CALL, *preload.TURN, *FILE, "singleton_run_file.__init__")
KEPT = {
    kind: (*preload.KEEPER, *LOADED_FIRST[f"singleton_run_{kind}"], f"singleton_run_{kind}.__init__")
    for kind in ("etcd", "k8s")
}
OPEN = """if True:
    import sys
    from singleton_run import errors, preload
    preload.load((*preload.CALL, *preload.TURN))
    from singleton_run.front import keeper_handle
    from singleton_run.api import registry
    preload.load(preload.KEEPER)
    from singleton_run.keeper import process
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}
    registry.open_backend(sys.argv[1], environ)
"""
DESCRIBE = """if True:
    import importlib, sys
    from singleton_run import errors, preload
    if sys.argv[1] == "quickly":
        preload.load(preload.CALL + preload.TURN + preload.KEEPER)
        for package, modules in sys.modules["singleton_run.api.registry"].LOADED_FIRST.items():
            preload.load([f"{package}.__init__"], modules)
        print({name.removesuffix(".__init__") for name in sys.argv[2:]} - set(sys.modules), file=sys.stderr)
    for module in [importlib.import_module(name.removesuffix(".__init__")) for name in sys.argv[2:]]:
        above, _, last = module.__name__.rpartition(".")
        spec, loader = module.__spec__, module.__loader__
        del module.__builtins__
        facts = {**vars(module), "__spec__": vars(spec), "__loader__": vars(loader)}
        facts["__spec__"].update(loader=type(loader), _initializing=False)
        print(module, spec.cached, spec.parent, loader.path, sorted(facts))
        print(*(f"{name}={facts[name]}" for name in sorted(facts) if name[:2] == "__"))
        print(not above or getattr(sys.modules[above], last) is module)
"""
# CPython has a frozen package to try such things on.
DESCRIBE_FROZEN = """if True:
    import importlib, sys
    from singleton_run import preload
    names = ("__phello__.__init__", "__phello__.spam")
    if sys.argv[1] == "quickly":
        preload._IS_FROZEN = True
        preload.load(("nowhere", *names))
    for module in [importlib.import_module(name.removesuffix(".__init__")) for name in names]:
        above, _, last = module.__name__.rpartition(".")
        spec = module.__spec__
        print(module.__name__, module.__package__, hasattr(module, "__path__"), module.__loader__)
        print(spec.name, spec.origin, spec.loader, spec.parent, spec.has_location, spec.cached)
        print(not above or getattr(sys.modules[above], last) is module)
    print(preload._IS_FROZEN, file=sys.stderr)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages, compiled."""
    backends = (TREE / "backends" / f"singleton_run_{name}" for name in ("etcd", "file", "k8s"))
    for package in (TREE / "singleton_run", *backends):
        shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(tmp_path)], check=True)
    return tmp_path


def run(tree: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    locks = tree / "locks"
    locks.mkdir(mode=0o700, exist_ok=True)
    return subprocess.run(
        [sys.executable, *words, "-m", "singleton_run", "--lock", f"file://{locks}", "--", "true"],
        cwd=tree,
        env=environment(PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1", **variables),
        capture_output=True,
        text=True,
        check=False,
    )


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Our modules that the import statement loaded, by what `-X importtime` wrote."""
    assert done.returncode == 0, done.stderr
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    return {name for name in names if name.startswith("singleton_run")}


def names() -> set[str]:
    return {name.removesuffix(".__init__") for name in LISTED}


def test_a_plain_call_needs_what_is_listed_and_nothing_else(tree: Path) -> None:
    quickly = imported(run(tree, "-X", "importtime"))
    assert quickly <= ORDINARY
    slowly = imported(run(tree, "-X", "importtime", PYTHONPYCACHEPREFIX=str(tree / "elsewhere")))
    assert slowly | ORDINARY == names() | ORDINARY


@pytest.mark.parametrize("kind", KEPT)
def test_a_keeper_needs_what_is_listed_and_nothing_else(kind: str, tree: Path) -> None:
    (tree / "token").write_text("secret")  # all that a login in a pod needs to begin
    url = "etcd://127.0.0.1:2379" if kind == "etcd" else f"k8s-lease://jobs?service-account={tree}"

    def opened(**variables: str) -> set[str]:
        argv = [sys.executable, "-X", "importtime", "-c", OPEN, url]
        environ = environment(PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1", **variables)
        done = subprocess.run(argv, cwd=tree, env=environ, capture_output=True, text=True, check=False)
        return imported(done)

    others = {*ORDINARY, "singleton_run.front.keeper_handle"}
    assert opened() <= others
    slowly = opened(PYTHONPYCACHEPREFIX=str(tree / "elsewhere"))
    assert slowly - names() - others == {name.removesuffix(".__init__") for name in KEPT[kind]}


def test_a_module_is_what_the_import_statement_makes_of_it(tree: Path) -> None:
    environ = environment(PYTHONPATH=str(tree))
    every = dict.fromkeys((*LISTED, *(name for kept in KEPT.values() for name in kept)))
    quickly, slowly = (
        subprocess.run(
            [sys.executable, "-c", DESCRIBE, how, *every],
            cwd=tree,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        for how in ("quickly", "slowly")
    )
    assert quickly.stderr == "set()\n"
    assert quickly.stdout.splitlines() == slowly.stdout.splitlines()


def test_a_frozen_module_is_what_the_import_statement_makes_of_it() -> None:
    quickly, slowly = (
        subprocess.run(
            [sys.executable, "-c", DESCRIBE_FROZEN, how],
            env=environment(PYTHONPATH=str(TREE)),
            capture_output=True,
            text=True,
            check=True,
        )
        for how in ("quickly", "slowly")
    )
    assert (quickly.stderr, slowly.stderr) == ("True\n", "False\n")
    without_addresses = [re.sub(r" at 0x\w+", "", done.stdout) for done in (quickly, slowly)]
    assert "__phello__.spam __phello__ False" in without_addresses[0]
    assert without_addresses[0] == without_addresses[1]


@pytest.mark.parametrize("time", ["other", "same"])
def test_an_edited_source_is_what_runs(tree: Path, time: str) -> None:
    source = tree / "singleton_run" / "call" / "executable.py"
    before = source.stat()
    edited = "raise SystemExit(7)\n"
    source.write_text(edited if time == "same" else edited.ljust(before.st_size, "#"))
    os.utime(source, (before.st_atime, before.st_mtime + 10 * (time == "other")))
    assert (source.stat().st_size == before.st_size) == (time == "other")
    assert run(tree).returncode == 7


@pytest.mark.parametrize("how", ["none", "cut", "unchecked", "-O", "another Python's"])
def test_whatever_the_compiled_files_are_it_runs(tree: Path, how: str) -> None:
    compiled = list(tree.rglob("*.pyc"))
    assert len(compiled) > len(LISTED)
    for path in compiled:
        if how == "none":
            path.unlink()
        elif how == "cut":
            path.write_bytes(path.read_bytes()[:12])
        elif how == "another Python's":
            path.write_bytes(bytes(4) + path.read_bytes()[4:])
    if how == "unchecked":
        compileall = [sys.executable, "-m", "compileall", "-qf", "--invalidation-mode", "unchecked-hash"]
        subprocess.run([*compileall, str(tree)], check=True)
    done = run(tree, *(["-O"] if how == "-O" else []))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
