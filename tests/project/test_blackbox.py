"""A file that is tested in place of the tree is what the tests start, and every test left out is there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import blackbox
from tests.support.harness import TREE


@pytest.fixture(scope="module")
def names() -> list[str]:
    """Every test of the parts, as the tables name it."""
    places = sorted({f"tests/{part.partition('::')[0]}" for part in blackbox.PARTS})
    environ = {**os.environ, "SINGLETON_RUN": ""}
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", *places]
    done = subprocess.run(argv, cwd=TREE, env=environ, capture_output=True, text=True, check=True)
    return [line.removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line]


def test_every_part_has_tests_that_are_fit(names: list[str]) -> None:
    fit = [name for name in names if blackbox.is_fit(name)]
    assert [part for part in blackbox.PARTS if not any(name.startswith(part) for name in fit)] == []


def test_every_entry_of_the_tables_means_a_test(names: list[str]) -> None:
    entries = {**blackbox.UNFIT, **blackbox.UNFIT_PARAMETERS}
    assert [entry for entry in entries if not any(blackbox.matches(entry, name) for name in names)] == []
    assert all(entries.values()), "each has its reason"


def test_the_program_is_started_by_the_harness_alone() -> None:
    """Else what is tested would be the tree, whatever file was named."""
    places = ("support/", *(part.partition("::")[0] for part in blackbox.PARTS))
    tests = {path.relative_to(TREE / "tests").as_posix(): path for path in (TREE / "tests").rglob("*.py")}
    texts = {name: path.read_text() for name, path in tests.items() if name.startswith(places)}
    starting = [name for name, text in texts.items() if "-m singleton_run" in text or WORDS in text]
    assert starting == ["support/harness.py"]


WORDS = '"-m", "singleton_run"'
