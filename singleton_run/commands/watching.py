"""`status --watch`: looks at a lock once a second, and shows what changes.

At a terminal the picture is redrawn in place; elsewhere each change is a line. It ends by a signal, and when
nobody reads its output any more. A server that can't be reached is shown as such, and asked again.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from singleton_run.api import toolbox
from singleton_run.call.output import unwritable
from singleton_run.commands import facts, lines
from singleton_run.commands.looking import look_at
from singleton_run.commands.showing import stdout, terminal
from singleton_run.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import tzinfo
    from typing import Any, NoReturn

    from singleton_run.api.contract import Backend

    Facts = dict[str, Any]

INTERVAL = 1.0
"""Seconds from one look to the next."""
_LIMIT = 5.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_UNSEEN = ("at", "lock", "until", "runs", "last", "notes")


class _Ended(BaseException):
    """A signal asks us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def watch(backend: Backend, name: str, lock: str, *, as_json: bool, zone: tzinfo) -> NoReturn:
    """Show the lock's state until a signal comes, and die of it. Raises Refused."""

    def look() -> Facts:
        try:
            return facts.status(look_at(backend, name, _LIMIT), name, lock)
        except Unavailable as error:
            return facts.unavailable(name, lock, time.time(), str(error))

    try:
        with _signals_raised():
            if os.isatty(1) and not as_json:
                _redraw(look, zone)
            else:
                _tell(look, as_json=as_json)
    except _Ended as ended:
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)
        raise SystemExit(128 + ended.number) from None  # process 1 doesn't die of it
    except OSError as error:
        unwritable(error, "")
    raise SystemExit(1)  # nothing ends the watch but these, which mypy doesn't see


def seen_change(before: Facts | None, now: Facts) -> bool:
    """Whether something changed that a line is worth: not a renewal, and not that time has passed."""
    return before is None or _worth(before) != _worth(now)


def _worth(told: Facts) -> Facts:
    worth = {word: value for word, value in told.items() if word not in _UNSEEN}
    worth["last"] = told["last"] and (told["last"]["token"], told["last"]["state"])
    worth["waiting"] = told["waiting"] and [each["holder"] for each in told["waiting"]]
    return worth


def _tell(look: Callable[[], Facts], *, as_json: bool) -> None:
    """A line at each change, until nobody reads. Raises OSError."""
    before = None
    while True:
        began = toolbox.now()
        told = look()
        if seen_change(before, told):
            with stdout() as stream:
                stream.write(json.dumps(told) + "\n" if as_json else lines.change(told))
            before = told
        _wait(began + INTERVAL)


def _redraw(look: Callable[[], Facts], zone: tzinfo) -> None:
    """The picture, redrawn in place. Raises OSError."""
    from rich.live import Live

    from singleton_run.commands.picture import Picture

    picture = Picture(zone)
    with stdout() as stream:
        console = terminal(stream)
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                began = toolbox.now()
                picture.add(look())
                live.update(picture.drawn(console.width), refresh=True)
                _wait(began + INTERVAL)


def _wait(until: float) -> None:
    """Wait, by the boot clock. Raises BrokenPipeError at once when nobody reads stdout any more."""
    poll = select.poll()
    poll.register(1, 0)
    if poll.poll(max(0.0, until - toolbox.now()) * 1000):
        raise BrokenPipeError


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Raise _Ended for a signal that would end us: the terminal is put in order before it does."""

    def end(number: int, _frame: object) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise _Ended(number)

    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)
    yield
