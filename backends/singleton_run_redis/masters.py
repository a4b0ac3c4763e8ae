"""All servers of a quorum: a question to all of them at once, until enough of them have answered."""

from __future__ import annotations

import os
import select

from singleton_run.api import toolbox
from singleton_run.api.deadline import READ, Timeout
from singleton_run.api.resolve import AddressBook
from singleton_run.api.servers import no_answer
from singleton_run.errors import Refused
from singleton_run_redis.errors import ServerError
from singleton_run_redis.node import Node, Request
from singleton_run_redis.scripts import SHA, keys_of

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
    """The servers at `addresses`. `need` is how many of them are a majority."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.need = len(addresses) // 2 + 1
        self._poll = select.epoll()
        book = AddressBook()
        self.nodes = [Node(address, book, self._poll) for address in addresses]

    def time(self) -> int:
        """What the clock of theirs that is furthest ahead shows at the least, in µs; 0 before an answer."""
        now = toolbox.now()
        return int(max((node.clock.at(now) for node in self.nodes if node.clock.told()), default=0) * 1e6)

    def ask(self, make: Make, enough: Enough, deadline: Deadline, linger: float = 0.0) -> list[Request]:
        """Ask all: the requests, in the servers' order, once that is `enough`, all are done, or time is up.

        Servers that kept up so far are waited for `linger` seconds longer. Raises Interrupted.
        """
        fast = [not node.is_behind(LINGER) for node in self.nodes]
        requests = [Request(make) for _ in self.nodes]
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
        silent = [node for node in self.nodes if not node.listens]
        if not silent:
            return False
        fast = [not node.is_behind(LINGER) for node in silent]
        requests = [Request(lambda _: ("SUBSCRIBE", *channels), len(channels)) for _ in silent]
        for node, request in zip(silent, requests, strict=True):
            if tracks:
                node.submit(Request(lambda _: ("CLIENT", "TRACKING", "ON", "NOLOOP")), deadline)
            node.submit(request, deadline)
        self.go_on(
            lambda: all(request.done for request in requests) or self.listening() >= self.need, deadline
        )
        if self.listening() < self.need:
            raise self.trouble(requests, silent)
        others = [request for request, is_fast in zip(requests, fast, strict=True) if is_fast]
        self.go_on(lambda: all(request.done for request in others), deadline.within(LINGER))
        return any(node.listens for node in silent)

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
        self.forget_pushes()
        return True

    def forget_pushes(self) -> None:
        """Forget what the channels have said: an answer that came later has it in it."""
        for node in self.nodes:
            node.pushed = False

    def drop(self) -> None:
        """Close all connections, without waiting for anything."""
        for node in self.nodes:
            node.fail(Timeout("the connection is closed"))

    def trouble(self, requests: Sequence[Request], nodes: Sequence[Node] = ()) -> Failure:
        """Why there is no majority: Refused if too many servers refuse us, else Unavailable."""
        failures: dict[str, Exception] = {}
        refusals: list[Refused] = []
        for node, request in zip(nodes or self.nodes, requests, strict=True):
            failure = request.failure or Timeout("no answer in time")
            if request.done and request.failure is None:
                continue
            if isinstance(failure, ServerError):
                meant = failure.failure()
                if isinstance(meant, Refused):
                    refusals.append(meant)
            elif isinstance(failure, OSError):
                failure = OSError(os.strerror(failure.errno or 0).lower())
            failures[node.place] = failure
        if len(refusals) > len(self.nodes) - self.need:
            return refusals[0]
        return no_answer(f"redis: fewer than {self.need} of {len(self.nodes)} servers answer", failures)

    def _step(self) -> None:
        for descriptor, events in self._poll.poll(0):
            for node in self.nodes:
                if node.descriptor == descriptor:
                    node.handle(events)


def script(operation: str, name: str, values: Callable[[Node], Sequence[str]]) -> Make:
    """Makes the command that runs the lock's script, with the values for each server."""
    keys = keys_of(name)

    def make(node: Node) -> Sequence[str]:
        return ["EVALSHA", SHA, str(len(keys)), *keys, operation, *values(node)]

    return make
