"""One server of a quorum: a connection that never blocks, on which requests queue up.

Answers come in the order of the requests. A request whose caller has gone on without it stays in the queue,
so that the connection to a slow server serves on; what it may still change, it changes in time or not at all
(see `scripts`). A server that is silent for seconds is connected to anew.
"""

from __future__ import annotations

import select

from singleton_run.api import toolbox
from singleton_run.api.deadline import Deadline, Timeout
from singleton_run.api.http.wire import Broken, Untrusted
from singleton_run.api.servers import ServerClock
from singleton_run.api.url import authority
from singleton_run_redis.errors import MOVED_ON, NO_SCRIPT, ServerError
from singleton_run_redis.resp import NotYet, Push, Reader, packed
from singleton_run_redis.scripts import SCRIPT
from singleton_run_redis.security import NO_HANDSHAKE, no_greeting
from singleton_run_redis.stream import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from singleton_run.api.http.tls import SecureWire, Tls
    from singleton_run.api.resolve import AddressBook
    from singleton_run_redis.address import Address
    from singleton_run_redis.resp import Command

    Make = Callable[["Node"], Command]

_SILENT = 5.0
_LOOKUP = 0.5
# A stream never waits, so it needs no time.
_AT_ONCE = Deadline(0.0)


class Request:
    """A command for one server: its `answer`, or why it has none (`failure`).

    `make` gives the command when the server can take it. `confirmations` is how many pushes answer it. The
    answer of one that `tells_all` has in it all that the server had pushed before.
    """

    __slots__ = ("answer", "command", "confirmations", "done", "failure", "make", "sent", "tells_all")

    def __init__(self, make: Make, confirmations: int = 0, *, tells_all: bool = False) -> None:
        self.make = make
        self.confirmations = confirmations
        self.tells_all = tells_all
        self.command: Command = ()
        self.sent = 0.0
        self.answer: Any = None
        self.failure: Exception | None = None
        self.done = False

    def fail(self, failure: Exception) -> None:
        """It has no answer."""
        self.failure = failure
        self.done = True


class Node:
    """The server at `address`, spoken to with these settings of TLS, None for none.

    `clock` is its clock, by its last answer. `listens`: all channels that were asked for are confirmed.
    `pushed`: one of them has said something since this was set to False. `tracks`: it was asked to tell of
    changes to keys.
    """

    def __init__(self, address: Address, book: AddressBook, poll: select.epoll, tls: Tls | None) -> None:
        self.place = authority(address.host, address.port)
        self.clock = ServerClock()
        self.listens = False
        self.pushed = False
        self.tracks = False
        self._address = address
        self._book = book
        self._poll = poll
        self._tls = tls
        self._stream: Stream | None = None
        self._secure: SecureWire | None = None
        self._stage = "closed"
        self._began = 0.0
        self._reader = Reader()
        self._pending: list[Request] = []
        self._later: list[Request] = []

    @property
    def descriptor(self) -> int:
        """Its connection's; -1 without one."""
        return -1 if self._stream is None else self._stream.descriptor

    def is_behind(self, seconds: float) -> bool:
        """Whether something has been without an answer for that long."""
        if not self._pending and not self._later:
            return False
        since = self._pending[0].sent if self._pending else self._began
        return toolbox.now() > since + seconds

    def submit(self, request: Request, deadline: Deadline) -> None:
        """Send a request, now or as soon as there is a connection. What is wrong is in the request."""
        if self.is_behind(_SILENT):
            self.fail(self.silence())
        self._later.append(request)
        if self._stream is None:
            self._connect(deadline)
        elif self._stage == "open":
            self._send_later()

    def silence(self) -> Exception:
        """Why there is no answer, where none has come in time."""
        return Broken(NO_HANDSHAKE) if self._stage == "shaking hands" else Timeout("no answer in time")

    def handle(self, events: int) -> None:
        """Go on: the descriptor is ready for `events` of epoll."""
        try:
            if self._stage == "connecting":
                self._connected()
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._receive()
            self._flush()
        except Broken as error:
            if self._stage == "greeting" or isinstance(error, Untrusted):
                error = no_greeting(error, tls=self._tls is not None)
            self.fail(error)

    def fail(self, failure: Exception) -> None:
        """Close the connection. What has no answer yet gets none."""
        stream, self._stream, self._secure = self._stream, None, None
        self._stage = "closed"
        self.listens = self.tracks = False
        self._reader = Reader()
        if stream is not None:
            self._poll.unregister(stream.descriptor)
            stream.close()
        unanswered = [*self._pending, *self._later]
        self._pending.clear()
        self._later.clear()
        for request in unanswered:
            request.fail(failure)

    def _connect(self, deadline: Deadline) -> None:
        where = (self._address.host, self._address.port)
        try:
            addresses = self._book.find(where, deadline.within(_LOOKUP))
            addresses.append(addresses.pop(0))  # the next attempt is at the next one
            self._stream = Stream(addresses[-1])
        except (LookupError, Broken, Timeout) as error:
            self._book.refresh(where)
            self.fail(error)
            return
        self._began = toolbox.now()
        self._stage = "connecting"
        self._poll.register(self._stream.descriptor, select.EPOLLOUT)

    def _connected(self) -> None:
        if self._stream is None:
            return
        self._stream.check()
        if self._tls is None:
            self._greet()
        else:
            self._stage = "shaking hands"
            self._secure = self._tls.begin(self._stream, self._address.host)
            self._shake_hands()

    def _shake_hands(self) -> None:
        if self._secure is not None:
            try:
                self._secure.agree(_AT_ONCE)
            except BlockingIOError:
                return
            self._greet()

    def _greet(self) -> None:
        self._stage = "greeting"
        login: Command = ()
        if self._address.password:
            login = ("AUTH", self._address.user or "default", self._address.password)
        commands: list[Command] = [("HELLO", "3", *login, "SETNAME", "singleton-run")]
        if self._address.database:
            commands.append(("SELECT", str(self._address.database)))
        for command in (*commands, ("TIME",)):
            self._send(Request(lambda _, command=command: command))  # type: ignore[misc]

    def _send_later(self) -> None:
        while self._later:
            self._send(self._later.pop(0))
        try:
            self._flush()
        except Broken as error:
            self.fail(error)

    def _send(self, request: Request) -> None:
        request.command = request.make(self)
        request.sent = toolbox.now()
        self._pending.append(request)
        wire = self._secure or self._stream
        if wire is not None:
            wire.send(packed([request.command]), _AT_ONCE)

    def _flush(self) -> None:
        if self._stream is None or self._stage == "connecting":
            return
        self._stream.flush()
        mask = select.EPOLLIN | (select.EPOLLOUT if self._stream.is_full else 0)
        self._poll.modify(self._stream.descriptor, mask)

    def _receive(self) -> None:
        if self._stage == "shaking hands":
            self._shake_hands()
        while self._stage in ("greeting", "open"):
            wire = self._secure or self._stream
            try:
                data = b"" if wire is None else wire.receive(_AT_ONCE)
            except BlockingIOError:
                return
            if not data:
                raise Broken("the server closed the connection")
            self._reader.feed(data)
            try:
                while self._stream is not None:
                    self._take(self._reader.next())
            except NotYet:
                continue

    def _take(self, value: Any) -> None:
        if isinstance(value, Push):
            self._take_push(value.words)
            return
        if not self._pending:
            raise Broken("the server answers what it wasn't asked")
        request = self._pending.pop(0)
        if isinstance(value, ServerError):
            self._refused(request, value)
        else:
            self._answered(request, value)

    def _take_push(self, words: list[Any]) -> None:
        if not words or not words[0].endswith(b"subscribe"):
            self.pushed = True
            return
        request = self._pending[0] if self._pending else None
        if request is None or not request.confirmations:
            return
        request.confirmations -= 1
        if not request.confirmations:
            self.listens = True
            self._pending.pop(0).done = True

    def _refused(self, request: Request, error: ServerError) -> None:
        if error.code == NO_SCRIPT and request.command[0] == "EVALSHA":
            words = request.command[2:]
            request.make = lambda _: ("EVAL", SCRIPT, *words)
            self._send(request)
            return
        request.fail(error)
        if self._stage != "open" or error.code in MOVED_ON:
            self.fail(error)

    def _answered(self, request: Request, value: Any) -> None:
        request.answer = value
        request.done = True
        self.pushed = self.pushed and not request.tells_all
        now = toolbox.now()
        if self._stage == "greeting":
            if request.command[0] == "TIME":
                self.clock.read(int(value[0]) + int(value[1]) / 1e6, request.sent, now)
                self._stage = "open"
                while self._later:
                    self._send(self._later.pop(0))
        elif request.command[0].startswith("EVAL"):
            self.clock.read(int(value[0]) / 1e6, request.sent, now)
