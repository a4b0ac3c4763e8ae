"""One connection to the server, on which every call ends by its deadline.

It is made when it is needed, and again after it broke. A call that didn't end in time leaves the connection
in an unknown state: it is dropped. What was sent on it may still be done, so each request that changes
something says until when it may (see `scripts`).
"""

from __future__ import annotations

from singleton_run.api import toolbox
from singleton_run.api.deadline import Timeout
from singleton_run.api.http.wire import UNIX, Broken, Socket, Untrusted
from singleton_run.api.resolve import AddressBook
from singleton_run.api.servers import ServerClock, in_turn, no_answer
from singleton_run.api.url import authority
from singleton_run.errors import UNUSABLE, Refused, Unavailable
from singleton_run_redis.driver import Link
from singleton_run_redis.errors import MOVED_ON, NO_SCRIPT, ServerError
from singleton_run_redis.scripts import SCRIPT, SHA, keys_of
from singleton_run_redis.security import no_greeting, secured, settings, why

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    from singleton_run.api.deadline import Deadline
    from singleton_run.api.http.wire import Wire
    from singleton_run.api.resolve import Address as Place
    from singleton_run.api.resolve import HostPort
    from singleton_run_redis.address import Address
    from singleton_run_redis.cluster import Nodes
    from singleton_run_redis.resp import Command
    from singleton_run_redis.sentinel import Sentinels

    Result = TypeVar("Result")

# Of the time of a call, the part in which replicas may confirm what was done.
_FOR_REPLICAS = 0.8


class Session:
    """The connection to the server at `address`, or to the node of a cluster that has the lock's slot.

    `clock` is that server's, `hello` what it said of itself when we connected: its name, version, mode
    and role. `run_id` is what its INFO calls this run of it, once `doctor` has asked.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._link: Link | None = None
        self._book = AddressBook()
        self._channels: list[str] = []
        self._tracks = False
        self._tls = settings(address)
        self._server = (address.host, address.port)
        self._sentinels: Sentinels | None = None
        if address.sentinels:
            from singleton_run_redis.sentinel import Sentinels

            self._sentinels = Sentinels(address, self._tls)
        self._nodes: Nodes | None = None
        if address.nodes:
            from singleton_run_redis.cluster import Nodes

            self._nodes = Nodes(address.nodes)
        self.clock = ServerClock()
        self.hello: Mapping[str, str] = {}
        self.run_id = ""

    def connect(self, deadline: Deadline) -> None:
        """Connect, unless that is done. Raises Unavailable, Refused, Interrupted."""
        if self._link is not None and not self._link.is_open():
            self.drop()
        if self._link is not None:
            return
        failures: dict[str, Exception] = {}
        for server, share in in_turn(self._servers(deadline), deadline):
            self._server = server
            try:
                self._reach(share)
            except (LookupError, Broken, Timeout) as error:
                failures[self._place] = error
                self._pass_over(error)
            except ServerError as error:
                failure = error.failure()
                if self._nodes is None or isinstance(failure, Refused):
                    raise failure from None
                failures[self._place] = error
                self._pass_over(error)
            else:
                return
        if self._nodes is not None and deadline.passed() and (missed := self._nodes.failure()):
            raise missed
        untrusted = all(isinstance(error, Untrusted) for error in failures.values())
        raise no_answer("redis", failures, untrusted=untrusted)

    def run(self, operation: str, name: str, values: Sequence[str], deadline: Deadline) -> list[Any]:
        """What the script answers, with its texts decoded. The connection must have been made.

        Raises ServerError, Unavailable, Interrupted.
        """
        keys = keys_of(name)
        not_after, *rest = values

        def run() -> list[Any]:
            # A node that the last one named has a clock of its own.
            limit = not_after and self.not_after(deadline)
            words = [str(len(keys)), *keys, operation, limit, *rest]

            def work() -> list[Any]:
                try:
                    return self._ask([("EVALSHA", SHA, *words)], deadline)
                except ServerError as error:
                    if error.code != NO_SCRIPT:
                        raise
                # It was restarted, or somebody flushed the scripts: send the script, which it then keeps.
                return self._ask([("EVAL", SCRIPT, *words)], deadline)

            sent = toolbox.now()
            (found,) = toolbox.request(work, operation, lambda: name, lambda answers: _text(answers[0][1]))
            self.clock.read(int(found[0]) / 1e6, sent, toolbox.now())
            return [_text(value) if isinstance(value, bytes) else value for value in found]

        return self._followed(run, deadline)

    def not_after(self, deadline: Deadline) -> str:
        """The server's time at the deadline, in µs, from which on a request must change nothing."""
        return f"{self.clock.at(deadline.until) * 1e6:.0f}"

    def ask(self, command: Command, deadline: Deadline) -> Any:
        """The answer to another command, its texts as bytes. The connection must have been made.

        Raises ServerError, Unavailable, Interrupted.
        """

        def work() -> Any:
            (answer,) = toolbox.request(
                lambda: self._ask([command], deadline), command[0].lower(), lambda: "", lambda _: "done"
            )
            return answer

        return self._followed(work, deadline)

    def confirm(self, deadline: Deadline) -> None:
        """Wait until so many replicas as the address says have what this connection has written.

        Raises ServerError, Unavailable, Interrupted.
        """
        wanted = self._address.replicas
        if not wanted:
            return
        left = max(1, int((deadline.until - toolbox.now()) * 1000 * _FOR_REPLICAS))
        have = int(self.ask(("WAIT", str(wanted), str(left)), deadline))
        if have < wanted:
            raise Unavailable(f"redis: {have} of {wanted} replicas have it in time: see INFO replication")

    def keys(self, pattern: str, deadline: Deadline) -> list[str]:
        """The keys that match a pattern, sorted: in a cluster of all nodes.

        Raises ServerError, Unavailable, Interrupted.
        """
        if self._nodes is None:
            return sorted(self._scan(pattern, deadline))
        from singleton_run_redis import cluster

        found: set[str] = set()
        for node in cluster.masters(self.ask(cluster.MASTERS, deadline), self._server):
            if node != self._server:
                self.drop()
                self._nodes.name(node)
                self.connect(deadline)
                if node != self._server:
                    raise Unavailable(f"redis: the node {authority(*node)} of the cluster doesn't answer")
            found |= self._scan(pattern, deadline)
        return sorted(found)

    def _scan(self, pattern: str, deadline: Deadline) -> set[str]:
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
                return found

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
    def tracks(self) -> bool:
        """Whether the server was asked to tell of changes to keys."""
        return self._tracks

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

    def _servers(self, deadline: Deadline) -> list[HostPort]:
        """Where to connect, one after the other. Raises Unavailable, Refused, Interrupted."""
        if self._nodes is not None:
            return self._nodes.candidates()
        if self._sentinels is not None:
            return [self._sentinels.primary(self._book, deadline.share(2))]
        return [self._server]

    def _reach(self, deadline: Deadline) -> None:
        """Connect to the server. Raises LookupError, Broken, Timeout, Interrupted, ServerError."""
        failure: Exception = Timeout("no answer in time")
        for address, share in in_turn(self._addresses(deadline), deadline):
            try:
                self._open(address, share)
            except (Broken, Timeout) as error:
                failure = why(failure, error)
            else:
                return
        raise failure

    def _pass_over(self, why: Exception) -> None:
        """Connect elsewhere the next time, if there is another place."""
        self._look_up_again()
        if self._nodes is not None:
            self._nodes.pass_over(self._server, why)

    def _followed(self, work: Callable[[], Result], deadline: Deadline) -> Result:
        """Do `work`, again and elsewhere as long as the nodes of a cluster say so.

        Raises ServerError, Unavailable, Interrupted.
        """
        if self._nodes is None:
            return work()
        from singleton_run_redis import cluster

        patience = cluster.Patience()
        while True:
            try:
                result = work()
            except ServerError as error:
                if not cluster.is_redirection(error):
                    raise self._nodes.failure(error) or error from None
                if self._nodes.follow(error, self._server):
                    self.drop()
                patience.pause(error, self._nodes, deadline)
                self.connect(deadline)
            else:
                self._nodes.asked()
                return result

    def _addresses(self, deadline: Deadline) -> list[Place]:
        if not self._server[1]:
            return [(UNIX, self._address.host)]
        return self._book.find(self._server, deadline)

    def _look_up_again(self) -> None:
        """Look the name up anew before the next connection: a fail-over may have moved it."""
        if self._server[1]:
            self._book.refresh(self._server)

    def _open(self, address: Place, deadline: Deadline) -> None:
        """Connect and greet the server. Raises Broken, Timeout, Interrupted, ServerError."""
        wire: Wire = Socket(address, deadline)
        try:
            wire = secured(self._tls, wire, self._server[0], deadline)
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
        if self._nodes is not None and self.hello.get("mode") != "cluster":
            wire.close()
            # Servers that don't know each other would each give the lock to somebody.
            raise Refused(
                f"redis: {self._place} is no node of a cluster: say {'rediss' if self._tls else 'redis'}://",
                UNUSABLE,
            )
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
            raise no_greeting(error, tls=self._tls is not None) from None

    def _ask(self, commands: Sequence[Command], deadline: Deadline) -> list[Any]:
        """The answers. Raises ServerError, Unavailable, Interrupted."""
        link = self._linked()
        if self._nodes is not None and self._nodes.asking:
            return self._safely(lambda: _answers(link, [("ASKING",), *commands], deadline))[1:]
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
                self._pass_over(error)
            raise
        except (Broken, Timeout) as error:
            self.drop()
            if self._nodes is not None:
                self._nodes.pass_over(self._server, error)
            raise no_answer("redis", {self._place: error}) from None
        except BaseException:
            self.drop()
            raise

    def _linked(self) -> Link:
        if self._link is None:
            raise Unavailable("redis: the connection is closed")
        return self._link


def _answers(link: Link, commands: Sequence[Command], deadline: Deadline) -> list[Any]:
    """The answers. Raises Broken, Timeout, Interrupted, and the first ServerError."""
    answers = link.ask(commands, deadline)
    for answer in answers:
        if isinstance(answer, ServerError):
            raise answer
    return answers


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
