"""The front's process: the effects and the loop around the decisions of `singleton_run.front.decisions`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from singleton_run.front.decisions import OVER, RUNNING, SETTLING, STARTING, Turn
from singleton_run.front.receivers import GuardReceiver, KeeperReceiver
from singleton_run.system.messages import GuardOrders, GuardTells, KeeperOrders, KeeperTells, deliver
from tests.simulation import checks
from tests.simulation.guard import GuardProcess, OwnGuard, View, decisions
from tests.simulation.keeper import Keeper
from tests.simulation.machine import Process

if TYPE_CHECKING:
    from singleton_run.api.contract import Grant
    from singleton_run.call.settings import Settings
    from singleton_run.guard.decisions import Guard
    from singleton_run.system.messages import Message
    from tests.simulation.trip import Trip


class Front(Process):
    """A front. `keeper` and `guard` are those it has not waited for, or not heard the end of, yet."""

    __slots__ = (
        "guard",
        "guard_receiver",
        "keeper",
        "keeper_ended",
        "keeper_receiver",
        "own_guard",
        "own_reaped",
        "seen_end",
        "settled",
        "sigchld",
        "signals",
        "turn",
    )

    def __init__(self, trip: Trip) -> None:
        trip.front = self
        super().__init__(trip, "front")
        settings = cast("Settings", trip.wishes)
        self.turn = Turn(settings, self, leased=True, now=self.machine.clock(), kill_grace=trip.wishes.grace)
        self.keeper: Keeper | None = None
        self.keeper_ended = False
        self.guard: GuardProcess | None = GuardProcess(trip)
        trip.guard = self.guard
        self.own_guard: Guard | None = None
        self.own_reaped: list[tuple[int, int]] = []
        self.signals: list[int] = []
        self.sigchld = False
        self.settled = False
        self.seen_end = False
        self.guard_receiver = GuardReceiver(self.turn, self, "command", "")
        self.keeper_receiver = KeeperReceiver(self.turn, self)
        self.wake()

    def child_ended(self) -> None:
        """SIGCHLD."""
        self.sigchld = True
        self.wake()

    def run(self) -> None:
        """One round of its loop."""
        turn, now = self.turn, self.machine.clock()
        if self.trip.keeper is None:
            turn.begin()
        self._hear_guard()
        self._hear_command()
        self._hear_keeper()
        turn.look_at_lease(self.machine.clock())
        while self.signals:
            self.world.visit("turn", turn.phase, "signal")
            turn.signal(self.signals.pop(0), self.machine.clock())
        if self.sigchld or (self.keeper is not None and not self.keeper.alive) or self.keeper_ended:
            self._hear_children()
        self.world.visit("turn", turn.phase, "look")
        turn.look(now)
        if self.own_guard is not None:
            self.own_guard.look(now)
        if turn.phase == OVER:
            self._exit()
            return
        if turn.phase == SETTLING:
            self.trip.settling_since = min(self.trip.settling_since, self.world.now)
        due = turn.next_look()
        if self.own_guard is not None:
            due = min(due, self.own_guard.next_look(self.machine.clock()))
        self.set_timer(due)

    def _exit(self) -> None:
        checks.front_exits(self.trip)
        if self.keeper is not None and self.keeper.alive and not self.settled:
            self.keeper.kill_soon()
        self.step()
        self.trip.status = self.turn.ending.status
        self.world.note(self, "exits with", self.turn.ending.status)
        self.die()

    # The effects of the turn.

    def acquire(self, grant: Grant | None) -> None:
        """Fork a keeper."""
        checks.keeper_forked(self.trip)
        self.step()
        self.trip.reported = self.machine.clock()
        first = self.trip.keeper is None
        self.keeper = self.trip.keeper = Keeper(self.trip, grant, self.trip.guard if first else None)
        if first:
            self.trip.guard.parent = self.keeper
        self.world.note(self, "forks a keeper")

    def kill_keeper(self) -> None:
        """SIGKILL it."""
        self.step()
        if self.keeper is not None and self.keeper.alive:
            self.keeper.kill_soon()

    def settle(self) -> None:
        """Write to its pipe."""
        self._tell_keeper(KeeperOrders.settle({"token": self.trip.token, "status": self.turn.ending.status}))

    def running(self) -> None:
        """Write to its pipe."""
        self._tell_keeper(KeeperOrders.running({"token": self.trip.token, "state": "running"}))

    def leave(self) -> None:
        """Write to its pipe."""
        self._tell_keeper(KeeperOrders.leave())

    def _tell_keeper(self, message: Message) -> None:
        self.step()
        self.world.note(self, "tells the keeper", *message)
        if self.keeper is not None and self.keeper.alive:
            self.keeper.inbox.append(message)
            self.keeper.wake()

    def tell_guard(self, message: Message) -> None:
        """Write to the guard's pipe, or take its part."""
        self.step()
        self.world.note(self, "tells the guard", *message)
        if message[0] == "start":
            checks.start_ordered(self.trip)
        if self.own_guard is not None:
            deliver(message, GuardOrders, OwnGuard(self.own_guard, self.machine.clock))
            return
        if message[0] == "start" and self.guard is None:
            self.new_guard()
        guard = self.trip.guard
        if guard.alive:
            guard.inbox.append(message)
            guard.resume()
            guard.wake()

    def new_guard(self) -> None:
        """Fork one."""
        self.step()
        self.world.note(self, "forks a guard")
        self.guard = self.trip.guard = GuardProcess(self.trip)
        self.guard.be_born()

    def kill_guard(self) -> None:
        """SIGKILL it."""
        self.step()
        if self.trip.guard.alive:
            self.trip.guard.kill_soon()

    def withdraw(self) -> bool:
        """No guard of these starts without an order."""
        return True

    def guard_has_read_all(self) -> bool:
        """Whether its pipe is empty."""
        return not self.trip.guard.inbox

    def adopt(self) -> bool:
        """Take the guard's decisions."""
        self.step()
        if self.trip.tree.command is None:
            self.trip.started = False
            return False
        self.world.note(self, "adopts the command")
        self.own_guard = decisions(self.trip, _Adopted(self.trip, self), self._guard_says)
        if self.turn.phase == STARTING:
            self._guard_says(GuardTells.started(self.trip.command))
        self.own_guard.adopt(self.trip.command, self.machine.clock())
        return True

    def lease(self) -> tuple[float, float]:
        """The page's words."""
        return self.trip.end, self.trip.reported

    def start_begun(self) -> bool:
        """The page's word."""
        return self.trip.started

    def pause(self) -> None:
        """None: no machine here replaces a run."""

    def say(self, level: str, event: str, **facts: object) -> None:
        """Say it in the history."""
        if self.world.log is not None:
            self.world.note(self, "says", level, event, facts)

    # What it hears.

    def _hear_guard(self) -> None:
        guard = self.guard
        if guard is None:
            return
        dead = not guard.alive
        while guard.outbox:
            self._guard_says(guard.outbox.pop(0))
        if dead and self.guard is guard:
            self.guard = None
            self.world.visit("turn", self.turn.phase, "guard_died")
            self.turn.guard_died(self.machine.clock())

    def _guard_says(self, message: Message) -> None:
        self.world.visit("turn", self.turn.phase, f"guard_{message[0]}")
        deliver(message, GuardTells, self.guard_receiver)

    # The `FrontActions` of `singleton_run.front.receivers`.

    def granted(self, grant: Grant) -> None:
        """The keeper has the lock."""
        self.turn.granted(grant, self.machine.clock())

    def command_started(self, process: int) -> float:
        """When it was."""
        return self.trip.tree.began

    def revoked(self, by: str) -> None:
        """Somebody takes the lock away."""
        self.turn.revoked(by, self.machine.clock())

    def be_ready(self, unstarted: dict[str, Any] | None) -> None:
        """There are no slots here."""

    def say_once(self, event: str, which: int, level: str, **facts: object) -> None:
        """Say it in the history."""
        self.say(level, event, **facts)

    def _hear_command(self) -> None:
        """By a descriptor of the command, from its start on."""
        command = self.trip.tree.command
        if self.turn.phase == RUNNING and command is not None and not command.alive and not self.seen_end:
            self.seen_end = True
            self.turn.command_ended(self.machine.clock())

    def _hear_keeper(self) -> None:
        keeper, turn = self.keeper, self.turn
        while keeper is not None and keeper.outbox:
            message = keeper.outbox.pop(0)
            self.world.visit("turn", turn.phase, message[0])
            self.settled = self.settled or message[0] in ("gave_up", "settled")
            deliver(message, KeeperTells, self.keeper_receiver)

    def _hear_children(self) -> None:
        self.sigchld = False
        self.reap_helpers()
        if self.own_guard is not None:
            self.world.visit("own guard", self.own_guard.state, "children")
            self.own_guard.children(self.machine.clock())
        if self.keeper_ended:
            self.keeper_ended = False
            self._hear_guard()
            self._hear_keeper()
            self.keeper = None
            self.world.visit("turn", self.turn.phase, "keeper_died")
            self.turn.keeper_died(self.machine.clock())

    def reap_helpers(self) -> None:
        """Wait for a keeper that has ended."""
        if self.keeper is not None and not self.keeper.alive:
            self.keeper_ended = True

    def retire(self) -> None:
        """End our own keeper and wait for that: another will resume."""
        self.turn.keeper_retired()
        if self.keeper is not None and self.keeper.alive:
            self.keeper.kill()
        self.reap_helpers()


class _Adopted(View):
    """The command below the front, beside the front's own helpers."""

    def __init__(self, trip: Trip, front: Front) -> None:
        super().__init__(trip, front)
        self.front = front

    def empty(self) -> bool:
        """The kernel's word, once our own keeper is gone."""
        if self.children():
            return False
        self.front.step()
        self.front.retire()
        self.front.step()
        return super().empty()
