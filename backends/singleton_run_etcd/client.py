"""The requests that the lock makes, as plain values, whatever the transport to etcd.

Keys are text. Every call ends by its deadline and raises Unavailable or Refused; only `Watch.wait` raises
Timeout and Interrupted.
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

    # ("create", key, revision): the key was created at that revision; 0: it doesn't exist.
    # ("modified", key, revision): the key was last put at that revision; 0: it doesn't exist.
    # ("below", key, text): the key's value sorts before the text.
    Compare = tuple[str, str, Any]

    class Watch(Protocol):
        """A watch on one key."""

        def wait(self, deadline: Deadline) -> None:
            """Return when the key has changed, or may have. Raises Timeout, Interrupted, Broken."""

        def is_current(self) -> bool:
            """Whether requests still go to the member that the watch is on."""

        def close(self) -> None:
            """End the watch. Never raises."""

    class Server(Protocol):
        """One cluster."""

        def txn(
            self,
            compares: Sequence[Compare],
            then: Sequence[Op],
            otherwise: Sequence[Op],
            deadline: Deadline,
        ) -> Outcome:
            """Do `then` if all of `compares` hold, else `otherwise`, in one atomic step.

            Raises LeaseNotFound if a put names a lease that has ended.
            """

        def range(self, look: Op, deadline: Deadline) -> tuple[list[KeyValue], int]:
            """The keys in one range, and the revision at which they are so.

            Prefer it to a transaction that only reads: etcd 3.5.1 panics in such a transaction if its client
            goes away at the wrong moment (etcd-io/etcd#14110).
            """

        def grant_lease(self, lease: int, ttl: int, deadline: Deadline) -> bool:
            """Make a lease with that id, for `ttl` seconds; False if it exists already."""

        def keep_lease_alive(self, lease: int, deadline: Deadline) -> bool:
            """Renew a lease; False if it has ended."""

        def time_to_live(self, lease: int, deadline: Deadline) -> int:
            """The whole seconds that a lease has left; 0 if it has ended."""

        def revoke_lease(self, lease: int, deadline: Deadline) -> None:
            """End a lease, which deletes its keys. A lease that has ended already is no error."""

        def watch(self, key: str, revision: int, deadline: Deadline, *, puts: bool = False) -> Watch:
            """Watch a key for its deletion, from that revision on, and for `puts` too if it is asked.

            The caller closes the watch.
            """

        def status(self, deadline: Deadline) -> Member:
            """What one member tells of itself: the one that answers first. It needs no quorum."""

        def user(self) -> str:
            """Whom etcd knows us as by a login; empty before one, and where it knows no users."""

        def offset(self) -> tuple[float, float] | None:
            """See `contract.Backend`; None where the transport doesn't tell the time."""

        def known(self) -> Any:
            """The addresses of the servers, for `recall` in a fresh process; survives JSON."""

        def recall(self, known: Any) -> None:
            """Take the addresses that `known` gave, except for hosts that were looked up here."""

        def close(self) -> None:
            """Drop every connection. Never raises."""


# The status codes of gRPC that matter here; the gateway tells them too.
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
_MAKE_ROOM = ": compact, defragment, and etcdctl alarm disarm"


class LeaseNotFound(Exception):
    """The lease has ended, or was revoked."""


class ServerError(Exception):
    """An error that the server answered: `code` is gRPC's status code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text}{_MAKE_ROOM}" if text.endswith("database space exceeded") else text)
        self.code = code

    def failure(self, advice: str) -> Failure:
        """The contract's error for it. `advice` tells the user what to do about a refusal."""
        if self.code in _PERMANENT:
            return Refused(f"etcd refuses: {self}{advice}")
        return Unavailable(f"etcd: {self}")


class Login:
    """A user who logs in once, and again when the token has expired. `token` is empty before that.

    `user` is empty without login.
    """

    def __init__(self, address: Address) -> None:
        self.user = address.user
        self.token = ""
        self._password = address.password

    def during(self, work: Callable[[], Result], authenticate: Callable[[str, str], str]) -> Result:
        """Do `work` logged in, and once more with a new token if the server refuses the first.

        `authenticate` asks the server for the token of a user and password. Raises the errors of both, and
        Refused (77) for a wrong password.
        """

        def renew(error: ServerError) -> bool:
            # The token has expired, or somebody changed the users.
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
            # The cluster has no users: go on without, as etcdctl does.
            self.user = ""


class Op:
    """One step of a transaction, by `kind`: a put, a touch, a delete, or a range.

    A put has `value` and `lease` (0: for ever). A touch puts a key that exists with its own value and lease:
    whoever watches it for puts is told. A range has the keys from `key` to before `end` (empty: just
    the key), sorted by create revision: the `newest` first, or the oldest; at most `limit` keys (0: all);
    those created at revision `before` or earlier (0: all); with `keys_only` without their values.
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
    """A key and its value, as a range has them. `lease` is 0 without one.

    `created` and `modified` are the revisions of its creation and of its last put.
    """

    __slots__ = ("created", "key", "lease", "modified", "value")

    def __init__(self, key: str, value: str, created: int, modified: int, lease: int) -> None:
        self.key = key
        self.value = value
        self.created = created
        self.modified = modified
        self.lease = lease


class Member:
    """What a member tells of itself. `led`: it knows a leader. `errors` are its alarms and the like."""

    __slots__ = ("errors", "led", "version")

    def __init__(self, version: str, errors: Sequence[str], *, led: bool) -> None:
        self.version = version
        self.errors = errors
        self.led = led


class Outcome:
    """The answer to a transaction. `succeeded`: its compares held.

    `revision` is the cluster's after it. `found` has the keys of each operation; there are none for a put, a
    touch or a delete.
    """

    __slots__ = ("found", "revision", "succeeded")

    def __init__(self, revision: int, found: Sequence[Sequence[KeyValue]], *, succeeded: bool) -> None:
        self.revision = revision
        self.found = found
        self.succeeded = succeeded
