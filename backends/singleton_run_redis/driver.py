"""A connection on which commands go out and answers come in, each call within its deadline."""

from __future__ import annotations

from singleton_run.api.deadline import Deadline, Timeout
from singleton_run.api.http.wire import Broken
from singleton_run_redis.errors import ServerError
from singleton_run_redis.resp import Push, Reader, packed, read_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from singleton_run.api.http.wire import Wire
    from singleton_run_redis.resp import Command


class Link:
    """A connection on `wire`: commands out, answers in. Every call raises Broken, Timeout and Interrupted.

    After any of these it is of no more use, but for `push`: a wait for a push can be repeated.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._reader = Reader()
        self.pushes: list[Push] = []

    def ask(self, commands: Sequence[Command], deadline: Deadline) -> list[Any]:
        """The answer to each command; an error of the server's is a ServerError among them.

        It is raised if the server closed the connection after it.
        """
        self._wire.send(packed(commands), deadline)
        answers: list[Any] = []
        while len(answers) < len(commands):
            try:
                answer = self._next(deadline)
            except Broken:
                if answers and isinstance(answers[-1], ServerError):
                    raise answers[-1] from None
                raise
            if isinstance(answer, Push):
                self.pushes.append(answer)
            else:
                answers.append(answer)
        return answers

    def subscribe(self, command: Command, deadline: Deadline) -> None:
        """Subscribe to channels: each is confirmed by a push. Raises ServerError."""
        self._wire.send(packed([command]), deadline)
        missing = len(command) - 1
        while missing:
            answer = self._next(deadline)
            if isinstance(answer, ServerError):
                raise answer
            if isinstance(answer, Push) and answer.words[0].endswith(b"subscribe"):
                missing -= 1
            elif isinstance(answer, Push):
                self.pushes.append(answer)

    def push(self, deadline: Deadline) -> None:
        """Return when there is something in `pushes`. Raises Timeout at the deadline."""
        while not self.pushes:
            answer = self._next(deadline)
            if not isinstance(answer, Push):
                raise Broken("the server answers what it wasn't asked")
            self.pushes.append(answer)

    def is_open(self) -> bool:
        """Whether the connection is open, as far as this end can see. What has come by itself is kept."""
        try:
            while True:
                answer = self._next(Deadline(0.0))
                if not isinstance(answer, Push):
                    return False
                self.pushes.append(answer)
        except Timeout:
            return True
        except Broken:
            return False

    def close(self) -> None:
        """Close the wire. Never raises."""
        self._wire.close()

    def _next(self, deadline: Deadline) -> Any:
        """The next answer or push. A server's error is returned."""
        return read_from(self._reader, lambda: self._wire.receive(deadline))
