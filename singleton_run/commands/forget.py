"""`forget NAME KEY`: a key of --once runs again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run.call import settings
from singleton_run.call.output import quoted, refuse, show
from singleton_run.commands.connection import LIMIT, checked_name, opened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from singleton_run.call.fast_parser import Value


def run(given: Mapping[str, Value], environ: Mapping[str, str]) -> NoReturn:
    """Forget the key, say whether it was there, and end: with 1 if it wasn't."""
    key = str(given["key"])
    with opened(given, environ) as backend:
        name = checked_name(given)
        settings.check_key(key)
        forgotten = backend.forget(name, key, LIMIT)
    if not forgotten:
        refuse(f"nothing to forget: {quoted(key)} has not succeeded under {name}", 1)
    show(f"forgotten: {quoted(key)} under {name}. It runs again with --once {quoted(key)}\n")
