"""The contract's calls on one Lease. Every write names the version that it changes, and fails on any other.

Taking a free Lease is one read and one write; holding it one write every third of the ttl; waiting for it one
watch. A waiter takes the Lease as the watch has told it, without another read.
"""

from __future__ import annotations

import posix as os
import time

from singleton_run.api import timestamps, toolbox
from singleton_run.api.contract import Grant, Held, Look
from singleton_run.api.deadline import Deadline, Interrupted, Timeout
from singleton_run.api.http.wire import Broken
from singleton_run.api.servers import may_reopen
from singleton_run.errors import UNUSABLE, Failure, Lost, Refused, Unavailable
from singleton_run_k8s import errors, lease, objects
from singleton_run_k8s.client import Gone, WatchForbidden
from singleton_run_k8s.events import Events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from singleton_run.api.finding import Finding
    from singleton_run_k8s.client import Api, Watch
    from singleton_run_k8s.lease import Lease, Observation

    Names = list[str]  # named here, for `list` is a method below

_LOOK_EVERY = 2.0
_CONTENDED = "kubernetes: others change the Lease all the time"
# Seconds in which the watch tells of the write that ours collided with; a slower watch is of no use.
_TOLD_WITHIN = 1.0
# A command that ends sooner is spared the Event about its start, and the watch.
_SAY_AFTER = 0.05
_LONGEST_PAUSE = 5.0
_SAY_LIMIT, _SAY_SOON = 1.0, 0.2


class LeaseBackend:
    """Leases in one namespace. `stamps`: the API server's clock may be used. See `contract.Backend`.

    `pod` is the name of the pod that we run in, and its namespace (empty: that of the login).
    """

    def __init__(self, api: Api, *, stamps: bool, pod: tuple[str, str] = ("", "")) -> None:
        self._api = api
        self._pod = pod
        self._stamps = stamps
        self._events = Events(api)
        # The Lease that we try to get: its object's name, how we last saw it, and the watch on it.
        self._name = ""
        self._seen: Observation | None = None
        self._watch: Watch | None = None
        self._opened = 0.0
        self._forgot = False
        self._watch_allowed = True
        self._default = toolbox.LEAST_TTL
        # The Lease that we may have: its object's name and holder, and how we last wrote or read it.
        self._mine: tuple[str, str] | None = None
        self._own: Lease | None = None
        # The watch on it, and the control that the holder was told last.
        self._own_watch: Watch | None = None
        self._told: str | None = None

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Take the Lease if it is free, has expired, or is `holder`'s already."""
        deadline = Deadline.after(limit)
        self._turn_to(name, ttl)
        seen = self._latest() or self._look(deadline)
        while seen.is_free(holder, toolbox.now()):
            self._mine = (self._name, holder)
            body = lease.taken(seen.lease, name, holder, ttl, time.time(), self._name)
            write = self._api.create if seen.lease is None else self._api.update
            written = write(body, deadline)
            if written is not None:
                return self._granted(written, name, holder, ttl)
            deadline.check(_CONTENDED)
            seen = self._look_after_conflict(deadline)
        if self._mine is not None and not _is_ours(seen, holder):
            self._mine = None
        return self._held(seen)

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Watch the Lease until it is free or expires; without permission to watch, read it every 2 s."""
        while (now := toolbox.now()) < until:
            seen = self._seen
            if seen is None or seen.expires is None or seen.expires <= now:
                return
            deadline = Deadline(min(until, seen.expires), wake)
            try:
                if self._watch_allowed:
                    self._wait_by_watch(deadline)
                else:
                    self._wait_by_looking(deadline)
            except (Interrupted, Timeout):
                return
            except Unavailable:
                if toolbox.now() < until:
                    raise

    def leave(self, limit: float) -> None:
        """Give back a grant that `acquire` may have got; there is no queue."""
        self._close_watch()
        if self._mine is None:
            return
        deadline = Deadline.after(limit)
        name, holder = self._mine
        while (found := self._api.get(name, deadline)) is not None and lease.is_held_by(found, holder):
            body = lease.released(found, 0, None, lease.generation_of(found), 0.0, time.time())
            if self._api.update(body, deadline) is not None:
                break
            deadline.check(_CONTENDED)
        self._mine = None

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:
        """Write the present time: that succeeds only on the version that we wrote or read last."""

        def change(found: Lease) -> Lease:
            return lease.renewed(found, grant.token, grant.ttl, grant.generation, time.time())

        try:
            written = self._change(grant, change, limit)
        except Lost:
            self._events.note("lost", f"{grant.holder} lost the lease", warning=True)
            # Send it now: the front ends this process as soon as the command is gone.
            self._events.send(Deadline.after(_SAY_SOON))
            raise
        if written is None:
            return None
        self._told = lease.control_text(written)
        return lease.control_of(written)

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Send Events, and watch our own Lease where that is allowed. While no watch can be opened, wait.

        Under a pause no record tells our token, by which we are ordered to give the lock back. So the first
        call returns early, for a renewal that tells it.
        """
        begin = min(until, toolbox.now() + _SAY_AFTER)
        if (self._events.pending or self._own_watch is None) and toolbox.wait(begin, [wake]):
            return
        deadline = Deadline(until, wake)
        if self._events.pending and until > toolbox.now() + _SAY_LIMIT:
            self._events.send(deadline.within(_SAY_LIMIT))
        if self._own is not None and lease.is_paused(self._own) and lease.known_token(self._own) is None:
            return
        pause = 0.1
        while self._watch_allowed and not deadline.passed():
            try:
                self._hold_by_watch(grant, deadline)
            except (Timeout, Interrupted):
                return
            except Gone:
                self._close_own_watch()
                self._own = None
            except (Broken, Failure):
                self._close_own_watch()
            except WatchForbidden:
                self._watch_allowed = False
            else:
                return
            if toolbox.wait(deadline.within(pause).until, [wake]):
                return
            pause = min(2 * pause, _LONGEST_PAUSE)
        toolbox.wait(until, [wake])

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Put the record into an annotation."""
        self._change(grant, lambda found: lease.recorded(found, record), limit)

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        """Write the record, and take the holder's name off the Lease or leave it on while it is kept."""

        def change(found: Lease) -> Lease:
            return lease.released(found, grant.token, record, grant.generation, keep, time.time())

        self._change(grant, change, limit, once=True)
        self._close_own_watch()
        self._mine = None
        self._events.note("released", f"{grant.holder} stopped leading")

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        """The holder, judged by the server's clock, and the record."""
        self._turn_to(name, toolbox.LEAST_TTL)
        self._seen = None
        seen = self._look(Deadline.after(limit))
        if seen.lease is None:
            return None, None
        held = None if seen.is_free("", toolbox.now()) else self._held(seen)
        return held, lease.record_of(seen.lease)

    def look(self, name: str, limit: float) -> Look:
        """The Lease, judged by the server's clock. It doesn't know who waits, nor every holder's token."""
        self._turn_to(name, toolbox.LEAST_TTL)
        self._seen = None
        seen = self._look(Deadline.after(limit))
        if seen.lease is None:
            return Look(Look.FREE, None, None)
        state = _state(seen.lease, is_over=seen.is_free("", toolbox.now()))
        return Look(
            state,
            None if state == Look.FREE else self._held(seen),
            lease.record_of(seen.lease),
            control=lease.control_of(seen.lease),
            version=lease.control_version(seen.lease),
        )

    def steer(self, name: str, version: str, control: Mapping[str, Any], limit: float) -> bool:
        """Put the control into an annotation of the Lease, which is made where there is none.

        It is tried again as long as others change only something else.
        """
        deadline = Deadline.after(limit)
        stored_as, change = objects.of_lock(name), os.urandom(8).hex()
        while True:
            found = self._api.get(stored_as, deadline)
            if lease.control_version(found) != version:
                return False
            write = self._api.create if found is None else self._api.update
            written = write(lease.steered(found, name, stored_as, control, change), deadline)
            if written is not None:
                self._events.lease = written
                before = None if found is None else lease.control_of(found)
                self._events.note_control(before or {}, lease.control_of(written) or {})
                return True
            deadline.check(_CONTENDED)

    def free(self, name: str, seen: Look, limit: float) -> bool:
        """Take the holder's name off the Lease, if it still is of the same turn of the same holder."""
        deadline = Deadline.after(limit)
        while (found := self._api.get(objects.of_lock(name), deadline)) is not None:
            if not _is_of(found, seen.holder):
                break
            written = self._api.update(lease.freed(found, time.time()), deadline)
            if written is not None:
                self._events.lease = written
                self._events.note("freed", f"{lease.holder_of(found)} was taken off the lease", warning=True)
                return True
            deadline.check(_CONTENDED)
        return False

    def list(self, limit: float) -> Names:
        """The names of the Leases that are labelled as ours."""
        labels = [*(f"{label}={value}" for label, value in lease.MANAGED.items()), f"!{lease.MARK}"]
        found = self._api.list(",".join(labels), Deadline.after(limit))
        return sorted({lease.name_of(one) for one in found})

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        """The mark in the key's object, None without one. Raises Refused (78) for one that can't be read."""
        found = self._api.get(objects.of_key(name, key), Deadline.after(limit))
        return None if found is None else lease.mark_of(found)

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        """See that the Lease is still ours, and create the key's object, or replace it."""
        deadline = Deadline.after(limit)
        self._own = None
        self._find_own(grant, deadline)
        stored_as = objects.of_key(grant.name, key)
        body = lease.marked(stored_as, grant.name, key, mark)
        while self._api.create(body, deadline) is None:
            found = self._api.get(stored_as, deadline)
            if found is not None:
                named = {**body, "metadata": {**found["metadata"], **body["metadata"]}}
                if self._api.update(named, deadline) is not None:
                    return
            deadline.check(_CONTENDED)

    def forget(self, name: str, key: str, limit: float) -> bool:
        """Delete the key's object, which needs the permission to delete; false if there was none."""
        return self._api.delete(objects.of_key(name, key), Deadline.after(limit))

    def examine(self, name: str, ttl: float, limit: float) -> Iterator[Finding]:
        """Version, login, permissions, a Lease made as a dry run, the server's stamps, and the watch."""
        from singleton_run_k8s import doctor

        yield from doctor.examine(self._api, name, limit, stamps=self._stamps, pod=self._pod)

    def setup(self, name: str, limit: float) -> str:
        """A Role and its RoleBinding as YAML, for whoever we are logged in as."""
        from singleton_run_k8s import doctor

        return doctor.setup(self._api, limit)

    def label_pod(self, label: str, limit: float, *, on: bool) -> None:
        """Set the label on our pod, or take it away, which needs the permission to patch pods."""
        from singleton_run_k8s import pod

        pod.label(self._api, *self._pod, label, Deadline.after(limit), on=on)

    def offset(self) -> tuple[float, float] | None:
        """By the Date of the last answer, which is in whole seconds."""
        return self._api.clock.offset()

    def close(self) -> None:
        """Send the pending Events, if that is quickly done, and drop every connection."""
        self._close_watch()
        self._close_own_watch()
        self._events.send(Deadline.after(_SAY_LIMIT))
        self._api.close()

    def _turn_to(self, name: str, ttl: float) -> None:
        stored_as = objects.of_lock(name)
        if stored_as != self._name:
            self._close_watch()
            self._name, self._seen = stored_as, None
        self._default = ttl

    def _look(self, deadline: Deadline) -> Observation:
        """Read the Lease."""
        found = self._api.get(self._name, deadline)
        is_held = found is not None and lease.holder_of(found)
        return self._see(found, self._api.clock.told() if is_held else None)

    def _see(self, found: Lease | None, date: float | None = None) -> Observation:
        stamp = date if self._stamps else None
        self._seen = lease.observe(found, self._seen, toolbox.now(), self._default, stamp)
        return self._seen

    def _latest(self) -> Observation | None:
        """The Lease as the watch has told it so far; None without a watch."""
        try:
            while self._watch is not None:
                self._see(self._watch.next(Deadline.after(0.0)))
        except Timeout:
            return self._seen
        except (Broken, Gone):
            self._close_watch()
        return None

    def _look_after_conflict(self, deadline: Deadline) -> Observation:
        """The Lease as another client has just written it, from the watch; else from a read."""
        if self._watch is not None:
            try:
                return self._see(self._watch.next(deadline.within(_TOLD_WITHIN)))
            except (Timeout, Broken, Gone):
                self._close_watch()
        return self._look(deadline)

    def _wait_by_watch(self, deadline: Deadline) -> None:
        """Wait for one event. Raises Timeout, Interrupted, Unavailable, Refused."""
        try:
            if self._watch is None:
                self._open_watch(deadline)
            if self._watch is not None:
                self._see(self._watch.next(deadline))
                self._forgot = False
        except Gone:
            self._close_watch()
            if self._forgot:  # the version that was just read, too
                raise Unavailable("kubernetes: the server has forgotten each version (410)") from None
            self._forgot = True
            self._look(self._request(deadline))
        except WatchForbidden:
            self._watch_allowed = False
            _say_no_watch(self._api.namespace)
        except Broken as broken:
            self._close_watch()
            may_reopen("kubernetes", self._opened, broken)

    def _open_watch(self, deadline: Deadline) -> None:
        seen = self._seen
        if seen is None or seen.lease is None:
            return
        version = seen.lease["metadata"]["resourceVersion"]
        self._opened = toolbox.now()
        self._watch = self._api.watch(self._name, version, self._request(deadline))

    def _wait_by_looking(self, deadline: Deadline) -> None:
        """Wait for two seconds, then read. Raises the same."""
        soon = min(deadline.until, toolbox.now() + _LOOK_EVERY)
        if toolbox.wait(soon, [deadline.wake]):
            raise Interrupted
        if soon == deadline.until:
            raise Timeout
        self._look(self._request(deadline))

    def _request(self, deadline: Deadline) -> Deadline:
        """The deadline of one request within a wait."""
        return deadline.within(toolbox.request_limit(self._default))

    def _close_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _close_own_watch(self) -> None:
        if self._own_watch is not None:
            self._own_watch.close()
            self._own_watch = None

    def _hold_by_watch(self, grant: Grant, deadline: Deadline) -> None:
        """Return when the Lease is another's, or its control another than the holder was told.

        It also returns when somebody else has changed its spec: the next renewal writes what holds. A watch
        tells what came after a version. Without one that we know to be ours, as after a write that
        failed, the Lease is read first. Raises Timeout, Interrupted, Broken, Gone, WatchForbidden,
        Unavailable, Refused.
        """
        if self._own is None:
            self._api.recall(grant.handle["known"])
            soon = deadline.within(toolbox.request_limit(grant.ttl))
            found = self._api.get(objects.of_lock(grant.name), soon)
            self._own = found if found is not None and _is_the_grant_s(found, grant) else None
        while self._own is not None and lease.control_text(self._own) == self._told:
            if self._own_watch is None:
                version = self._own["metadata"]["resourceVersion"]
                soon = deadline.within(toolbox.request_limit(grant.ttl))
                self._own_watch = self._api.watch(self._own["metadata"]["name"], version, soon)
            found = self._own_watch.next(deadline)
            if found is not None and not lease.is_later(found, self._own):
                continue  # renewals of our own are told too
            is_edited = found is not None and found.get("spec") != self._own.get("spec")
            self._own = found if found is not None and _is_the_grant_s(found, grant) else None
            if is_edited:
                return

    def _granted(self, written: Lease, name: str, holder: str, ttl: float) -> Grant:
        # Who has waited has a watch already.
        self._close_own_watch()
        self._own_watch, self._watch = self._watch, None
        self._own = written
        self._told = lease.control_text(written)
        try:
            token = lease.token_of(written)
        except ValueError:
            raise Refused(
                "kubernetes: this API server's resourceVersions are no numbers, and make no token", UNUSABLE
            ) from None
        self._events.lease = written
        self._events.note("acquired", f"{holder} became leader")
        handle = {"acquired": written["spec"]["acquireTime"], "known": self._api.known()}
        control = lease.control_of(written)
        return Grant(name, holder, token, ttl, handle, lease.record_text(written), control=control)

    def _held(self, seen: Observation) -> Held:
        found = seen.lease
        if found is None:
            return Held()
        acquired = (found.get("spec") or {}).get("acquireTime")
        return Held(
            lease.holder_of(found),
            since=timestamps.unix_time(acquired),
            until=seen.expires,
            handle={"acquired": acquired},
            token=lease.known_token(found),
            control=lease.control_of(found),
        )

    def _change(
        self, grant: Grant, change: Callable[[Lease], Lease], limit: float, *, once: bool = False
    ) -> Lease | None:
        """Change the Lease if it is still the grant's: the one that was written. Raises Lost if it is not.

        With `once` a grant that was given back before is no error: None.
        """
        deadline = Deadline.after(limit)
        while True:
            found = self._find_own(grant, deadline, once=once)
            if found is None:
                return None
            self._own = None
            written = self._api.update(change(found), deadline)
            if written is not None:
                self._own = self._events.lease = written
                return written
            deadline.check(_CONTENDED)

    def _find_own(self, grant: Grant, deadline: Deadline, *, once: bool = False) -> Lease | None:
        """The grant's Lease; with `once` None where the grant was given back before. Raises Lost."""
        name = objects.of_lock(grant.name)
        found = self._own
        if found is None or found["metadata"]["name"] != name:
            self._api.recall(grant.handle["known"])
            found = self._own = self._api.get(name, deadline)
        if found is None:
            raise Lost("its Lease was deleted")
        if _is_the_grant_s(found, grant):
            return found
        self._own = None
        if once and lease.was_released_by(found, grant.token, grant.generation):
            return None
        if lease.generation_of(found) > grant.generation and lease.holder_of(found) == grant.holder:
            raise Lost("another keeper of this turn has taken over")
        if lease.holder_of(found) == grant.holder:
            raise Lost("somebody has changed the acquireTime of its Lease")
        raise Lost(f"{lease.holder_of(found) or 'nobody'} holds its Lease")


def _is_the_grant_s(found: Lease, grant: Grant) -> bool:
    return lease.is_of(found, grant.holder, grant.handle["acquired"], grant.generation)


def _is_of(found: Lease, seen: Held | None) -> bool:
    """Whether the Lease is of the holder that was seen, and of the same turn of it."""
    holder = lease.holder_of(found)
    if seen is None or not holder or Held(holder).holder != seen.holder:
        return False
    acquired = (found.get("spec") or {}).get("acquireTime")
    if "acquired" in seen.handle and seen.handle["acquired"] != acquired:
        return False
    return seen.token is None or lease.known_token(found) == seen.token


def _state(found: Lease, *, is_over: bool) -> str:
    """The state of a Lease whose time is over, or is not."""
    if not lease.holder_of(found):
        return Look.FREE
    if lease.is_kept(found):
        return Look.FREE if is_over else Look.KEPT
    return Look.EXPIRED if is_over else Look.HELD


def _is_ours(seen: Observation, holder: str) -> bool:
    return seen.lease is not None and lease.is_held_by(seen.lease, holder)


def _say_no_watch(namespace: str) -> None:
    from singleton_run.api.toolbox import last_words

    last_words(
        "the Role lacks the verb watch for leases, so this looks every 2 s whether the lock is free: "
        f"{errors.role('get,create,update,watch', namespace or 'NAMESPACE', '')}"
    )
