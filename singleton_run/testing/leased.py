"""What holds for a lock under a lease: it lapses by itself, and a fresh process can keep it."""

# ruff: noqa: S101, TID253 - a tool of tests: the command never imports it

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from singleton_run import system
from singleton_run.contract import Held
from singleton_run.errors import Lost, Unavailable
from singleton_run.testing.peer import STEADY
from singleton_run.testing.suite import Conformance, is_lost, record_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from singleton_run.contract import Grant
    from singleton_run.testing.peer import Crew, Peer
    from singleton_run.testing.site import Site

LOOK_EVERY = 0.05
CLOCKS = 0.99
"""A lease may be this much shorter by our clock: the server's own may run a little faster."""


class LeasedConformance(Conformance):
    """The cases for a backend with a lease: those of `Conformance`, and more."""

    def test_a_lease_lapses_and_not_before_its_end(self, crew: Crew) -> None:
        """Its holder is dead: a waiter is woken by the expiry."""
        name = crew.name()
        holder, waiter = crew.peer(), crew.peer()
        ttl = crew.site.ttl
        holder.takes(name, ttl)
        sent = holder.began
        waiter.start_get(name, patience=ttl + crew.site.patience)
        assert isinstance(waiter.first, Held)
        holder.crash()
        waiter.got()
        assert waiter.ended >= sent + ttl * CLOCKS

    def test_a_renewed_lease_lapses_a_ttl_after_the_last_renewal(self, crew: Crew) -> None:
        """The waiter's own place outlives the lease too: who came later gets it later."""
        name = crew.name()
        holder, waiter, later = crew.peer(), crew.peer(), crew.peer()
        ttl = crew.site.ttl
        grant = holder.takes(name, ttl)
        until = system.now() + 3 * ttl
        waiter.start_get(name, ttl, patience=4 * ttl + crew.site.patience)
        assert isinstance(waiter.first, Held)
        later.start_get(name, patience=4 * ttl + crew.site.patience)
        assert isinstance(later.first, Held)
        sent = 0.0
        while system.now() < until:
            holder.renew(grant)
            sent = holder.began
            holder.hold(grant, sent + ttl / 3)
        holder.crash()
        first, second = (waiter, later) if crew.site.fifo else _order(waiter, later)
        got = first.got()
        assert first.ended >= sent + ttl * CLOCKS
        first.release(got, record_of(got))
        assert second.got().token > got.token

    def test_one_attempt_after_a_crash_succeeds_once_the_lease_is_over(self, crew: Crew) -> None:
        """And at once: nobody has to have watched the dead holder before."""
        name = crew.name()
        holder, watcher, newcomer = (crew.peer() for _ in range(3))
        holder.takes(name, crew.site.ttl)
        sent = holder.began
        holder.crash()
        until = system.now() + crew.site.ttl + crew.site.patience
        while watcher.read(name)[0] is not None:
            assert system.now() < until, "read still says that the dead holder has the lock"
            system.wait(system.now() + LOOK_EVERY, [])
        assert watcher.ended >= sent + crew.site.ttl * CLOCKS
        newcomer.takes(name)

    def test_until_is_the_end_of_the_lease(self, crew: Crew) -> None:
        """Where it is known."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        holder.takes(name)
        held = other.is_refused(name)
        assert held.until is None or abs(held.until - holder.began - STEADY) < STEADY / 2

    def test_a_fresh_process_keeps_the_lock_by_the_grant_alone(self, crew: Crew) -> None:
        """Renews, writes, holds and releases; the process that had it is dead."""
        name = crew.name()
        holder, fresh, other = crew.peer(), crew.peer(), crew.peer()
        ttl = crew.site.ttl
        grant = holder.takes(name, ttl)
        holder.crash()
        until = system.now() + 2 * ttl
        while system.now() < until:
            fresh.renew(grant)
            other.is_refused(name)
            fresh.hold(grant, fresh.began + ttl / 3)
        record = record_of(grant, "running")
        fresh.write(grant, record)
        assert other.read(name)[1] == record
        crew.peer().release(grant, record)
        other.leave()
        crew.peer().takes(name)

    def test_close_does_not_release(self, crew: Crew) -> None:
        """The next keeper goes on with the lock."""
        name = crew.name()
        holder, fresh, other = crew.peer(), crew.peer(), crew.peer()
        grant = holder.takes(name)
        holder.close()
        other.is_refused(name)
        fresh.renew(grant)

    def test_an_older_keeper_changes_nothing(self, crew: Crew) -> None:
        """From the first renewal of a later generation on its writes and its release are void."""
        name = crew.name()
        older, keeper, other = crew.peer(), crew.peer(), crew.peer()
        old = older.takes(name)
        older.write(old, record_of(old, "running"))
        new = type(old)(**{**old.as_dict(), "generation": 1})
        keeper.renew(new)
        record = {**record_of(new, "running"), "by": "the later keeper"}
        keeper.write(new, record)
        is_lost(older, "write", old)
        is_lost(older, "release", old)
        assert other.read(name)[1] == record
        other.is_refused(name)
        keeper.renew(new)
        keeper.release(new, record)
        other.gets(name)

    def test_a_released_lock_is_lost_to_its_holder(self, crew: Crew) -> None:
        """It can't be renewed or written to, and is not taken back by trying."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        grant = holder.takes(name)
        record = record_of(grant)
        holder.release(grant, record)
        is_lost(holder, "renew", grant)
        is_lost(holder, "write", grant)
        assert other.read(name) == (None, record)
        other.takes(name)
        is_lost(holder, "renew", grant)

    def test_a_grant_that_was_left_is_lost(self, crew: Crew) -> None:
        """`leave` gave it back."""
        name = crew.name()
        holder = crew.peer()
        grant = holder.takes(name)
        holder.leave()
        is_lost(crew.peer(), "renew", grant)

    def test_an_expired_lock_that_another_took_is_lost(self, crew: Crew) -> None:
        """Its former holder was only slow: nothing of what it sends changes anything."""
        name = crew.name()
        slow, holder = crew.peer(), crew.peer()
        old = slow.takes(name, crew.site.ttl)
        grant = holder.gets(name, patience=crew.site.ttl + crew.site.patience)
        record = record_of(grant, "running")
        holder.write(grant, record)
        self._has_lost(crew, slow, old)
        assert crew.peer().read(name)[1] == record
        holder.renew(grant)

    def test_a_lock_deleted_by_hand_is_lost_within_a_renewal(self, crew: Crew) -> None:
        """The renewal says so, and does not make it anew; the next holder is not disturbed."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        grant = holder.takes(name)
        holder.renew(grant)
        crew.site.delete(name)
        is_lost(holder, "renew", grant)
        is_lost(holder, "release", grant)
        new = other.gets(name)
        assert new.token > grant.token
        self._has_lost(crew, holder, grant)
        other.renew(new)

    def test_a_lock_taken_by_hand_is_lost_within_a_renewal(self, crew: Crew) -> None:
        """And stays with whoever took it."""
        name = crew.name()
        holder = crew.peer()
        grant = holder.takes(name)
        holder.renew(grant)
        self._take(crew.site, name)
        self._has_lost(crew, holder, grant)

    def test_hold_returns_when_the_lock_is_deleted_or_taken(self, crew: Crew) -> None:
        """At once where the backend watches, else at its time; either way `renew` knows."""
        for by_hand in (crew.site.delete, lambda name: self._take(crew.site, name)):
            name = crew.name()
            holder = crew.peer()
            grant = holder.takes(name)
            until = system.now() + (STEADY if crew.site.watches else 1.0)
            holder.start_hold(grant, until)
            by_hand(name)
            holder.result(crew.site.patience if crew.site.watches else None)
            is_lost(holder, "renew", grant)

    def test_a_renewal_by_a_stranger_is_lost(self, crew: Crew) -> None:
        """Another token is another grant."""
        name = crew.name()
        holder, stranger = crew.peer(), crew.peer()
        grant = holder.takes(name)
        for token in (grant.token - 1, grant.token + 1):
            forged = type(grant)(**{**grant.as_dict(), "holder": stranger.holder, "token": token})
            is_lost(stranger, "renew", forged)
        holder.renew(grant)

    def test_tokens_grow_over_expiry(self, crew: Crew) -> None:
        """Of a lock with and without a record."""
        name = crew.name()
        tokens = []
        for _ in range(3):
            grant = crew.peer().gets(name, crew.site.ttl, crew.site.ttl + crew.site.patience)
            tokens.append(grant.token)
        assert tokens == sorted(set(tokens))

    def test_a_waiter_is_woken_by_a_deletion(self, crew: Crew) -> None:
        """The lock is free then."""
        name = crew.name()
        holder, waiter = crew.peer(), crew.peer()
        grant = holder.takes(name)
        waiter.start_get(name)
        crew.site.delete(name)
        assert waiter.got().token > grant.token

    def test_during_an_outage_every_call_ends_in_its_time(self, crew: Crew) -> None:
        """With Unavailable, and after it everything goes on: the lock is held, the waiter waits."""
        name = crew.name()
        holder, waiter, other = (crew.peer() for _ in range(3))
        grant = holder.takes(name)
        record = record_of(grant)
        held = waiter.is_refused(name)
        assert crew.site.outage is not None
        with crew.site.outage():
            for call in (
                lambda: holder.renew(grant),
                lambda: holder.write(grant, record),
                lambda: other.read(name),
                lambda: other.list(),
                lambda: other.acquire(name),
            ):
                with pytest.raises(Unavailable):
                    call()
            with _unavailable_or_done():
                waiter.wait(held, system.now() + 1.0)
            with _unavailable_or_done():
                other.leave()
        _again(holder, lambda: holder.renew(grant))
        _again(waiter, lambda: waiter.is_refused(name))
        waiter.start_get(name)
        holder.release(grant, record)
        waiter.got()
