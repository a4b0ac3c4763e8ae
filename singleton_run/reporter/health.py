"""Whether this process can keep its promises, and whether it is ready: what /healthz and /readyz say.

It is decided at the moment of the question, by the shared page and the kernel's word on our processes.
"""

from __future__ import annotations

import os

from singleton_run import lease_times
from singleton_run.reporter.vitals import HOLDING, LOST
from singleton_run.system import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.reporter.vitals import Vitals

_STOPPED = ("T", "t")


def troubles(vitals: Vitals, ttl: float, front: int) -> list[str]:
    """Why our promises can't be kept now, a sentence each; empty if all is well. To wait is no trouble."""
    found = of_front(front)
    return found if is_gone(front) else [*found, *of_keeper(vitals, ttl)]


def is_gone(front: int) -> bool:
    """Whether the front has ended."""
    return os.getppid() != front or process_state(front) in ("", "Z", "X")


def of_front(front: int) -> list[str]:
    """Why the front can't do its work."""
    if is_gone(front):
        return ["the front is gone, and nobody tells this process anything"]
    return ["the front is stopped: it obeys nobody"] if process_state(front) in _STOPPED else []


def of_keeper(vitals: Vitals, ttl: float) -> list[str]:
    """Why a lock may not stay ours."""
    found = []
    if vitals.keeper and process_state(vitals.keeper) in _STOPPED:
        found.append("the keeper is stopped: it does not renew, and gets no lock")
    if vitals.phase == LOST:
        found.append("the lease was not renewed in time, or the lock is lost: the command is ended for it")
    elif vitals.phase == HOLDING and vitals.leased:
        now = calls.now()
        if now >= lease_times.hangs_at(vitals.end, ttl, vitals.reported):
            found.append("the keeper hangs: it has begun no renewal in time")
        if now >= lease_times.stop_at(vitals.end, ttl):
            found.append("the lease was not renewed for two thirds of its time")
    return found


def holds(vitals: Vitals) -> bool:
    """Whether the lock is ours now, by our own clock."""
    return vitals.phase == HOLDING and (not vitals.leased or calls.now() < vitals.end)


def is_ready(vitals: Vitals, when: str) -> bool:
    """Whether we are ready by --ready-when."""
    if when == "running":
        return vitals.running
    return holds(vitals) if when == "holding" else vitals.reached


def process_state(process: int) -> str:
    """The state letter of a process (proc_pid_stat(5)), '' if there is none."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:
            return chr(stat.read().rpartition(b")")[2].split()[0][0])
    except (OSError, IndexError):
        return ""
