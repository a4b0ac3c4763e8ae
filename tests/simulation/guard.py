"""The guard's process: the loop and the `Tree` around the decisions of `singleton_run.guard.decisions`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singleton_run.guard.decisions import GONE, IDLE, Guard
from singleton_run.system.messages import GuardOrders, deliver
from tests.simulation.machine import Process

if TYPE_CHECKING:
    from collections.abc import Callable

    from singleton_run.system.messages import Message
    from tests.simulation.trip import Trip

FOREVER = float("inf")


class View:
    """The command's processes as `process`, their parent, sees them; a `guard.decisions.Tree`."""

    def __init__(self, trip: Trip, process: Process) -> None:
        self.trip = trip
        self.process = process

    def spawn(self) -> int:
        """Start the command."""
        trip, process = self.trip, self.process
        process.step()
        trip.started = True
        process.step()
        pid = trip.tree.spawn(process)
        for fault in trip.started_faults:
            fault.strike_within(trip.tree.life * 1.2 + 0.5)
        process.step()
        trip.command = pid
        return pid

    def reap(self) -> list[tuple[int, int]]:
        """Wait for what has ended."""
        self.process.step()
        self._forget_command()
        self.process.step()
        return self.trip.tree.reap(self.process)

    def _forget_command(self) -> None:
        trip = self.trip
        ended = trip.tree.command is None or not trip.tree.command.alive
        if trip.command and (ended or trip.tree.reaper is not self.process):
            trip.command = 0

    def empty(self) -> bool:
        """The kernel's word."""
        none_left = self.trip.tree.none_below(self.process)
        self.trip.proved |= none_left and self.trip.tree.reaper is self.process
        return none_left

    def children(self) -> list[int]:
        """Those that can be seen."""
        return [task.pid for task in self.trip.tree.children_of(self.process)]

    def signal(self, process: int, number: int) -> bool:
        """Signal one of them."""
        self.process.step()
        self.trip.tree.signal(process, number)
        return True

    def signal_command(self, number: int) -> bool:
        """Signal the command's group."""
        self.process.step()
        self.trip.world.note(self.process, "signals the command:", number)
        if self.trip.command:
            self.trip.tree.signal_group(number)
        return True

    def name(self, process: int) -> str:
        """The process's name."""
        return str(process)

    def lease_end(self) -> float:
        """The page's word."""
        return self.trip.end


def decisions(trip: Trip, view: View, tell: Any) -> Guard:
    """The guard's decisions, for whoever takes them."""
    wishes = trip.wishes
    return Guard(
        view,
        tell,
        ttl=wishes.ttl,
        stop_signal=wishes.stop_signal,
        grace=wishes.grace,
        leftovers=wishes.leftovers,
    )


class OwnGuard:
    """Receives the orders to a guard, for whoever takes its decisions."""

    def __init__(self, guard: Guard, clock: Callable[[], float]) -> None:
        self._guard = guard
        self._clock = clock

    def start(self, token: int, slot: float | None, attempt: int | None) -> None:
        """Start the command."""
        self._guard.start(self._clock())

    def signal(self, number: int) -> None:
        """Signal it."""
        self._guard.signal(number)

    def kill(self) -> None:
        """Kill everything."""
        self._guard.kill(self._clock())

    def wake(self) -> None:
        """It is awake."""


class GuardProcess(Process):
    """A guard, to be born of `parent`."""

    __slots__ = ("born", "closed", "guard", "inbox", "outbox", "parent", "resumed_at", "sigchld")

    def __init__(self, trip: Trip) -> None:
        super().__init__(trip, "guard")
        self.born = False
        self.parent: Process = trip.front
        self.guard = decisions(trip, View(trip, self), self._tell)
        self.inbox: list[tuple[Any, ...]] = []
        self.outbox: list[tuple[Any, ...]] = []
        self.closed = False
        self.sigchld = False
        self.resumed_at = -FOREVER

    def be_born(self) -> None:
        """It has been forked."""
        self.born = True
        self.wake()

    def resume(self, _: object = None) -> None:
        """SIGCONT."""
        if self.stopped:
            self.resumed_at = self.world.now
        super().resume()

    def child_ended(self) -> None:
        """SIGCHLD."""
        self.sigchld = True
        self.wake()

    def run(self) -> None:
        """One round of its loop."""
        if not self.born:
            return
        guard, clock = self.guard, self.machine.clock
        if self.sigchld:
            self.sigchld = False
            self.world.visit("guard", guard.state, "children")
            guard.children(clock())
        self.world.visit("guard", guard.state, "look")
        guard.look(clock())
        while self.inbox:
            self._obey(self.inbox.pop(0))
        if not self.trip.front.alive and not self.closed:
            self.closed = True
            self._front_died()
        if guard.state == GONE or (guard.state == IDLE and self.closed):
            self._leave()
        else:
            self.set_timer(guard.next_look(clock()))

    def _front_died(self) -> None:
        if self.guard.state != IDLE:
            self.world.visit("guard", self.guard.state, "kill")
            self.guard.kill(self.machine.clock())

    def _obey(self, order: Message) -> None:
        guard = self.guard
        self.world.visit("guard", guard.state, order[0])
        self.world.note(self, "obeys", *order)
        deliver(order, GuardOrders, OwnGuard(guard, self.machine.clock))

    def _tell(self, message: Message) -> None:
        self.step()
        self.world.note(self, "tells", *message)
        self.outbox.append(message)
        self.trip.front.wake()

    def _leave(self) -> None:
        self.step()
        self.trip.gone_said = True
        self.step()
        self.world.note(self, "exits")
        self.die()
