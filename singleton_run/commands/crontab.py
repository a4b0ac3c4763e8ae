"""`crontab`: runs the lines of crontabs, each under a lock of its own.

A plain call comes here without click (see `__main__`): what is imported here stays in memory.
"""

from __future__ import annotations

import os
import signal

from singleton_run.call import crontab_call, fast_parser, settings
from singleton_run.call.options import joint
from singleton_run.errors import USAGE, Failure
from singleton_run.supervisor import lines, output, process
from singleton_run.system import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from singleton_run.call.fast_parser import Value
    from singleton_run.call.settings import Settings
    from singleton_run.supervisor.output import Format
    from singleton_run.system.calls import Signals
else:
    import _signal

_FORMATS: dict[str, Format | None] = {"raw": None, "prefix": output.prefixed, "json": output.as_json}
_OF_THE_PARENT = ("lock", "verbose", "quiet", "log_format", *crontab_call.OF_THE_PARENT)


def run(given: Mapping[str, Any], environ: Mapping[str, str]) -> NoReturn:
    """Run the crontab until a signal ends us, and exit with its status."""
    from singleton_run.call.output import refuse

    mask = {int(number) for number in _signal.pthread_sigmask(_signal.SIG_BLOCK, [])}
    signals = calls.Signals(calls.catchable())
    try:
        status = start(given, environ, signals, mask)
    except Failure as failure:
        refuse(str(failure), failure.status)
    raise SystemExit(status if status >= 0 else 128 - status)


def start(given: Mapping[str, Any], environ: Mapping[str, str], signals: Signals, mask: set[int]) -> int:
    """Read the crontabs and run them; the exit status. Raises Failure before anything has begun.

    It is minus the number of a signal that asks us to end before all is read: a file can be a pipe.
    All that is wrong with the files is listed at once, and the status is 2.
    """
    files = given["files"]
    options = {
        # click has a tuple of what may be repeated
        name: joint(name).join(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if name != "files" and value not in (None, False, 0, ())
    }
    own = {option.name: options.pop(option.name, None) for option in crontab_call.OWN}
    says = _of_parent(options, environ)
    options = {name: value for name, value in options.items() if name not in crontab_call.OF_THE_PARENT}
    of_lines = {name: text for name, text in environ.items() if name not in crontab_call.VARIABLES}
    call = lines.Call(
        files, options, of_lines, user_column=bool(own["system"]), reboot_once=own["reboot_once"]
    )
    if own["check"] or own["plan"] is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # a file may be a pipe that nobody writes to
        return _preview(call, own["plan"], environ)
    task = process.Task(call, says, form=_form(own["output"]), watches=bool(own["watch"]))
    try:
        crontab = lines.read(call, signals.descriptor, lambda: _stop_in(signals))
    except lines.Interrupted as interrupted:
        return -interrupted.number
    except lines.Faults as faults:
        return _list(faults)
    if not crontab.lines:
        raise _no_line(call)
    return process.run(task, crontab, signals, mask)


def _preview(call: lines.Call, number: str | None, environ: Mapping[str, str]) -> int:
    """Say what is in the files, or the next times of their lines, and run nothing. The exit status."""
    from singleton_run.call import preview
    from singleton_run.commands import crontab_preview

    try:
        jobs, passed_over = lines.jobs(call)
        if not jobs:
            raise _no_line(call)
        if number is None:
            crontab_preview.check(jobs, passed_over)
        else:
            crontab_preview.plan(jobs, passed_over, preview.count(number), environ)
    except lines.Faults as faults:
        return _list(faults)
    except ValueError as error:
        raise Failure(USAGE, str(error)) from None
    except OSError:  # nobody reads our stdout any more
        return 1
    return 0


def _stop_in(signals: Signals) -> int:
    """The signal that asks us to end, among those that have come; 0 without one."""
    return next((number for number, _, _ in signals.read() if number in process.STOPPING), 0)


def _no_line(call: lines.Call) -> Failure:
    return Failure(USAGE, f"there is no line to run in {' '.join(call.files)}: is it the right file?")


def _list(faults: lines.Faults) -> int:
    """List all that is wrong with the files, and return the exit status."""
    os.write(2, "".join(f"{sentence}\n" for sentence in faults.sentences).encode(errors="replace"))
    return USAGE


def _form(asked: str | None) -> Format | None:
    """How a line of output is written. Raises Failure for a word that means none."""
    word = asked or ("prefix" if os.isatty(1) else "raw")
    if word not in _FORMATS:
        raise Failure(USAGE, f"--output: {word!r} is none of {', '.join(crontab_call.OUTPUTS)}")
    return _FORMATS[word]


def _of_parent(options: Mapping[str, Value], environ: Mapping[str, str]) -> Settings:
    """The settings of what the parent says. Raises Failure for a lock that no line could have."""
    known = {name: options[name] for name in _OF_THE_PARENT if name in options}
    environ = {name: text for name, text in environ.items() if not name.startswith("SINGLETON_RUN_WAIT")}
    try:
        values = fast_parser.Values(fast_parser.fill({**known, "name": "crontab"}, environ), ["crontab"])
    except ValueError as error:
        raise Failure(USAGE, str(error)) from None
    return settings.check(values, environ)
