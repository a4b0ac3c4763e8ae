"""Standard error for a process that has no writer, and must not wait."""

from __future__ import annotations

import posix as os
import select
import stat

from singleton_run.errors import one_line


def last_words(text: str) -> None:
    """Write a line to stderr if that is possible without waiting. Never raises.

    A pipe or a terminal is opened anew: O_NONBLOCK on descriptor 2 itself would concern all who share it.
    """
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
    """Whether a write to `descriptor` would not block now."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return poll.poll(0) == [(descriptor, select.POLLOUT)]


def _write_without_opening(line: bytes) -> None:
    """Write to the descriptor 2 itself if it is ready, because nothing can be opened."""
    try:
        if takes_more(2):
            os.write(2, line[: select.PIPE_BUF])
    except OSError:
        return
