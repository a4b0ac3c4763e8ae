"""What the lock asks of an etcd server, whatever the transport: a few operations, as plain values.

Keys are text. Every call raises Unavailable or Refused, and ends with its deadline (`Timeout`, `Interrupted`
are raised by `Watch.wait` alone).
"""

from __future__ import annotations

from singleton_run.api.servers import with_new_login
from singleton_run.errors import Failure, Refused, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol, TypeVar

    from singleton_run.api.deadline import Deadline
    from singleton_run_etcd.address import Address

    Result = TypeVar("Result")

    # ("create", key, revision): the key was created at that revision, 0 that it doesn't exist.
    # ("below", key, text): the key's value sorts before the text.
    Compare = tuple[str, str, Any]

    class Watch(Protocol):
        """Sees one key."""

        def wait(self, deadline: Deadline) -> None:
            """Return when the key was deleted, or may have been. Raises Timeout, Interrupted, Broken."""

        def is_current(self) -> bool:
            """Whether requests still go to the server that the watch is on."""

        def close(self) -> None:
            """Never raises."""

    class Server(Protocol):
        """One cluster."""

        def txn(
            self,
            compares: Sequence[Compare],
            then: Sequence[Op],
            otherwise: Sequence[Op],
            deadline: Deadline,
        ) -> Outcome:
            """Do `then` if all of `compares` hold, else `otherwise`, atomically.

            Raises LeaseNotFound if a put names a lease that is gone.
            """

        def range(self, look: Op, deadline: Deadline) -> tuple[list[KeyValue], int]:
            """What one range finds, and the revision at which that is so.

            Better than a transaction that only looks: such a one ends an etcd 3.5.1, by a panic, if its
            client goes away at the wrong moment (etcd-io/etcd#14110).
            """

        def grant_lease(self, lease: int, ttl: int, deadline: Deadline) -> bool:
            """Make a lease of that id and as many seconds; False if it is there already."""

        def keep_lease_alive(self, lease: int, deadline: Deadline) -> bool:
            """Renew a lease; False if it is gone."""

        def time_to_live(self, lease: int, deadline: Deadline) -> int:
            """How many whole seconds a lease has left, 0 if it is gone."""

        def revoke_lease(self, lease: int, deadline: Deadline) -> None:
            """End a lease, with its keys; one that is gone already is right."""

        def watch(self, key: str, revision: int, deadline: Deadline) -> Watch:
            """A watch on a key for its deletion, from that revision on."""

        def offset(self) -> tuple[float, float] | None:
            """As the contract says; None where the transport doesn't tell the time."""

        def known(self) -> Any:
            """What a fresh process would have to find out again (addresses), for `recall`; survives JSON."""

        def recall(self, known: Any) -> None:
            """Use what `known` gave, unless something newer was found out."""

        def close(self) -> None:
            """Drop every connection. Never raises."""


# gRPC's status codes, those that matter here; the gateway tells them too.
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
PERMISSION_DENIED = 7
FAILED_PRECONDITION = 9
UNIMPLEMENTED = 12
UNAVAILABLE = 14
UNAUTHENTICATED = 16
_PERMANENT = (INVALID_ARGUMENT, PERMISSION_DENIED, UNIMPLEMENTED, UNAUTHENTICATED)


class LeaseNotFound(Exception):
    """There is no lease of that id any more."""


class ServerError(Exception):
    """The server's no, by its gRPC code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    def failure(self, advice: str) -> Failure:
        """The same for the lock and its user, whom `advice` tells what to do about a refusal."""
        if self.code in _PERMANENT:
            return Refused(f"etcd refuses: {self}{advice}")
        return Unavailable(f"etcd: {self}")


class Login:
    """A user who logs in once, and again when the token has come to its end. `token` is empty without."""

    def __init__(self, address: Address) -> None:
        self.user = address.user
        self.token = ""
        self._password = address.password

    def during(self, work: Callable[[], Result], authenticate: Callable[[str, str], str]) -> Result:
        """Do `work` logged in; once more with a new token if the server wants that.

        `authenticate` gives the token for a user and a password. Raises what both raise.
        """

        def renew(error: ServerError) -> bool:
            # The token has come to its end, or the users were changed since.
            if not self.token or error.code not in (INVALID_ARGUMENT, UNAUTHENTICATED):
                return False
            self.token = ""
            self._log_in(authenticate)
            return True

        self._log_in(authenticate)
        return with_new_login(work, ServerError, renew)

    def _log_in(self, authenticate: Callable[[str, str], str]) -> None:
        if not self.user or self.token:
            return
        try:
            self.token = authenticate(self.user, self._password)
        except ServerError as error:
            if error.code != FAILED_PRECONDITION:
                raise Refused(f"etcd refuses the user {self.user!r} or the password: {error}") from None
            # The cluster knows no users: as etcdctl does, go on without.
            self.user = ""


class Op:
    """One step of a transaction: a put, a deletion, or a range that is sorted by create revision.

    A put has `value` and `lease` (0: for ever), a deletion neither. A range reaches from `key` to
    before `end` (empty: just the key) and gives at most `limit` keys, 0 for all; `newest` first, or
    the oldest; `before`, if not 0, is the highest create revision; `keys_only` leaves the values out.
    """

    __slots__ = ("before", "end", "key", "keys_only", "kind", "lease", "limit", "newest", "value")

    def __init__(
        self,
        kind: str,
        key: str,
        *,
        value: str = "",
        lease: int = 0,
        end: str = "",
        limit: int = 0,
        newest: bool = False,
        before: int = 0,
        keys_only: bool = False,
    ) -> None:
        self.kind = kind
        self.key = key
        self.value = value
        self.lease = lease
        self.end = end
        self.limit = limit
        self.newest = newest
        self.before = before
        self.keys_only = keys_only


class KeyValue:
    """A key that a range gave: `created` is its create revision, `lease` 0 if it has none."""

    __slots__ = ("created", "key", "lease", "value")

    def __init__(self, key: str, value: str, created: int, lease: int) -> None:
        self.key = key
        self.value = value
        self.created = created
        self.lease = lease


class Outcome:
    """What a transaction did: whether its compares held, and what each range of it gave.

    `revision` is the cluster's after it. `found` has an entry for each operation, empty for a put.
    """

    __slots__ = ("found", "revision", "succeeded")

    def __init__(self, revision: int, found: Sequence[Sequence[KeyValue]], *, succeeded: bool) -> None:
        self.revision = revision
        self.found = found
        self.succeeded = succeeded
