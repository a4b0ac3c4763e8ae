"""Where the program begins: read the call, make the turn, exit with its status."""

from __future__ import annotations

import gc
import sys

try:
    import posix as os
except ImportError:  # this is Windows
    print("singleton-run: this version runs on Linux only: it needs a child subreaper", file=sys.stderr)
    sys.exit(78)

from singleton_run import __version__, preload
from singleton_run.errors import NO_MEMORY, UNUSABLE, Failure, describe_bug, incomplete, scarce

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from singleton_run.call.fast_parser import Values
    from singleton_run.call.settings import Settings
    from singleton_run.system.calls import Signals
else:
    import _signal


def main() -> NoReturn:
    """Do what the command line asks for, and exit. A failure is one line on stderr and an exit status."""
    if sys.platform != "linux":
        sys.exit(_fail(Failure(UNUSABLE, "this version runs on Linux only: it needs a child subreaper")))
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # Ctrl-C while we start is no traceback
    gc.disable()  # a collection takes time, and writes to memory that forked processes share
    try:
        status = _run()
    except Failure as failure:
        status = _fail(failure)
    except OSError as error:  # if the command runs, its guard kills it when we are gone
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        status = _fail(Failure(UNUSABLE, scarce(str(what))))
    except MemoryError:
        status = _fail(Failure(UNUSABLE, scarce(NO_MEMORY)))
    except ImportError as error:
        status = _fail(Failure(UNUSABLE, incomplete(error)))
    except Exception as error:  # noqa: BLE001 - a traceback is of no use to who reads it
        what = f"this Python or singleton-run itself has a fault ({describe_bug(error)})"
        status = _fail(Failure(UNUSABLE, f"{what}: please report it, with the output of `python -VV`"))
    if status < 0 and os.getpid() != 1:
        _die_of(-status)
    os._exit(status if status >= 0 else 128 - status)


def _run() -> int:
    if b"_SINGLETON_RUN_LEFT_BY" in os.environ:
        from singleton_run.system import beside

        beside.check_version()
    if sys.argv[1:2] == ["check"] and _checked():
        return 0
    preload.load(preload.CALL)
    from singleton_run.api import registry
    from singleton_run.call import executable, fast_parser, settings
    from singleton_run.call.options import RESTED
    from singleton_run.system import calls
    from singleton_run.system.texts import environ

    registry.began_in = os.getpid()
    calls.reserve_standard()
    if sys.argv[1:] == ["--version"] and _told_version(environ):
        return 0
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # if it is ignored, the kernel keeps no child's status
    mask = {int(number) for number in _signal.pthread_sigmask(_signal.SIG_BLOCK, [])}
    signals = calls.Signals(calls.catchable())
    if sys.argv[1:2] == ["crontab"] and registry.IS_ALONE:
        from singleton_run.system import beside

        beside.take_over(mask)  # what the lines need isn't known before they are read, elsewhere
    if sys.argv[1:2] == ["crontab"] and (given := _crontab(environ)) is not None:
        from singleton_run.commands import crontab

        return crontab.start(given, environ, signals, mask)
    values = fast_parser.read(sys.argv[1:], environ) or _read_slowly(environ, mask)
    asked = settings.check(values, environ)
    if registry.IS_ALONE:
        if asked.metrics_addr is not None or asked.metrics_file is not None:
            from singleton_run.system import beside

            beside.take_over(mask)
        registry.leave_to_python(asked.lock_address, environ, mask)
    if RESTED in environ:
        return _go_on(asked, environ.pop(RESTED), signals)
    path = executable.find(asked.command[0], environ)
    preload.load(preload.TURN)
    from singleton_run.front import start

    return start.run(asked, path, signals, mask)


def _go_on(asked: Settings, told: str, signals: Signals) -> int:
    """Go on after a long rest, for which the front became a small program."""
    preload.load(preload.TURN)
    from singleton_run.front import rest, start

    path, mask, memory = rest.remembered(told)
    return start.run(asked, path, signals, mask, memory)


def _checked() -> bool:
    """Do an ordinary `check` without click. False if click has to read the call. Raises Failure."""
    from singleton_run.api import registry
    from singleton_run.commands import check
    from singleton_run.system import calls
    from singleton_run.system.texts import environ

    given = check.read(sys.argv[2:])
    if given is None or environ.get("_SINGLETON_RUN_COMPLETE"):
        return False
    registry.began_in = os.getpid()
    calls.reserve_standard()
    check.ensure(given, environ)
    return True


def _told_version(environ: Mapping[str, str]) -> bool:
    """Print the version without click. False if click has to read the call, or say why nothing is printed."""
    if environ.get("_SINGLETON_RUN_COMPLETE"):
        return False
    try:
        os.write(1, f"singleton-run {__version__}\n".encode())
    except OSError:
        return False
    return True


def _crontab(environ: Mapping[str, str]) -> Mapping[str, Any] | None:
    """An ordinary call of `crontab`, read without click. None if click has to read it."""
    from singleton_run.call import crontab_call

    preload.load(preload.TURN)
    return None if environ.get("_SINGLETON_RUN_COMPLETE") else crontab_call.read(sys.argv[2:])


def _fail(failure: Failure) -> int:
    try:
        os.write(2, f"singleton-run: {failure}\n".encode(errors="replace"))
    except OSError:
        pass
    return failure.status


def _read_slowly(environ: Mapping[str, str], mask: set[int]) -> Values:
    """Read the call by click, which exits for help, completion or an error. Ctrl-C ends us meanwhile."""
    from singleton_run.call import click_parser

    blocked = _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    values = click_parser.parse(sys.argv[1:], environ)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, blocked)
    return values


def _die_of(number: int) -> None:
    """End by the signal that ended the command: a shell ends its loop then."""
    _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
