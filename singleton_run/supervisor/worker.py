"""The process of one line: the front of its turns, in a session of its own."""

from __future__ import annotations

import os

from singleton_run.api import registry
from singleton_run.errors import NO_MEMORY, UNUSABLE, Failure, describe_bug, scarce
from singleton_run.front import slot_loop
from singleton_run.supervisor.place import Place
from singleton_run.system import calls
from singleton_run.system.stderr import last_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Sequence
    from typing import NoReturn

    from singleton_run.call.settings import Settings
    from singleton_run.supervisor.crew import Line
    from singleton_run.supervisor.output import Sender
    from singleton_run.supervisor.reporting import Reporting
    from singleton_run.system.calls import Signals
else:
    import _signal


def run(
    line: Line,
    parent: int,
    signals: Signals,
    mask: set[int],
    leave: int,
    first_rest: int,
    sender: Sender | None,
    reporting: Reporting | None,
) -> NoReturn:
    """Be the process of a line, forked for it by `parent`, until it is asked to stop. See `Place`.

    The session of its own keeps the terminal's signals from us: the parent passes on what is meant. If the
    parent is killed, the kernel sends SIGTERM: the line stops as after any other, so that there are never two
    crontabs of which one has nobody above it.
    """
    try:
        os.setsid()
        own = [signals.descriptor, leave, first_rest]
        own += [] if sender is None else [sender.socket.fileno()]
        own += [] if reporting is None else [reporting.write]
        calls.keep_only(own)
        calls.close_standard(0)
        calls.die_with(parent, int(_signal.SIGTERM))
        _begin_to_tell(line.settings, reporting)
        user = _user(line)
        place = Place(line.name, line.variables, line.text, user, leave, first_rest, sender)
        status = slot_loop.run(line.settings, line.path, signals, mask, place)
        os._exit(status if status >= 0 else 128 - status)
    except Failure as failure:
        last_words(f"line {line.name!r}: {failure}")
        os._exit(failure.status)
    except OSError as error:
        last_words(f"line {line.name!r}: {scarce(str(error.strerror))}")
    except MemoryError:
        last_words(f"line {line.name!r}: {scarce(NO_MEMORY)}")
    except Exception as error:  # noqa: BLE001 - a traceback is of no use to the user
        last_words(f"line {line.name!r} had to end, which is a fault of singleton-run: {describe_bug(error)}")
    finally:
        os._exit(UNUSABLE)


def _begin_to_tell(settings: Settings, reporting: Reporting | None) -> None:
    """Have the trace and the reporters that the call or the line asks for. Raises Failure."""
    if settings.verbosity > 1:
        from singleton_run.report import trace

        trace.begin(settings)
    if reporting is not None:
        reporting.attach(settings)
    elif settings.reports:
        from singleton_run.reporter import channel

        channel.begin(settings)


def load(lines: Sequence[Line]) -> None:
    """Import now what every line's process needs in its turns, so that all share its memory.

    An import dirties a megabyte and a half in each process that makes it. Of backends only those are loaded
    whose locks the kernel holds: a server's are its keepers'. Raises Failure for a lock that can't be had.
    """
    from singleton_run.front import keeper_handle, kernel_lock_handle, kernel_slot_handle  # noqa: F401
    from singleton_run.schedule import slot_rules  # noqa: F401

    for address in {line.settings.lock_address for line in lines}:
        registry.open_kernel_lock(address, os.environ)


def _user(line: Line) -> tuple[str, int, int] | None:
    """Who the command is run as: name, group and user id; None for us. Raises Failure for an unknown user."""
    if not line.user:
        return None
    import pwd

    try:
        known = pwd.getpwnam(line.user)
    except KeyError:
        raise Failure(UNUSABLE, f"there is no user {line.user!r} on this machine") from None
    line.variables = {"LOGNAME": line.user, "USER": line.user, "HOME": known.pw_dir, **line.variables}
    return None if known.pw_uid == os.geteuid() else (line.user, known.pw_gid, known.pw_uid)
