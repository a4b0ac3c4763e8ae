"""What goes wrong, drawn for each turn: one fault on average, at a time or between two actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.machine import Process
    from tests.simulation.trip import Trip

FRONT, GUARD, KEEPER = "front", "guard", "keeper"
KINDS = (
    ("kill", 30),
    ("kill two", 13),
    ("stop", 22),
    ("stop two", 9),
    ("freeze", 7),
    ("cut", 11),
    ("fade", 6),
    ("outage", 4),
    ("slow", 4),
    ("steal", 2),
)
NAMES = [name for name, _ in KINDS]
WEIGHTS = [weight for _, weight in KINDS]
HAS_ASKED = 3  # the first keeper's third action: its request is sent, then come report and tell
ROLES = (FRONT, GUARD, KEEPER)


class Fault:
    """One fault of one turn. `roles` are whom it strikes, `span` how long it lasts in seconds."""

    __slots__ = ("kind", "roles", "span", "trip")

    def __init__(self, trip: Trip, kind: str) -> None:
        chance = trip.world.chance
        self.trip = trip
        self.kind = kind
        self.roles = chance.sample(ROLES, 2 if "two" in kind else 1)
        self.span = chance.choice((1.0, 10.0, 100.0)) * chance.random()

    def strike_within(self, seconds: float) -> None:
        """Strike at some time from now on."""
        world = self.trip.world
        world.at(world.now + seconds * world.chance.random(), self.strike)

    def strike(self, _: object = None) -> None:
        """Happen, unless the turn is over."""
        trip, world = self.trip, self.trip.world
        if trip.over:
            return
        world.faults += 1
        trip.faulted += 1
        if self.roles == [KEEPER] and self.kind in ("kill", "stop") and trip.tree.tasks:
            trip.keeper_faults += 1
        world.note(trip, "FAULT", self.kind, self.roles, f"{self.span:.3f}")
        healed = world.now + self.span
        if self.kind.startswith("kill"):
            for process in self._processes():
                process.kill()
        elif self.kind.startswith("stop"):
            for process in self._processes():
                process.stop()
                world.at(healed, process.resume)
        else:
            world.troubled_until = max(world.troubled_until, healed + self.span)
            getattr(self, f"_{self.kind}")(healed)

    def _processes(self) -> list[Process]:
        trip = self.trip
        by_role = {FRONT: trip.front, GUARD: trip.guard, KEEPER: trip.keeper}
        found = [by_role[role] for role in self.roles]
        return [process for process in found if process is not None and process.alive]

    def _freeze(self, healed: float) -> None:
        machine = self.trip.machine
        if not machine.frozen:
            machine.freeze()
            self.trip.world.at(healed, machine.thaw)

    def _cut(self, healed: float) -> None:
        self.trip.machine.cut = True
        self.trip.world.at(healed, self._mend)

    def _fade(self, healed: float) -> None:
        """Answers come later and later, and then nothing goes through for as long again."""
        self.trip.machine.fading = True
        self.trip.world.at(healed, self._faded)

    def _faded(self, _: object) -> None:
        self.trip.machine.fading = False
        self._cut(self.trip.world.now + self.span)

    def _mend(self, _: object) -> None:
        self.trip.world.note(self.trip.machine, "reaches the server again")
        self.trip.machine.cut = False

    def _outage(self, healed: float) -> None:
        world = self.trip.world
        if not world.server.down:
            world.server.stop()
            world.at(healed, world.server.start, world.chance.random() < 0.5)

    def _slow(self, healed: float) -> None:
        self.trip.world.server.slow = True
        self.trip.world.at(healed, self._quick)

    def _quick(self, _: object) -> None:
        self.trip.world.server.slow = False

    def _steal(self, _healed: float) -> None:
        self.trip.world.server.steal()


def draw(trip: Trip) -> None:
    """Draw the faults of a turn that begins now, and the user's signals."""
    world, chance = trip.world, trip.world.chance
    for _ in range(chance.choice((0, 1, 1, 2, 3, 3, 4))):
        fault = Fault(trip, chance.choices(NAMES, WEIGHTS)[0])
        luck = chance.random()
        if luck < 0.4:
            trip.fuses.append((chance.choice(ROLES), 1 + int(30 * chance.random() ** 2), fault))
        elif luck < 0.8:
            trip.started_faults.append(fault)
        else:
            fault.strike_within(20.0)
    if chance.random() < 0.08:
        nap = Fault(trip, "stop")
        nap.roles, nap.span = [KEEPER], trip.wishes.ttl * chance.uniform(0.6, 1.2)
        trip.fuses.append((KEEPER, HAS_ASKED + chance.randrange(3), nap))
    if chance.random() < 0.12:
        world.at(world.now + 20.0 * chance.random(), _user_signal, trip)

    if chance.random() < 0.15:
        world.at(world.now + 40.0 * chance.random(), _pause, trip)
    if chance.random() < 0.1:
        world.at(world.now + 40.0 * chance.random(), _order, trip)


def _pause(trip: Trip) -> None:
    """Somebody pauses the lock for a time, or until it is resumed."""
    world, chance = trip.world, trip.world.chance
    span = chance.choice((1.0, 10.0, 60.0)) * chance.random()
    if chance.random() < 0.5:
        world.server.pause(span)
    else:
        world.server.pause(None)
        world.at(world.now + span, world.server.resume)


def _order(trip: Trip) -> None:
    """Somebody orders that whoever has the lock give it back."""
    trip.world.server.order()


def _user_signal(trip: Trip) -> None:
    """The user asks the turn to stop."""
    if trip.front.alive:
        trip.signalled = True
        trip.front.signals.append(trip.world.chance.choice((1, 2, 15, 15, 10)))
        trip.front.wake()
