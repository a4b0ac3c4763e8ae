"""The cases for a lock with a lease: it expires by itself, and a new process can keep it by the grant."""

# ruff: noqa: S101, TID253 - a tool of tests: the command never imports it

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from singleton_run.api.contract import Held, Look
from singleton_run.errors import Lost, Unavailable
from singleton_run.system import calls
from singleton_run.testing.nursery import plain_look
from singleton_run.testing.peer import STEADY
from singleton_run.testing.suite import (
    CLOCKS,
    LOOK_EVERY,
    Conformance,
    a_pause,
    grow,
    in_order,
    is_lost,
    not_before,
    record_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from singleton_run.api.contract import Grant
    from singleton_run.testing.peer import Crew, Peer


class LeasedConformance(Conformance):
    """The cases for a backend with leases: those of `Conformance`, and more."""

    def test_a_lease_lapses_and_not_before_its_end(self, crew: Crew) -> None:
        """Its holder is dead. The expiry wakes a waiter."""
        name = crew.name()
        holder, waiter = crew.peer(), crew.peer()
        ttl = crew.site.ttl
        holder.takes(name, ttl)
        sent = holder.began
        waiter.start_get(name, patience=ttl + crew.site.patience)
        holder.crash()
        waiter.got()
        not_before(waiter, sent + ttl * CLOCKS)

    def test_a_renewed_lease_lapses_a_ttl_after_the_last_renewal(self, crew: Crew) -> None:
        """The waiter's own place outlives the lease too: the later waiter gets the lock later."""
        name = crew.name()
        holder, waiter, later = crew.peer(), crew.peer(), crew.peer()
        ttl = crew.site.ttl
        grant = holder.takes(name, ttl)
        waiter.start_get(name, ttl, 3 * ttl + crew.site.patience)
        later.start_get(name, patience=3 * ttl + crew.site.patience)
        sent = _renew_for(holder, grant, 1.5 * ttl)
        holder.crash()
        first, second = (waiter, later) if crew.site.fifo else in_order(waiter, later, waiter.due)
        got = first.got()
        not_before(first, sent + ttl * CLOCKS)
        first.release(got, record_of(got))
        assert second.got().token > got.token

    def test_an_acquire_that_is_repeated_extends_the_lease(self, crew: Crew) -> None:
        """Its caller counts the lease from where the grant says, or from the acquire whose answer it got."""
        name = crew.name()
        holder, waiter = crew.peer(), crew.peer()
        ttl = crew.site.ttl
        grant = holder.takes(name, ttl)
        holder.hold(grant, holder.began + ttl / 2)
        again = holder.takes(name, ttl)
        sent = holder.began if again.renewed is None else again.renewed
        holder.crash()
        waiter.gets(name, patience=ttl + crew.site.patience)
        not_before(waiter, sent + ttl * CLOCKS)

    def test_one_attempt_after_a_crash_succeeds_once_the_lease_is_over(self, crew: Crew) -> None:
        """It succeeds at once: nobody needs to have watched the dead holder before."""
        name = crew.name()
        holder, watcher, newcomer = (crew.peer() for _ in range(3))
        holder.takes(name, crew.site.ttl)
        sent = holder.began
        holder.crash()
        until = calls.now() + crew.site.ttl + crew.site.patience
        while watcher.read(name)[0] is not None:
            assert calls.now() < until, "read still says that the dead holder has the lock"
            calls.wait(calls.now() + LOOK_EVERY, [])
        not_before(watcher, sent + crew.site.ttl * CLOCKS)
        newcomer.takes(name)

    def test_until_is_the_end_of_the_lease(self, crew: Crew) -> None:
        """`Held.until` may be None: some backends don't know the end."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        holder.takes(name)
        held = other.is_refused(name)
        left = None if held.until is None else held.until - holder.began
        assert left is None or abs(left - STEADY) < STEADY / 2, "Held.until is not by the boot clock"

    def test_a_fresh_process_keeps_the_lock_by_the_grant_alone(self, crew: Crew) -> None:
        """It renews, writes, holds and releases. The process that acquired the lock is dead."""
        name = crew.name()
        holder, fresh, last, other = (crew.peer() for _ in range(4))
        ttl = crew.site.ttl
        grant = holder.takes(name, ttl)
        holder.crash()
        _renew_for(fresh, grant, 1.5 * ttl)
        other.is_refused(name)
        record = record_of(grant, "running")
        fresh.write(grant, record)
        assert other.read(name)[1] == record
        last.release(grant, record)
        other.gets(name)

    def test_close_does_not_release(self, crew: Crew) -> None:
        """The next keeper goes on with the same grant."""
        name = crew.name()
        holder, fresh, other = crew.peer(), crew.peer(), crew.peer()
        grant = holder.takes(name)
        holder.close()
        other.is_refused(name)
        fresh.renew(grant)

    def test_an_older_keeper_changes_nothing(self, crew: Crew) -> None:
        """After the first renewal of a later generation, its writes and its release are void."""
        name = crew.name()
        older, keeper, other = crew.peer(), crew.peer(), crew.peer()
        old = older.takes(name)
        older.write(old, record_of(old, "running"))
        new = type(old)(**{**old.as_dict(), "generation": 1})
        keeper.renew(new)
        record = {**record_of(new, "running"), "by": "the later keeper"}
        keeper.write(new, record)
        with suppress(Lost):  # a late request may succeed or not, but must not bring the older keeper back
            older.renew(old)
        is_lost(older, "write", old)
        is_lost(older, "mark", old)
        is_lost(older, "release", old)
        assert other.read(name)[1] == record
        other.is_refused(name)
        keeper.renew(new)
        keeper.release(new, record)
        next_turn = other.gets(name)
        other.renew(next_turn)
        other.write(next_turn, record_of(next_turn, "running"))

    def test_a_released_lock_is_lost_to_its_holder(self, crew: Crew) -> None:
        """The holder can neither renew nor write, and an attempt doesn't take the lock back."""
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

    def test_a_kept_lock_is_nobody_s_to_renew_or_to_leave(self, crew: Crew) -> None:
        """No former keeper of the holder has it any more, whichever of them gave it back."""
        name = crew.name()
        holder, keeper, other = crew.peer(), crew.peer(), crew.peer()
        grant = holder.takes(name)
        old = type(grant)(**{**grant.as_dict(), "generation": 1})
        keeper.renew(old)
        keeper.release(old, record_of(grant), STEADY)
        is_lost(keeper, "renew", old)
        crew.peer().release(old, record_of(grant), STEADY)
        is_lost(holder, "renew", grant)
        with suppress(Lost):  # both are right: done twice is done, and the lock is no longer ours
            holder.release(grant, record_of(grant))
        holder.is_refused(name)
        keeper.close()
        holder.leave()
        other.is_refused(name)

    def test_a_kept_lock_is_kept_over_a_restart_of_the_server(self, crew: Crew) -> None:
        """After the restart the time may begin again, but the lock is never free too early."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        grant = holder.takes(name)
        keep = 2 * crew.site.ttl
        holder.release(grant, record_of(grant), keep)
        sent = holder.began
        assert crew.site.restart is not None
        crew.site.restart()
        other.gets(name, patience=2 * keep + crew.site.patience)
        not_before(other, sent + keep * CLOCKS)

    def test_a_grant_that_was_left_is_lost(self, crew: Crew) -> None:
        """`leave` has given the lock back."""
        name = crew.name()
        holder = crew.peer()
        grant = holder.takes(name)
        holder.leave()
        is_lost(crew.peer(), "renew", grant)

    def test_an_expired_lock_that_another_took_is_lost(self, crew: Crew) -> None:
        """Its former holder was only slow. None of its requests changes anything."""
        name = crew.name()
        slow, holder = crew.peer(), crew.peer()
        old = slow.takes(name, crew.site.ttl)
        grant = holder.gets(name, patience=crew.site.ttl + crew.site.patience)
        record = record_of(grant, "running")
        holder.write(grant, record)
        _has_lost(crew, slow, old)
        assert crew.peer().read(name)[1] == record
        holder.renew(grant)

    def test_a_lock_deleted_by_hand_is_lost_within_a_renewal(self, crew: Crew) -> None:
        """The renewal raises Lost and doesn't create the lock again. The next holder isn't disturbed."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        grant = holder.takes(name)
        holder.renew(grant)
        crew.site.delete(name)
        is_lost(holder, "renew", grant)
        is_lost(holder, "release", grant)
        new = other.gets(name)
        assert new.token > grant.token
        _has_lost(crew, holder, grant)
        other.renew(new)

    def test_a_lock_taken_by_hand_is_lost_within_a_renewal(self, crew: Crew) -> None:
        """The lock stays with the user who took it by hand."""
        name = crew.name()
        holder = crew.peer()
        grant = holder.takes(name)
        holder.renew(grant)
        _take_by_hand(crew, name)
        _has_lost(crew, holder, grant)

    def test_hold_returns_when_the_lock_is_deleted_or_taken(self, crew: Crew) -> None:
        """It returns at once if the backend watches, else at its time. In both cases `renew` raises Lost."""
        for by_hand in (crew.site.delete, lambda name: _take_by_hand(crew, name)):
            name = crew.name()
            holder = crew.peer()
            grant = holder.takes(name)
            _hold_while(holder, grant, lambda: by_hand(name))  # noqa: B023 - called at once
            is_lost(holder, "renew", grant)

    def test_hold_notices_what_was_deleted_before_it(self, crew: Crew) -> None:
        """The deletion came after the last renewal, when nobody watched."""
        name = crew.name()
        holder = crew.peer()
        grant = holder.takes(name)
        crew.site.delete(name)
        _hold_while(holder, grant, lambda: None)
        is_lost(holder, "renew", grant)

    def test_a_renewal_by_a_stranger_is_lost(self, crew: Crew) -> None:
        """A grant with another token is another grant."""
        name = crew.name()
        holder, stranger = crew.peer(), crew.peer()
        grant = holder.takes(name)
        for token in (grant.token - 1, grant.token + 1):
            forged = type(grant)(**{**grant.as_dict(), "holder": stranger.holder, "token": token})
            is_lost(stranger, "renew", forged)
        holder.renew(grant)

    def test_tokens_grow_over_expiry(self, crew: Crew) -> None:
        """No holder writes a record or releases the lock: each lease expires."""
        name = crew.name()
        tokens = []
        for _ in range(3):
            grant = crew.peer().gets(name, crew.site.ttl, crew.site.ttl + crew.site.patience)
            tokens.append(grant.token)
        grow(tokens)

    def test_a_waiter_is_woken_by_a_deletion(self, crew: Crew) -> None:
        """After the deletion the lock is free."""
        name = crew.name()
        holder, waiter = crew.peer(), crew.peer()
        grant = holder.takes(name)
        waiter.start_get(name)
        crew.site.delete(name)
        assert waiter.got().token > grant.token

    def test_a_look_after_the_end_of_the_lease(self, steered: Crew) -> None:
        """The dead holder has the lock until then, and from then on anybody may take it."""
        name = steered.name()
        holder, other = steered.peer(), steered.peer()
        holder.takes(name, steered.site.ttl)
        sent = holder.began
        holder.crash()
        assert other.look(name).state == Look.HELD, "the lease is not over"
        until = calls.now() + steered.site.ttl + steered.site.patience
        while other.look(name).state == Look.HELD:
            assert calls.now() < until, "look still says that the dead holder has the lock"
            calls.wait(calls.now() + LOOK_EVERY, [])
        not_before(other, sent + steered.site.ttl * CLOCKS)
        seen = other.look(name)
        assert seen.state in (Look.FREE, Look.EXPIRED)
        assert (seen.holder is None) == (seen.state == Look.FREE)
        steered.peer().takes(name)

    def test_a_held_lock_is_freed(self, steered: Crew) -> None:
        """What its holder sends from now on changes nothing, and who waits for the lock is woken."""
        name = steered.name()
        holder, waiter, other = (steered.peer() for _ in range(3))
        grant = holder.takes(name)
        assert other.free(name, other.look(name)), "free says that the holder is another"
        is_lost(holder, "renew", grant)
        holder.leave()
        grant = holder.takes(name)
        waiter.start_get(name)
        assert isinstance(waiter.first, Held)
        seen = other.look(name)
        assert other.free(name, seen), "free says that the holder is another"
        got = waiter.got()
        assert got.token > grant.token
        assert not other.free(name, seen), "free by an outdated look says that it has freed the lock"
        _has_lost(steered, holder, grant)
        waiter.renew(got)

    def test_during_an_outage_every_call_ends_in_its_time(self, crew: Crew) -> None:
        """It raises Unavailable, with or without an open connection: the same call may succeed later."""
        name = crew.name()
        holder, waiter, reader = (crew.peer() for _ in range(3))
        grant = holder.takes(name)
        record = record_of(grant)
        held = waiter.is_refused(name)
        reader.read(name)
        assert crew.site.outage is not None
        with crew.site.outage():
            calling = [
                holder.start_call("renew", grant),
                reader.start_call("read", name),
                crew.peer().start_call("renew", grant),
                crew.peer().start_call("write", grant, record),
                crew.peer().start_call("release", grant, record),
                crew.peer().start_call("list"),
                crew.peer().start_call("done", name, "key"),
                crew.peer().start_call("mark", grant, "key", {}),
                crew.peer().start_call("forget", name, "key"),
                crew.peer().start_call("acquire", name, reader.holder, crew.site.ttl),
                *_people(crew, name),
            ]
            waiter.start_wait(held, calls.now() + 1.0)
            for peer in calling:
                with pytest.raises(Unavailable):
                    peer.result()
            for ending in (waiter.result, waiter.leave):
                with suppress(Unavailable):
                    ending()
            for peer in (*calling, waiter):
                peer.close()

    def test_after_an_outage_the_holder_holds_and_the_waiter_waits(self, crew: Crew) -> None:
        """The same backend objects find the server again. A newcomer doesn't get the lock."""
        name = crew.name()
        holder, waiter, other = (crew.peer() for _ in range(3))
        grant = holder.takes(name)
        waiter.start_get(name, patience=STEADY)
        assert crew.site.outage is not None
        with crew.site.outage(), pytest.raises(Unavailable):
            holder.renew(grant)
        until = calls.now() + crew.site.patience
        while not _renewed(holder, grant):
            assert calls.now() < until, "the server is back, but renew still finds it unavailable"
        other.is_refused(name)
        other.leave()
        holder.release(grant, record_of(grant))
        waiter.got()


def _renew_for(holder: Peer, grant: Grant, seconds: float) -> float:
    """Renew at each third of the lease for `seconds`: when the last renewal was sent (boot clock)."""
    until = calls.now() + seconds
    while True:
        holder.renew(grant)
        sent = holder.began
        if sent >= until:
            return sent
        holder.hold(grant, sent + grant.ttl / 3)


def _hold_while(holder: Peer, grant: Grant, work: Callable[[], object]) -> None:
    """Hold while `work` does something to the lock. If the backend watches, hold must return at once."""
    watches, patience = holder.site.watches, holder.site.patience
    until = calls.now() + (2 * patience if watches else LOOK_EVERY)
    holder.start_hold(grant, until)
    work()
    holder.result(patience if watches else None)


def _take_by_hand(crew: Crew, name: str) -> None:
    assert crew.site.take is not None
    crew.site.take(name)


def _has_lost(crew: Crew, loser: Peer, grant: Grant) -> None:
    """Check that the lost grant of `loser` changes nothing: the lock stays with its new holder."""
    before = crew.peer().read(grant.name)[1]
    for call in ("renew", "write", "mark", "release", "renew"):
        is_lost(loser, call, grant)
    crew.peer().is_refused(grant.name)
    assert crew.peer().done(grant.name, "lost") is None
    assert crew.peer().read(grant.name)[1] == before


def _people(crew: Crew, name: str) -> list[Peer]:
    """Peers in the calls that a backend may leave out; none if it does."""
    if not crew.peer().can_be_steered():
        return []
    seen = plain_look(Look(Look.HELD, Held("somebody", token=1), None))
    return [
        crew.peer().start_call("look", name),
        crew.peer().start_call("steer", name, "", a_pause("outage")),
        crew.peer().start_call("free", name, seen),
    ]


def _renewed(holder: Peer, grant: Grant) -> bool:
    try:
        holder.renew(grant)
    except Unavailable:
        return False
    return True
