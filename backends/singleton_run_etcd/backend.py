"""The lock: the recipe of etcd's concurrency package, kept by processes that may die at any step.

Whoever wants lock NAME puts the key NAME/LEASE, which lives as long as the lease; the oldest key has
the lock, and its create revision is the fencing token. The others wait for the deletion of the key
just before theirs. The record lies at singleton-run/record/NAME, for ever, and the mark of a key that
is done at singleton-run/once/NAME/KEY. A lock that is kept after its turn has its key under another
lease, which nobody renews: all who wait for the key wait for its end.

A living lease is not a held lock: a key can be deleted by hand while its lease lives. So to renew is
to keep the lease alive *and* to see one's own key, and a holder watches it.
"""

from __future__ import annotations

import os
import time

from singleton_run.api import toolbox
from singleton_run.api.contract import Grant, Held
from singleton_run.api.deadline import Deadline, Interrupted, Timeout
from singleton_run.api.http.connection import Broken
from singleton_run.api.record import parsed, parsed_mark
from singleton_run.api.servers import may_reopen
from singleton_run.errors import UNUSABLE, Failure, Lost, Refused, Unavailable
from singleton_run_etcd.client import LeaseNotFound, Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from singleton_run_etcd.client import Compare, KeyValue, Outcome, Server, Watch

_RECORDS = "singleton-run/record/"
_MARKS = "singleton-run/once/"
_OURS = "singleton-run"
_LONGEST_PAUSE = 5.0
# A command that ends sooner doesn't pay for a watch, which sees what happened meanwhile.
_WATCH_AFTER = 0.05
_REVOKE_LIMIT = 1.0
_NOT_OURS = "its key in etcd is gone, or is that of a later keeper"
# So begins the value of a key that is kept after its turn.
_KEPT = '{"kept":'
# A record that was written by the release of the lock ends in this.
_RELEASED = "\n"


class _Place:
    """A place in the queue: our key and its lease.

    `created` is the key's create revision, 0 until the key is known to be there; `renewed` is when
    the last successful request for the lease was sent.
    """

    __slots__ = ("created", "key", "lease", "name", "renewed", "since")

    def __init__(self, name: str, queue: str) -> None:
        self.name = name
        self.lease = _new_lease()
        self.key = f"{queue}{self.lease:x}"
        self.since = round(time.time(), 3)
        self.renewed = 0.0
        self.created = 0


class EtcdBackend:
    """Locks whose keys begin with `prefix`, in the cluster of `server`. See `contract.Backend`."""

    def __init__(self, server: Server, prefix: str) -> None:
        self.warning: tuple[str, str] | None = None
        self._server = server
        self._prefix = prefix
        self._place: _Place | None = None
        self._own_watch: tuple[str, Watch] | None = None
        self._seen = 0
        self._claimed = 0
        self._empty_leases: set[int] = set()

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Take a place in the queue, or look whether ours has come to its head."""
        if not self._prefix and name == _OURS:
            raise Refused(f"in etcd the name {_OURS!r} is taken by the records: choose another", UNUSABLE)
        deadline = Deadline.after(limit)
        if self._place is None or self._place.name != name:
            self._place = _Place(name, self._queue(name))
        try:
            return self._attempt(self._place, holder, ttl, deadline)
        except LeaseNotFound:
            # Our place lapsed while nobody could renew it, or was deleted by hand: go to the end.
            self._place = _Place(name, self._queue(name))
        try:
            return self._attempt(self._place, holder, ttl, deadline)
        except LeaseNotFound:
            raise Unavailable("etcd: the lease ended as soon as it was made") from None

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Watch the key before ours, and keep our lease alive every third of a ttl."""
        place = self._place
        if place is None:
            return
        ttl, predecessor, revision = held.handle["ttl"], held.handle["predecessor"], held.handle["revision"]
        deadline = Deadline(until, wake)
        opened = 0.0
        while not deadline.passed():
            step = deadline.within(toolbox.request_limit(ttl))
            try:
                if not predecessor:
                    predecessor, revision = self._find_predecessor(place, step)
                    if not predecessor:
                        return
                opened = toolbox.now()
                watch = self._server.watch(predecessor, revision + 1, step)
                try:
                    if self._watch_predecessor(watch, place, ttl, deadline):
                        return
                finally:
                    watch.close()
            except Interrupted:
                return
            except Unavailable:
                if not deadline.passed():
                    raise
            except Broken as broken:
                may_reopen("etcd", opened, broken)
            predecessor = ""

    def leave(self, limit: float) -> None:
        """Revoke the lease of our place, and with it the key."""
        if self._place is not None:
            self._server.revoke_lease(self._place.lease, Deadline.after(limit))
            self._place = None

    def renew(self, grant: Grant, limit: float) -> None:
        """Keep the lease alive and see that the key is there; a later keeper marks it as its own."""
        deadline = Deadline.after(limit)
        handle = self._handle_of(grant)
        if not self._server.keep_lease_alive(handle["lease"], deadline):
            raise Lost("its lease in etcd has ended")
        claim: list[Op] = []
        if grant.generation != self._claimed:
            value = _value(grant.holder, handle["since"], grant.generation)
            claim.append(Op("put", self._key(grant), value=value, lease=handle["lease"]))
        try:
            outcome = self._server.txn(self._is_still_ours(grant), claim, [], deadline)
        except LeaseNotFound:
            raise Lost("its lease in etcd has ended") from None
        if not outcome.succeeded:
            raise Lost(_NOT_OURS)
        self._seen = outcome.revision
        self._claimed = grant.generation

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Watch our own key; where no watch can be had, wait."""
        self._handle_of(grant)
        if self._own_watch is None and toolbox.wait(min(until, toolbox.now() + _WATCH_AFTER), [wake]):
            return
        deadline = Deadline(until, wake)
        pause = 0.1
        while not deadline.passed():
            try:
                watch = self._watch_own(grant, deadline.within(toolbox.request_limit(grant.ttl)))
                watch.wait(deadline)
            except (Timeout, Interrupted):
                return
            except (Broken, Failure):
                self._close_watch()
            else:
                self._close_watch()
                return
            if toolbox.wait(min(until, toolbox.now() + pause), [wake]):
                return
            pause = min(2 * pause, _LONGEST_PAUSE)

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Put the record if the key is still ours."""
        self._put_if_ours(grant, self._record_key(grant.name), record, limit)

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        """Delete the key, or put it under a lease of its own, and put the record in one transaction.

        The lease that was renewed is left to `close`.
        """
        handle = self._handle_of(grant)
        key, record_key = self._key(grant), self._record_key(grant.name)
        deadline = Deadline.after(limit)
        text = toolbox.dumps(record) + _RELEASED
        give, fresh = Op("delete", key), 0
        if keep > 0:
            fresh = _new_lease()
            self._server.grant_lease(fresh, toolbox.whole_seconds(keep), deadline)
            give = Op("put", key, value=_kept(grant.holder, handle["since"]), lease=fresh)
        try:
            outcome = self._server.txn(
                self._is_still_ours(grant),
                [give, Op("put", record_key, value=text)],
                [Op("range", key), Op("range", record_key)],
                deadline,
            )
        except LeaseNotFound:
            raise Unavailable("etcd: the lease ended as soon as it was made") from None
        if fresh and not outcome.succeeded:
            self._empty_leases.add(fresh)
        if not outcome.succeeded and not _was_released(outcome, grant):
            raise Lost(_NOT_OURS)
        self._place = None
        self._empty_leases.add(handle["lease"])

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        """Whose key is the oldest, and the record."""
        deadline = Deadline.after(limit)
        look = [self._oldest(name), Op("range", self._record_key(name))]
        outcome = self._server.txn([], look, [], deadline)
        first, record = outcome.found
        return (self._held(first[0], deadline) if first else None), _record(record)

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        """The value of the mark's key. Raises Refused for one that can't be read."""
        mark_key = self._mark_key(name, key)
        found, _ = self._server.range(Op("range", mark_key), Deadline.after(limit))
        if not found:
            return None
        return parsed_mark(found[0].value, f"etcd's key {mark_key}")

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        """Put the mark's key if the lock's is still ours."""
        self._put_if_ours(grant, self._mark_key(grant.name, key), mark, limit)

    def forget(self, name: str, key: str, limit: float) -> bool:
        """Delete the mark's key."""
        mark_key = self._mark_key(name, key)
        delete = Op("delete", mark_key)
        outcome = self._server.txn([("create", mark_key, 0)], [], [delete], Deadline.after(limit))
        return not outcome.succeeded

    def offset(self) -> tuple[float, float] | None:
        """By the Date of the gateway's last answer; gRPC doesn't tell the time."""
        return self._server.offset()

    def list(self, limit: float) -> list[str]:
        """The names that have a record, or a key that looks like a lock's."""
        records = self._record_key("")
        ranges = [_all_under(records, keys_only=True)]
        if self._prefix:
            ranges.append(_all_under(self._prefix, keys_only=True))
        else:
            # A lock's key may begin with any character of a name, but with no slash.
            ends = (("+", "/"), ("0", "{"))
            ranges += [Op("range", start, end=end, keys_only=True) for start, end in ends]
        outcome = self._server.txn([], ranges, [], Deadline.after(limit))
        names = {entry.key.removeprefix(records) for entry in outcome.found[0]}
        for entries in outcome.found[1:]:
            names |= {self._name_of(entry) for entry in entries}
        return sorted(name for name in names if name and "/" not in name)

    def close(self) -> None:
        """Revoke what leases a release has left empty, if that can be done soon; drop every connection.

        Nobody waits for them, and they would end by themselves: so it doesn't delay a release.
        """
        self._close_watch()
        deadline = Deadline.after(_REVOKE_LIMIT)
        try:
            while self._empty_leases:
                self._server.revoke_lease(self._empty_leases.pop(), deadline)
        except Failure:
            self._empty_leases.clear()
        self._server.close()

    def _put_if_ours(self, grant: Grant, key: str, value: Mapping[str, Any], limit: float) -> None:
        self._handle_of(grant)
        put = Op("put", key, value=toolbox.dumps(value))
        outcome = self._server.txn(self._is_still_ours(grant), [put], [], Deadline.after(limit))
        if not outcome.succeeded:
            raise Lost(_NOT_OURS)

    def _queue(self, name: str) -> str:
        return f"{self._prefix}{name}/"

    def _key(self, grant: Grant) -> str:
        return f"{self._queue(grant.name)}{grant.handle['lease']:x}"

    def _record_key(self, name: str) -> str:
        return f"{_RECORDS}{self._prefix}{name}"

    def _mark_key(self, name: str, key: str) -> str:
        from singleton_run.api.keys import plain

        # Without a slash in the last part no two names can have the same.
        return f"{_MARKS}{self._prefix}{name}/{plain(key)}"

    def _name_of(self, entry: KeyValue) -> str:
        name, _, last = entry.key.removeprefix(self._prefix).rpartition("/")
        return name if entry.lease and last == f"{entry.lease:x}" else ""

    def _oldest(self, name: str) -> Op:
        return _all_under(self._queue(name), limit=1)

    def _attempt(self, place: _Place, holder: str, ttl: float, deadline: Deadline) -> Grant | Held:
        """Look, from our place in the queue, whether the lock is ours.

        Raises LeaseNotFound when the place is gone.
        """
        began = toolbox.now()
        look = [
            Op("range", place.key),
            self._oldest(place.name),
            Op("range", self._record_key(place.name)),
        ]
        if place.created:
            outcome = self._server.txn([], look, [], deadline)
        else:
            outcome = self._enqueue(place, holder, ttl, look, deadline)
        own, first, record = outcome.found[:3]
        if not (own and first) or own[0].lease != place.lease:
            # Under another lease it is kept, for another keeper of ours has released it so.
            raise LeaseNotFound
        place.created = own[0].created
        self._seen = outcome.revision
        if first[0].created != place.created:
            # Where our key was just made, the newest but ours is the one to watch.
            newest = [entry.key for found in outcome.found[3:] for entry in found if entry.key != place.key]
            handle = {"ttl": ttl, "predecessor": newest[0] if newest else "", "revision": outcome.revision}
            return self._held(first[0], deadline, handle)
        if place.renewed < began:
            if not self._server.keep_lease_alive(place.lease, deadline):
                raise LeaseNotFound
            place.renewed = began
        handle = {"lease": place.lease, "since": place.since, "known": self._server.known()}
        return Grant(place.name, holder, place.created, ttl, handle, _record(record))

    def _held(self, entry: KeyValue, deadline: Deadline, handle: dict[str, Any] | None = None) -> Held:
        """Who has the key; of a stranger only the lease is known, and until when only if nobody renews it."""
        try:
            value = toolbox.loads(entry.value)
            holder, since = str(value["holder"]), value["since"]
        except (ValueError, TypeError, KeyError):
            return Held(f"etcd lease {entry.lease:x}", handle=handle)
        until = None
        if value.get("kept"):
            # In whole seconds, the rest is cut off.
            until = toolbox.now() + 1 + self._server.time_to_live(entry.lease, deadline)
        return Held(holder, since=since, until=until, handle=handle)

    def _enqueue(
        self, place: _Place, holder: str, ttl: float, look: Sequence[Op], deadline: Deadline
    ) -> Outcome:
        """Make lease and key, unless an earlier attempt has, whose answer was lost; and look."""
        now = toolbox.now()
        if self._server.grant_lease(place.lease, toolbox.whole_seconds(ttl), deadline):
            place.renewed = now
        value = _value(holder, place.since, 0)
        put = Op("put", place.key, value=value, lease=place.lease)
        last = _all_under(self._queue(place.name), limit=2, newest=True, keys_only=True)
        outcome = self._server.txn([("create", place.key, 0)], [put, *look, last], look, deadline)
        if outcome.succeeded:
            outcome.found = outcome.found[1:]
        return outcome

    def _find_predecessor(self, place: _Place, deadline: Deadline) -> tuple[str, int]:
        """The key just before ours, empty if there is none, and the revision at which that is so."""
        queue, before = self._queue(place.name), place.created - 1
        look = _all_under(queue, limit=1, newest=True, before=before, keys_only=True)
        found, revision = self._server.range(look, deadline)
        return (found[0].key if found else ""), revision

    def _watch_predecessor(self, watch: Watch, place: _Place, ttl: float, deadline: Deadline) -> bool:
        """Whether to look at the queue again; False if the watch must be opened elsewhere."""
        while True:
            due = place.renewed + ttl / 3
            try:
                watch.wait(deadline.earlier(due))
            except Timeout:
                if deadline.passed():
                    return True
            else:
                return True
            now = toolbox.now()
            soon = Deadline.after(toolbox.request_limit(ttl), deadline.wake)
            if not self._server.keep_lease_alive(place.lease, soon):
                return True
            place.renewed = now
            if not watch.is_current():
                return False

    def _watch_own(self, grant: Grant, deadline: Deadline) -> Watch:
        key = self._key(grant)
        if self._own_watch is not None and (self._own_watch[0] != key or not self._own_watch[1].is_current()):
            self._close_watch()
        if self._own_watch is None:
            revision = max(self._seen, grant.token) + 1
            self._own_watch = key, self._server.watch(key, revision, deadline)
        return self._own_watch[1]

    def _close_watch(self) -> None:
        if self._own_watch is not None:
            self._own_watch[1].close()
            self._own_watch = None

    def _handle_of(self, grant: Grant) -> Mapping[str, Any]:
        self._server.recall(grant.handle["known"])
        return grant.handle

    def _is_still_ours(self, grant: Grant) -> Sequence[Compare]:
        """Holds if the key is there, was made when the lock was granted, and is not a later keeper's."""
        key = self._key(grant)
        return [("create", key, grant.token), ("below", key, _generation_prefix(grant.generation + 1))]


def _all_under(folder: str, **how: Any) -> Op:
    """A range of all keys that begin with `folder`, which ends in a slash: the next character is 0."""
    return Op("range", folder, end=folder[:-1] + "0", **how)


def _new_lease() -> int:
    return int.from_bytes(os.urandom(8), "big") >> 1 or 1


def _generation_prefix(generation: int) -> str:
    """What the value of a key begins with: it sorts by generation."""
    return f'{{"generation":"{generation:08}'


def _value(holder: str, since: float, generation: int) -> str:
    rest = toolbox.dumps({"holder": holder, "since": since})
    return f'{_generation_prefix(generation)}",{rest[1:]}'


def _kept(holder: str, since: float) -> str:
    """The value of a key that is no keeper's any more: it sorts behind those of all generations."""
    return toolbox.dumps({"kept": True, "holder": holder, "since": since})


def _record(found: Sequence[KeyValue]) -> Mapping[str, Any] | None:
    return parsed(found[0].value) if found else None


def _was_released(outcome: Outcome, grant: Grant) -> bool:
    """Whether an earlier request, whose answer was lost, has done the release."""
    own, found = outcome.found
    record = _record(found)
    if record is None or any(not entry.value.startswith(_KEPT) for entry in own):
        return False
    if record["token"] == grant.token:
        return found[0].value.endswith(_RELEASED)
    # Another has held the lock since: then ours is among the earlier runs.
    runs = [run for run in record["runs"] if isinstance(run, dict)]
    return any(run.get("token") == grant.token and run.get("end") is not None for run in runs)
