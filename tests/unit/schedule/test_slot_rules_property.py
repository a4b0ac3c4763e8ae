"""Slots under crashes, deploys, wrong clocks and overlong runs, in a small world of replicas.

The real sequences of `keeper` and `candidate` run here against one lock with one record; what is
simulated is the server, the clocks, the command's length and who dies when.
"""

from __future__ import annotations

import heapq
import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from singleton_run.api import record
from singleton_run.api.contract import Grant, Held
from singleton_run.api.control import pause_of, paused, resumed
from singleton_run.errors import Lost, Unavailable
from singleton_run.job import Job
from singleton_run.keeper import decisions as keeper_decisions
from singleton_run.keeper.operations import Operation, Orders, Result
from singleton_run.schedule import slot_rules
from tests.unit.schedule.test_slot_rules import asked

if TYPE_CHECKING:
    from collections.abc import Callable

TTL = 30.0
HOUR = 3600.0
START = 1_790_000_000.0 // HOUR * HOUR
HOURS = 8
LONGEST_OUTAGE = 8.0


class Server:
    """One lock, its record, and who waits for it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.holder = ""
        self.until = 0.0
        self.token = 0
        self.record: dict[str, Any] | None = None
        self.control: dict[str, Any] | None = None
        self.down = (0.0, 0.0)

    def held(self) -> bool:
        return self.holder != "" and self.world.now < self.until

    def is_down(self) -> bool:
        return self.down[0] <= self.world.now < self.down[1]


class Run:
    """A command that was started: by whom, for which slot, from when to when."""

    def __init__(self, replica: Replica, slot: float, attempt: int, start: float) -> None:
        self.replica = replica
        self.slot = slot
        self.attempt = attempt
        self.start = start
        self.end = float("inf")


class World:
    """Events in the order of the true time, which is also everybody's boot clock."""

    def __init__(self, seed: int, **wishes: Any) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - the histories must be repeatable
        self.now = START - 600.0
        self.settings = asked(ttl=TTL, **wishes)
        self.server = Server(self)
        self.runs: list[Run] = []
        self.skipped: dict[float, float] = {}
        self.written: list[tuple[float, int, float, Replica]] = []
        self.ends_told: set[tuple[float, int]] = set()
        self.replicas: list[Replica] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, time: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(time, self.now), next(self._numbers), what))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = until


class Replica:
    """One front with its keeper, from its start until it is killed or asked to stop."""

    def __init__(self, world: World, offset: float, length: Callable[[], float], *, knows: bool) -> None:
        self.world = world
        self.offset = offset
        self.length = length
        self.knows = knows
        self.born = world.now
        self.died = float("inf")
        self.trip = 0
        self.asked = False
        self.current: Run | None = None
        self.following = float("inf")
        self.since = world.now + (0.0 if knows else offset)
        self.begin()

    # A trip: one keeper.

    def begin(self) -> None:
        if self.died <= self.world.now or self.asked:
            return
        self.trip += 1
        self.holder = f"{id(self)}:{self.trip}"
        self.shown: dict[str, Any] | None = None
        plan = slot_rules.Plan(self.world.settings, self.since, self.world.chance.random)
        self.orders = Orders()
        self.has_lost = False
        job = Job("lock", self.holder, TTL, float("inf"), plan=plan)
        self.steps = keeper_decisions.lifecycle(job, self.orders, None)
        self.grant: Grant | None = None
        self.waiting: Callable[[], None] | None = None
        self.step(next(self.steps))

    def step(self, do: Operation) -> None:
        """Carry out one operation; its outcome comes after a moment."""
        world, trip, began = self.world, self.trip, self.world.now
        if do.name == "tell":
            self.hear(*do.arguments)
            self.finish(began, None, None)
        elif do.name in ("sleep", "hold"):
            until = do.arguments[-1]
            self.idle(until, began)
        elif do.name == "wait":
            self.idle(min(do.arguments[1], world.server.until), began)
        elif do.name == "clock":
            now = world.now + (0.0 if self.knows else self.offset)
            self.finish(began, (now, 0.0 if self.knows else None), None)
        elif do.name == "report":
            self.finish(began, None, None)
        else:
            moment = world.chance.uniform(0.001, 0.02)

            def answer() -> None:
                if self.trip == trip and self.died > world.now:
                    self.ask(do, began)

            world.at(world.now + moment, answer)

    def idle(self, until: float, began: float) -> None:
        trip, done = self.trip, [False]

        def wake() -> None:
            if not done[0] and self.trip == trip and self.died > self.world.now:
                done[0] = True
                self.waiting = None
                self.finish(began, None, None)

        self.waiting = wake
        if self.orders.over():
            wake()
        elif until != float("inf"):
            self.world.at(until, wake)

    def ask(self, do: Operation, began: float) -> None:
        server = self.world.server
        if server.is_down():
            self.finish(began, None, Unavailable("down"))
            return
        work = getattr(self, f"_{do.name}")
        try:
            result = work(*do.arguments)
        except Lost as lost:
            self.finish(began, None, lost)
            return
        self.finish(began, result, None)

    def finish(self, began: float, result: object, error: Any) -> None:
        try:
            do = self.steps.send(Result(began, self.world.now, result, error))
        except StopIteration:
            return
        self.step(do)

    # What the server does.

    def _read(self, _limit: float) -> object:
        server = self.world.server
        return (Held() if server.held() else None), server.record

    def _acquire(self, _limit: float) -> object:
        server = self.world.server
        if server.held() and server.holder != self.holder:
            return Held()
        server.holder, server.until = self.holder, self.world.now + TTL
        server.token += 1
        self.shown = server.control
        return Grant("lock", self.holder, server.token, TTL, {}, server.record, control=server.control)

    def _own(self, grant: Grant) -> Server:
        server = self.world.server
        if not server.held() or server.token != grant.token:
            raise Lost("another's")
        return server

    def _renew(self, grant: Grant, _limit: float) -> object:
        self._own(grant).until = self.world.now + TTL
        self.shown = self.world.server.control
        return self.shown

    def _write(self, grant: Grant, run: dict[str, Any], _limit: float) -> None:
        self._own(grant).record = run
        self.world.written.append((run["slot"]["slot"], run["slot"]["attempt"], self.world.now, self))

    def _prepare(self, _grant: Grant) -> None:
        """The record was made before the start."""

    def _release(self, grant: Grant, run: Any, _limit: float) -> None:
        server = self._own(grant)
        if isinstance(run, str):
            run = record.ended(
                record.started(grant.record, "lock", grant.holder, grant.token, 0.0), run, None, None
            )
        if run["state"] == "skipped" and run["token"] == grant.token:  # else an attempt is taken back
            assert run["slot"]["slot"] not in self.world.skipped
            self.world.skipped[run["slot"]["slot"]] = self.world.now
        slot = run.get("slot")
        if slot is not None and slot["end"] is not None:
            self.world.ends_told.add((slot["slot"], slot["attempt"]))
        server.record = run
        self._free()

    def _leave(self, _limit: float) -> None:
        if self.world.server.holder == self.holder:
            self._free()

    def _free(self) -> None:
        server = self.world.server
        server.holder = ""
        for replica in self.world.replicas:
            if replica.waiting and replica is not self:
                self.world.at(self.world.now + 0.001, replica.waiting)

    # What the front does.

    def hear(self, event: str, *facts: Any) -> None:
        trip = self.trip
        if event == "granted":
            assert pause_of(self.shown, self.world.now) is None
            self.grant = Grant(**facts[0])
            slot = self.grant.record["slot"]  # type: ignore[index]
            run = Run(self, slot["slot"], slot["attempt"], self.world.now)
            self.current = run
            self.world.runs.append(run)
            length = self.length()
            self.world.at(self.world.now + length, lambda: self.settle(run, trip))
            if self.world.settings.overlap == "replace":
                self.world.at(self.following + 1.0, lambda: self.settle(run, trip, "interrupted"))
        elif event == "following":
            self.following = facts[0]
        elif event == "rest" and facts[0] is not None:
            self.world.at(facts[0], self.begin)
        elif event == "gave_up":
            self.world.at(self.world.now + 60.0, self.begin)
        elif event == "lost":
            self.has_lost = True
        elif event == "settled" and self.orders.record is not None:
            self.world.at(self.world.now + 0.2, self.begin)

    def settle(self, run: Run, trip: int, state: str | None = None) -> None:
        if self.trip != trip or self.died <= self.world.now or run.end != float("inf"):
            return
        run.end = self.world.now
        self.current = None
        if self.grant is None or self.grant.record is None:
            return
        outcome = state or ("failed" if self.world.chance.random() < 0.3 else "succeeded")
        self.orders.record = record.ended(self.grant.record, outcome, 0, self.world.now)
        if self.waiting:
            self.waiting()
        if self.has_lost:
            self.world.at(self.world.now + 0.2, self.begin)

    def kill(self) -> None:
        """All of it, as when a node is lost."""
        if self.died == float("inf"):
            self.died = self.world.now
            if self.current is not None:
                self.current.end = self.world.now

    def is_right(self) -> bool:
        """Whether it has the right time."""
        return self.knows or self.offset == 0.0

    def was_up(self, begin: float, end: float) -> bool:
        """Whether it was there all the time, and not asked to stop."""
        return self.born < begin and self.died > end and not self.asked

    def stop(self) -> None:
        """SIGTERM: what runs is asked to end and does so soon."""
        if self.asked or self.died < float("inf"):
            return
        self.asked = True
        if self.current is not None:
            run, trip = self.current, self.trip
            self.world.at(self.world.now + 1.0, lambda: self.settle(run, trip, "interrupted"))
        else:
            self.orders.leaving = True
            if self.waiting:
                self.waiting()
        self.world.at(self.world.now + 5.0, self.kill)


def _story(
    seed: int,
    *,
    knows: bool,
    retries: int,
    every: bool,
    jitter: float,
    pauses: int = 0,
    overlap: str = "queue",
) -> World:
    chance = random.Random(~seed)  # noqa: S311 - the histories must be repeatable
    schedule: dict[str, Any] = {"every": HOUR} if every else {"cron": "0 * * * *", "zone": "UTC"}
    world = World(seed, **schedule, retries=retries, jitter=jitter, retry_delay=30.0, overlap=overlap)

    def length() -> float:
        return chance.choice([0.1, 2.0, 60.0, 600.0, 600.0, 4500.0])

    def born() -> None:
        offset = 0.0 if chance.random() < 0.5 else chance.choice([-7200.0, -90.0, -2.0, 2.0, 90.0, 7200.0])
        offset = offset if knows else min(offset, 0.0)
        world.replicas.append(Replica(world, offset, length, knows=knows))

    for _ in range(chance.randint(1, 4)):
        world.at(world.now + chance.uniform(0, 300), born)
    for _ in range(chance.randint(0, 12)):
        moment = START + chance.uniform(0, HOURS * HOUR)
        if chance.random() < 0.5:
            moment = round(moment / HOUR) * HOUR + chance.uniform(-4, 4)

        def deploy() -> None:
            alive = [one for one in world.replicas if one.died > world.now and not one.asked]
            if alive:
                one = chance.choice(alive)
                one.kill() if chance.random() < 0.5 else one.stop()
            born()

        world.at(moment, deploy)
    for _ in range(pauses):
        _pause(world, chance)
    down = START + chance.uniform(0, HOURS * HOUR)
    world.server.down = (down, down + chance.choice([0.0, 3.0, LONGEST_OUTAGE]))
    world.run(START + HOURS * HOUR)
    return world


def _pause(world: World, chance: random.Random) -> None:
    """Somebody pauses the lock at some time, and another time ends that."""
    begin = START + chance.uniform(0, HOURS * HOUR)
    if chance.random() < 0.5:
        begin = round(begin / HOUR) * HOUR + chance.uniform(-10, 10)
    server, span = world.server, chance.choice([5.0, 1800.0, 9000.0])

    def pause() -> None:
        until = None if chance.random() < 0.5 else world.now + span
        server.control = paused(server.control, by="somebody", at=world.now, until=until, reason="")

    def resume() -> None:
        server.control = resumed(server.control)

    world.at(begin, pause)
    world.at(begin + span, resume)


@pytest.mark.parametrize("every", [True, False])
@given(seed=st.integers(0, 2**32), retries=st.integers(0, 2), jitter=st.sampled_from([0.0, 60.0]))
@example(seed=14201930, retries=0, jitter=0.0)  # an attempt after a skipped slot is taken back
@settings(max_examples=100)
def test_no_slot_is_started_under_a_pause_and_one_that_was_skipped_never(
    *, every: bool, seed: int, retries: int, jitter: float
) -> None:
    """Each start is judged by the last control that its server has told."""
    world = _story(seed, knows=True, retries=retries, every=every, jitter=jitter, pauses=4)
    for run in world.runs:
        assert run.start < world.skipped.get(run.slot, float("inf"))
    starts = [run.slot for run in world.runs]
    assert starts == sorted(starts)


def test_the_pauses_of_the_stories_skip_slots() -> None:
    stories = [_story(seed, knows=True, retries=1, every=True, jitter=0.0, pauses=4) for seed in range(1, 20)]
    assert sum(len(world.skipped) for world in stories) > 5
    assert sum(len(world.runs) for world in stories) > 20


@pytest.mark.parametrize("every", [True, False])
@given(
    seed=st.integers(0, 2**32),
    knows=st.booleans(),
    retries=st.integers(0, 2),
    jitter=st.sampled_from([0.0, 60.0]),
)
@example(seed=800, knows=False, retries=1, jitter=0.0)  # a node is lost between the record and the start
@settings(max_examples=100)
def test_no_slot_runs_more_often_than_allowed_and_none_is_lost(
    *, every: bool, seed: int, knows: bool, retries: int, jitter: float
) -> None:
    """Counts the starts of every slot; and looks for slots that nobody started though somebody could."""
    world = _story(seed, knows=knows, retries=retries, every=every, jitter=jitter)
    by_slot = _check(world, retries=retries)
    first = min(by_slot, default=None)
    if first is not None:
        _none_is_lost(world, by_slot, first, jitter)


def _check(world: World, *, retries: int) -> dict[float, list[Run]]:
    """No slot was started more often than it may be, none after a later one, and no two at once."""
    by_slot: dict[float, list[Run]] = {}
    for run in world.runs:
        by_slot.setdefault(run.slot, []).append(run)
    for slot, runs in by_slot.items():
        attempts = sorted([*(run.attempt for run in runs), *_lost_before_the_start(world, slot)])
        assert attempts == list(range(1, len(attempts) + 1)), (slot, world.runs)
        assert len(attempts) <= 1 + retries
    starts = [run.slot for run in world.runs]
    assert starts == sorted(starts)
    for earlier, later in itertools.pairwise(world.runs):
        assert earlier.end <= later.start
    return by_slot


@pytest.mark.parametrize("every", [True, False])
@given(seed=st.integers(0, 2**32), knows=st.booleans(), retries=st.integers(0, 2))
@example(seed=205, knows=False, retries=0)  # the clock of the one who comes next is behind
@example(seed=2075, knows=False, retries=0)  # the server is away at a run's end, until its replica is killed
@example(seed=209293, knows=False, retries=0)
@example(seed=10641, knows=False, retries=2)
@settings(max_examples=100)
def test_with_skip_no_slot_is_started_that_was_due_during_a_run(
    *, every: bool, seed: int, knows: bool, retries: int
) -> None:
    """A run whose replica was lost before it told the server the end: a slot that was due in it may start."""
    world = _story(seed, knows=knows, retries=retries, every=every, jitter=0.0, overlap="skip")
    by_slot = _check(world, retries=retries)
    known = [run for run in world.runs if (run.slot, run.attempt) in world.ends_told]
    for run in world.runs:
        assert run in known or min(run.replica.died, world.now) < run.end + LONGEST_OUTAGE + TTL
        assert not [other for other in known if other.slot < run.slot and other.start < run.slot < other.end]
    first = min(by_slot, default=START + HOURS * HOUR)
    for slot in [first + HOUR * number for number in range(1, HOURS)]:
        overlapped = [run for run in world.runs if run.slot < slot <= run.end + 5 * TTL]
        able = [one for one in world.replicas if one.is_right() and one.was_up(slot - 30, slot + HOUR)]
        if able and slot + HOUR < START + HOURS * HOUR and not overlapped:
            assert slot in by_slot or _lost_before_the_start(world, slot)


@pytest.mark.parametrize("every", [True, False])
@given(
    seed=st.integers(0, 2**32),
    knows=st.booleans(),
    retries=st.integers(0, 2),
    jitter=st.sampled_from([0.0, 60.0]),
)
@settings(max_examples=100)
def test_with_replace_every_slot_is_started_soon_after_its_time(
    *, every: bool, seed: int, knows: bool, retries: int, jitter: float
) -> None:
    """A run goes on for at most a second after the next slot's start, wherever it is."""
    world = _story(seed, knows=knows, retries=retries, every=every, jitter=jitter, overlap="replace")
    by_slot = _check(world, retries=retries)
    for run in world.runs:
        assert min(run.end, world.now) <= run.slot + HOUR + jitter + 1.001 or run.attempt > 1 or not knows
    first = min(by_slot, default=None)
    if first is not None:
        _none_is_lost(world, by_slot, first, jitter)


def test_the_overlaps_of_the_stories_happen() -> None:
    stories = {
        overlap: [
            _story(seed, knows=True, retries=0, every=True, jitter=0.0, overlap=overlap)
            for seed in range(1, 20)
        ]
        for overlap in ("queue", "skip", "replace")
    }
    late = {
        overlap: sum(run.start > run.slot + 60.0 for world in worlds for run in world.runs)
        for overlap, worlds in stories.items()
    }
    lengths = [run.end - run.start for world in stories["replace"] for run in world.runs]
    assert late["queue"] > late["skip"]
    assert late["queue"] > late["replace"]
    assert any(HOUR < length < HOUR + 2.0 for length in lengths)


def _lost_before_the_start(world: World, slot: float) -> list[int]:
    """The attempts that were written down by a replica whose node was lost before it started them."""
    started = {(run.slot, run.attempt) for run in world.runs}
    return [
        attempt
        for of, attempt, at, replica in world.written
        if of == slot and (of, attempt) not in started and replica.died < at + 1.0
    ]


def _none_is_lost(world: World, by_slot: dict[float, list[Run]], first: float, jitter: float) -> None:
    slot = first + HOUR
    while slot + HOUR < START + HOURS * HOUR:
        if slot not in by_slot and not _lost_before_the_start(world, slot):
            begin, end = slot + jitter, slot + HOUR
            busy = sum(max(0.0, min(run.end, end) - max(run.start, slot)) for run in world.runs)
            able = [one for one in world.replicas if one.is_right() and one.was_up(begin - 30, end)]
            # A lock whose holder was lost lapses after a ttl, and a server that is down is asked again.
            assert not able or busy > HOUR - jitter - 5 * TTL - 120, (slot, busy)
        slot += HOUR
