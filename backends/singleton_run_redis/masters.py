"""All servers of a quorum: a question to all of them at once, until enough of them have answered."""

from __future__ import annotations

import select

from singleton_run.api import toolbox
from singleton_run.api.deadline import READ, Timeout
from singleton_run.api.http.wire import Untrusted
from singleton_run.api.resolve import AddressBook
from singleton_run.api.servers import no_answer
from singleton_run.errors import Refused
from singleton_run_redis.errors import ServerError
from singleton_run_redis.node import Node, Request
from singleton_run_redis.scripts import SHA, keys_of
from singleton_run_redis.security import settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from singleton_run.api.deadline import Deadline
    from singleton_run.errors import Failure
    from singleton_run_redis.address import Address
    from singleton_run_redis.node import Make

    Enough = Callable[[Sequence[Request]], bool]

LINGER = 0.05
"""How much longer than the majority a server may take, in seconds, so that it takes part as a rule."""


class Masters:
    """The servers at `addresses`. `need` is how many of them are a majority.

    The constructor raises Refused (78) for files of TLS that can't be used.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.need = len(addresses) // 2 + 1
        self._poll = select.epoll()
        book = AddressBook()
        tls = settings(addresses[0])
        self.nodes = [Node(address, book, self._poll, tls) for address in addresses]

    def time(self) -> int:
        """What the clock of theirs that is furthest ahead shows at the least, in µs; 0 before an answer."""
        now = toolbox.now()
        return int(max((node.clock.at(now) for node in self.nodes if node.clock.told()), default=0) * 1e6)

    def ask(
        self,
        make: Make,
        enough: Enough,
        deadline: Deadline,
        linger: float = 0.0,
        *,
        tells_all: bool = False,
    ) -> list[Request]:
        """Ask all: the requests, in the servers' order, once that is `enough`, all are done, or time is up.

        Servers that kept up so far are waited for `linger` seconds longer. Where an answer `tells_all`, what
        its server has pushed before is forgotten. Raises Interrupted.
        """
        fast = [not node.is_behind(LINGER) for node in self.nodes]
        requests = [Request(make, tells_all=tells_all) for _ in self.nodes]
        for node, request in zip(self.nodes, requests, strict=True):
            node.submit(request, deadline)
        self.go_on(lambda: all(request.done for request in requests) or enough(requests), deadline)
        if linger and not all(request.done for request in requests):
            others = [request for request, is_fast in zip(requests, fast, strict=True) if is_fast]
            self.go_on(lambda: all(request.done for request in others), deadline.within(linger))
        return requests

    def go_on(self, over: Callable[[], bool], deadline: Deadline) -> bool:
        """Send and receive until that is `over`; false at the deadline. Raises Interrupted."""
        while not over():
            try:
                deadline.wait(self._poll.fileno(), READ)
            except Timeout:
                self._step()
                return over()
            self._step()
        return True

    def listen(self, channels: Sequence[str], deadline: Deadline, *, tracks: bool = False) -> bool:
        """Listen on these channels of a majority; true if that begins now on some server.

        With `tracks` they also tell of a lock's key that is read and then changed by somebody, where we may
        ask for that. Raises Unavailable, Refused, Interrupted.
        """
        silent = [node for node in self.nodes if not node.listens or (tracks and not node.tracks)]
        if not silent:
            return False
        fast = [not node.is_behind(LINGER) for node in silent]
        requests = [Request(lambda _: ("SUBSCRIBE", *channels), len(channels)) for _ in silent]
        for node, request in zip(silent, requests, strict=True):
            if tracks:
                node.submit(Request(_track), deadline)
            node.submit(request, deadline)
        self.go_on(
            lambda: all(request.done for request in requests) or self.listening() >= self.need, deadline
        )
        if self.listening() < self.need:
            raise self.trouble(requests, silent)
        others = [request for request, is_fast in zip(requests, fast, strict=True) if is_fast]
        self.go_on(lambda: all(request.done for request in others), deadline.within(LINGER))
        return any(node.listens for node in silent)

    def tracks(self) -> bool:
        """Whether a server was asked to tell of changes to keys."""
        return any(node.tracks for node in self.nodes)

    def listening(self) -> int:
        """How many servers tell us."""
        return sum(node.listens for node in self.nodes)

    def pause(self, deadline: Deadline) -> bool:
        """Wait until a channel says something, and for a moment for the others; false at the deadline.

        Raises Interrupted, and Unavailable when no majority can be listened to any more.
        """
        self.go_on(lambda: any(node.pushed for node in self.nodes) or self.listening() < self.need, deadline)
        if not any(node.pushed for node in self.nodes):
            if self.listening() < self.need:
                raise no_answer("redis", {node.place: Timeout("the connection broke") for node in self.nodes})
            return False
        self.go_on(lambda: sum(node.pushed for node in self.nodes) >= self.need, deadline.within(LINGER))
        for node in self.nodes:
            node.pushed = False
        return True

    def drop(self) -> None:
        """Close all connections, without waiting for anything."""
        for node in self.nodes:
            node.fail(Timeout("the connection is closed"))

    def trouble(self, requests: Sequence[Request], nodes: Sequence[Node] = ()) -> Failure:
        """Why there is no majority: Refused if too many servers refuse us, else Unavailable."""
        failures: dict[str, Exception] = {}
        refusals: list[Refused] = []
        for node, request in zip(nodes or self.nodes, requests, strict=True):
            failure = request.failure or node.silence()
            if request.done and request.failure is None:
                continue
            if isinstance(failure, ServerError):
                meant = failure.failure()
                if isinstance(meant, Refused):
                    refusals.append(meant)
            failures[node.place] = failure
        untrusted = sum(isinstance(failure, Untrusted) for failure in failures.values())
        is_final = len(refusals) + untrusted > len(self.nodes) - self.need
        if is_final and refusals:
            return refusals[0]
        text = f"redis: fewer than {self.need} of {len(self.nodes)} servers answer"
        return no_answer(text, failures, untrusted=is_final)

    def _step(self) -> None:
        for descriptor, events in self._poll.poll(0):
            for node in self.nodes:
                if node.descriptor == descriptor:
                    node.handle(events)


def _track(node: Node) -> Sequence[str]:
    node.tracks = True
    return ("CLIENT", "TRACKING", "ON", "NOLOOP")


def script(operation: str, name: str, values: Callable[[Node], Sequence[str]]) -> Make:
    """Makes the command that runs the lock's script, with the values for each server."""
    keys = keys_of(name)

    def make(node: Node) -> Sequence[str]:
        return ["EVALSHA", SHA, str(len(keys)), *keys, operation, *values(node)]

    return make
