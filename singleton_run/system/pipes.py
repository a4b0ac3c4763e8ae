"""Pipes for messages between our processes: each message is a JSON array on a line. They never block."""

from __future__ import annotations

import posix as os

from singleton_run.system import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from singleton_run.report.trace import Tracer
    from singleton_run.reporter.channel import Channel
    from singleton_run.system.messages import Message

tracer: Tracer | None = None
"""What is told of each message, request and decision with -vv (`report.trace`); None without."""

reporter: Channel | None = None
"""The way to the reporter (`reporter.channel`), where an option asks for one; None without."""


# One for all, in a process of one thread. Memory for each read would come from the kernel, and go back to it.
_BUFFER = memoryview(bytearray(16384))


def traced_to() -> list[int]:
    """The descriptor that the trace is written to, if there is one."""
    return [] if tracer is None else [tracer.descriptor]


def reported_to() -> list[int]:
    """The descriptors on which reporters are told of events, if there are any."""
    return [] if reporter is None else [each for each in (reporter.pipe, reporter.shared) if each >= 0]


def pipe() -> tuple[int, int]:
    """A non-blocking pipe, closed on exec: (descriptor to read, descriptor to write)."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    return read, write


class Writer:
    """Writes messages to one end of a pipe. A part that doesn't fit is kept for the next `flush`."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._unsent = b""

    def send(self, message: Message) -> None:
        """Send a message, now or at a later `flush`; to a reader that is gone, never."""
        if tracer is not None:
            tracer.message("sent", message)
        self._unsent += fastjson.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> bool:
        """Write what was kept. False if a part still doesn't fit."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self.descriptor, self._unsent) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            self._unsent = b""
        return True


class Reader:
    """Reads messages from one end of a pipe. `closed` turns true at end-of-file."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.closed = False
        self._partial = b""

    def read(self) -> list[list[Any]]:
        """The whole messages that have arrived since the last call. An unfinished line is kept."""
        try:
            while not self.closed:
                count = os.readv(self.descriptor, (_BUFFER,))
                self._partial += _BUFFER[:count]
                self.closed = not count
        except BlockingIOError:
            pass
        lines = self._partial.split(b"\n")
        self._partial = lines.pop()
        messages = [fastjson.loads(line.decode()) for line in lines]
        if tracer is not None:
            for message in messages:
                tracer.message("heard", message)
        return messages
