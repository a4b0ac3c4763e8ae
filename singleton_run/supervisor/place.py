"""What the process of a crontab's line has around its turns: variables, standard input, output, the end."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run.supervisor.output import Sender


class Place:
    """The place of one line's turns.

    `variables` are the crontab's, for the command. `text` is the command's standard input; None: it is empty.
    `user` is who the command is run as (see `processes.Command`), None for us.
    `leave` is readable (end-of-file) when the line is to end at its next rest. `first_rest` is a pipe's end
    that gets a byte at the first rest, and is closed. `sender` gives the command's output to the process that
    writes it; None: the command writes to our own descriptors.
    """

    def __init__(
        self,
        name: str,
        variables: Mapping[str, str],
        text: bytes | None,
        user: tuple[str, int, int] | None,
        leave: int,
        first_rest: int,
        sender: Sender | None,
    ) -> None:
        self.name = name
        self.variables = variables
        self.text = text
        self.user = user
        self.leave = leave
        self._first_rest = first_rest
        self._sender = sender
        self._opened: list[int] = []

    def open(self, run: str) -> tuple[int, int, int]:
        """The descriptors that become 0, 1 and 2 of the command of this `run`, until the next `rest`."""
        self._close()
        entry = 0
        if self.text is not None:
            entry = _file_of(self.text)
            self._opened.append(entry)
        pipes = None if self._sender is None else self._sender.offer(self.name, run)
        if pipes is None:
            return entry, 1, 2
        self._opened += pipes
        return entry, *pipes

    def rest(self) -> None:
        """No turn goes on: close what the last one has had. The first rest is told to the parent."""
        self._close()
        if self._first_rest >= 0:
            try:
                os.write(self._first_rest, b"1")
            except OSError:  # the parent has died
                pass
            os.close(self._first_rest)
            self._first_rest = -1

    def _close(self) -> None:
        for descriptor in self._opened:
            os.close(descriptor)
        self._opened = []


def _file_of(text: bytes) -> int:
    """An open file in memory that has this text. Raises OSError."""
    descriptor = os.memfd_create("stdin")
    left = text
    while left:
        left = left[os.write(descriptor, left) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
