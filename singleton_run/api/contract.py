"""The contract of a backend: the calls by which a lock is taken, held and given back.

One backend object serves one turn, in one process. It has no state that a fresh process would miss: the
`Grant` has everything that a renewal or a release needs, so a process resumes by `renew(grant)`.

Every call that crosses a network takes `limit`: within that many seconds it returns or raises, the lookup of
names included. Points in time (`until`) are readings of the boot clock, in seconds (`toolbox.now`). A held
lock is a result (`Held`); the errors are `Unavailable`, `Refused` and `Lost` of `singleton_run.errors`.
"""

from __future__ import annotations

from singleton_run.api.record import moment, parsed, parsed_last, without_earlier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Protocol

    from singleton_run.api.finding import Finding

    Handle = dict[str, Any]
else:
    Protocol = object


_LONGEST_HOLDER = 300


class Grant:
    """A lock that was given to us, as a value that any process can renew or release.

    `token` is the fencing token (Kleppmann 2016): greater than that of every earlier grant of the same name.
    `ttl` is in seconds. `handle` is the backend's own, and survives JSON. `record` is the one that earlier
    holders left (see `record`), None without one. Given as text, it is read when it is needed. `generation`
    counts the keepers that a turn has had: requests of an older one that are still under way must change
    nothing. `control` is what people ask of the lock (see `control`), read in the same step as the lock was
    given; None without one. `renewed` is the boot clock's reading from which `ttl` counts, where a waiter's
    lease was renewed before it got the lock; None where it counts from the `acquire`.
    """

    __slots__ = ("_record", "control", "generation", "handle", "holder", "name", "renewed", "token", "ttl")

    def __init__(
        self,
        name: str,
        holder: str,
        token: int,
        ttl: float,
        handle: Handle,
        record: Mapping[str, Any] | str | None = None,
        generation: int = 0,
        control: Mapping[str, Any] | None = None,
        renewed: float | None = None,
    ) -> None:
        self.control = control
        self.generation = generation
        self.renewed = renewed
        self.name = name
        self.holder = holder
        self.token = token
        self.ttl = ttl
        self.handle = handle
        self._record = record

    @property
    def record(self) -> Mapping[str, Any] | None:
        """The record that earlier holders left."""
        if isinstance(self._record, str):
            self._record = parsed(self._record)
        return self._record

    @record.setter
    def record(self, record: Mapping[str, Any] | None) -> None:
        self._record = record

    def last_run(self) -> dict[str, Any] | None:
        """The record without the earlier runs: fifty of them are not read for this."""
        if isinstance(self._record, str):
            return parsed_last(self._record)
        return None if self._record is None else without_earlier(self._record)

    def as_dict(self) -> dict[str, Any]:
        """The grant as plain data, for `Grant(**data)` in another process."""
        return {**self.without_record(), "record": self.record}

    def without_record(self) -> dict[str, Any]:
        """The same with no record."""
        return {slot: getattr(self, slot) for slot in Grant.__slots__ if slot != "_record"}


class Held:
    """Another holder has the lock. Unknown times are None, unknown texts empty.

    `host` is taken from the holder's name (`host_of`) where it isn't given. `since` is in Unix seconds (UTC).
    `until` is the boot clock's reading at which the lock may be free if nobody renews it. `handle` is the
    backend's own, for its `wait`. `token` is the holder's fencing token, and `control` what people ask of the
    lock (see `control`), where the same answer tells them.
    """

    __slots__ = ("control", "handle", "holder", "host", "since", "token", "until")

    def __init__(
        self,
        holder: str = "",
        host: str | None = None,
        since: float | None = None,
        until: float | None = None,
        handle: Handle | None = None,
        *,
        token: int | None = None,
        control: Mapping[str, Any] | None = None,
    ) -> None:
        self.token = token
        self.control = control
        # Anybody may have written these texts.
        self.holder = holder[:_LONGEST_HOLDER]
        self.host = (host_of(holder) if host is None else host)[:_LONGEST_HOLDER]
        self.since = moment(since)
        self.until = until
        self.handle = handle or {}


class Look:
    """All that the server tells of one lock at one moment, for people.

    `state` is FREE, HELD, KEPT (by --lock-at-least-for, without a process) or EXPIRED (it names a holder, and
    anybody may take it). `holder` is whom the lock names: None only in state FREE. Its `until` is the end of
    the lease, or of the time for which the lock is kept, where the server tells it. `control` is None without
    one, and `version` names its version for `steer`: any text, '' without one. `waiting` has who waits, the
    next one first, or is None where the server doesn't know it.
    """

    __slots__ = ("control", "holder", "record", "state", "version", "waiting")

    FREE, HELD, KEPT, EXPIRED = "free", "held", "kept", "expired"

    def __init__(
        self,
        state: str,
        holder: Held | None,
        record: Mapping[str, Any] | None,
        *,
        control: Mapping[str, Any] | None = None,
        version: str = "",
        waiting: Sequence[Held] | None = None,
    ) -> None:
        self.state = state
        self.holder = holder
        self.record = record
        self.control = control
        self.version = version
        self.waiting = waiting


def host_of(holder: str) -> str:
    """The host in the name of one of our holders (`HOST:…`); empty for a name without a colon."""
    host, colon, _ = holder.partition(":")
    return host if colon else ""


class Backend(Protocol):
    """One kind of lock. A module offers it as `open_backend(url, environ) -> Backend`.

    `open_backend` contacts nobody, and raises `Refused` for an address that it can't use. A backend may have
    an attribute `warning`: a level, "error" or "warning", and a sentence that the user is told once.

    A backend may leave out `look`, `steer` and `free`, and tell no control: then nobody can pause its locks
    or order their release, and the commands for people say so. It may leave out `examine` and `setup` too,
    which are for `doctor` alone.
    """

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Try once, in one atomic step, to take the lock `name` for `ttl` seconds.

        On a backend with a queue the first refusal also takes a place in it. The same holder may ask again,
        because the answer may have been lost: it gets the lock anew, for another `ttl`. Raises Refused, or
        Unavailable: then the lock may have been given all the same, and `leave` gives it back.
        """

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Return when the lock may be free, at `until`, or when the descriptor `wake` is readable.

        It watches instead of polling, and keeps the waiter's place in the queue. Raises Unavailable, Refused.
        """

    def leave(self, limit: float) -> None:
        """Give up our place in the queue, and a lock that an `acquire` without an answer may have got.

        It is the last call of a turn that got no grant: nothing is acquired after it.
        """

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:
        """Hold the lock for another `grant.ttl` seconds from the moment of this call.

        The same request proves that the lock is ours; if it isn't, Lost is raised. From the first renewal of
        a higher `grant.generation` on, `write` and `release` by a lower one raise Lost. Returns the control
        as that request saw it, None without one.
        """

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Return at `until`, or when `wake` is readable.

        Where the server tells, return at once when the lock may have been lost or its control has changed.
        `renew` then finds out what it was.
        """

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Put `record` beside the lock if the grant is still ours. Raises Lost if it is not."""

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        """Give the lock back and put `record` beside it, in one step.

        If the grant is no longer ours, nothing changes and Lost is raised. A second call is no error. With
        `keep` nobody gets the lock for that many seconds from now on, though no process holds it any more:
        not its last holder, not a foreign client, not after the server's restart.
        """

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        """The present holder of `name`, if there is one, and its record, if there is one."""

    def list(self, limit: float) -> list[str]:
        """The names that have a lock, a record or a control, sorted."""

    def look(self, name: str, limit: float) -> Look:
        """All that the server tells of `name`: seen in one step, as far as it can be. Nothing is changed."""

    def steer(self, name: str, version: str, control: Mapping[str, Any], limit: float) -> bool:
        """Replace the control if its version still is `version` ('': if there is none). False if it is not.

        It works also while somebody holds the lock, and for a name that has no lock yet. It tells the holder,
        and whoever holds the lock back during a pause, where the server can: see `hold`.
        """

    def free(self, name: str, seen: Look, limit: float) -> bool:
        """Free the lock if its holder, by name and token, still is that of `seen`. False if it is not.

        It tells those who wait. The caller answers for what the holder does; its next renewal raises Lost.
        """

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        """The mark of `key` under `name`, None without one. Raises Refused (78) for a damaged one."""

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        """Mark `key` as done if the grant is still ours. Raises Lost if it is not. A mark stays for ever.

        `key` is any text of 1 to 256 characters; the backend maps those that a name on its server can't have.
        """

    def forget(self, name: str, key: str, limit: float) -> bool:
        """Remove the mark of `key`; false if there was none."""

    def offset(self) -> tuple[float, float] | None:
        """How far the server's clock is ahead of our wall clock, and how exact that is, in seconds.

        It is taken from the server's last answer. None before one, and where the server doesn't tell its time
        or is this machine. Nobody is contacted.
        """

    def examine(self, name: str, ttl: float, limit: float) -> Iterator[Finding]:
        """Look at all that a lock `name` of `ttl` seconds needs here: a Finding for each thing, one by one.

        Nothing is changed: no lock, row, key or object is made, not even for a moment. `name` is '' where
        nobody named one. `limit` is for each request. Raises Unavailable, Refused: then the rest is unknown.
        """

    def setup(self, name: str, limit: float) -> str:
        """What an administrator runs so that we may do all this: lines for the server's own tool.

        They can be run twice, and have no password in them. Raises Unavailable, Refused.
        """

    def close(self) -> None:
        """Drop every connection. The lock is not released. Never raises."""


class Queued(Backend, Protocol):
    """A backend whose places in the queue outlive the process that took them."""

    def take_back(self, name: str, holder: str, limit: float) -> None:
        """Give up the place of a holder that has started nothing, and whose keeper is dead.

        It is the one call of a fresh backend. It may be done twice. Raises Unavailable, Refused.
        """


class InPods(Backend, Protocol):
    """A backend that can label the pod that we run in (--label-pod): see `registry.IN_PODS`."""

    def label_pod(self, label: str, limit: float, *, on: bool) -> None:
        """Set the label KEY=VALUE on our pod, or take it away.

        It may be done twice. Raises Unavailable, Refused.
        """


class KernelLock(Backend, Protocol):
    """A backend whose locks the kernel holds, and frees when the last process that has them open has ended.

    Nothing is renewed, and there is no keeper: the front takes the lock and shares it with the guard by
    forking. So the lock must belong to an open descriptor that a forked process inherits, and the last close
    must free it, as with flock(2) or an open file description's lock of fcntl(2). The kernel must have a
    queue in which a process waits. The scheme of such a backend begins with `kernel+`: see `registry`.
    """

    descriptor: int
    """The open descriptor that holds the lock, -1 without one. Every process that has it open shares it."""

    def open(self, name: str) -> None:
        """Open the descriptor without locking it, to share it with forked processes. Raises Refused."""

    def descriptors(self) -> list[int]:
        """The descriptors that a forked process which shares this backend must keep open."""

    def holds(self, grant: Grant) -> bool:
        """Whether `grant`, given to a process that shares our descriptor, is that lock's latest."""

    def take(self, name: str, holder: str, ttl: float, parent: int) -> Grant:
        """Wait in the kernel's queue until the lock is ours, however long.

        The calling process ends when the process `parent` ends, and when the lock can't be had any more.
        """

    def keep(self, seconds: float) -> None:
        """Have the lock kept that long from now on, also after the last close. Raises Unavailable."""
