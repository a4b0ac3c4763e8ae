"""`--plan N`: prints the next slots, and runs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run.call import preview, settings
from singleton_run.call.fast_parser import Values, fill
from singleton_run.call.output import refuse
from singleton_run.commands.connection import let_interrupt, outside
from singleton_run.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from singleton_run.call.fast_parser import Value


def run(given: Mapping[str, Value], command: list[str], environ: Mapping[str, str]) -> NoReturn:
    """Print them, and end."""
    try:
        number = preview.count(str(given["plan"]))
        values = Values(fill(dict(given), environ), command or [""])
        if not command and values.options["every"] and not values.options["name"]:
            refuse("--plan with --every needs --name or the command: the grid is in the record of that lock")
        checked = settings.check(values, outside(environ))
        let_interrupt()
        preview.show(checked, number, environ)
    except Failure as failure:
        refuse(str(failure), failure.status)
    except ValueError as error:
        refuse(str(error))
    except OSError:
        raise SystemExit(1) from None
    raise SystemExit(0)
