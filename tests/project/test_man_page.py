"""The man page is up to date, has all that there is, and is read without a complaint."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from docs.man_page import page
from singleton_run.call.help_texts import TOLD
from singleton_run.call.options import OPTIONS
from singleton_run.call.subcommands import SUBCOMMANDS
from tests.project.test_readme import command_variables, table

PAGE = Path(__file__).parents[2] / "docs" / "singleton-run.1"
SECTIONS = "NAME SYNOPSIS DESCRIPTION OPTIONS SUBCOMMANDS ENVIRONMENT EXIT_STATUS FILES EXAMPLES SEE_ALSO"


def test_the_file_is_what_make_man_writes() -> None:
    assert PAGE.read_text() == page()


def test_the_variables_are_those_that_a_command_gets() -> None:
    assert {word for word, _ in TOLD} == command_variables()


def shown() -> str:
    """The page as a person reads it, on lines that are long enough for everything."""
    if shutil.which("mandoc") is None:
        pytest.skip("needs mandoc: apt-get install mandoc")
    read = ["mandoc", "-T", "ascii", "-O", "width=1000", str(PAGE)]
    done = subprocess.run(read, capture_output=True, text=True, check=True)
    col = subprocess.run(["sed", "s/.\x08//g"], input=done.stdout, capture_output=True, text=True, check=True)
    return col.stdout


def test_no_reader_complains() -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("needs mandoc: apt-get install mandoc")
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(PAGE)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_reader_sees_all_there_is() -> None:
    text = shown()
    headings = [line for line in text.splitlines() if line and line[0] != " "][1:-1]
    assert headings == [word.replace("_", " ") for word in SECTIONS.split()]
    for option in OPTIONS:
        assert f"{', '.join(option.flags)} {option.metavar}".strip() in text
        assert option.help in text
    for subcommand in SUBCOMMANDS:
        words = [subcommand.name, *(argument.name.upper() for argument in subcommand.arguments)]
        assert " ".join(words) in text.replace("[", "").replace("]", "")
        assert subcommand.help in text
        assert all(line in text for line, _ in subcommand.examples)


def test_it_has_the_statuses_of_the_readme() -> None:
    text = shown().partition("\nEXIT STATUS\n")[2].partition("\nFILES\n")[0]
    for row in table("Exit status")[1:]:
        assert row[0] in text
