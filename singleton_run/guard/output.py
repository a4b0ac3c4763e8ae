"""The command's output on its way through us (--ping-log): passed on byte for byte, and its end is kept.

A process of its own passes it on, a child of the front's. It blocks where the command itself would block
without us. It ends when nobody has the other end any more, and then tells the reporter the last KEPT bytes.
Standard output and standard error have a pipe each, or one if both lead to the same place: the order stays.
"""

from __future__ import annotations

import os
import select

from singleton_run.system import calls, pipes, processes
from singleton_run.system.forked import forked

KEPT = 10_000
_PIECE = 65536
_KILL = 9
_FLUSH_MILLISECONDS = 5000
"""How long we wait at our end for what was printed to be passed on."""


class Output:
    """The pipes of one turn's output, and the `process` that passes it on. Raises OSError."""

    def __init__(self, name: str, run: str) -> None:
        self._name = name
        self._run = run
        self._stderr = -1
        out_read, out_write = os.pipe()
        self._reads, self._writes = [out_read], [out_write, out_write]
        if not _is_same(1, 2):
            err_read, self._writes[1] = os.pipe()
            self._reads.append(err_read)
        self.process = forked(self._be)
        for descriptor in self._reads:
            os.close(descriptor)

    def _be(self) -> None:
        calls.set_title(f"singleton-run: output of {self._name}")
        calls.keep_only([*self._reads, *pipes.reported_to()])
        calls.close_standard(0)
        calls.leave_directory()
        targets = dict(zip(self._reads, (1, 2), strict=False))
        if len(targets) == 1:
            calls.close_standard(2)
        last = passed_on(targets)
        if pipes.reporter is not None:
            pipes.reporter.output(self._run, last)

    def begin(self) -> None:
        """Have a command that is started now print into the pipes. Called in the guard."""
        self._stderr = os.dup(2)
        for number in (1, 2):
            os.dup2(self._writes[number - 1], number)

    def begun(self) -> None:
        """The command is started: close our ends, and have our own standard error again."""
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        calls.close_standard(1)
        self.drop()

    def drop(self) -> None:
        """Close our ends for writing. It may be called again."""
        for descriptor in set(self._writes):
            os.close(descriptor)
        self._writes = []

    def finish(self, *, was_started: bool) -> None:
        """The turn is over: wait for what was printed to be passed on, for a while."""
        self.drop()
        if not was_started:
            processes.send(self.process, _KILL)
        if processes.reap_one(self.process, _FLUSH_MILLISECONDS) and pipes.reporter is not None:
            pipes.reporter.output_ended(self.process)


def _is_same(one: int, other: int) -> bool:
    """Whether two descriptors lead to the same file, pipe or terminal."""
    found, compared = os.fstat(one), os.fstat(other)
    return (found.st_dev, found.st_ino, found.st_rdev) == (compared.st_dev, compared.st_ino, compared.st_rdev)


class _Stream:
    """One descriptor that is copied to another. `over` says that it is at its end."""

    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._rest = b""
        self.over = False

    def wanted(self) -> tuple[int, int]:
        """The descriptor that has to be ready for the next step, and for what (poll(2))."""
        return (self._target, select.POLLOUT) if self._rest else (self._source, select.POLLIN)

    def step(self) -> bytes:
        """Read what there is, or write what was read: what was read.

        Where the target takes no more, the source is closed: who writes to it learns of it as without us.
        """
        data = b""
        try:
            if self._rest:
                self._rest = self._rest[os.write(self._target, self._rest[: select.PIPE_BUF]) :]
            else:
                self._rest = data = os.read(self._source, _PIECE)
                self.over = not data
        except BlockingIOError:
            return b""
        except OSError:
            self.over = True
        if self.over:
            os.close(self._source)
        return data


def passed_on(targets: dict[int, int]) -> bytes:
    """Copy each descriptor to its target until all are at their end: the last KEPT bytes of what came."""
    last = b""
    streams = [_Stream(source, target) for source, target in targets.items()]
    while streams:
        poll = select.poll()
        ready = {}
        for stream in streams:
            descriptor, mask = stream.wanted()
            poll.register(descriptor, mask)
            ready[descriptor] = stream
        for descriptor, _ in poll.poll():
            last = (last + ready[descriptor].step())[-KEPT:]
        streams = [stream for stream in streams if not stream.over]
    return last
