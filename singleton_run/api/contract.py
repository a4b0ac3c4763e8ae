"""What a backend is: the few calls by which a lock is taken, kept, and given back.

One backend object serves one turn, in one process. It keeps no state that a fresh process would
miss: everything needed to renew or release is in the `Grant`, so resuming is `renew(grant)`.

Every call that crosses a network takes `limit`, seconds within which it returns or raises,
name resolution included. Deadlines are readings of the boot clock (`system.now`, seconds).
Busy is a result (`Held`); errors are `Unavailable`, `Refused` and `Lost` of `singleton_run.errors`.
"""

from __future__ import annotations

from singleton_run.api.record import moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    Handle = dict[str, Any]
else:
    Protocol = object


_LONGEST_HOLDER = 300


class Grant:
    """A lock that was given to us, as a value that any process can renew or release.

    `token` is the fencing token (Kleppmann 2016): greater than that of every earlier grant of the
    same name. `ttl` is in seconds. `handle` is the backend's own, and survives JSON. `record` is
    what earlier holders left (see `record`), None without one. `generation` counts the keepers
    that a turn has had: what an older one still has under way must change nothing.
    """

    __slots__ = ("generation", "handle", "holder", "name", "record", "token", "ttl")

    def __init__(
        self,
        name: str,
        holder: str,
        token: int,
        ttl: float,
        handle: Handle,
        record: Mapping[str, Any] | None = None,
        generation: int = 0,
    ) -> None:
        self.generation = generation
        self.name = name
        self.holder = holder
        self.token = token
        self.ttl = ttl
        self.handle = handle
        self.record = record

    def as_dict(self) -> dict[str, Any]:
        """The grant as plain data, for `Grant(**data)` in another process."""
        return {slot: getattr(self, slot) for slot in Grant.__slots__}


class Held:
    """Another has the lock. What is not known is None (`since`, `until`) or empty (the texts).

    Without `host` it is what the holder's name says (`host_of`). `since` is in Unix seconds (UTC). `until`
    is the boot-clock reading at which the lock may be free if nobody renews it. `handle` is the backend's
    own, for its `wait`.
    """

    __slots__ = ("handle", "holder", "host", "since", "until")

    def __init__(
        self,
        holder: str = "",
        host: str | None = None,
        since: float | None = None,
        until: float | None = None,
        handle: Handle | None = None,
    ) -> None:
        # A stranger may have written them.
        self.holder = holder[:_LONGEST_HOLDER]
        self.host = (host_of(holder) if host is None else host)[:_LONGEST_HOLDER]
        self.since = moment(since)
        self.until = until
        self.handle = handle or {}


def host_of(holder: str) -> str:
    """The host in the name of one of our holders; empty for a stranger's without a colon."""
    host, colon, _ = holder.partition(":")
    return host if colon else ""


class Backend(Protocol):
    """One kind of lock. A module offers it as `open_backend(url, environ) -> Backend`.

    `open_backend` contacts nobody; it raises `Refused` for an address it can't use. A backend may have an
    attribute `warning`: a level, "error" or "warning", and a sentence that the user is told once.
    """

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Try once, atomically, to take the lock `name` for `ttl` seconds.

        On a backend with a queue the first refusal also takes a place in it. Asked again by the
        same holder, who may not have heard the answer, it gives the lock anew and extends its lease.
        Raises Unavailable (it may have happened all the same: `leave` undoes it) or Refused.
        """

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Return when the lock may be free, at `until`, or when descriptor `wake` is readable.

        A watch, not a poll; it keeps the waiter's own place alive. Raises Unavailable, Refused.
        """

    def leave(self, limit: float) -> None:
        """Take back our place in the queue, and a grant that `acquire` may have been given.

        It is the last call of a turn that got no grant: nothing is acquired after it.
        """

    def renew(self, grant: Grant, limit: float) -> None:
        """Hold the lock for another `grant.ttl` seconds from the moment this was called.

        Raises Lost if it is no longer ours, and proves by the same request that it is. From the
        first renewal of a higher `grant.generation` on, `write` and `release` by a lower one
        raise Lost.
        """

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Return at `until`, when `wake` is readable, or at once when the lock may have been lost.

        Whether it was is for `renew` to say.
        """

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Put `record` beside the lock if the grant is still ours; Lost if it is not."""

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        """Give the lock back and put `record` beside it, in one step.

        By a grant that is no longer ours nothing changes, and Lost is raised; done twice is done.
        With `keep` nobody gets the lock for that many seconds from now on, though no process holds
        it any more: not its last holder, not a stranger's client, not after the server's restart.
        """

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        """Who holds `name` now, if anyone, and its record, if there is one."""

    def list(self, limit: float) -> list[str]:
        """The names that have a lock or a record, sorted."""

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        """What was marked for `key` under `name`, None if nothing was."""

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        """Mark `key` as done if the grant is still ours, Lost if it is not. A mark is kept for ever.

        `key` is any text of 1 to 256 characters; what may not stand in a name is for the backend to map.
        """

    def forget(self, name: str, key: str, limit: float) -> bool:
        """Take the mark of `key` away; false if there was none."""

    def offset(self) -> tuple[float, float] | None:
        """How far the server's clock is ahead of this machine's wall clock, and how exact that is.

        Both in seconds, by the server's last answer; None before one, and where the server doesn't tell
        its time or is this machine. Contacts nobody.
        """

    def close(self) -> None:
        """Drop every connection. The lock is not released by it. Never raises."""


class KernelLock(Backend, Protocol):
    """A backend whose locks the kernel holds, and frees when the last process that has them open is gone.

    Nothing has to be renewed, and there is no keeper: the front takes the lock and shares it with the guard
    by forking. So the lock must belong to something open that a forked process inherits and that is freed by
    the last close, as with flock(2) or an open file description's lock of fcntl(2), and the kernel must have
    a queue in which a process waits. It is registered in a group of its own: see `registry`.
    """

    descriptor: int
    """What holds the lock: an open descriptor, -1 without one. A process that has it open holds the lock."""

    def open(self, name: str) -> None:
        """Open what holds the lock without locking it, to share it with forked processes. Raises Refused."""

    def descriptors(self) -> list[int]:
        """What a forked process that shares this backend has to keep open."""

    def holds(self, grant: Grant) -> bool:
        """Whether a grant given to a process that shares our open lock is of that lock, and the latest."""

    def take(self, name: str, holder: str, ttl: float, parent: int) -> Grant:
        """Wait in the kernel's queue until the lock is ours, however long.

        The calling process ends if the process `parent` does meanwhile, or if the lock can't be had any more.
        """

    def keep(self, seconds: float) -> None:
        """Have the lock of the open descriptor kept for that long after it is closed. Raises Unavailable."""
