"""The lease's clock: when a renewal is due, and when the command must be stopped.

Everything follows from `end`, the boot-clock reading at which the lease lapses: the moment
*before* the request of the last success was sent, plus the ttl. The server began to count later
than that, so the lease is over here before it is over there. Times and spans are seconds.

    T/3                  renew
    T/3 + limit + slack  nothing heard of an attempt: the keeper hangs, and is replaced (limit is
                         min(T/6, 5 s), slack min(T/12, 1 s))
    2T/3                 the stop signal to the command; renewals go on
    T - max(1 s, T/10)   SIGKILL, until nothing is left
"""

from __future__ import annotations

LEAST_TTL = 6.0
FOREVER = float("inf")
"""The deadline that never comes."""


def request_limit(ttl: float) -> float:
    """How long one request of a holder may take."""
    return min(ttl / 6, 5.0)


def renew_at(end: float, ttl: float) -> float:
    """When the next renewal is due."""
    return end - 2 * ttl / 3


def stop_at(end: float, ttl: float) -> float:
    """When the command gets the stop signal unless a renewal succeeds before."""
    return end - ttl / 3


def kill_at(end: float, ttl: float) -> float:
    """When the command is killed unless a renewal succeeds before."""
    return end - max(1.0, ttl / 10)


def enforce_at(end: float, ttl: float) -> float:
    """When whoever should have killed by now is killed as well, and its children with it."""
    return end - max(1.0, ttl / 10) / 2


def hangs_at(end: float, ttl: float, reported: float) -> float:
    """When a keeper that last reported an attempt at `reported` counts as hanging."""
    return answers_by(max(renew_at(end, ttl), reported), ttl)


def answers_by(asked: float, ttl: float) -> float:
    """When a keeper that had something to do at `asked` counts as hanging."""
    return asked + request_limit(ttl) + min(1.0, ttl / 12)


def back_off(failures: int, most: float) -> float:
    """The pause after so many failures in a row: none, 0.1 s, 0.2 s and on, up to `most`."""
    return 0.0 if failures < 2 else min(0.1 * 2.0 ** min(failures - 2, 20), most)
