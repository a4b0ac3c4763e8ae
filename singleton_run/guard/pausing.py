"""How a guard that has a lock of the kernel's waits for the end of a pause. Loaded only with a control."""

from __future__ import annotations

import time

from singleton_run.api.control import facts, pause_of
from singleton_run.errors import Failure
from singleton_run.lease_times import FOREVER
from singleton_run.system import calls, processes
from singleton_run.system.messages import GuardTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.api.contract import Grant, KernelLock
    from singleton_run.guard.decisions import Tell

_HAIR = 0.01
"""Seconds after a pause's end at which we look: the clocks that tell it differ that much."""


def wait_out(backend: KernelLock, grant: Grant, until: float, wake: int, tell: Tell) -> bool:
    """Hold the lock until no pause is in force: true if it still is ours then, and nothing ended the wait.

    The wait ends at `until` (boot clock), and when the descriptor `wake` is readable.
    """
    control = grant.control
    told: Mapping[str, Any] | None = None
    while True:
        pause = pause_of(control, time.time())
        if pause is None:
            return backend.holds(grant)
        if pause != told:
            told = pause
            tell(GuardTells.kept_back(facts(pause)))
        ends = FOREVER if pause["until"] is None else calls.now() + pause["until"] - time.time() + _HAIR
        try:
            backend.hold(grant, min(until, ends), wake)
            control = backend.renew(grant, 0.0)
        except Failure:  # the front acquires the lock anew, and is told why not
            return False
        if calls.now() >= until or processes.readable(wake, 0):
            return False


def facts_in_force(control: Mapping[str, Any]) -> dict[str, Any] | None:
    """The pause in force, as the facts of a message; None without one."""
    pause = pause_of(control, time.time())
    return None if pause is None else facts(pause)
