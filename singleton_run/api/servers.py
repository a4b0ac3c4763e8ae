"""What backends with a server share: fail-over, renewed logins, broken streams, the server's clock."""

from __future__ import annotations

import time

from singleton_run.errors import UNUSABLE, Failure, Refused, Unavailable
from singleton_run.system import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeVar

    from singleton_run.api.deadline import Deadline

    Result = TypeVar("Result")
    Item = TypeVar("Item")
    Refusal = TypeVar("Refusal", bound=Exception)

_LEAST_LIFE = 1.0


def in_turn(servers: list[Item], deadline: Deadline) -> Iterator[tuple[Item, Deadline]]:
    """Each of `servers` with its share of the time left, until the caller has its answer and goes on.

    A server that was passed over moves to the end of the list, so the next call begins with the one
    that answered.
    """
    for left in range(len(servers), 0, -1):
        yield servers[0], deadline.share(left)
        servers.append(servers.pop(0))


def no_answer(service: str, failures: Mapping[str, Exception], *, untrusted: bool = False) -> Failure:
    """The error for a request that none of the servers answered: what went wrong at each `host:port`.

    Unavailable, for a server may come back; Refused (78) where the caller found all of them `untrusted`.
    """
    text = f"{service}: " + "; ".join(f"{place}: {error}" for place, error in failures.items())
    return Refused(text, UNUSABLE) if untrusted else Unavailable(text)


def with_new_login(
    ask: Callable[[], Result], refusal: type[Refusal], log_in: Callable[[Refusal], bool]
) -> Result:
    """What `ask` gives. Where it raises a refusal of the login, log in anew and ask once more.

    `log_in` returns False where another login would be of no use. Raises what `ask` and `log_in` raise.
    """
    try:
        return ask()
    except refusal as refused:
        if not log_in(refused):
            raise
    return ask()


def may_reopen(service: str, opened: float, error: Exception) -> None:
    """Return if a stream that broke may be opened again at once.

    Raises Unavailable where it broke within a second of `opened` (boot clock): the caller then waits longer
    and longer between attempts, instead of opening streams in a loop.
    """
    if calls.now() < opened + _LEAST_LIFE:
        raise Unavailable(f"{service}: {error}") from None


class ServerClock:
    """The clock of a server, as its last answer told it."""

    __slots__ = ("_heard", "_sent", "_told")

    def __init__(self) -> None:
        self._told: float | str | None = None
        self._sent = self._heard = 0.0

    def read(self, told: float | str | None, sent: float, heard: float) -> None:
        """Take the time from the answer to a request; the boot clock read `sent` and `heard` at the two.

        `told` is in Unix seconds, or an HTTP Date, which is only parsed when the time is asked for.
        """
        self._told = told
        self._sent = sent
        self._heard = heard

    def told(self) -> float | None:
        """What the last answer said, in Unix seconds. None before one, or where it said nothing."""
        if not isinstance(self._told, str):
            return self._told
        from singleton_run.api.http.date import seconds

        return seconds(self._told)

    def at(self, reading: float) -> float:
        """What the server's clock shows, at the least, when the boot clock reads `reading`."""
        return (self.told() or 0.0) + reading - self._heard

    def offset(self) -> tuple[float, float] | None:
        """How far the server's clock is ahead of our wall clock, and how exact that is, both in seconds.

        A Date is cut off to whole seconds, so the server's clock showed anything up to the next one.
        """
        told = self.told()
        if told is None:
            return None
        half = 0.5 if isinstance(self._told, str) else 0.0
        now = told + half + calls.now() - (self._sent + self._heard) / 2
        return now - time.time(), half + (self._heard - self._sent) / 2
