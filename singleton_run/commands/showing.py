"""Where a command's answer goes: a table at a terminal, lines in a pipe, or JSON."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from singleton_run.call.output import show, unwritable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn, TextIO

    from rich.console import Console, RenderableType

    from singleton_run.call.fast_parser import Value


def answer(
    given: Mapping[str, Value],
    facts: Mapping[str, Any],
    table: Callable[[int], RenderableType],
    lines: Callable[[], str],
    status: int = 0,
) -> NoReturn:
    """Print the facts as --json or the place of stdout ask for, and end with `status`.

    `table` gets the terminal's width in columns. The status is 1 if stdout can't be written.
    """
    if given["json"]:
        show(json.dumps(facts, indent=2) + "\n", status)
    if not os.isatty(1):
        show(lines(), status)
    try:
        with stdout() as stream:
            console = terminal(stream)
            console.print(table(console.width))
    except OSError as error:
        unwritable(error, lines())
    raise SystemExit(status)


def stdout() -> TextIO:
    """Standard output as a text stream. Closing it leaves the descriptor open."""
    return open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def terminal(stream: TextIO) -> Console:
    """The terminal behind `stream`. NO_COLOR and TERM count; no text is read as markup."""
    from rich.console import Console

    return Console(file=stream, markup=False, highlight=False, emoji=False)
