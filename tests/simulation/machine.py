"""A machine with its boot clock, and a process on it: alive, stopped, woken, frozen, killed at any step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation import checks

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.faults import Fault
    from tests.simulation.trip import Trip
    from tests.simulation.world import World

FOREVER = float("inf")
EARLY = 1e-6


class Killed(BaseException):
    """Unwinds the decision in whose middle its process was killed. No product code may catch it."""


class Machine:
    """A boot clock with an offset and a drift; it goes on while the machine is frozen."""

    __slots__ = (
        "cut",
        "deferred",
        "fading",
        "frozen",
        "frozen_for",
        "name",
        "next_turn",
        "offset",
        "processes",
        "rate",
        "thawed_at",
        "world",
    )

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.offset = world.chance.uniform(10.0, 1e6)
        self.rate = 1.0 + world.chance.uniform(-1e-4, 1e-4)
        self.frozen = False
        self.frozen_for = 0.0
        self.cut = False
        self.fading = False
        self.thawed_at = -FOREVER
        self.processes: list[Process] = []
        self.deferred: list[tuple[Callable[[Any], None], Any]] = []
        self.next_turn: tuple[Callable[[Any], None], Any] | None = None

    def __str__(self) -> str:
        return self.name

    def clock(self) -> float:
        """The boot clock's reading now."""
        return self.offset + self.world.now * self.rate

    def true_time(self, reading: float) -> float:
        """When the boot clock shows `reading`."""
        return (reading - self.offset) / self.rate

    def freeze(self) -> None:
        """Nothing on this machine runs any more."""
        self.frozen = True
        self.thawed_at = self.world.now
        self.world.note(self.name, "frozen")

    def thaw(self, _: object = None) -> None:
        """Everything goes on."""
        if not self.frozen:
            return
        self.frozen = False
        self.frozen_for += self.world.now - self.thawed_at
        self.thawed_at = self.world.now
        self.world.note(self.name, "thawed")
        self.processes = [process for process in self.processes if process.alive]
        for process in self.processes:
            process.wake()
        for act, subject in self.deferred:
            self.world.at(self.world.now + 0.01 * self.world.chance.random(), act, subject)
        self.deferred.clear()
        for trip in self.world.running:
            if trip.machine is self:
                self.world.at(self.world.now + checks.GRACE, checks.lives_rightly, trip)


class Process:
    """One of ours. What it is told lies in queues; `run` is called when there may be something.

    `fuse` counts actions down to `planned`, the fault that strikes between two of them.
    """

    __slots__ = (
        "alive",
        "armed",
        "due",
        "fuse",
        "machine",
        "name",
        "planned",
        "scheduled",
        "stopped",
        "trip",
        "world",
    )

    def __init__(self, trip: Trip, role: str) -> None:
        self.trip = trip
        self.world = trip.world
        self.machine = trip.machine
        self.name = f"{trip.name}.{role}"
        self.alive = True
        self.stopped = False
        self.scheduled = False
        self.armed = FOREVER
        self.due = FOREVER
        self.fuse = 0
        self.planned: Fault | None = None
        self.machine.processes.append(self)
        trip.light_fuse(self, role)

    def __str__(self) -> str:
        return self.name

    def active(self) -> bool:
        """Whether it runs, apart from its machine's being frozen."""
        return self.alive and not self.stopped

    def run(self) -> None:
        """Do what there is to do."""
        raise NotImplementedError

    def child_ended(self) -> None:
        """SIGCHLD."""
        self.wake()

    def wake(self) -> None:
        """There is something to do: soon, and now and then not so soon."""
        if self.alive and not self.scheduled:
            self.scheduled = True
            world = self.world
            world.at(world.now + 0.0001 + 0.04 * world.chance.random() ** 12, self._scheduled)

    def set_timer(self, reading: float) -> None:
        """Run at this reading of the boot clock, instead of at an earlier asked one."""
        self.due = reading
        if reading != FOREVER:
            self._arm()

    def step(self) -> None:
        """One action is about to be taken: this is where a fault may strike."""
        self.world.steps += 1
        if self.fuse:
            self.fuse -= 1
            if not self.fuse:
                self._blow()

    def stop(self) -> None:
        """SIGSTOP."""
        if self.active():
            self.world.note(self, "SIGSTOP")
            self.stopped = True

    def resume(self, _: object = None) -> None:
        """SIGCONT."""
        if self.alive and self.stopped:
            if not self.trip.watched():
                self.trip.watched_again()
            self.world.note(self, "SIGCONT")
            self.stopped = False
            self.wake()

    def kill(self) -> None:
        """SIGKILL, as a fault: at once."""
        if self.alive:
            self.world.note(self, "SIGKILL")
            self.die()

    def kill_soon(self) -> None:
        """SIGKILL by one of ours: the kernel takes its moment."""
        self.world.note(self, "SIGKILL is sent")
        self.world.at(self.world.now + 0.3 * self.world.chance.random() ** 8, self._die_now)

    def die(self) -> None:
        """It has ended, however that came."""
        self.alive = False
        self.trip.died(self)

    def _die_now(self, _: object) -> None:
        if self.alive:
            self.die()

    def _scheduled(self, _: object) -> None:
        self.scheduled = False
        self._run()

    def _run(self) -> None:
        if not self.alive or self.stopped or self.machine.frozen:
            return
        try:
            self.run()
        except Killed:
            self.world.note(self, "was killed in the middle of it")

    def _arm(self) -> None:
        when = max(self.machine.true_time(self.due), self.world.now) + EARLY
        if when < self.armed:
            self.armed = when
            self.world.at(when, self._tick, when)

    def _tick(self, when: float) -> None:
        if when != self.armed or not self.alive:
            self.world.events -= 1
            return
        self.armed = FOREVER
        if self.machine.clock() >= self.due:
            self._run()
        elif self.due != FOREVER:
            self.world.events -= 1
            self._arm()

    def _blow(self) -> None:
        if self.planned is None:
            return
        self.planned.strike()
        if self.alive and (self.stopped or self.machine.frozen) and not self.world.nested:
            self.world.run_while_paused(self)
        if not self.alive:
            raise Killed
