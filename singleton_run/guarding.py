"""The guard's process: the loop around the decisions of `guard.Guard`."""

from __future__ import annotations

import os
import select

from singleton_run import processes, system
from singleton_run.channel import Reader, Writer
from singleton_run.environment import for_command, of_slot
from singleton_run.guard import GONE, IDLE, Guard
from singleton_run.log import last_words
from singleton_run.processes import Command, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from singleton_run.contract import Grant
    from singleton_run.guard import Tell
    from singleton_run.guard import Tree as AnyTree
    from singleton_run.jobs import Jobs
    from singleton_run.page import Page
    from singleton_run.settings import Settings

    Take = Callable[[], Grant]
else:
    import _signal


class Task:
    """What the guard of a turn has to know, whoever takes its decisions.

    `leased` is false for a lock that lapses with its last holder; `grace` is how long leftovers
    have to end before they are killed, in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        command: Command,
        page: Page,
        holder: str,
        turn_id: str,
        grace: float,
        *,
        leased: bool,
    ) -> None:
        self.settings = settings
        self.command = command
        self.page = page
        self.holder = holder
        self.turn_id = turn_id
        self.grace = grace
        self.leased = leased
        self.front = os.getpid()

    def jobs(self) -> Jobs | None:
        """What has the front follow the command, for whoever is its parent; None without a terminal."""
        if self.command.own_session:
            return None
        from singleton_run.jobs import Jobs

        return Jobs(self.page, self.front)

    def guard(self, tree: AnyTree, tell: Tell) -> Guard:
        """The decisions, for whoever is the command's parent."""
        return Guard(
            tree,
            tell,
            ttl=self.settings.ttl if self.leased else None,
            stop_signal=self.settings.stop_signal,
            grace=self.grace,
            leftovers=self.settings.leftovers,
        )

    def environ(self) -> dict[str, str]:
        """The command's environment, but for the token."""
        return for_command(os.environ, self.settings, token=0, holder=self.holder, turn_id=self.turn_id)


def run(task: Task, orders: int, tell: int, proof: int, lock: int, take: Take | None = None) -> None:
    """Be the guard until the turn's processes are gone, in a process forked for it.

    Orders are read from one descriptor, what happens is told on another, and "gone" on a third,
    which the keeper reads if the front has died. `lock` is kept open to the end. -1 is none.
    With `take`, first wait for the lock in it, tell "locked", and start without being ordered to.
    """
    os.setpgid(0, 0)
    system.become_subreaper()
    system.set_title(f"singleton-run: guard of {task.settings.name}")
    task.page.guard = os.getpid()
    signals = system.Signals({int(_signal.SIGCHLD)})
    timer = system.Timer()
    reader = Reader(orders)
    front = Writer(tell)
    listing = processes.hold_listing()
    tree = Tree(task.command, task.page, task.environ())
    guard = task.guard(tree, front.send)
    jobs = task.jobs()
    poll = select.poll()
    for descriptor in (orders, signals.descriptor, timer.descriptor):
        poll.register(descriptor, select.POLLIN)

    def obey(order: list[object]) -> None:
        now = system.now()
        if order[0] == "start":
            tree.environ["SINGLETON_TOKEN"] = str(order[1])
            tree.environ.update(of_slot(order[2:]))
            guard.start(now)
            system.close_standard(0, 1)
            system.keep_only([orders, tell, proof, lock, signals.descriptor, timer.descriptor, *listing])
        elif order[0] == "signal":
            if order[1] == _signal.SIGCONT and jobs is not None:
                jobs.go_on()
            guard.signal(int(str(order[1])))
        elif order[0] == "kill":
            guard.kill(now)

    if take is not None:
        grant = take()
        if task.page.over:
            return
        front.send("locked", grant.as_dict())
        obey(["start", grant.token])
    while guard.state != GONE and not (guard.state == IDLE and reader.closed):
        timer.set(guard.next_look(system.now()))
        poll.poll()
        timer.clear()
        guard.look(system.now())
        for order in reader.read():
            obey(order)
        if reader.closed and orders >= 0:
            poll.unregister(orders)
            orders = -1
            if guard.state not in (IDLE, GONE):
                last_words(f"the front of {task.settings.name!r} was killed, so its command is killed too")
                guard.kill(system.now())
        if signals.read():
            guard.children(system.now())
            if jobs is not None and not reader.closed:
                jobs.follow()
        if not front.flush():
            poll.register(tell, select.POLLOUT)
    if lock >= 0:
        os.close(lock)
    if proof >= 0:
        Writer(proof).send("gone")
    while not front.flush():
        system.wait_to_write(tell)
