"""The lease's clock: when a renewal is due, and when the command must be stopped.

Everything follows from `end`, when the lease ends by the boot clock: the reading *before* the last successful
request was sent, plus the ttl T. The server starts to count later than that, so the lease ends here before it
ends there. All times are by the boot clock, in seconds.

    T/3                  renew
    T/3 + limit + slack  no report of an attempt: the keeper hangs, and is replaced (limit is
                         min(T/6, 5 s), slack is min(T/12, 1 s))
    2T/3                 the stop signal to the command; renewals go on
    T - max(1 s, T/10)   SIGKILL, until nothing is left
"""

from __future__ import annotations

LEAST_TTL = 6.0
FOREVER = float("inf")
"""A deadline that never comes."""


def request_limit(ttl: float) -> float:
    """How long one request of a keeper may take."""
    return min(ttl / 6, 5.0)


def renew_at(end: float, ttl: float) -> float:
    """When the next renewal is due."""
    return end - 2 * ttl / 3


def stop_at(end: float, ttl: float) -> float:
    """When the command gets the stop signal, unless a renewal succeeds before."""
    return end - ttl / 3


def kill_at(end: float, ttl: float) -> float:
    """When the command is killed, unless a renewal succeeds before."""
    return end - max(1.0, ttl / 10)


def enforce_at(end: float, ttl: float) -> float:
    """When a process that should have killed the command is killed too: its parent then kills the command."""
    return end - max(1.0, ttl / 10) / 2


def hangs_at(end: float, ttl: float, reported: float) -> float:
    """When a keeper that last reported an attempt at `reported` counts as hanging."""
    return answers_by(max(renew_at(end, ttl), reported), ttl)


def answers_by(asked: float, ttl: float) -> float:
    """When a keeper that had something to do at `asked` counts as hanging."""
    return asked + request_limit(ttl) + min(1.0, ttl / 12)


def back_off(failures: int, most: float) -> float:
    """The pause after this many failures in a row: 0, 0.1, 0.2, 0.4 … up to `most`, in seconds."""
    return 0.0 if failures < 2 else min(0.1 * 2.0 ** min(failures - 2, 20), most)
