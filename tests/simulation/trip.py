"""One turn of the lock as the simulation sees it: its settings, its shared page, and who is who in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation import checks
from tests.simulation.command import Tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.simulation.faults import Fault
    from tests.simulation.front import Front
    from tests.simulation.guard import GuardProcess
    from tests.simulation.keeper import Keeper
    from tests.simulation.machine import Machine, Process
    from tests.simulation.world import World

FOREVER = float("inf")
PATIENCE = 120.0


class Wishes:
    """The settings of a turn, as far as its decisions go by them."""

    __slots__ = (
        "grace",
        "kill_after",
        "leftovers",
        "name",
        "rewrite",
        "stop_signal",
        "timeout",
        "ttl",
        "wait",
    )

    def __init__(self, world: World) -> None:
        chance = world.chance
        self.name = "job"
        self.ttl = chance.choice((6.0, 8.0, 15.0, 30.0))
        self.wait = None if chance.random() < 0.75 else chance.choice((0.0, 5.0, 60.0)) * chance.random()
        self.timeout = None if chance.random() < 0.85 else 30.0 * chance.random()
        self.kill_after = None if chance.random() < 0.7 else 5.0 * chance.random()
        self.grace = 10.0 if self.kill_after is None else self.kill_after
        self.leftovers = "kill" if chance.random() < 0.8 else "wait"
        self.stop_signal = 15
        self.rewrite: dict[int, int] = {}


class Trip:
    """One turn. `end`, `reported`, `command` and `started` are the page that its processes share.

    `proved` is what the simulation knows: somebody was told by the kernel, of the right children,
    that none is left. `shown` is the control in the last grant or renewal that a keeper has got.
    `ordered` says that somebody took the lock away, `stolen` that a hand deleted the key,
    `excused_from` that all of ours were stopped or dead.
    """

    __slots__ = (
        "began",
        "command",
        "end",
        "faulted",
        "front",
        "fuses",
        "gone_said",
        "guard",
        "holder",
        "keeper",
        "keeper_faults",
        "machine",
        "name",
        "ordered",
        "over",
        "proved",
        "reported",
        "seen_at",
        "settling_since",
        "shown",
        "signalled",
        "started",
        "started_faults",
        "starts",
        "status",
        "stolen",
        "token",
        "tree",
        "unlucky",
        "wishes",
        "world",
    )

    def __init__(self, world: World, machine: Machine, number: int) -> None:
        self.world = world
        self.machine = machine
        self.name = f"{machine.name}.{number}"
        self.holder = self.name
        self.wishes = Wishes(world)
        self.tree = Tree(self)
        self.began = 0.0
        self.end = 0.0
        self.reported = 0.0
        self.command = 0
        self.started = False
        self.front: Front
        self.guard: GuardProcess
        self.keeper: Keeper | None = None
        self.fuses: list[tuple[str, int, Fault]] = []
        self.started_faults: list[Fault] = []
        self.faulted = 0
        self.keeper_faults = 0
        self.signalled = False
        self.unlucky = False
        self.gone_said = False
        self.proved = False
        self.stolen = False
        self.ordered = False
        self.shown: Mapping[str, Any] | None = None
        self.starts = 0
        self.token = 0
        self.status: int | None = None
        self.settling_since = FOREVER
        self.seen_at = -FOREVER
        self.over = False

    def __str__(self) -> str:
        return self.name

    def ours(self) -> list[Process]:
        """Front, guard and keeper."""
        return [self.front, self.guard] if self.keeper is None else [self.front, self.guard, self.keeper]

    def watched(self) -> bool:
        """Whether any of ours runs, so that somebody looks after the command."""
        return any(process.active() for process in self.ours())

    def watched_again(self) -> None:
        """After a time in which none of ours ran, one does."""
        self.seen_at = self.world.now
        self.world.at(self.world.now + checks.GRACE, checks.lives_rightly, self)

    def light_fuse(self, process: Process, role: str) -> None:
        """Give a new process the fault that was drawn for its role."""
        for entry in self.fuses:
            if entry[0] == role:
                self.fuses.remove(entry)
                process.fuse, process.planned = entry[1], entry[2]
                return

    def died(self, process: Process) -> None:
        """One of ours has ended: the others see end-of-file, the kernel hands on its children."""
        for other in self.ours():
            other.wake()
        if self.guard.alive and not self.guard.born and process is (self.keeper or self.front):
            self.guard.die()
        if self.tree.reaper is process:
            self._hand_on()
        if process is self.front and not self.over:
            self.world.at(self.world.now + checks.ORPHANED, checks.ends_with_front, self)
        if not any(other.alive for other in self.ours()):
            self._finish()
        elif not self.front.alive and not self.guard.alive:
            self.world.at(self.world.now + PATIENCE, self._nobody_can_prove)

    def _hand_on(self) -> None:
        """The nearest child subreaper above becomes the parent of the command's processes."""
        above = self.guard.parent
        heirs = [heir for heir in (above, self.front) if heir.alive]
        self.tree.reaper = heirs[0] if heirs else None
        self.world.note(self, "its processes fall to", self.tree.reaper)
        if self.tree.reaper is not None and self.tree.zombies:
            self.tree.reaper.child_ended()

    def _nobody_can_prove(self, _: object) -> None:
        """A keeper that is no parent of the command's keeps the lock until a person ends it."""
        keeper = self.keeper
        if self.over or keeper is None or not keeper.alive:
            return
        if keeper.above is self.guard or self.tree.tasks:
            self.world.at(self.world.now + PATIENCE, self._nobody_can_prove)
        elif self.started:
            self.world.excuse("nobody was left to prove")
            keeper.kill()

    def _finish(self) -> None:
        if not self.over:
            self.over = True
            self.world.note(self, "is over, status", self.status)
            self.world.unfinished -= 1
            if self.machine.next_turn is not None:
                pause = self.world.chance.choice((0.0, 1.0, 20.0)) * self.world.chance.random()
                self.world.at(self.world.now + pause, *self.machine.next_turn)
            checks.trip_ended(self)
