"""`list`: every name that has a lock or a record at an address, and how each is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run.api.timestamps import rfc3339
from singleton_run.call.output import warn
from singleton_run.commands import facts, lines
from singleton_run.commands.connection import LIMIT, address, opened
from singleton_run.commands.looking import look_at
from singleton_run.commands.showing import answer
from singleton_run.commands.steering import time_of
from singleton_run.commands.wording import zone_of
from singleton_run.errors import UNUSABLE, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from rich.console import RenderableType

    from singleton_run.call.fast_parser import Value


def run(given: Mapping[str, Value], environ: Mapping[str, str]) -> NoReturn:
    """Print the locks, with --stale only the stale ones, and end.

    A lock whose keys are another program's gets a line on stderr, and the status is then 78.
    """
    status, locks = 0, []
    with opened(given, environ) as backend:
        for name in backend.list(LIMIT):
            try:
                locks.append(facts.listed(look_at(backend, name, LIMIT), name))
            except Refused as refused:
                if refused.status != UNUSABLE:
                    raise
                warn(f"lock {name!r}: {refused}")
                status = UNUSABLE
        at = rfc3339(time_of(backend))
    shown = [lock for lock in locks if lock["stale"] or not given["stale"]]
    told = {"lock": address(given, environ), "at": at, "locks": shown}

    def table(width: int) -> RenderableType:
        from singleton_run.commands import tables

        return tables.listed(told, zone_of(environ), width)

    answer(given, told, table, lambda: lines.listed(shown), status)
