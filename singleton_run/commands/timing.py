"""What `doctor` says of times, by the numbers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run import durations, lease_times
from singleton_run.api.finding import bad, good, warning
from singleton_run.api.toolbox import whole_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from singleton_run.api.finding import Finding

_NEAR = 1.0
"""Seconds by which clocks may differ before that is worth a word."""
_LARGE_PART = 0.25
"""The part of a request's time that it may take before that is worth a word."""


def without_server(ttl: float, kill_after: float | None) -> Iterator[Finding]:
    """How long a command goes on that has lost its lock, by the settings alone."""
    stop, kill = lease_times.stop_at(ttl, ttl), lease_times.kill_at(ttl, ttl)
    yield good(
        f"--ttl {_text(ttl)}: without its server a command is asked to stop {_text(stop)} after the last "
        f"renewal, and is killed after {_text(kill)}; the lock of a machine that is lost is free after "
        f"{_text(ttl)}"
    )
    if kill_after is not None and kill_after > kill - stop:
        enough = kill_after / (1 / 3 - 1 / 10)
        yield warning(
            f"--kill-after {_text(kill_after)} doesn't hold when the lock is lost: then the command has "
            f"{_text(kill - stop)}",
            f"give --ttl {durations.text(float(whole_seconds(max(enough, 10.0))))} or more, or have "
            "the command end sooner",
        )


def trip(median: float, limit: float) -> Finding:
    """Whether a request of `median` seconds is fast enough for a renewal, which may take `limit`."""
    took = f"a request takes {_text(median)} (the median), and may take {_text(limit)}"
    if median >= limit:
        least = durations.text(float(whole_seconds(median * 6)) + 1) if median < 4 else ""
        return bad(
            f"{took}: no renewal would be in time",
            f"give --ttl {least} or more" if least else "take a server that is nearer or faster",
        )
    if median > limit * _LARGE_PART:
        return warning(took, "give a longer --ttl, or a server that is nearer or faster")
    return good(took)


def clock(offset: tuple[float, float] | None) -> Finding:
    """How far the server's clock is from ours: `offset` is as `contract.Backend` gives it."""
    if offset is None:
        return good("the server doesn't tell its time: schedules go by this machine's clock")
    ahead, exact = offset
    if abs(ahead) - exact <= _NEAR:
        return good(f"the server's clock and this machine's agree, to {_text(abs(ahead) + exact)}")
    return warning(
        f"the server's clock is {_text(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this machine's: "
        "locks and schedules go by the server's, so jobs start by a clock that isn't this one's",
        "set both by NTP",
    )


def _text(seconds: float) -> str:
    """A time for people: three digits are enough of a short one."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else "1 s"
    return durations.text(round(seconds, 1 if seconds < 100 else 0))
