"""What we use of redis-py: it packs commands and reads answers, on a wire of ours.

Its own connections wait by time limits of their own, for each piece of an answer anew, and can't be
interrupted. So it never has the socket: it reads from the bytes that a wire has brought so far, and says when
they are not yet a whole answer. No client, pool, retry or time limit of redis-py's is in use.
"""

from __future__ import annotations

import errno

from redis._parsers import _RESP3Parser
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as NotYet
from redis.retry import Retry

from singleton_run.api.deadline import Deadline, Timeout
from singleton_run.api.http.wire import Broken
from singleton_run_redis.errors import ServerError, server_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from singleton_run.api.http.wire import Wire

    Command = Sequence[str]


class Push:
    """What the server sent without being asked: `words`, such as message, channel, text."""

    __slots__ = ("words",)

    def __init__(self, words: list[Any]) -> None:
        self.words = words


class _Arrived:
    """The bytes that have come, in the place of the socket that redis-py reads from."""

    def __init__(self) -> None:
        self.data = b""
        self.is_over = False

    def recv(self, size: int) -> bytes:
        """Bytes that have come; empty at the end."""
        if not self.data and not self.is_over:
            raise BlockingIOError(errno.EWOULDBLOCK, "nothing has come")
        data, self.data = self.data[:size], self.data[size:]
        return data

    def settimeout(self, seconds: float | None) -> None:
        """Nothing here waits."""

    def shutdown(self, how: int) -> None:
        """The wire is closed by its owner."""

    def close(self) -> None:
        """The same."""


class _Connection(Connection):
    """redis-py's connection, on bytes that have come."""

    def __init__(self, arrived: _Arrived) -> None:
        self._arrived = arrived
        super().__init__(  # type: ignore[no-untyped-call]
            socket_timeout=0,
            retry=Retry(NoBackoff(), 0),
            protocol=3,
            parser_class=_RESP3Parser,
            driver_info=None,
            redis_connect_func=self._begin,
        )

    def _connect(self) -> Any:
        return self._arrived

    def _begin(self, *_: object) -> None:
        """Read from now on; the greeting is the caller's."""
        self._parser.on_connect(self)
        self._parser.set_pubsub_push_handler(Push)
        self._parser.set_invalidation_push_handler(Push)


def _connection(arrived: _Arrived) -> Connection:
    """One that is ready to pack and to read."""
    connection: Connection = _Connection(arrived)
    Connection.connect(connection)
    return connection


class Link:
    """A connection on `wire`: commands out, answers in. Every call raises Broken, Timeout and Interrupted.

    After any of these it is of no more use, but for `push`: a wait for a push can be repeated.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._arrived = _Arrived()
        self._connection = _connection(self._arrived)
        self.pushes: list[Push] = []

    def ask(self, commands: Sequence[Command], deadline: Deadline) -> list[Any]:
        """The answer to each command; an error of the server's is a ServerError among them."""
        packed = self._connection.pack_commands(commands)
        self._wire.send(b"".join(packed), deadline)
        answers: list[Any] = []
        while len(answers) < len(commands):
            answer = self._next(deadline)
            if isinstance(answer, Push):
                self.pushes.append(answer)
            else:
                answers.append(answer)
        return answers

    def subscribe(self, command: Command, deadline: Deadline) -> None:
        """Subscribe to channels: each is confirmed by a push. Raises ServerError."""
        self._wire.send(b"".join(self._connection.pack_commands([command])), deadline)
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
        self._connection.disconnect()
        self._wire.close()

    def _next(self, deadline: Deadline) -> Any:
        """The next answer or push. A server's error is returned."""
        while True:
            try:
                return self._connection.read_response(
                    disable_decoding=True, timeout=0, disconnect_on_error=False, push_request=True
                )
            except NotYet:
                self._arrived.data = self._wire.receive(deadline)
                self._arrived.is_over = not self._arrived.data
            except RedisError as error:
                return self._meaning(error)
            except (ValueError, IndexError, TypeError):
                raise Broken("what answers there doesn't speak Redis' protocol") from None

    def _meaning(self, error: RedisError) -> ServerError:
        """The server's error, which redis-py gives without its code where it knows that. Raises Broken."""
        text = str(error)
        if error.status_code is not None:
            return server_error(f"{error.status_code} {text}")
        code = text.partition(" ")[0]
        if code.isupper() and code.isascii():
            return server_error(text)
        if self._arrived.is_over:
            raise Broken("the server closed the connection")
        raise Broken("what answers there doesn't speak Redis' protocol")
