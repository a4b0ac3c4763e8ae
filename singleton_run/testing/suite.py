"""The cases that every lock has to pass, with a lease or without."""

# ruff: noqa: S101, TID253 - a tool of tests: the command never imports it

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run.api.contract import Grant, Held, Look
from singleton_run.api.control import pause_of, paused, resumed
from singleton_run.api.finding import Finding
from singleton_run.api.record import ended, started
from singleton_run.errors import Failure, Lost, Refused
from singleton_run.job import Job
from singleton_run.keeper import decisions as keeper_decisions
from singleton_run.keeper import operations
from singleton_run.names import LONGEST, check_name
from singleton_run.system import calls
from singleton_run.testing.peer import SLACK, STEADY, Crew, Nursery, Peer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from singleton_run.testing.site import Fault, Site

CONTENDERS = 50
HAMMERS, BLOWS = 8, 10
CROWD = 600.0
"""The time limit for all turns of a crowd together on a loaded machine, in seconds."""

MOST_RETURNS = 20
"""How often a wait of a second may return too early although nothing has happened."""

MARKS = 1000
RUNS = 50
"""The most runs that a record has."""
STEERS = 30
"""How often a control is changed while the holder renews."""

DAY = 86400.0
CLOCKS = 0.99
"""A lease may be this much shorter by our clock: the server's own may run a little faster."""

LOOK_EVERY = 0.05

NOT_STEERED = "this backend has no look, steer and free"


def record_of(grant: Grant, state: str = "succeeded") -> dict[str, Any]:
    """The record of a command that ran under `grant`."""
    start = round(time.time(), 3)
    run = started(grant.record, grant.name, grant.holder, grant.token, start)
    return run if state == "running" else ended(run, state, 0, start)


def lookalikes(name: str) -> list[str]:
    """Legal names that a backend may confuse: small changes of `name`, and the extremes."""
    tails = ["a", "A", ":b", ".b", "-b", "_b", "@b", "+b", ".", "..", "-", ":", "::b", ":b:c", "+20"]
    tails += [".lock", ".json", ".lease", ".tmp"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [
        name,
        name.upper(),
        *(name + tail for tail in tails),
        *(first + name for first in "_:@+0"),
        name + letters + letters.upper() + "0123456789._-:@+",
        name.ljust(LONGEST - 1, "x"),
        name.ljust(LONGEST, "x"),
        name.ljust(LONGEST - 1, "x") + "y",
        name.upper().ljust(LONGEST, "X"),
        name.ljust(LONGEST, ":"),
        name.ljust(LONGEST, "+"),
    ]


def alike_keys() -> list[str]:
    """Keys that a backend may confuse, or mistake for something else than text."""
    plain = [
        r"a",
        r"A",
        r"b",
        r"a/b",
        r"a%2Fb",
        r"a%2fb",
        r"a%252Fb",
        r"a\b",
        r"a\u002fb",
        r"a:b",
        r"a_b",
        r"a-b",
        r"a+b",
    ]
    odd = [
        " ",
        "a ",
        " a",
        "a b",
        *[".", "..", "../a", "/", "//", "/a", "a/", "%", "#", "*", "?", "'", '"', "\\", "-", "~"],
    ]
    unseen = [
        "a\nb",
        "a\tb",
        "a\0b",
        "\0",
        "\x7f",
        "\udcff",
        "\u00e9",
        "e\u0301",
        "\u00df",
        "ss",
        "\U0001f512",
    ]
    long = ["x" * 255, "x" * 256, "x" * 255 + "y", "X" * 256, "/" * 256, "\u00e9" * 256, "\U0001f512" * 256]
    return [*plain, *odd, *unseen, *long]


def a_pause(reason: str) -> dict[str, Any]:
    """A control that pauses the lock until somebody resumes."""
    return paused(None, by="ann@desk", at=1795318621.25, until=None, reason=reason)


def steers(peer: Peer, name: str, reason: str) -> dict[str, Any]:
    """Replace whatever control there is by a pause, as the commands for people do: the new control."""
    control = a_pause(reason)
    assert peer.steer(name, peer.look(name).version, control), "steer says that somebody else was first"
    return control


def is_lost(peer: Peer, call: str, grant: Grant) -> None:
    """Check that a call by this grant (`write`, `release`, `mark` or `renew`) raises Lost."""
    arguments: tuple[Any, ...] = () if call == "renew" else (record_of(grant, "failed"),)
    if call == "mark":
        arguments = ("lost", {})
    with pytest.raises(Lost):
        getattr(peer, call)(grant, *arguments)


def not_before(peer: Peer, end: float) -> None:
    """Check that the peer's last call didn't end before `end`."""
    assert peer.ended >= end, f"the lease was over {end - peer.ended:.3f} s too early"


def grow(tokens: list[int]) -> None:
    """Check that each token is greater than the one before."""
    assert tokens == sorted(set(tokens)), f"a fencing token came again, or went back: {tokens}"


def in_order(one: Peer, other: Peer, until: float) -> tuple[Peer, Peer]:
    """Two peers that are in a call: first the one whose call ends first, then the other."""
    ready = calls.wait(until, [one.link.fileno(), other.link.fileno()])
    return (other, one) if ready == [other.link.fileno()] else (one, other)


class Conformance:
    """The cases for every backend. A subclass has a fixture `site` (scope class, or wider)."""

    @pytest.fixture(scope="class")
    @classmethod
    def nursery(cls, site: Site) -> Iterator[Nursery]:
        """It forks the processes of the cases."""
        nursery = Nursery(site.opener.partition(":")[0])
        yield nursery
        nursery.close()

    @pytest.fixture
    def crew(self, site: Site, nursery: Nursery) -> Iterator[Crew]:
        """The processes of one case."""
        crew = Crew(site, nursery)
        yield crew
        crew.leave()

    @pytest.fixture
    def steered(self, crew: Crew) -> Crew:
        """The processes of a case about `look`, `steer` and `free`: a backend may leave out all three."""
        if not crew.peer().can_be_steered():
            pytest.skip(NOT_STEERED)
        return crew

    def test_one_has_it_and_another_is_told_who(self, crew: Crew) -> None:
        """Held is a result, and says what is known of the holder."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        grant = holder.takes(name)
        held = other.is_refused(name)
        assert held.holder in {holder.holder, ""}
        assert held.host in {holder.holder.partition(":")[0], ""}
        assert held.since is None or abs(time.time() - held.since) < DAY
        assert held.until is None or holder.began < held.until <= other.ended + STEADY + SLACK
        holder.release(grant, record_of(grant))
        other.gets(name)

    def test_a_grant_says_what_was_asked_and_survives_json(self, crew: Crew) -> None:
        """The grant came here as JSON: a missing or changed field was lost on the way."""
        name = crew.name()
        holder = crew.peer()
        grant = holder.takes(name)
        assert (grant.name, grant.holder, grant.generation) == (name, holder.holder, 0)
        assert grant.ttl >= STEADY, "the lease is shorter than what was asked for"
        assert type(grant.token) is int
        assert grant.token > 0
        assert grant.record is None

    def test_few_that_hammer_never_overlap(self, crew: Crew, tmp_path: Path) -> None:
        """Each process acquires the lock again and again, each time with a new backend object."""
        came, turns = _contend(crew, HAMMERS, BLOWS, tmp_path)
        assert sorted(turns) == sorted(came * BLOWS)

    def test_fifty_contenders_each_get_their_turn(self, crew: Crew, tmp_path: Path) -> None:
        """They come one after the other while another holds the lock. A lock with a queue keeps the order."""
        came, turns = _contend(crew, CONTENDERS, 1, tmp_path)
        assert sorted(turns) == sorted(came)
        if crew.site.fifo:
            assert turns == came, "the lock was not handed on in the order of arrival"

    def test_a_release_wakes_a_waiter(self, crew: Crew) -> None:
        """The wait ends long before its time."""
        name = crew.name()
        holder, waiter = crew.peer(), crew.peer()
        grant = holder.takes(name)
        waiter.start_get(name)
        assert isinstance(waiter.first, Held)
        holder.release(grant, record_of(grant))
        assert waiter.got().token > grant.token

    def test_a_release_just_before_the_wait_is_not_missed(self, crew: Crew) -> None:
        """Between the refused acquire and the wait, nobody watches the lock."""
        name = crew.name()
        holder, waiter = crew.peer(), crew.peer()
        grant = holder.takes(name)
        held = waiter.is_refused(name)
        holder.release(grant, record_of(grant))
        until = calls.now() + crew.site.patience
        waiter.wait(held, until)
        assert waiter.ended < until, "the lock was free before the wait began, but it waited on"
        waiter.gets(name)

    def test_wait_returns_when_it_is_woken(self, crew: Crew) -> None:
        """It returns at once, even from an endless wait, and the waiter can still acquire the lock."""
        name = crew.name()
        holder, waiter = crew.peer(), crew.peer()
        grant = holder.takes(name)
        waiter.start_wait(waiter.is_refused(name), calls.FOREVER)
        waiter.wake()
        waiter.result(crew.site.patience)
        holder.release(grant, record_of(grant))
        waiter.gets(name)

    def test_wait_returns_at_its_time(self, crew: Crew) -> None:
        """It returns not much later. While nothing happens it doesn't return again and again: no polling."""
        name = crew.name()
        holder, waiter = crew.peer(), crew.peer()
        holder.takes(name)
        until = calls.now() + 1.0
        returns = 0
        while calls.now() < until:
            waiter.wait(waiter.is_refused(name), until)
            returns += 1
        assert returns <= MOST_RETURNS, "wait returns at once although another has the lock: a busy loop"

    def test_hold_returns_when_it_is_woken(self, crew: Crew) -> None:
        """It returns at once, and the lock is still held."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        grant = holder.takes(name)
        holder.start_hold(grant, calls.FOREVER)
        holder.wake()
        holder.result(crew.site.patience)
        other.is_refused(name)
        holder.release(grant, record_of(grant))

    def test_hold_returns_at_its_time(self, crew: Crew) -> None:
        """It returns not much later. While nothing happens it doesn't return again and again."""
        holder = crew.peer()
        grant = holder.takes(crew.name())
        until = calls.now() + 1.0
        returns = 0
        while calls.now() < until:
            holder.hold(grant, until)
            returns += 1
        assert returns <= MOST_RETURNS, "hold returns at once although nothing was lost: a busy loop"

    def test_leave_gives_back_what_acquire_was_granted(self, crew: Crew) -> None:
        """This happens when the answer to an acquire was lost, and the keeper goes."""
        name = crew.name()
        one, other = crew.peer(), crew.peer()
        token = one.takes(name).token
        one.leave()
        assert other.gets(name).token > token

    def test_leave_frees_the_place_of_a_waiter_and_nothing_else(self, crew: Crew) -> None:
        """The holder keeps the lock, and the later waiters get it as if nobody had left."""
        name = crew.name()
        holder, leaver, waiter, newcomer = (crew.peer() for _ in range(4))
        grant = holder.takes(name)
        leaver.is_refused(name)
        waiter.start_get(name)
        leaver.leave()
        holder.write(grant, record_of(grant, "running"))
        newcomer.is_refused(name)
        newcomer.leave()
        holder.release(grant, record_of(grant))
        waiter.got()

    def test_leave_gives_back_a_lock_that_came_while_nobody_looked(self, crew: Crew) -> None:
        """The turn of a waiter has come, and it leaves without knowing that."""
        name = crew.name()
        holder, leaver, other = crew.peer(), crew.peer(), crew.peer()
        grant = holder.takes(name)
        leaver.is_refused(name)
        holder.release(grant, record_of(grant))
        leaver.leave()
        other.gets(name)

    def test_leave_without_anything_to_leave_is_done(self, crew: Crew) -> None:
        """It may be called before any acquire, and again after one, when another has the lock."""
        name = crew.name()
        idle, peer, other = crew.peer(), crew.peer(), crew.peer()
        idle.leave()
        peer.takes(name)
        peer.leave()
        other.gets(name)
        peer.leave()
        crew.peer().is_refused(name)

    def test_an_acquire_that_is_repeated_is_not_held_up_by_itself(self, crew: Crew) -> None:
        """This happens when its answer was lost. The second answer is a grant too, and can be released."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        first = holder.takes(name)
        again = holder.takes(name)
        assert again.token >= first.token
        other.is_refused(name)
        holder.release(again, record_of(again))
        other.gets(name)

    def test_a_late_grant_is_renewed_before_it_is_used(self, crew: Crew) -> None:
        """The keeper got it when the lease was nearly over, so it renews before it uses the grant."""
        name = crew.name()
        one, other = crew.peer(), crew.peer()
        steps = keeper_decisions.lifecycle(
            Job(name, one.holder, STEADY, calls.FOREVER), operations.Orders(), None
        )
        assert next(steps).name == "acquire"
        grant = one.takes(name)
        step = steps.send(operations.Result(one.began, one.began + STEADY, grant))
        assert step.name == "renew"
        one.renew(grant)
        other.is_refused(name)
        one.release(grant, record_of(grant, "interrupted"))
        assert other.gets(name).token > grant.token

    def test_a_dead_holder_is_followed(self, crew: Crew) -> None:
        """The end of its lease, or of its process, wakes the waiters."""
        name = crew.name()
        holder, waiter = crew.peer(), crew.peer()
        grant = holder.takes(name, crew.site.ttl)
        waiter.start_get(name, patience=crew.site.ttl + crew.site.patience)
        holder.crash()
        assert waiter.got().token > grant.token

    def test_a_dead_waiter_holds_nobody_up(self, crew: Crew) -> None:
        """Its place in the queue lapses."""
        name = crew.name()
        holder, dead, waiter = crew.peer(), crew.peer(), crew.peer()
        grant = holder.takes(name)
        dead.is_refused(name, crew.site.ttl)
        dead.crash()
        waiter.start_get(name, patience=crew.site.ttl + crew.site.patience)
        holder.release(grant, record_of(grant))
        waiter.got()

    def test_tokens_grow_over_release_leave_and_deletion_by_hand(self, crew: Crew) -> None:
        """No token comes twice, whatever happened to the lock."""
        name = crew.name()
        tokens = []
        for by_hand in (False, True, True, False):
            peer = crew.peer()
            grant = peer.gets(name)
            tokens.append(grant.token)
            if by_hand:
                crew.site.delete(name)
                peer.crash()
            else:
                peer.release(grant, record_of(grant))
            peer = crew.peer()
            tokens.append(peer.gets(name).token)
            peer.leave()
            crew.site.delete(name)
        grow(tokens)

    def test_a_record_is_read_back_by_all(self, crew: Crew) -> None:
        """`read` and the next grant have exactly the same record. Before the first write it is None."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        assert other.read(name) == (None, None)
        assert name not in other.list(), "to look at a lock is not to make one"
        grant = holder.takes(name)
        running = {**record_of(grant, "running"), "note": 'é "\\\n\t \U0001f512', "many": list(range(500))}
        holder.write(grant, running)
        held, found = other.read(name)
        assert held is not None
        assert held.holder in {holder.holder, ""}
        assert found == running
        assert name in other.list()
        done = ended(running, "succeeded", 0, time.time())
        holder.release(grant, done)
        assert other.read(name) == (None, done)
        assert other.takes(name).record == done, "the record is not what the last holder left"
        names = other.list()
        assert name in names
        assert names == sorted(set(names))

    def test_a_release_done_twice_is_done(self, crew: Crew) -> None:
        """This happens when the answer to the first was lost."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        grant = holder.takes(name)
        holder.release(grant, record_of(grant))
        holder.release(grant, record_of(grant))
        other.takes(name)

    def test_a_kept_lock_is_nobody_s(self, crew: Crew) -> None:
        """Each caller is told until when it is kept, its last holder too."""
        name = crew.name()
        holder, newcomer, same, reader = (crew.peer() for _ in range(4))
        same.holder = holder.holder
        grant = holder.takes(name)
        record = record_of(grant)
        holder.release(grant, record, STEADY)
        end = holder.began + STEADY
        for peer in (newcomer, same, holder):
            held = peer.is_refused(name)
            assert held.until is not None, "acquire doesn't say until when the lock is kept"
            assert abs(held.until - end) < STEADY / 2, (
                "Held.until is not the end of the time, by the boot clock"
            )
            assert held.holder in {holder.holder, ""}
            peer.leave()
        found, left = reader.read(name)
        assert found is not None, "read says that a kept lock is free"
        assert found.until is not None
        assert abs(found.until - end) < STEADY / 2
        assert left == record
        newcomer.is_refused(name)

    def test_a_kept_lock_is_had_when_its_time_is_over(self, crew: Crew) -> None:
        """Nobody gets it before, neither a waiter from before the release nor a later one."""
        name = crew.name()
        holder, waiter, newcomer = (crew.peer() for _ in range(3))
        keep = crew.site.ttl
        grant = holder.takes(name)
        waiter.start_get(name, patience=keep + crew.site.patience)
        holder.release(grant, record_of(grant), keep)
        sent = holder.began
        newcomer.start_get(name, patience=keep + 2 * crew.site.patience)
        first, second = (waiter, newcomer) if crew.site.fifo else in_order(waiter, newcomer, waiter.due)
        got = first.got()
        not_before(first, sent + keep * CLOCKS)
        assert got.token > grant.token
        first.release(got, record_of(got))
        assert second.got().token > got.token

    def test_a_kept_lock_is_kept_when_its_holder_is_gone(self, crew: Crew) -> None:
        """It needs no process, and nobody needs to have seen the holder."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        grant = holder.takes(name)
        holder.release(grant, record_of(grant), crew.site.ttl)
        sent = holder.began
        holder.close()
        holder.crash()
        other.is_refused(name)
        other.gets(name, patience=crew.site.ttl + crew.site.patience)
        not_before(other, sent + crew.site.ttl * CLOCKS)

    def test_a_kept_lock_is_waited_for_and_not_polled(self, crew: Crew) -> None:
        """A wait doesn't return again and again before the time is over."""
        name = crew.name()
        holder, waiter = crew.peer(), crew.peer()
        grant = holder.takes(name)
        holder.release(grant, record_of(grant), 2 * crew.site.ttl)
        until = holder.began + crew.site.ttl
        returns = 0
        while calls.now() < until:
            waiter.wait(waiter.is_refused(name), until)
            returns += 1
        assert returns <= MOST_RETURNS, "wait returns at once although the lock is kept: a busy loop"

    def test_a_release_that_keeps_is_done_when_it_is_done_twice(self, crew: Crew) -> None:
        """This happens when the answer to the first was lost."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        grant = holder.takes(name)
        holder.release(grant, record_of(grant), crew.site.ttl)
        sent = holder.began
        holder.release(grant, record_of(grant), crew.site.ttl)
        other.gets(name, patience=crew.site.ttl + crew.site.patience)
        not_before(other, sent + crew.site.ttl * CLOCKS)

    def test_a_kept_lock_is_lost_to_its_holder(self, crew: Crew) -> None:
        """No later request by its grant changes anything."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        grant = holder.takes(name)
        record = record_of(grant)
        holder.release(grant, record, STEADY)
        for call in ("write", "mark"):
            is_lost(holder, call, grant)
        holder.leave()
        other.is_refused(name)
        assert other.read(name)[1] == record
        assert other.done(name, "lost") is None

    def test_a_key_is_done_from_its_mark_on_until_it_is_forgotten(self, crew: Crew) -> None:
        """Others see the same mark. It is neither a lock nor a record."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        assert other.done(name, "v1") is None
        assert other.forget(name, "v1") is False, "forget says that there was a mark"
        assert name not in other.list(), "to look for a mark is not to make a lock"
        grant = holder.takes(name)
        before = other.list()
        mark = {"at": 1795318621.25, "token": grant.token, "note": 'é "\\\n\t \U0001f512', "none": None}
        holder.mark(grant, "v1", mark)
        assert other.done(name, "v1") == mark
        assert other.list() == before, "a mark is listed as if it were a lock"
        assert other.read(name)[1] is None, "a mark is read as if it were the record"
        other.is_refused(name)
        again = {**mark, "again": True}
        holder.mark(grant, "v1", again)
        holder.release(grant, record_of(grant))
        assert other.done(name, "v1") == again
        assert other.forget(name, "v1") is True, "forget says that there was no mark"
        assert other.done(name, "v1") is None
        assert other.forget(name, "v1") is False, "forget says that there was a mark"
        other.gets(name)

    def test_a_mark_is_made_by_the_holder_alone(self, crew: Crew) -> None:
        """A forged grant marks nothing, and neither does one that was given back."""
        name = crew.name()
        earlier, holder, stranger = crew.peer(), crew.peer(), crew.peer()
        old = earlier.takes(name)
        earlier.release(old, record_of(old))
        is_lost(earlier, "mark", old)
        grant = holder.takes(name)
        is_lost(earlier, "mark", old)
        for token in (grant.token - 1, grant.token + 1):
            forged = Grant(**{**grant.as_dict(), "holder": stranger.holder, "token": token})
            is_lost(stranger, "mark", forged)
        assert stranger.done(name, "lost") is None
        holder.mark(grant, "lost", {})
        assert stranger.done(name, "lost") == {}

    def test_a_mark_stays_beside_many_and_after_many_turns(self, crew: Crew) -> None:
        """It stays for ever: nothing evicts it, and a deletion of the lock doesn't delete it."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        grant = holder.takes(name)
        holder.mark(grant, "first", {"first": True})
        holder.mark_many(grant, [f"key {number}" for number in range(MARKS)])
        holder.release(grant, record_of(grant))
        for _ in range(2):
            peer = crew.peer()
            got = peer.takes(name)
            peer.release(got, record_of(got))
        crew.site.delete(name)
        assert other.done(name, "first") == {"first": True}
        assert other.done(name, f"key {MARKS - 1}") == {"key": f"key {MARKS - 1}"}
        assert other.done(name, f"key {MARKS}") is None

    def test_keys_that_look_alike_are_different_keys(self, crew: Crew) -> None:
        """A key is any text of up to 256 characters."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        grant = holder.takes(name)
        keys = alike_keys()
        for key in keys:
            assert other.done(name, key) is None, f"{key!r} was never marked, but is done"
            holder.mark(grant, key, {"key": key})
        assert [(other.done(name, key) or {}).get("key") for key in keys] == keys
        gone, left = keys[::2], keys[1::2]
        assert [key for key in gone if not other.forget(name, key)] == []
        assert [key for key in gone if other.done(name, key) is not None] == []
        assert [(other.done(name, key) or {}).get("key") for key in left] == left

    def test_the_keys_of_one_name_are_not_those_of_another(self, crew: Crew) -> None:
        """This holds for names that look alike, and wherever the name ends and the key begins."""
        name = crew.name()
        names = [
            name,
            name.upper(),
            f"{name}:a",
            f"{name}.once",
            name.ljust(LONGEST, "x"),
            name.ljust(LONGEST, "y"),
        ]
        keys = ["a", ":a", ":aa", "a:a", ":a/a", ".once", ".once/a"]
        peers = [crew.peer() for _ in names]
        grants = [peer.takes(own) for peer, own in zip(peers, names, strict=True)]
        for peer, grant in zip(peers, grants, strict=True):
            for key in keys:
                assert peer.done(grant.name, key) is None, (
                    f"{key!r} of {grant.name!r} is done by another name"
                )
                peer.mark(grant, key, {"of": [grant.name, key]})
        for own in names:
            assert [(peers[0].done(own, key) or {}).get("of") for key in keys] == [[own, key] for key in keys]

    def test_a_control_for_a_name_without_a_lock(self, steered: Crew) -> None:
        """It makes no lock and no record, and is listed. The first grant has it."""
        name = steered.name()
        steerer, other = steered.peer(), steered.peer()
        assert name not in other.list(), "the name is known before it has anything"
        control = a_pause('é "\\\n\t \U0001f512')
        assert steerer.steer(name, "", control), "there is no control yet, but steer says that there is one"
        assert name in other.list(), "a name that has a control only is not listed"
        assert other.read(name) == (None, None)
        seen = other.look(name)
        assert (seen.state, seen.holder, seen.record) == (Look.FREE, None, None)
        assert seen.control == control
        assert other.takes(name).control == control

    def test_of_two_that_steer_one_wins(self, steered: Crew) -> None:
        """Both have seen the same version: the other is told, and changes nothing."""
        name = steered.name()
        peers = [steered.peer(), steered.peer()]
        version = ""
        for number in range(5):
            controls = [a_pause(f"{number} of {peer.holder}") for peer in peers]
            for peer, control in zip(peers, controls, strict=True):
                peer.start_call("steer", name, version, control)
            done = [peer.result() for peer in peers]
            assert sorted(done) == [False, True], "not exactly one of two that steer was first"
            seen = peers[0].look(name)
            assert seen.control == controls[done.index(True)], "the control is not that of who was first"
            assert not peers[1].steer(name, version, a_pause("too late")), "steer by an older version is done"
            assert peers[1].look(name).control == seen.control, "a refused steer changed the control"
            version = seen.version

    def test_no_version_comes_twice(self, steered: Crew) -> None:
        """Not even for the same control: whoever saw the first one has missed the second."""
        name = steered.name()
        steerer, other = steered.peer(), steered.peer()
        one = steers(steerer, name, "one")
        version = other.look(name).version
        assert version, "the version of a control is that of no control"
        steers(steerer, name, "another")
        assert steerer.steer(name, other.look(name).version, one)
        assert not other.steer(name, version, a_pause("too late")), "a version came again"

    def test_grant_and_renewal_have_the_control_of_that_moment(self, steered: Crew) -> None:
        """A waiter's grant has the one of its grant, and not of its first attempt."""
        name = steered.name()
        holder, waiter, steerer = (steered.peer() for _ in range(3))
        grant = holder.takes(name)
        assert grant.control is None
        assert holder.renew(grant) is None
        first = steers(steerer, name, "first")
        held = waiter.is_refused(name)
        assert held.control in (None, first)
        assert holder.renew(grant) == first, "renew doesn't return the control of that moment"
        second = steers(steerer, name, "second")
        assert holder.renew(grant) == second, "renew doesn't return the control of that moment"
        holder.write(grant, record_of(grant, "running"))
        assert waiter.look(name).control == second, "a record that was written changed the control"
        waiter.start_get(name)
        third = steers(steerer, name, "third")
        holder.release(grant, record_of(grant))
        got = waiter.got()
        assert got.control == third, "the grant has not the control of that moment"
        waiter.release(got, record_of(got))
        assert steerer.look(name).control == third, "a release changed the control"

    def test_a_holder_that_renews_and_one_who_steers_are_not_in_each_other_s_way(self, steered: Crew) -> None:
        """Neither fails, and nothing of either is lost."""
        name = steered.name()
        holder, steerer, other = (steered.peer() for _ in range(3))
        grant = holder.takes(name)
        record = record_of(grant, "running")
        holder.start_renew_many(grant, record, STEERS)
        controls = [steers(steerer, name, f"number {number}") for number in range(STEERS)]
        holder.result()
        assert holder.renew(grant) == controls[-1]
        seen = other.look(name)
        assert seen.control == controls[-1]
        assert seen.record == {**record, "note": STEERS - 1}, "a record was lost by a change of the control"
        holder.release(grant, record_of(grant))

    def test_hold_returns_when_the_control_changes(self, steered: Crew) -> None:
        """It returns at once if the backend tells, else at its time. Then `renew` has the control."""
        name = steered.name()
        holder, steerer = steered.peer(), steered.peer()
        tells, patience = steered.site.tells, steered.site.patience
        grant = holder.takes(name)
        for reason in ("first", "second"):
            holder.start_hold(grant, calls.now() + (2 * patience if tells else LOOK_EVERY))
            control = steers(steerer, name, reason)
            holder.result(patience if tells else None)
            assert holder.renew(grant) == control

    def test_hold_notices_a_control_that_came_before_it(self, steered: Crew) -> None:
        """It came after the last renewal, when nobody watched."""
        name = steered.name()
        holder, steerer = steered.peer(), steered.peer()
        tells, patience = steered.site.tells, steered.site.patience
        grant = holder.takes(name)
        for reason in ("first", "second"):
            control = steers(steerer, name, reason)
            holder.start_hold(grant, calls.now() + (2 * patience if tells else LOOK_EVERY))
            holder.result(patience if tells else None)
            assert holder.renew(grant) == control

    def test_a_damaged_control_pauses_the_lock_and_can_be_replaced(self, steered: Crew) -> None:
        """So does one of a later version. What can't be read never means that a command may start."""
        name = steered.name()
        holder, steerer = steered.peer(), steered.peer()
        grant = holder.takes(name)
        for damaged in ({}, {"version": 99}, {"version": 1, "pause": "yes", "release": None}):
            assert steerer.steer(name, steerer.look(name).version, damaged)
            seen = steerer.look(name)
            assert pause_of(seen.control, time.time()), "look says of a damaged control that it is no pause"
            assert pause_of(holder.renew(grant), time.time()), "renew says that it is no pause"
        holder.release(grant, record_of(grant))
        grant = holder.gets(name)
        assert pause_of(grant.control, time.time()), "a grant says of a damaged control that it is no pause"
        assert steerer.steer(name, steerer.look(name).version, resumed(None))
        assert holder.renew(grant) == resumed(None)

    def test_the_control_of_one_name_is_not_that_of_another(self, steered: Crew) -> None:
        """This holds for names that look alike."""
        steerer, other = steered.peer(), steered.peer()
        names = lookalikes(steered.name())
        for name in names:
            assert other.look(name).control is None, f"{name!r} has the control of another name"
            steers(steerer, name, name)
        assert [(other.look(name).control or {})["pause"]["reason"] for name in names] == names

    def test_a_look_at_a_free_lock(self, steered: Crew) -> None:
        """A look changes nothing. What the last holder left is there."""
        name = steered.name()
        holder, other = steered.peer(), steered.peer()
        seen = other.look(name)
        assert (seen.state, seen.holder, seen.record) == (Look.FREE, None, None)
        assert (seen.control, seen.version) == (None, "")
        assert not seen.waiting
        assert name not in other.list(), "to look at a lock is not to make one"
        grant = holder.takes(name)
        record = record_of(grant)
        holder.release(grant, record)
        seen = other.look(name)
        assert (seen.state, seen.holder, seen.record) == (Look.FREE, None, record)

    def test_a_look_at_a_held_lock(self, steered: Crew) -> None:
        """It has the holder, its token and its record."""
        name = steered.name()
        holder, other = steered.peer(), steered.peer()
        grant = holder.takes(name)
        record = record_of(grant, "running")
        holder.write(grant, record)
        seen = other.look(name)
        assert seen.state == Look.HELD
        assert seen.holder is not None
        assert seen.holder.holder in {holder.holder, ""}
        assert seen.holder.token == grant.token, "look doesn't tell the holder's token"
        left = None if seen.holder.until is None else seen.holder.until - holder.began
        assert left is None or abs(left - STEADY) < STEADY / 2, "the lease's end is not by the boot clock"
        assert seen.record == record

    def test_a_look_at_a_kept_lock(self, steered: Crew) -> None:
        """It has the last holder, and until when the lock is kept."""
        name = steered.name()
        holder, other = steered.peer(), steered.peer()
        grant = holder.takes(name)
        holder.release(grant, record_of(grant), STEADY)
        seen = other.look(name)
        assert seen.state == Look.KEPT, "look doesn't say that the lock is kept"
        assert seen.holder is not None
        assert seen.holder.holder in {holder.holder, ""}
        assert seen.holder.until is not None, "look doesn't say until when the lock is kept"
        assert abs(seen.holder.until - holder.began - STEADY) < STEADY / 2

    def test_a_look_at_those_who_wait(self, steered: Crew) -> None:
        """They are in the order in which they will have the lock, or the backend doesn't know them at all."""
        name = steered.name()
        holder, other = steered.peer(), steered.peer()
        waiters = [steered.peer() for _ in range(3)]
        holder.takes(name)
        for waiter in waiters:
            waiter.is_refused(name)
        waiting = other.look(name).waiting
        if waiting is not None:
            names = [held.holder for held in waiting]
            assert sorted(names) == sorted(waiter.holder for waiter in waiters), "others wait than look says"
            if steered.site.fifo:
                assert names == [waiter.holder for waiter in waiters], "look has them in another order"
            waiters[0].leave()
            left = other.look(name).waiting
            assert left is not None
            assert waiters[0].holder not in [held.holder for held in left], "who has left still waits"

    def test_a_kept_lock_is_freed(self, steered: Crew) -> None:
        """Who waits for it is woken. Record and control stay, and the token grows on."""
        name = steered.name()
        holder, waiter, other = (steered.peer() for _ in range(3))
        control = steers(other, name, "pause")
        grant = holder.takes(name)
        record = record_of(grant)
        holder.release(grant, record, 4 * STEADY)
        waiter.start_get(name)
        assert isinstance(waiter.first, Held)
        assert other.free(name, other.look(name)), "free says that the holder is another"
        got = waiter.got()
        assert got.token > grant.token
        assert (got.record, got.control) == (record, control)

    def test_free_by_an_outdated_look_changes_nothing(self, steered: Crew) -> None:
        """The look was of an earlier holder, or of nobody."""
        name = steered.name()
        earlier, holder, other = (steered.peer() for _ in range(3))
        nobody = other.look(name)
        assert not other.free(name, nobody), "free says that it has freed a lock that nobody had"
        grant = earlier.takes(name)
        earlier.release(grant, record_of(grant), STEADY)
        seen = other.look(name)
        assert other.free(name, seen)
        assert not other.free(name, seen), "free says that it has freed a lock that was free"
        new = holder.gets(name)
        for outdated in (nobody, seen):
            assert not other.free(name, outdated), "free by an outdated look says that it has freed the lock"
        earlier.is_refused(name)
        earlier.leave()
        holder.release(new, record_of(new), STEADY)
        for outdated in (nobody, seen):
            assert not other.free(name, outdated), "free by an outdated look says that it has freed the lock"
        earlier.is_refused(name)

    def test_a_record_of_an_older_version_is_read(self, crew: Crew) -> None:
        """It has not the words that came later: the command, and the slots of the earlier runs."""
        name = crew.name()
        holder, other = crew.peer(), crew.peer()
        grant = holder.takes(name)
        record = record_of(grant)
        del record["command"]
        run = {word: record[word] for word in ("state", "token", "holder", "start", "end", "status")}
        older = {**record, "runs": [run, run]}
        holder.release(grant, older)
        assert other.read(name) == (None, older)
        got = other.takes(name)
        assert got.record == older, "a record without the later words is not read"
        assert record_of(got)["runs"][1:] == [run, run]

    def test_a_record_of_many_runs_goes_through(self, crew: Crew) -> None:
        """It has fifty runs, and names as long as they can be. Only the earliest runs may be left out."""
        name = crew.name().ljust(LONGEST, "x")
        holder, other = crew.peer(), crew.peer()
        long = f"{'h' * 60}:{1 << 22}:{'0' * 8}"
        grant = holder.takes(name)
        record: dict[str, Any] | None = None
        for number in range(RUNS + 1):
            start = 1795318621.123 + number
            slot = {"slot": {"slot": start, "start": start, "attempt": 1, "schedule": "s" * 200}}
            record = {**started(record, name, long, number, start, "c" * 100), **slot}
            record = ended(record, "interrupted", 255, start + 0.123)
        assert record is not None
        holder.write(grant, record)
        written = other.read(name)[1]
        holder.release(grant, record)
        for found in (written, other.takes(name).record):
            assert found is not None
            left = len(found["runs"])
            assert min(crew.site.runs, RUNS) <= left, f"only {left} of {RUNS} runs are kept"
            assert found == {**record, "runs": record["runs"][:left]}, "a record comes back changed"

    def test_the_server_s_time_is_that_of_its_answers(self, crew: Crew) -> None:
        """None before the first answer. Here the server's time is this machine's, as exactly as it says."""
        peer = crew.peer()
        assert peer.offset() is None, "the server's time is known before it has answered"
        peer.takes(crew.name())
        told = peer.offset()
        if told is not None:
            ahead, exact = told
            assert exact > 0, "no time that came over a network is exact"
            assert abs(ahead) <= exact + LOOK_EVERY, f"the server is not {ahead:.3f} s ahead"

    def test_a_stranger_changes_nothing(self, crew: Crew) -> None:
        """A write or release by a forged grant raises Lost. Lock and record stay."""
        name = crew.name()
        holder, stranger, other = crew.peer(), crew.peer(), crew.peer()
        grant = holder.takes(name)
        record = record_of(grant, "running")
        holder.write(grant, record)
        stranger.is_refused(name)
        for token in (grant.token - 1, grant.token + 1):
            forged = Grant(**{**grant.as_dict(), "holder": stranger.holder, "token": token})
            is_lost(stranger, "write", forged)
            is_lost(stranger, "release", forged)
        stranger.leave()
        other.is_refused(name)
        assert other.read(name)[1] == record
        holder.write(grant, record)
        holder.release(grant, record)

    def test_the_grant_of_an_earlier_turn_changes_nothing(self, crew: Crew) -> None:
        """It was released, and another has the lock: the earlier holder's late requests are void."""
        name = crew.name()
        earlier, holder, other = crew.peer(), crew.peer(), crew.peer()
        old = earlier.takes(name)
        earlier.release(old, record_of(old))
        grant = holder.takes(name)
        record = record_of(grant, "running")
        holder.write(grant, record)
        is_lost(earlier, "write", old)
        with suppress(Lost):  # both are right: done twice is done, and the lock is no longer ours
            earlier.release(old, record_of(old, "failed"))
        other.is_refused(name)
        assert other.read(name)[1] == record

    def test_names_that_look_alike_are_different_locks(self, crew: Crew) -> None:
        """Each of these names is free at first, is then held, has its own record, and is listed."""
        names = lookalikes(crew.name())
        for name in names:
            check_name(name)
        peers = [crew.peer() for _ in names]
        grants = [peer.takes(name) for peer, name in zip(peers, names, strict=True)]
        watcher = crew.peer()
        assert set(names) <= set(watcher.list())
        some = slice(0, None, 2)
        for peer, grant in zip(peers[some], grants[some], strict=True):
            peer.release(grant, {**record_of(grant), "of": grant.name})
        states = [watcher.read(name) for name in names]
        assert [name for name, (held, _) in zip(names, states, strict=True) if held is None] == names[some]
        assert [record["of"] for _, record in states if record is not None] == names[some]

    def test_what_cannot_be_used_says_so_in_time(self, crew: Crew) -> None:
        """The error is of the right kind, in time and without the password. leave and close still work."""
        assert crew.site.faults, "every backend has an address that it can't use"
        wrong = []
        for fault in crew.site.faults:
            try:
                _meet(crew, fault)
            except AssertionError as problem:
                wrong.append(f"{fault.what}: {problem}")
        assert not wrong, "\n".join(wrong)

    def test_to_examine_a_lock_changes_nothing(self, crew: Crew) -> None:
        """It leaves no name, takes no lock, and nothing from its holder. Nothing is bad at a site."""
        name = crew.name()
        doctor, other = crew.peer(), crew.peer()
        found = doctor.examine(name)
        if found is None:
            return
        for grade, text, todo in found:
            assert grade in (Finding.GOOD, Finding.WARNING), f"it says of a site that works: {text}: {todo}"
            assert text, "a finding has no text"
        assert name not in other.list(), "examine made the lock's name known"
        grant = other.takes(name)
        doctor.examine(name)
        other.renew(grant)
        record = record_of(grant)
        other.release(grant, record)
        doctor.examine(name)
        assert other.read(name) == (None, record), "examine changed the lock or its record"

    def test_close_never_raises(self, crew: Crew) -> None:
        """Neither at first, nor after a refusal, nor with the lock, nor twice. It leaves no connection."""
        name = crew.name()
        fresh, holder, refused = (crew.peer() for _ in range(3))
        holder.takes(name)
        refused.is_refused(name)
        for peer in (fresh, refused, holder):
            peer.close()
            _is_clean(peer)
            peer.close()


def _contend(crew: Crew, contenders: int, times: int, folder: Path) -> tuple[list[str], list[str]]:
    """Let the contenders have their turns: who came, and who had the lock, each in order.

    Checks that no turn overlaps another, and that the tokens grow.
    """
    name = crew.name()
    holder = crew.peer()
    grant = holder.takes(name, CROWD)
    peers = [crew.closed_peer() for _ in range(contenders)]
    until = calls.now() + CROWD
    for peer in peers:
        peer.start_turns(name, times, str(folder), until)
        assert isinstance(peer.first, Held)
    holder.release(grant, record_of(grant))
    wrong = {peer.result() for peer in peers}
    assert wrong == {""}, "; ".join(sorted(wrong))
    turns = [line.split() for line in (folder / "turns").read_text(encoding="ascii").splitlines()]
    tokens = [grant.token, *(int(token) for _, token in turns)]
    grow(tokens)
    return [peer.holder for peer in peers], [who for who, _ in turns]


def _meet(crew: Crew, fault: Fault) -> None:
    peer = crew.closed_peer()
    with fault.during():
        said = _refusal(peer, fault, crew.name())
    assert type(said) is fault.kind, f"must be {fault.kind.__name__}, was {type(said).__name__}: {said}"
    assert not fault.secret or fault.secret not in str(said), "the error shows the password"


def _refusal(peer: Peer, fault: Fault, name: str) -> Failure | None:
    """The error that `open_backend` or `acquire` raises."""
    try:
        peer.open(fault.lock, fault.environ)
    except Refused as failure:
        return failure
    said = None
    try:
        peer.acquire(name)
    except Failure as failure:
        said = failure
    with suppress(Failure):
        peer.leave()
    peer.close()
    return said


def _is_clean(peer: Peer) -> None:
    """Check that the peer has no connection any more, or soon."""
    until = calls.now() + peer.site.patience
    while peer.sockets():
        assert calls.now() < until, "close leaves a connection open"
        calls.wait(calls.now() + LOOK_EVERY, [])
