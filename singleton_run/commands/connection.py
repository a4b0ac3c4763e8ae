"""Opens the backend that a subcommand is for."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from singleton_run import names
from singleton_run.api import registry
from singleton_run.api.lock_address import redact
from singleton_run.call import settings
from singleton_run.call.fast_parser import Values, fill
from singleton_run.call.output import refuse
from singleton_run.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from singleton_run.api.contract import Backend
    from singleton_run.call.fast_parser import Value

LIMIT = 10.0
"""Seconds that one request of a subcommand may take."""


@contextmanager
def opened(given: Mapping[str, Value], environ: Mapping[str, str]) -> Iterator[Backend]:
    """The backend that --lock in `given`, or its variable, asks for. It is closed in the end.

    A Failure within ends the program with one line and the failure's status, a ValueError with status 2.
    Nobody is contacted here. Ctrl-C ends the program from here on: it holds nothing, and servers may be slow.
    """
    try:
        lock = {"lock": given["lock"]} if given.get("lock") is not None else {}
        variables = {word: text for word, text in environ.items() if word == "SINGLETON_RUN_LOCK"}
        checked = settings.check(Values(fill(lock, variables), [""]), outside(environ))
        let_interrupt()
        backend = registry.open_backend(checked.lock_address, environ)
        try:
            yield backend
        finally:
            backend.close()
    except Failure as failure:
        refuse(str(failure), failure.status)
    except ValueError as error:
        refuse(str(error))


def address(given: Mapping[str, Value], environ: Mapping[str, str]) -> str:
    """The address that `opened` opens, without its passwords."""
    return redact(str(given.get("lock") or environ.get("SINGLETON_RUN_LOCK") or registry.DEFAULT))


def checked_name(given: Mapping[str, Value]) -> str:
    """The lock's name in `given`. Raises ValueError for an illegal one."""
    name = str(given["name"])
    names.check_name(name)
    return name


def let_interrupt() -> None:
    """Let Ctrl-C end us from here on."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def outside(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without SINGLETON_HELD: a call that takes no lock doesn't wait for one around it."""
    return {word: value for word, value in environ.items() if word != "SINGLETON_HELD"}
