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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = 10_000
_PIECE = 65536
_KILL = 9
_FLUSH_MILLISECONDS = 5000
"""How long we wait at our end for what was printed to be passed on."""


class Output:
    """The pipes of one turn's output, and the `process` that passes it on to `goal`. Raises OSError.

    `goal` and `standard` are three descriptors: what standard input, output and standard error would be
    without us, and what they are for the command.
    """

    def __init__(self, name: str, run: str, goal: Sequence[int]) -> None:
        self._name = name
        self._run = run
        read, write = os.pipe()
        self._targets = {read: goal[1]}
        self._writes = {write}
        self.standard = (goal[0], write, write)
        if not _is_same(goal[1], goal[2]):
            read, write = os.pipe()
            self._targets[read] = goal[2]
            self._writes.add(write)
            self.standard = (*self.standard[:2], write)
        self.process = forked(self._be)
        for descriptor in self._targets:
            os.close(descriptor)

    def _be(self) -> None:
        calls.set_title(f"singleton-run: output of {self._name}")
        targets = self._targets
        calls.keep_only([*targets, *targets.values(), *pipes.reported_to()])
        calls.close_standard(*{0, 1, 2}.difference(targets.values()))
        calls.leave_directory()
        last = passed_on(targets)
        if pipes.reporter is not None:
            pipes.reporter.output(self._run, last)

    def drop(self) -> None:
        """Close our ends for writing. It may be called again."""
        for descriptor in self._writes:
            os.close(descriptor)
        self._writes = set()

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
