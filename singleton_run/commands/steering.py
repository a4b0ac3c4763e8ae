"""What the commands that change a lock have in common: the change of its control, the question, the words."""

from __future__ import annotations

import os
import pwd
import time
from typing import TYPE_CHECKING

from singleton_run.api.control import pause_of
from singleton_run.api.timestamps import rfc3339
from singleton_run.commands.connection import LIMIT
from singleton_run.errors import UNUSABLE, USAGE, Failure, Refused, Unavailable, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from singleton_run.api.contract import Backend, Held, Look
    from singleton_run.api.control import Control

TRIES = 20
"""How often a change is tried that others come before."""
UNTOLD = 1
"""The exit status after a question that was answered with no."""
_LONGEST_BY = 200


def check_steerable(backend: Backend) -> None:
    """Raise Refused (78) for a backend whose locks nobody can steer."""
    if not all(hasattr(backend, call) for call in ("look", "steer", "free")):
        raise Refused(
            "this lock backend knows neither pause nor release: stop the commands where they run", UNUSABLE
        )


def change(backend: Backend, name: str, changed: Callable[[Look], Control | None]) -> Look:
    """Replace the control of `name` by what `changed` makes of the present one (None: leave it).

    Returns what was there before. Others may change it at the same time: then `changed` is asked anew. Raises
    Unavailable (69) if they always come first.
    """
    for _ in range(TRIES):
        seen = backend.look(name, LIMIT)
        control = changed(seen)
        if control is None or backend.steer(name, seen.version, control, LIMIT):
            return seen
    raise Unavailable(f"lock {name!r} is changed by others all the time: try again")


def time_of(backend: Backend) -> float:
    """The time by the clock of the server that answered last, in Unix seconds: pauses go by it.

    A difference from ours that may be an error of the measurement counts as none.
    """
    ahead, exact = backend.offset() or (0.0, 0.0)
    return time.time() + (ahead if abs(ahead) > exact else 0.0)


def ourselves() -> str:
    """USER@HOST: who changes something."""
    number = os.getuid()
    try:
        user = pwd.getpwuid(number).pw_name
    except KeyError:
        user = str(number)
    return one_line(f"{user}@{os.uname().nodename}")[:_LONGEST_BY]


def holder(who: Held) -> str:
    """A holder in a sentence: its name, its host, and since when."""
    name = one_line(who.holder) or "a process that doesn't tell its name"
    host = f" on {one_line(who.host)}" if who.host else ""
    since = f" since {rfc3339(int(who.since))}" if who.since is not None else ""
    return f"{name}{host}{since}"


def paused(pause: Mapping[str, Any]) -> str:
    """A pause in a sentence: since when, by whom, until when, and why."""
    by = f" by {one_line(pause['by'])}" if pause["by"] else ""
    until = f" until {rfc3339(int(pause['until']))}" if pause["until"] is not None else ""
    reason = f" ({one_line(pause['reason'])})" if pause["reason"] else ""
    since = f"since {rfc3339(int(pause['at']))}" if pause["at"] else "since nobody knows when"
    return f"{since}{by}{until}{reason}"


def pause_note(backend: Backend, name: str, seen: Look) -> str:
    """A sentence on the pause that is in force, with a full stop before it; empty without one."""
    pause = pause_of(seen.control, time_of(backend))
    return f". It is paused {paused(pause)}: singleton-run resume {name}" if pause is not None else ""


def ask(what: str, *, yes: bool) -> None:
    """Return if the person at the terminal agrees to `what`, or `yes` was given. Else raise Failure.

    Its status is 1 after a no, and 2 where there is no terminal to ask at.
    """
    if yes:
        return
    if not (os.isatty(0) and os.isatty(2)):
        raise Failure(USAGE, f"{what}: there is no terminal to ask at, so give --yes")
    os.write(2, f"{one_line(what)}. Go on? [y/N] ".encode(errors="backslashreplace"))
    answer = os.read(0, 100).decode(errors="replace").strip().lower()
    if answer not in ("y", "yes"):
        raise Failure(UNTOLD, "nothing was changed")
