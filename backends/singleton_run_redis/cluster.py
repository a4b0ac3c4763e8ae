"""Which node of a cluster has the lock's slot: the one that the others name, from wherever we ask first.

No map of the slots is kept: a session works on one lock, and the first node that is asked says whose it is.
"""

from __future__ import annotations

from singleton_run.api import toolbox
from singleton_run.api.deadline import Interrupted
from singleton_run.api.http.wire import Untrusted
from singleton_run.api.servers import no_answer
from singleton_run.api.url import authority, whole_number
from singleton_run.errors import Refused, Unavailable
from singleton_run_redis.errors import ServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from singleton_run.api.deadline import Deadline
    from singleton_run.api.resolve import HostPort
    from singleton_run.errors import Failure

MASTERS = ("CLUSTER", "SLOTS")
_NAMED = ("MOVED", "ASK")
_BUSY = "TRYAGAIN"
_DOWN = "CLUSTERDOWN"
# As many redirections as one change of the cluster takes; after more, its nodes don't agree yet.
_AT_ONCE = 3
_LEAST_PAUSE, _MOST_PAUSE = 0.01, 0.2


class Nodes:
    """The nodes to ask: the one that has the lock's slot, as far as we know, and those at `places`.

    `missed` is the last one that was to have the slot and couldn't be asked, and why, until one is asked.
    `asking`: the present one is to be asked for what it only begins to have (ASK), so it must be told so.
    """

    def __init__(self, places: Sequence[HostPort]) -> None:
        self._places = [*places]
        self._owner: HostPort | None = None
        self.missed: tuple[HostPort, Exception] | None = None
        self.asking = False

    def candidates(self) -> list[HostPort]:
        """Where to connect, the likeliest first."""
        first = [] if self._owner is None else [self._owner]
        return [*first, *(place for place in self._places if place != self._owner)]

    def name(self, place: HostPort) -> None:
        """The slot is at `place`, or the next question is to be asked there."""
        self._owner = place
        self.asking = False

    def pass_over(self, place: HostPort, why: Exception) -> None:
        """That node is of no use now: ask the others first."""
        if self._owner == place:
            self._owner = None
            if not isinstance(why, ServerError):
                self.missed = place, why
        if place in self._places:
            self._places.remove(place)
            self._places.append(place)
        self.asking = False

    def asked(self) -> None:
        """The last request was answered."""
        self.missed = None
        self.asking = False

    def failure(self, error: ServerError | None = None) -> Failure | None:
        """The failure to tell of in place of a node's `error`, or of no answer: the slot's node is away.

        So one thing is said, whichever of the nodes was asked last. None where that isn't known.
        """
        if self.missed is None:
            return None
        place, missed = self.missed
        if error is not None and error.code != _DOWN and _named_in(error, place) != place:
            return None
        return no_answer("redis", {authority(*place): missed}, untrusted=isinstance(missed, Untrusted))

    def follow(self, error: ServerError, asked: HostPort) -> bool:
        """Whether another node is named in the error of the node `asked`, and so is the next to be asked."""
        named = _named_in(error, asked)
        if named is None:
            return False
        self.name(named)
        self.asking = error.code == "ASK"
        return True


class Patience:
    """What passes between a redirected request and its repetition: nothing at first, then longer pauses."""

    def __init__(self) -> None:
        self._redirections = 0
        self._pause = _LEAST_PAUSE

    def pause(self, error: ServerError, nodes: Nodes, deadline: Deadline) -> None:
        """Return when the request is to be repeated.

        Raises Unavailable at the deadline, Interrupted, and Refused for a node that isn't trusted.
        """
        failure = nodes.failure(error)
        if isinstance(failure, Refused):
            raise failure
        self._redirections += error.code != _BUSY
        if error.code != _BUSY and self._redirections <= _AT_ONCE and not deadline.passed():
            return
        until = deadline.within(self._pause).until
        if toolbox.wait(until, [deadline.wake] if deadline.wake >= 0 else []):
            raise Interrupted
        self._pause = min(2 * self._pause, _MOST_PAUSE)
        if deadline.passed():
            raise failure or Unavailable(
                f"redis: {error}: the cluster moves the lock's keys, or its nodes don't agree"
            )


def is_redirection(error: ServerError) -> bool:
    """Whether a cluster says that the request is to be repeated, here or elsewhere."""
    return error.code in _NAMED or error.code == _BUSY


def masters(answer: Any, asked: HostPort) -> list[HostPort]:
    """The nodes that have slots, by the answer to MASTERS."""
    found = {_named(entry[2][0], entry[2][1], asked): None for entry in answer}
    return [*found]


def _named_in(error: ServerError, asked: HostPort) -> HostPort | None:
    """The node in `SLOT HOST:PORT`, as the node `asked` said; None where there is none."""
    if error.code not in _NAMED:
        return None
    host, _, port = error.text.rsplit(" ", maxsplit=1)[-1].rpartition(":")
    return _named(host.encode(), whole_number(port), asked)


def _named(host: bytes | None, port: int, asked: HostPort) -> HostPort:
    """A node; one that doesn't know its host's name is at the host that we have asked."""
    name = (host or b"").decode(errors="replace")
    return (asked[0] if name in ("", "?") else name, port)
