"""One connection to the server, on which every call ends by its deadline.

It is made when it is needed, and again after it broke. A call that didn't end in time leaves the connection
in an unknown state: it is dropped. What was sent on it may still be done, so each request that changes
something says until when it may (see `scripts`).
"""

from __future__ import annotations

from singleton_run.api import toolbox
from singleton_run.api.deadline import Timeout
from singleton_run.api.http.wire import Broken, Socket, Untrusted
from singleton_run.api.resolve import AddressBook
from singleton_run.api.servers import ServerClock, in_turn, no_answer
from singleton_run.api.url import authority
from singleton_run.errors import Unavailable
from singleton_run_redis.driver import Link
from singleton_run_redis.errors import MOVED_ON, NO_SCRIPT, ServerError
from singleton_run_redis.scripts import SCRIPT, SHA, keys_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    from singleton_run.api.deadline import Deadline
    from singleton_run.api.http.tls import Tls
    from singleton_run.api.http.wire import Wire
    from singleton_run.api.resolve import Address as Place
    from singleton_run_redis.address import Address
    from singleton_run_redis.driver import Command
    from singleton_run_redis.sentinel import Sentinels

    Result = TypeVar("Result")


class Session:
    """The connection to the server at `address`. `clock` is the server's.

    `hello` is what the server said of itself when we connected: its name, version, mode and role.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._link: Link | None = None
        self._book = AddressBook()
        self._channels: list[str] = []
        self._tracks = False
        self._tls = _tls(address)
        self._server = (address.host, address.port)
        self._sentinels: Sentinels | None = None
        if address.sentinels:
            from singleton_run_redis.sentinel import Sentinels

            self._sentinels = Sentinels(address.sentinels, address.service, address.sentinel_login)
        self.clock = ServerClock()
        self.hello: Mapping[str, str] = {}

    def connect(self, deadline: Deadline) -> None:
        """Connect, unless that is done. Raises Unavailable, Refused, Interrupted."""
        if self._link is not None and not self._link.is_open():
            self.drop()
        if self._link is not None:
            return
        if self._sentinels is not None:
            self._server = self._sentinels.primary(self._book, deadline.share(2))
        try:
            addresses = self._addresses(deadline)
        except (LookupError, Timeout) as error:
            raise no_answer("redis", {self._place: error}) from None
        failure: Exception | None = None
        for address, share in in_turn(addresses, deadline):
            try:
                self._open(address, share)
            except (Broken, Timeout) as error:
                failure = error
            except ServerError as error:
                raise error.failure() from None
            else:
                return
        self._look_up_again()
        raise no_answer(
            "redis", {self._place: failure or Timeout()}, untrusted=isinstance(failure, Untrusted)
        )

    def run(self, operation: str, name: str, values: Sequence[str], deadline: Deadline) -> list[Any]:
        """What the script answers, with its texts decoded. The connection must have been made.

        Raises ServerError, Unavailable, Interrupted.
        """
        keys = keys_of(name)
        words = [str(len(keys)), *keys, operation, *values]

        def work() -> list[Any]:
            try:
                return self._ask([("EVALSHA", SHA, *words)], deadline)
            except ServerError as error:
                if error.code != NO_SCRIPT:
                    raise
            # The server was restarted, or somebody flushed the scripts: send the script, which it then keeps.
            return self._ask([("EVAL", SCRIPT, *words)], deadline)

        sent = toolbox.now()
        (found,) = toolbox.request(work, operation, lambda: name, lambda answers: _text(answers[0][1]))
        self.clock.read(int(found[0]) / 1e6, sent, toolbox.now())
        return [_text(value) if isinstance(value, bytes) else value for value in found]

    def ask(self, command: Command, deadline: Deadline) -> Any:
        """The answer to another command, its texts as bytes. The connection must have been made.

        Raises ServerError, Unavailable, Interrupted.
        """
        (answer,) = toolbox.request(
            lambda: self._ask([command], deadline), command[0].lower(), lambda: "", lambda _: "done"
        )
        return answer

    def keys(self, pattern: str, deadline: Deadline) -> list[str]:
        """The keys that match a pattern. Raises ServerError, Unavailable, Interrupted."""
        found: set[str] = set()
        cursor = "0"
        while True:
            ((after, some),) = toolbox.request(
                lambda: self._ask([("SCAN", cursor, "MATCH", pattern, "COUNT", "1000")], deadline),  # noqa: B023 - called at once
                "scan",
                lambda: pattern,
                lambda answers: f"{len(answers[0][1])} keys",
            )
            found |= {_text(key) for key in some}
            cursor = _text(after)
            if cursor == "0":
                return sorted(found)

    def listen(self, channels: Sequence[str], deadline: Deadline) -> bool:
        """Listen on these channels; true if that begins now.

        Raises ServerError, Unavailable, Interrupted.
        """
        if self._channels == [*channels]:
            return False
        link = self._linked()
        toolbox.request(
            lambda: self._safely(lambda: link.subscribe(("SUBSCRIBE", *channels), deadline)),
            "subscribe",
            lambda: channels[-1],
            lambda _: "done",
        )
        self._channels = [*channels]
        return True

    def track(self, deadline: Deadline) -> bool:
        """Have the server tell of changes to all keys that are read from now on; true if that begins now.

        Each key is told of once, and not when we change it. An older user of the server may lack the right:
        then only the channels tell. Raises ServerError, Unavailable, Interrupted.
        """
        if self._tracks:
            return False
        try:
            self.ask(("CLIENT", "TRACKING", "ON", "NOLOOP"), deadline)
        except ServerError as error:
            if error.code not in ("NOPERM", "ERR"):
                raise
        self._tracks = True
        return True

    def pause(self, deadline: Deadline) -> bool:
        """Wait until a channel says something; false at the deadline.

        Raises Interrupted, and Unavailable when the connection breaks.
        """
        link = self._linked()
        try:
            link.push(deadline)
        except Timeout:
            return False
        except Broken as error:
            self.drop()
            raise no_answer("redis", {self._place: error}) from None
        link.pushes.clear()
        return True

    @property
    def listens(self) -> bool:
        """Whether there are channels on which we are told something."""
        return bool(self._channels)

    def forget_pushes(self) -> None:
        """Forget what the channels have said: an answer that came later has it in it."""
        if self._link is not None:
            self._link.pushes.clear()

    def drop(self) -> None:
        """Close the connection, without waiting for anything."""
        link, self._link = self._link, None
        self._channels = []
        self._tracks = False
        if link is not None:
            link.close()

    @property
    def _place(self) -> str:
        """The server, for messages."""
        return authority(*self._server) if self._server[1] else self._server[0]

    def _addresses(self, deadline: Deadline) -> list[Place]:
        if not self._server[1]:
            import socket

            return [(int(socket.AF_UNIX), self._address.host)]
        return self._book.find(self._server, deadline)

    def _look_up_again(self) -> None:
        """Look the name up anew before the next connection: a fail-over may have moved it."""
        if self._server[1]:
            self._book.refresh(self._server)

    def _open(self, address: Place, deadline: Deadline) -> None:
        """Connect and greet the server. Raises Broken, Timeout, Interrupted, ServerError."""
        wire: Wire = Socket(address, deadline)
        try:
            if self._tls is not None:
                wire = _secured(self._tls, wire, self._address.host, deadline)
            link = Link(wire)
            sent = toolbox.now()
            answers = toolbox.request(
                lambda: self._greet(link, deadline), "connect", lambda: self._place, lambda _: "logged in"
            )
            seconds, micros = answers[-1]
            told = answers[0] if isinstance(answers[0], dict) else {}
            self.hello = {
                _text(word): _text(value)
                for word, value in told.items()
                if isinstance(word, bytes) and isinstance(value, bytes)
            }
        except BaseException:
            wire.close()
            raise
        if self._sentinels is not None and self.hello.get("role") != "master":
            wire.close()
            raise Broken("it is no primary any more: a fail-over is under way")
        self._link = link
        self.clock.read(int(seconds) + int(micros) / 1e6, sent, toolbox.now())

    def _greet(self, link: Link, deadline: Deadline) -> list[Any]:
        """Log in, and ask for the server's time. Raises Broken, Timeout, Interrupted, ServerError."""
        login: Command = ()
        if self._address.password:
            login = ("AUTH", self._address.user or "default", self._address.password)
        commands: list[Command] = [("HELLO", "3", *login, "SETNAME", "singleton-run")]
        if self._address.database:
            commands.append(("SELECT", str(self._address.database)))
        try:
            return _answers(link, [*commands, ("TIME",)], deadline)
        except Broken as error:
            hint = "is it Redis, and speaks TLS?" if self._tls else "is it Redis, and without TLS?"
            raise Broken(f"{error}: {hint}") from None

    def _ask(self, commands: Sequence[Command], deadline: Deadline) -> list[Any]:
        """The answers. Raises ServerError, Unavailable, Interrupted."""
        link = self._linked()
        return self._safely(lambda: _answers(link, commands, deadline))

    def _safely(self, work: Callable[[], Result]) -> Result:
        """Do `work` on the connection, and drop it where it can't be used any more.

        Raises ServerError, Unavailable, Interrupted.
        """
        try:
            return work()
        except ServerError as error:
            if error.code in MOVED_ON:
                self.drop()
                self._look_up_again()
            raise
        except (Broken, Timeout) as error:
            self.drop()
            raise no_answer("redis", {self._place: error}) from None
        except BaseException:
            self.drop()
            raise

    def _linked(self) -> Link:
        if self._link is None:
            raise Unavailable("redis: the connection is closed")
        return self._link


def _tls(address: Address) -> Tls | None:
    """The settings of TLS, None without. Raises Refused (78) for files that can't be used."""
    if not address.tls:
        return None
    from singleton_run.api.http.tls import Tls

    return Tls(address.ca, address.cert, address.key, address.server_name, insecure=address.insecure)


def _secured(tls: Tls, wire: Wire, host: str, deadline: Deadline) -> Wire:
    """TLS on the wire. Raises Broken, Interrupted."""
    try:
        return tls.wrap(wire, host, deadline)
    except Timeout:
        # Redis waits for more where TLS is spoken to a port without it.
        raise Broken("no answer to the TLS handshake in time: is TLS spoken there?") from None


def _answers(link: Link, commands: Sequence[Command], deadline: Deadline) -> list[Any]:
    """The answers. Raises Broken, Timeout, Interrupted, and the first ServerError."""
    answers = link.ask(commands, deadline)
    for answer in answers:
        if isinstance(answer, ServerError):
            raise answer
    return answers


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
