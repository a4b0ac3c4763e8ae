"""What `doctor` finds on this machine, whatever the lock: kernel, /proc, time zones. No server is asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from singleton_run import __version__
from singleton_run.api.finding import Finding, bad, good, warning
from singleton_run.errors import Failure
from singleton_run.schedule import time_zones
from singleton_run.system import calls, libc, processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ANOTHER_ZONE = "Europe/London"


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """A finding for each thing that every lock needs here."""
    yield _kernel()
    yield _watching()
    yield _proc()
    yield _zones(environ)


def _kernel() -> Finding:
    """Whether the kernel's calls work without which nothing is run. They change this process alone."""
    system = f"singleton-run {__version__} on Linux {os.uname().release}"
    try:
        calls.become_subreaper()
        os.close(calls.Timer().descriptor)
        os.close(calls.Signals(()).descriptor)
    except OSError as error:
        return bad(
            f"{system}: the kernel, or the container's filter, refuses a call that every run needs "
            f"({error.strerror})",
            "allow prctl, timerfd and signalfd (seccomp), or take Linux 5.3 or later",
        )
    return good(f"{system}: child subreaper, timerfd and signalfd work")


def _watching() -> Finding:
    try:
        os.close(libc.pidfd_open(os.getpid()))
    except OSError as error:
        return warning(
            f"pidfd_open doesn't work here ({os.strerror(error.errno or 0)}): runs do without it",
            "allow it (seccomp), or take Linux 5.3 or later: then a guard that hangs is noticed sooner",
        )
    return good("pidfd_open works")


def _proc() -> Finding:
    if processes.proc_is_ours():
        return good("/proc is mounted, and is that of our processes")
    return warning(
        "/proc isn't mounted, or is that of other processes: what a command leaves behind is found slowly",
        "mount it (mount -t proc proc /proc)",
    )


def _zones(environ: Mapping[str, str]) -> Finding:
    try:
        zone = time_zones.local(environ)
        time_zones.find(_ANOTHER_ZONE)
    except Failure as failure:
        return Finding(Finding.WARNING, f"for --cron: {failure}")
    return good(f"time zones are installed; --cron is by {zone} unless --tz names another")
