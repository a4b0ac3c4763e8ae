"""`status [NAME]`: who holds a lock, since when, how its last runs went, and what comes next."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from singleton_run.api.contract import Look
from singleton_run.call.output import refuse
from singleton_run.commands import facts, lines
from singleton_run.commands.connection import LIMIT, address, checked_name, opened
from singleton_run.commands.looking import look_at
from singleton_run.commands.showing import answer
from singleton_run.commands.wording import zone_of
from singleton_run.errors import NOT_HELD

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from rich.console import RenderableType

    from singleton_run.call.fast_parser import Value


def run(given: Mapping[str, Value], environ: Mapping[str, str]) -> NoReturn:
    """Print the state, and end: with 0 if somebody holds the lock, else with 3. --watch goes on."""
    named = {**given, "name": _name(given, environ)}
    lock = address(given, environ)
    with opened(given, environ) as backend:
        name = checked_name(named)
        if given["watch"]:
            from singleton_run.commands import watching

            watching.watch(backend, name, lock, as_json=bool(given["json"]), zone=zone_of(environ))
        told = facts.status(look_at(backend, name, LIMIT), name, lock)

    def table(width: int) -> RenderableType:
        from singleton_run.commands import tables

        return tables.status(told, zone_of(environ), width)

    held = told["state"] == Look.HELD
    answer(given, told, table, lambda: lines.status(told), os.EX_OK if held else NOT_HELD)


def _name(given: Mapping[str, Value], environ: Mapping[str, str]) -> str:
    """NAME, or else that of the variable. A call without a command makes no name of its own."""
    if given["name"] is not None:
        return str(given["name"])
    return environ.get("SINGLETON_RUN_NAME") or refuse(
        "status of which lock? say its NAME (`singleton-run list` prints all of them)"
    )
