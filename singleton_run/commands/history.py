"""`history NAME`: the runs that a lock's record keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run.call.output import warn
from singleton_run.commands import facts, lines
from singleton_run.commands.connection import LIMIT, address, checked_name, opened
from singleton_run.commands.looking import look_at
from singleton_run.commands.showing import answer
from singleton_run.commands.wording import zone_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from rich.console import RenderableType

    from singleton_run.call.fast_parser import Value

_DEFAULT = "20"
_MOST = 1000


def run(given: Mapping[str, Value], environ: Mapping[str, str]) -> NoReturn:
    """Print the runs, the latest first, and end."""
    lock = address(given, environ)
    with opened(given, environ) as backend:
        name = checked_name(given)
        most = _count(_DEFAULT if given["lines"] is None else str(given["lines"]))
        told = facts.history(look_at(backend, name, LIMIT), name, lock, most)

    def rows() -> str:
        for note in told["notes"]:
            warn(f"{name}: {note}")
        return lines.history(told)

    def table(width: int) -> RenderableType:
        from singleton_run.commands import tables

        return tables.history(told, zone_of(environ), width)

    answer(given, told, table, rows)


def _count(text: str) -> int:
    """How many runs `text` asks for. Raises ValueError, with one sentence."""
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= _MOST):
        raise ValueError(f"-n/--lines: {text!r} is not a number from 1 to {_MOST}")
    return int(text)
