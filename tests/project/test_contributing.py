"""What is written for contributors is so: targets, paths, hooks, workflows, and the locked packages."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project import packages

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
LOCK = (ROOT / "constraints.txt").read_text(encoding="utf-8")
NAMES_TARGETS = [*WORKFLOWS, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", ".ci/run"))]
NAMES_TARGETS += sorted(ROOT.glob("docs/*.md"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE, flags=re.MULTILINE))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def steps(path: Path) -> list[dict[str, Any]]:
    """Every step of a workflow."""
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def pinned() -> dict[str, str]:
    """The packages of the lock, and what stands there of each."""
    parts = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    return {part.partition("==")[0].partition("[")[0]: part for part in parts}


@pytest.mark.parametrize("path", NAMES_TARGETS, ids=relative)
def test_targets_of_make_that_a_file_names_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"(?:`|run: |CI=true |/\.cache\" |^)make ([a-z0-9-]+)", text, flags=re.MULTILINE)
    assert set(named) <= TARGETS
    assert named or path.parent.name == "docs"


def test_make_help_prints_every_target_for_people() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    printed = {line.split()[1] for line in done.stdout.splitlines()}
    (phony,) = re.findall(r"^\.PHONY: (.*?[^\\])$", MAKEFILE, flags=re.MULTILINE | re.DOTALL)
    assert printed == TARGETS == set(phony.replace("\\\n", " ").split())


@pytest.mark.parametrize("path", WORKFLOWS, ids=relative)
def test_a_workflow_has_rights_limits_and_steps(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"]
    assert all(0 < job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())
    assert all(("run" in step) != ("uses" in step) for step in steps(path))


def test_the_hosted_tests_run_every_lane_and_every_python() -> None:
    (path,) = [path for path in WORKFLOWS if path.stem == "tests"]
    runs = "\n".join(step.get("run", "") for step in steps(path))
    assert set(re.findall(r"make (test-[a-z]+)", runs)) == {name for name in TARGETS if name[:5] == "test-"}
    pythons = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]["fast"]["strategy"]["matrix"]["python"]
    requires = tomllib.loads(packages.PROJECT.read_text(encoding="utf-8"))["project"]["requires-python"]
    assert requires == f">= {pythons[0]}"
    assert pythons == [f"3.{minor}" for minor in range(11, 11 + len(pythons))]


def test_hooks_before_a_commit_are_of_the_tree_alone() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert {repository["repo"] for repository in config["repos"]} == {"local"}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks)
    assert {hook["entry"].split()[0].rpartition("/")[2] for hook in hooks} == {"ruff", "mypy"}


def test_paths_that_the_contributors_page_names_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:singleton_run|tests|backends|docs)/[\w/.]*)`", text)
    assert len(named) > 8
    assert [path for path in named if not (ROOT / path).exists()] == []


# The locked packages.


def test_every_package_of_the_lock_has_one_version_and_hashes_and_no_address() -> None:
    assert LOCK.startswith("# Python 3.11: written by `make lock`\n")
    assert "://" not in LOCK
    assert " @ " not in LOCK
    for text in pinned().values():
        assert re.match(
            r"[\w-]+(\[[\w,-]+\])?==[\w.]+( ; [^\\]+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+", text
        )


def test_the_lock_has_every_package_that_pyproject_names() -> None:
    project = tomllib.loads(packages.PROJECT.read_text(encoding="utf-8"))
    named = {re.split(r"[^\w-]", line, maxsplit=1)[0].lower() for line in packages.of_all(project)}
    assert named <= set(pinned())


def test_a_lock_for_another_python_does_not_fit(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(f"{packages.HEAD}\nruff==1\n")
    assert packages.fits(lock)
    lock.write_text("# Python 3.1: written by `make lock`\n")
    assert not packages.fits(lock)


def test_make_is_told_the_packages_by_a_python_that_has_none() -> None:
    ask = [sys.executable, "-I", "-S", "tests/project/packages.py", "group", "dev"]
    done = subprocess.run(ask, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "pytest-xdist >= 3.8, < 4" in done.stdout.splitlines()
