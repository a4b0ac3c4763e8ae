"""Standard error, for one who may not wait for it and has no writer."""

from __future__ import annotations

import os
import select
import stat

from singleton_run.errors import one_line


def last_words(text: str) -> None:
    """Write a line to stderr if that can be done without waiting, for one who has no writer."""
    line = f"singleton-run: {one_line(text)}\n".encode(errors="replace")
    try:
        if stat.S_ISREG(os.fstat(2).st_mode):
            os.write(2, line)
            return
        descriptor = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        _write_without_opening(line)
        return
    try:
        os.write(descriptor, line)
    except OSError:
        return
    finally:
        os.close(descriptor)


def takes_more(descriptor: int) -> bool:
    """Whether a write to it wouldn't block."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return poll.poll(0) == [(descriptor, select.POLLOUT)]


def _write_without_opening(line: bytes) -> None:
    """Where nothing can be opened: a pipe or a terminal that is ready takes a line without a wait."""
    try:
        if takes_more(2):
            os.write(2, line[: select.PIPE_BUF])
    except OSError:
        return
