"""Messages between our processes: one JSON array a line, over a pipe that never blocks."""

from __future__ import annotations

import os

from singleton_run.system import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from singleton_run.report.trace import Tracer
    from singleton_run.system.messages import Message

tracer: Tracer | None = None
"""What is told of each message, request and decision with -vv (`report.trace`); None without."""


def traced_to() -> list[int]:
    """The descriptor that the trace is written to, if there is one."""
    return [] if tracer is None else [tracer.descriptor]


def pipe() -> tuple[int, int]:
    """A non-blocking pipe, closed on exec: (descriptor to read, descriptor to write)."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    return read, write


class Writer:
    """Writes messages to one end of a pipe. What doesn't fit is kept for the next `flush`."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._rest = b""

    def send(self, message: Message) -> None:
        """Send a message, now or at a later `flush`; to a reader that is gone, never."""
        if tracer is not None:
            tracer.message("sent", message)
        self._rest += fastjson.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> bool:
        """Write what was kept; False if some of it still is."""
        try:
            while self._rest:
                self._rest = self._rest[os.write(self.descriptor, self._rest) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            self._rest = b""
        return True


class Reader:
    """Reads messages from one end of a pipe. `closed` turns true at end-of-file."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.closed = False
        self._rest = b""

    def read(self) -> list[list[Any]]:
        """Every whole message that has arrived; a cut last line of a dead writer is dropped."""
        try:
            while not self.closed:
                data = os.read(self.descriptor, 65536)
                self._rest += data
                self.closed = not data
        except BlockingIOError:
            pass
        lines = self._rest.split(b"\n")
        self._rest = lines.pop()
        messages = [fastjson.loads(line.decode()) for line in lines]
        if tracer is not None:
            for message in messages:
                tracer.message("heard", message)
        return messages
