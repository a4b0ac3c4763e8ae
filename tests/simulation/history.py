"""One seed, one history: some machines make their turns of one lock until all have had them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation import faults
from tests.simulation.front import Front
from tests.simulation.machine import Machine
from tests.simulation.server import Server
from tests.simulation.trip import Trip
from tests.simulation.world import Broken, World

if TYPE_CHECKING:
    from collections.abc import Iterable

TURNS = 12

Visits = dict[tuple[str, str, str], int]


class Totals:
    """What many histories add up to. `broken` is (seed, promise) of each that failed."""

    def __init__(self) -> None:
        self.seeds = 0
        self.events = 0
        self.steps = 0
        self.turns = 0
        self.ran = 0
        self.faults = 0
        self.excuses: dict[str, int] = {}
        self.visits: Visits = {}
        self.broken: list[tuple[int, str]] = []

    def add(self, other: Totals) -> None:
        """Add what another process has counted."""
        self.seeds += other.seeds
        self.events += other.events
        self.steps += other.steps
        self.turns += other.turns
        self.ran += other.ran
        self.faults += other.faults
        self.broken += other.broken
        for reason, count in other.excuses.items():
            self.excuses[reason] = self.excuses.get(reason, 0) + count
        for visit, count in other.visits.items():
            self.visits[visit] = self.visits.get(visit, 0) + count


def _begin_trip(arg: tuple[Machine, list[int]]) -> None:
    machine, left = arg
    world = machine.world
    if not left[0]:
        return
    if machine.frozen:
        world.at(world.now + 10.0, _begin_trip, arg)
        return
    left[0] -= 1
    trip = Trip(world, machine, TURNS - left[0])
    trip.began = world.now
    world.trips.append(trip)
    faults.draw(trip)
    world.note(trip, "begins")
    Front(trip)


def play(seed: int, visits: Visits, *, logged: bool = False) -> tuple[World, str]:
    """Play a seed's history; the world at its end, and the promise that was broken, '' for none."""
    world = World(seed, visits, logged=logged)
    world.server = Server(world)
    left = [TURNS]
    world.unfinished = TURNS
    for number in range(world.chance.randrange(3, 6)):
        machine = Machine(world, f"m{number + 1}")
        world.machines.append(machine)
        machine.next_turn = (_begin_trip, (machine, left))
        world.at(world.chance.random() * 5.0, _begin_trip, (machine, left))
    try:
        world.run()
    except Broken as broken:
        world.note("check", "BROKEN:", broken)
        return world, str(broken)
    return world, ""


def play_many(seeds: Iterable[int]) -> Totals:
    """Play these seeds, and count."""
    totals = Totals()
    for seed in seeds:
        world, broken = play(seed, totals.visits)
        totals.seeds += 1
        totals.events += world.events
        totals.steps += world.steps
        totals.turns += len(world.trips)
        totals.ran += sum(trip.starts for trip in world.trips)
        totals.faults += world.faults
        for reason, count in world.excuses.items():
            totals.excuses[reason] = totals.excuses.get(reason, 0) + count
        if broken:
            totals.broken.append((seed, broken))
    return totals
