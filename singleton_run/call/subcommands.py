"""What singleton-run does apart from running a command: print slots and licences, forget, install itself."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import click

from singleton_run.call.fast_parser import Values, fill
from singleton_run.call.output import quoted, refuse, show
from singleton_run.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from singleton_run.call.fast_parser import Value

_FORGET_LIMIT = 10.0


def plan(given: dict[str, Value], command: list[str], environ: Mapping[str, str]) -> NoReturn:
    """Print the next slots, and end."""
    from singleton_run.call import preview, settings

    try:
        number = preview.count(str(given["plan"]))
        values = Values(fill(given, environ), command or [""])
        if not command and values.options["every"] and not values.options["name"]:
            refuse("--plan with --every needs --name or the command: the grid is in the record of that lock")
        checked = settings.check(values, _outside(environ))
        _let_interrupt()
        preview.show(checked, number, environ)
    except Failure as failure:
        refuse(str(failure), failure.status)
    except ValueError as error:
        refuse(str(error))
    except OSError:
        raise SystemExit(1) from None
    raise SystemExit(0)


def forget(name: str, key: str, lock: str | None) -> NoReturn:
    """Forget a key of --once, and say whether there was one."""
    context = click.get_current_context()
    if lock is None and context.parent is not None:
        lock = context.parent.params["lock"]
    try:
        forgotten = _forgotten(name, key, lock, _outside(context.obj))
    except Failure as failure:
        refuse(str(failure), failure.status)
    except ValueError as error:
        refuse(str(error))
    if not forgotten:
        refuse(f"nothing to forget: {quoted(key)} has not succeeded under {name}", 1)
    show(f"forgotten: {quoted(key)} under {name}. It runs again with --once {quoted(key)}\n")


def install(directory: str) -> NoReturn:
    """Copy the executable into a directory, and say where it is."""
    from singleton_run.call import install as installing

    try:
        path = installing.install(directory)
    except Failure as failure:
        refuse(str(failure), failure.status)
    show(f"installed: {quoted(path)}\n")


def licenses() -> NoReturn:
    """Print the licence of each part that is shipped with us, and our own."""
    show(_licences())


def _licences() -> str:
    """Their texts; a line where ours was not installed with us."""
    try:
        from _licences import TEXT  # type: ignore[import-not-found]  # only in the executable that needs no Python
    except ImportError:
        from importlib import metadata
    else:
        text: str = TEXT
        return text
    try:
        own = metadata.distribution("singleton-run").read_text("licenses/LICENSE")
    except metadata.PackageNotFoundError:
        own = None
    return own or "Apache-2.0: see LICENSE in singleton-run's sources\n"


def _forgotten(name: str, key: str, lock: str | None, environ: Mapping[str, str]) -> bool:
    """Forget the key; whether there was one. Raises Failure, and ValueError for a wrong name or key."""
    from singleton_run import names
    from singleton_run.api import registry
    from singleton_run.call import settings

    names.check_name(name)
    settings.check_key(key)
    given: dict[str, Value] = {} if lock is None else {"lock": lock}
    variables = {word: text for word, text in environ.items() if word == "SINGLETON_RUN_LOCK"}
    checked = settings.check(Values(fill(given, variables), [""]), environ)
    _let_interrupt()
    backend = registry.open_backend(checked.lock, environ)
    try:
        return backend.forget(name, key, _FORGET_LIMIT)
    finally:
        backend.close()


def _let_interrupt() -> None:
    """From here on Ctrl-C just ends us: nothing is held, and a server may be slow."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _outside(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the word of a lock around us: what only asks waits for no one."""
    return {word: value for word, value in environ.items() if word != "SINGLETON_HELD"}
