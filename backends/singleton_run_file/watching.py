"""Waiting for a change of a file or directory. Loaded only for a lock that is kept, or during a pause."""

from __future__ import annotations

import os

from singleton_run.api import toolbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LOOK_EVERY = 5.0
"""Seconds between two looks where the kernel refuses to tell of changes."""


def wait_for_change(descriptor: int, until: float, wake: Sequence[int], is_over: Callable[[], bool]) -> None:
    """Return when `is_over`, at `until` (boot clock), or when one of `wake` is readable.

    An open file or directory decides whether it is over: that is asked at first, and after each change of it.
    """
    changes = _changes_of(descriptor)
    try:
        while not is_over() and (now := toolbox.now()) < until:
            step = until if changes else min(until, now + _LOOK_EVERY)
            came = toolbox.wait(step, [*changes, *wake])
            if not set(came).isdisjoint(wake):
                return
            for number in came:
                os.read(number, 1 << 16)
    finally:
        for number in changes:
            os.close(number)


def _changes_of(descriptor: int) -> list[int]:
    """What is readable after a change; empty where the kernel refuses it."""
    try:
        return [toolbox.changes_of(descriptor)]
    except OSError:
        return []
