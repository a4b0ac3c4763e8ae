"""The lock: the recipe of etcd's concurrency package, kept by processes that may die at any step.

To get lock NAME a client puts the key NAME/LEASE, which lives as long as the lease. The oldest key has the
lock, and its create revision is the fencing token. Each of the others waits for the deletion of the key just
before its own. A lock that is kept after its turn has its key under another lease, which nobody renews: who
waits for the key waits for the end of that lease.

A living lease is not a held lock, because somebody can delete the key by hand. So `renew` keeps the lease
alive *and* sees that the key is there, and a holder watches its key. A new control touches this key, so that
the same watch tells the holder of it; the key's create revision, value and lease stay.
"""

from __future__ import annotations

import time

from singleton_run.api import toolbox
from singleton_run.api.contract import Grant, Held
from singleton_run.api.deadline import Deadline, Interrupted, Timeout
from singleton_run.api.http.wire import Broken
from singleton_run.api.record import parsed, parsed_mark
from singleton_run.api.servers import may_reopen
from singleton_run.errors import Failure, Lost, Unavailable
from singleton_run_etcd import keys
from singleton_run_etcd.client import LeaseNotFound, Op
from singleton_run_etcd.keys import Keys, all_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from singleton_run.api.contract import Look
    from singleton_run.api.finding import Finding
    from singleton_run_etcd.address import Address
    from singleton_run_etcd.client import Compare, KeyValue, Outcome, Server, Watch

_LONGEST_PAUSE = 5.0
# A command that ends sooner is spared the watch, which sees changes made before it was opened too.
_WATCH_AFTER = 0.05
_REVOKE_LIMIT = 1.0
# A released lock goes to the next in the queue meanwhile, whose requests would wait behind what is tidied up.
_CLOSE_AFTER = 0.05
_ENDED_AT_ONCE = "etcd: the lease ended as soon as it was made"
_LEASE_ENDED = "its lease in etcd has ended"
_NOT_OURS = "its key in etcd is gone, or is that of a later keeper"
# A record that the release of the lock wrote ends in this.
_RELEASED = "\n"

_NEVER = float("-inf")


class _Place:
    """A place in the queue: our key and its lease.

    `created` is the key's create revision, 0 until a request has shown that the key is there. `renewed` is
    the boot clock's reading when the last successful request for the lease was sent. A grant's time counts
    from there, so that no renewal delays a command.
    """

    __slots__ = ("created", "key", "lease", "name", "renewed", "since")

    def __init__(self, name: str, among: Keys, lease: int) -> None:
        self.name = name
        self.lease = lease
        self.key = among.place(name, self.lease)
        self.since = round(time.time(), 3)
        self.renewed = _NEVER
        self.created = 0


class EtcdBackend:
    """Locks whose keys begin with `prefix`, in the cluster of `server`. See `contract.Backend`.

    `for_doctor` has the cluster's address, and what connects to an address.
    """

    for_doctor: tuple[Address, Callable[[Address], Server]]

    def __init__(self, server: Server, prefix: str) -> None:
        self.warning: tuple[str, str] | None = None
        self._server = server
        self._keys = Keys(prefix)
        self._place: _Place | None = None
        self._has_queued = False
        self._own_watch: tuple[str, Watch] | None = None
        # The watch of the last wait. To end it costs the server work, which a grant need not wait for.
        self._spent_watch: Watch | None = None
        # The revision at which our key was last seen, and the generation that its value was last seen to
        # have.
        self._seen = 0
        self._claimed = 0
        self._empty_leases: set[int] = set()

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Take a place in the queue, or look whether ours has come to its head."""
        self._keys.check(name)
        deadline = Deadline.after(limit)
        if self._place is None or self._place.name != name:
            self._place = _Place(name, self._keys, self._first_lease(name, holder))
        try:
            return self._attempt(self._place, holder, ttl, deadline)
        except LeaseNotFound:
            # The lease of our place ended while nobody could renew it, or the key was deleted: queue up
            # again.
            self._place = _Place(name, self._keys, keys.new_lease())
        try:
            return self._attempt(self._place, holder, ttl, deadline)
        except LeaseNotFound:
            raise Unavailable(_ENDED_AT_ONCE) from None

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
                self._close_spent_watch()
                self._spent_watch = watch = self._server.watch(predecessor, revision + 1, step)
                if self._watch_predecessor(watch, place, ttl, deadline):
                    return
            except Interrupted:
                return
            except Unavailable:
                if not deadline.passed():
                    raise
            except Broken as broken:
                may_reopen("etcd", opened, broken)
            predecessor = ""

    def leave(self, limit: float) -> None:
        """Revoke the lease of our place, which deletes its key."""
        if self._place is not None:
            self._server.revoke_lease(self._place.lease, Deadline.after(limit))
            self._place = None

    def take_back(self, name: str, holder: str, limit: float) -> None:
        """Revoke the lease of the holder's first place in the queue; a later one ends by itself."""
        lease = keys.lease_of(holder, self._keys.queue(name))
        self._server.revoke_lease(lease, Deadline.after(limit))

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:
        """Keep the lease alive, see that the key is there, and read the control.

        The first renewal of a later keeper claims the key for its generation.
        """
        deadline = Deadline.after(limit)
        handle = self._handle_of(grant)
        if not self._server.keep_lease_alive(handle["lease"], deadline):
            raise Lost(_LEASE_ENDED)
        claim: list[Op] = []
        if grant.generation != self._claimed:
            value = keys.value(grant.holder, handle["since"], grant.generation)
            claim.append(Op("put", self._own_key(grant), value=value, lease=handle["lease"]))
        try:
            then = [*claim, Op("range", self._keys.control(grant.name))]
            outcome = self._server.txn(self._is_still_ours(grant), then, [], deadline)
        except LeaseNotFound:
            raise Lost(_LEASE_ENDED) from None
        if not outcome.succeeded:
            raise Lost(_NOT_OURS)
        self._seen = outcome.revision
        self._claimed = grant.generation
        return keys.control_of(outcome.found[-1])

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Watch our own key. While no watch can be opened, wait, and try again less and less often."""
        self._handle_of(grant)
        if self._own_watch is None and toolbox.wait(min(until, toolbox.now() + _WATCH_AFTER), [wake]):
            return
        self._close_spent_watch()
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
            if toolbox.wait(deadline.within(pause).until, [wake]):
                return
            pause = min(2 * pause, _LONGEST_PAUSE)

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Put the record if the key is still ours."""
        self._put_if_ours(grant, self._keys.record(grant.name), record, limit)

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        """Delete the key, or have it kept under another lease, and put the record, in one transaction.

        `close` revokes the lease that we renewed: that need not delay the release.
        """
        handle = self._handle_of(grant)
        key, record_key = self._own_key(grant), self._keys.record(grant.name)
        deadline = Deadline.after(limit)
        text = toolbox.dumps(record) + _RELEASED
        give, fresh = Op("delete", key), 0
        if keep > 0:
            fresh = keys.new_lease()
            self._server.grant_lease(fresh, toolbox.whole_seconds(keep), deadline)
            give = Op("put", key, value=keys.kept_value(grant.holder, handle["since"]), lease=fresh)
        try:
            outcome = self._server.txn(
                self._is_still_ours(grant),
                [give, Op("put", record_key, value=text)],
                [Op("range", key), Op("range", record_key)],
                deadline,
            )
        except LeaseNotFound:
            raise Unavailable(_ENDED_AT_ONCE) from None
        if fresh and not outcome.succeeded:
            self._empty_leases.add(fresh)
        if not outcome.succeeded and not _was_released(outcome, grant):
            raise Lost(_NOT_OURS)
        self._place = None
        self._empty_leases.add(handle["lease"])

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        """The holder of the oldest key, and the record."""
        deadline = Deadline.after(limit)
        outcome = self._server.txn([], self._state_of(name), [], deadline)
        oldest, record, control = outcome.found
        if not oldest:
            return None, record_of(record)
        held = self._held(oldest[0], deadline, control=keys.control_of(control))
        return keys.dated(held, record_of(record)), record_of(record)

    def look(self, name: str, limit: float) -> Look:
        """The whole queue, the record and the control, and then the time that the holder's lease has left."""
        from singleton_run_etcd import steering

        return steering.look(self._server, self._keys, name, Deadline.after(limit))

    def steer(self, name: str, version: str, control: Mapping[str, Any], limit: float) -> bool:
        """Put the control if its mod revision still is `version`, and touch the holder's key."""
        from singleton_run_etcd import steering

        self._keys.check(name)
        return steering.steer(self._server, self._keys, name, version, control, Deadline.after(limit))

    def free(self, name: str, seen: Look, limit: float) -> bool:
        """Delete the oldest key if its create revision still is the token of `seen`."""
        from singleton_run_etcd import steering

        return steering.free(self._server, self._keys, name, seen, Deadline.after(limit))

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        """The value of the mark's key, None without one. Raises Refused (78) for one that can't be read."""
        mark_key = self._keys.mark(name, key)
        found, _ = self._server.range(Op("range", mark_key), Deadline.after(limit))
        return parsed_mark(found[0].value, f"etcd's key {mark_key}") if found else None

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        """Put the mark's key if the lock's is still ours."""
        self._put_if_ours(grant, self._keys.mark(grant.name, key), mark, limit)

    def forget(self, name: str, key: str, limit: float) -> bool:
        """Delete the mark's key; false if there was none."""
        mark_key = self._keys.mark(name, key)
        is_missing: list[Compare] = [("create", mark_key, 0)]
        outcome = self._server.txn(is_missing, [], [Op("delete", mark_key)], Deadline.after(limit))
        return not outcome.succeeded

    def offset(self) -> tuple[float, float] | None:
        """By the Date of the gateway's last answer. None by gRPC, which doesn't tell the time."""
        return self._server.offset()

    def examine(self, name: str, ttl: float, limit: float) -> Iterator[Finding]:
        """Members, version, permissions, users, TLS, and whether a watch opens."""
        from singleton_run_etcd import doctor

        yield from doctor.examine(self._server, *self.for_doctor, name, limit)

    def setup(self, name: str, limit: float) -> str:
        """The calls of etcdctl that make a role, and give it to our user. Nobody is contacted."""
        from singleton_run_etcd import doctor

        return doctor.setup(self.for_doctor[0], name)

    def list(self, limit: float) -> list[str]:
        """The names that have a record, a control, or a key that looks like a lock's, sorted."""
        folders = [self._keys.record(""), self._keys.control("")]
        ranges = [*(all_below(folder, keys_only=True) for folder in folders), *self._keys.queues()]
        outcome = self._server.txn([], ranges, [], Deadline.after(limit))
        names = set()
        for folder, entries in zip(folders, outcome.found, strict=False):
            names |= {entry.key.removeprefix(folder) for entry in entries}
        for entries in outcome.found[len(folders) :]:
            names |= {self._keys.name_of(entry) for entry in entries}
        return sorted(name for name in names if name and "/" not in name)

    def close(self) -> None:
        """Drop every connection, after revoking the leases that a release left without a key.

        That takes a second at most: nobody waits for these leases, and they end by themselves.
        """
        if self._empty_leases:
            toolbox.wait(toolbox.now() + _CLOSE_AFTER, [])
        self._close_spent_watch()
        self._close_watch()
        deadline = Deadline.after(_REVOKE_LIMIT)
        try:
            while self._empty_leases:
                self._server.revoke_lease(self._empty_leases.pop(), deadline)
        except Failure:
            self._empty_leases.clear()
        self._server.close()

    def _first_lease(self, name: str, holder: str) -> int:
        """The lease for a place in the queue.

        For the first it follows from the holder: a keeper that takes the place of a killed one finds its key
        there, so nobody waits until a dead keeper's place lapses. A later one is fresh, because the earlier
        may still be revoked.
        """
        if self._has_queued:
            return keys.new_lease()
        self._has_queued = True
        return keys.lease_of(holder, self._keys.queue(name))

    def _put_if_ours(self, grant: Grant, key: str, value: Mapping[str, Any], limit: float) -> None:
        self._handle_of(grant)
        put = Op("put", key, value=toolbox.dumps(value))
        outcome = self._server.txn(self._is_still_ours(grant), [put], [], Deadline.after(limit))
        if not outcome.succeeded:
            raise Lost(_NOT_OURS)

    def _own_key(self, grant: Grant) -> str:
        return self._keys.place(grant.name, grant.handle["lease"])

    def _state_of(self, name: str) -> Sequence[Op]:
        """The ranges of the holder's place, the record and the control."""
        record, control = self._keys.record(name), self._keys.control(name)
        return [self._keys.oldest(name), Op("range", record), Op("range", control)]

    def _attempt(self, place: _Place, holder: str, ttl: float, deadline: Deadline) -> Grant | Held:
        """Look, from our place in the queue, whether the lock is ours.

        Raises LeaseNotFound when the place is gone.
        """
        began = toolbox.now()
        outcome = self._look(place, holder, ttl, deadline)
        own, oldest, record, found, *newest = outcome.found
        if not (own and oldest) or own[0].lease != place.lease:
            # A key under another lease is kept after its turn: another keeper of ours has released it.
            raise LeaseNotFound
        place.created = own[0].created
        self._seen = outcome.revision
        control = keys.control_of(found)
        if oldest[0].created != place.created:
            # Where our key was just made, watch the newest of the others. Else `wait` finds the one before
            # ours.
            others = [entry.key for some in newest for entry in some if entry.key != place.key]
            handle = {"ttl": ttl, "predecessor": others[0] if others else "", "revision": outcome.revision}
            return keys.dated(self._held(oldest[0], deadline, handle, control), record_of(record))
        if place.renewed < began - ttl / 2:
            if not self._server.keep_lease_alive(place.lease, deadline):
                raise LeaseNotFound
            place.renewed = began
        handle = {"lease": place.lease, "since": place.since, "known": self._server.known()}
        return Grant(
            place.name,
            holder,
            place.created,
            ttl,
            handle,
            record[0].value if record else None,
            control=control,
            renewed=place.renewed,
        )

    def _look(self, place: _Place, holder: str, ttl: float, deadline: Deadline) -> Outcome:
        """Our key, the oldest, the record, the control; where our key was just made, also the two newest."""
        # Our key, with its create revision, in case an earlier request made it and its answer was lost.
        own = Op("range", place.key)
        # The oldest key has the lock: a lock that nobody wants is ours after this one request. The last
        # holder's record and the control are for the grant.
        look = [own, *self._state_of(place.name)]
        if place.created:
            return self._server.txn([], look, [], deadline)
        now = toolbox.now()
        # The lease first: the key needs it. False means that it is there already, from a request like this.
        if self._server.grant_lease(place.lease, toolbox.whole_seconds(ttl), deadline):
            place.renewed = now
        # Only if our key doesn't exist yet:
        is_missing: list[Compare] = [("create", place.key, 0)]
        # Put ourselves into the queue. etcd deletes the key when the lease ends.
        put = Op("put", place.key, value=keys.value(holder, place.since, 0), lease=place.lease)
        # The two newest keys are ours and the one before it, which `wait` then watches without asking again.
        newest = all_below(self._keys.queue(place.name), limit=2, newest=True, keys_only=True)
        # Else an earlier request made the key: use it, and just look.
        outcome = self._server.txn(is_missing, [put, *look, newest], look, deadline)
        if outcome.succeeded:
            outcome.found = outcome.found[1:]
        return outcome

    def _held(
        self,
        entry: KeyValue,
        deadline: Deadline,
        handle: dict[str, Any] | None = None,
        control: Mapping[str, Any] | None = None,
    ) -> Held:
        """The holder that has the key `entry`."""
        until = lease_end(self._server, entry, deadline) if keys.is_kept(entry) else None
        return keys.held(entry, until, handle, control)

    def _find_predecessor(self, place: _Place, deadline: Deadline) -> tuple[str, int]:
        """The key just before ours (empty: there is none), and the revision at which that is so."""
        queue, before = self._keys.queue(place.name), place.created - 1
        look = all_below(queue, limit=1, newest=True, before=before, keys_only=True)
        found, revision = self._server.range(look, deadline)
        return (found[0].key if found else ""), revision

    def _watch_predecessor(self, watch: Watch, place: _Place, ttl: float, deadline: Deadline) -> bool:
        """Wait for the deletion of the key before ours, and keep our lease alive meanwhile.

        True: look at the queue again. False: requests go to another member now, so open the watch there.
        """
        while True:
            try:
                watch.wait(deadline.earlier(place.renewed + ttl / 3))
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
        key = self._own_key(grant)
        if self._own_watch is not None and (self._own_watch[0] != key or not self._own_watch[1].is_current()):
            self._close_watch()
        if self._own_watch is None:
            revision = max(self._seen, grant.token) + 1
            self._own_watch = key, self._server.watch(key, revision, deadline, puts=True)
        return self._own_watch[1]

    def _close_spent_watch(self) -> None:
        if self._spent_watch is not None:
            self._spent_watch.close()
            self._spent_watch = None

    def _close_watch(self) -> None:
        if self._own_watch is not None:
            self._own_watch[1].close()
            self._own_watch = None

    def _handle_of(self, grant: Grant) -> Mapping[str, Any]:
        """The grant's handle, after the server's addresses in it were taken over."""
        self._server.recall(grant.handle["known"])
        return grant.handle

    def _is_still_ours(self, grant: Grant) -> Sequence[Compare]:
        """Compares that hold if the key is there, was made for this grant, and no later keeper claimed it."""
        key = self._own_key(grant)
        return [("create", key, grant.token), ("below", key, keys.generation_prefix(grant.generation + 1))]


def record_of(found: Sequence[KeyValue]) -> Mapping[str, Any] | None:
    """The record in what a range of its key has found, None without one."""
    return parsed(found[0].value) if found else None


def lease_end(server: Server, entry: KeyValue, deadline: Deadline) -> float:
    """The boot clock's reading at which the lease of `entry` has ended if nobody renews it."""
    # etcd tells whole seconds, and cuts off the rest.
    return toolbox.now() + 1 + server.time_to_live(entry.lease, deadline)


def _was_released(outcome: Outcome, grant: Grant) -> bool:
    """Whether an earlier request, whose answer was lost, has released the lock."""
    own, found = outcome.found
    record = record_of(found)
    if record is None or not all(keys.is_kept(entry) for entry in own):
        return False
    if record["token"] == grant.token:
        return found[0].value.endswith(_RELEASED)
    # Another has held the lock since: then our run is among the earlier ones.
    runs = [run for run in record["runs"] if isinstance(run, dict)]
    return any(run.get("token") == grant.token and run.get("end") is not None for run in runs)
