"""`completion SHELL`: the script that makes a shell complete our calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run.call.completion_scripts import SCRIPTS
from singleton_run.call.output import show

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from singleton_run.call.fast_parser import Value


def run(given: Mapping[str, Value], _environ: Mapping[str, str]) -> NoReturn:
    """Print the script, and end."""
    show(SCRIPTS[str(given["shell"])])
