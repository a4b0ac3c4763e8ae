"""The command's processes: they fork, are deaf to the stop signal, stay behind, are killed in a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation import checks

if TYPE_CHECKING:
    from tests.simulation.machine import Process
    from tests.simulation.trip import Trip

KILL = 9
BARELY_BORN = 0.03


class Task:
    """One process of the command's. `parent` is None for one whose parent is the tree's reaper."""

    __slots__ = ("alive", "born", "children", "deaf", "in_group", "parent", "pid", "tree")

    def __init__(self, tree: Tree, parent: Task | None, *, deaf: bool, in_group: bool) -> None:
        self.tree = tree
        self.pid = tree.trip.world.new_pid()
        self.parent = parent
        self.children: list[Task] = []
        self.deaf = deaf
        self.in_group = in_group
        self.alive = True
        self.born = tree.trip.world.now

    def end_at(self, when: float, status: int) -> None:
        """End at this true time, unless it has ended by then."""
        self.tree.trip.world.at(when, self._end, status)

    def signal(self, number: int) -> None:
        """Be killed, or asked to stop."""
        world = self.tree.trip.world
        if number == KILL:
            if world.chance.random() < 0.1:
                self.tree.forks(self)
            self.end_at(world.now + 0.05 * world.chance.random() ** 4, -KILL)
        elif not self.deaf:
            self.end_at(world.now + 0.3 * world.chance.random(), -number)

    def _end(self, status: int) -> None:
        machine = self.tree.trip.machine
        if not self.alive:
            self.tree.trip.world.events -= 1
        elif machine.frozen:
            machine.deferred.append((self._end, status))
        else:
            self.tree.ended(self, status)


class Tree:
    """All processes of one command. `reaper` is the process of ours that is their parent, if any is left.

    `began` and `over` are readings of the machine's clock: the command's start and end, infinite before.
    """

    __slots__ = ("began", "command", "life", "over", "reaper", "status", "tasks", "trip", "zombies")

    def __init__(self, trip: Trip) -> None:
        self.trip = trip
        self.reaper: Process | None = None
        self.tasks: list[Task] = []
        self.zombies: list[tuple[int, int]] = []
        self.command: Task | None = None
        self.began = self.over = float("inf")
        self.status: int | None = None
        chance = trip.world.chance
        self.life = chance.choice((0.02, 1.0, 10.0, 80.0)) * (0.2 + chance.random())

    def spawn(self, reaper: Process) -> int:
        """The command starts, and may fork later; its process id."""
        checks.starts(self.trip)
        world, chance = self.trip.world, self.trip.world.chance
        self.reaper = reaper
        self.began = self.trip.machine.clock()
        self.command = self._born(None, deaf=chance.random() < 0.2, in_group=True)
        self.command.end_at(world.now + self.life, chance.choice((0, 0, 0, 1, 3, -11)))
        world.running.append(self.trip)
        if chance.random() < 0.4:
            for _ in range(chance.randrange(1, 4)):
                world.at(world.now + self.life * 1.1 * chance.random(), self._fork)
        return self.command.pid

    def ended(self, task: Task, status: int) -> None:
        """A process has ended: its children fall to the reaper, and so does it if it was a child of that."""
        task.alive = False
        self.tasks.remove(task)
        for child in task.children:
            child.parent = None
        if task is self.command:
            self.status = status
            self.over = self.trip.machine.clock()
        world = self.trip.world
        world.note(self.trip, "process", task.pid, "ended with", status)
        if task.parent is None:
            self.zombies.append((task.pid, status))
            if self.reaper is not None:
                self.reaper.child_ended()
        else:
            task.parent.children.remove(task)
        if not self.tasks:
            world.running.remove(self.trip)

    def reap(self, reaper: Process) -> list[tuple[int, int]]:
        """What waitpid gives to `reaper`."""
        if self.reaper is not reaper:
            return []
        ended, self.zombies = self.zombies, []
        return ended

    def children_of(self, reaper: Process) -> list[Task]:
        """What `reaper` sees of its children; one just born may be missing."""
        if self.reaper is not reaper:
            return []
        world = self.trip.world
        return [
            task
            for task in self.tasks
            if task.parent is None and (world.now - task.born > BARELY_BORN or world.chance.random() < 0.5)
        ]

    def none_below(self, reaper: Process) -> bool:
        """Whether waitpid would find no process of the command's, alive or dead, below `reaper`."""
        return self.reaper is not reaper or (not self.tasks and not self.zombies)

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to one process."""
        for task in self.tasks:
            if task.pid == pid:
                task.signal(number)
                return

    def signal_group(self, number: int) -> None:
        """Send a signal to the command's process group."""
        for task in self.tasks:
            if task.in_group:
                task.signal(number)

    def _born(self, parent: Task | None, *, deaf: bool, in_group: bool) -> Task:
        task = Task(self, parent, deaf=deaf, in_group=in_group)
        if parent is not None:
            parent.children.append(task)
        self.tasks.append(task)
        self.trip.world.note(self.trip, "process", task.pid, "is born", "deaf" if deaf else "")
        return task

    def _fork(self, _: object) -> None:
        chance = self.trip.world.chance
        if self.tasks and not self.trip.machine.frozen:
            self.forks(chance.choice(self.tasks))

    def forks(self, parent: Task) -> None:
        """A process forks: a child, or by forking twice one that falls to the reaper at once."""
        chance, world = self.trip.world.chance, self.trip.world
        twice = chance.random() < 0.4
        child = self._born(
            None if twice else parent,
            deaf=chance.random() < 0.3,
            in_group=parent.in_group and chance.random() < 0.5,
        )
        child.end_at(world.now + chance.choice((0.1, 3.0, 60.0)) * chance.random(), 0)
