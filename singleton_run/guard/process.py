"""The guard's process: the loop around the decisions of `guard.Guard`."""

from __future__ import annotations

import os
import select

from singleton_run.guard.command_environment import changed, for_command, given, of_slot
from singleton_run.guard.decisions import GONE, IDLE, Guard
from singleton_run.system import calls, pipes, processes
from singleton_run.system.messages import GuardOrders, GuardTells, Proof, deliver
from singleton_run.system.pipes import Reader, Writer
from singleton_run.system.processes import Command, Tree
from singleton_run.system.stderr import last_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from singleton_run.api.contract import Grant
    from singleton_run.call.settings import Settings
    from singleton_run.guard.decisions import Tell
    from singleton_run.guard.decisions import Tree as AnyTree
    from singleton_run.guard.job_control import Jobs
    from singleton_run.system.messages import Message
    from singleton_run.system.shared_page import Page

    Take = Callable[[], Grant | None]
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

    def jobs(self, poll: select.poll | None = None) -> Jobs | None:
        """What has the front follow the command, for whoever is its parent; None without a terminal."""
        if self.command.own_session:
            return None
        from singleton_run.guard.job_control import Jobs

        return Jobs(self.page, self.front, poll)

    def guard(self, tree: AnyTree, tell: Tell) -> Guard:
        """The decisions, for whoever is the command's parent."""
        return Guard(
            tree if pipes.tracer is None else pipes.tracer.tree(tree),
            tell,
            ttl=self.settings.ttl if self.leased else None,
            stop_signal=self.settings.stop_signal,
            grace=self.grace,
            leftovers=self.settings.leftovers,
        )

    def environ(self) -> list[bytes]:
        """The command's environment, but for the token."""
        return for_command(given(), self.settings, token=0, holder=self.holder, turn_id=self.turn_id)


def run(
    task: Task,
    orders: int,
    tell: int,
    proof: int,
    lock: int,
    take: Take | None = None,
    orphaned: Callable[[], None] | None = None,
) -> None:
    """Be the guard until the turn's processes are gone, in a process forked for it.

    Orders are read from one descriptor, what happens is told on another, and "gone" on a third,
    which the keeper reads if the front has died. `lock` is kept open until nothing is left. -1 is none.
    With `take`, first wait for the lock in it, tell "locked", and start without being ordered to; it gives
    None if the front has stopped waiting. `orphaned` is called before the lock is given back if the front
    has died.
    """
    if task.command.leaves_group:
        os.setpgid(0, 0)
    calls.become_subreaper()
    calls.set_title(f"singleton-run: guard of {task.settings.name}")
    if pipes.tracer is not None:
        pipes.tracer.become("guard")
    task.page.guard = os.getpid()
    process = _Process(task, orders, tell, proof, lock, orphaned)
    if take is not None:
        grant = take()
        if grant is None or task.page.over:
            return
        process.front.send(GuardTells.locked(grant.as_dict()))
        process.start(grant.token, None, None)
    process.loop()
    if proof >= 0:
        Writer(proof).send(Proof.gone())
    while not process.front.flush():
        calls.wait_to_write(tell)


class _Process:
    """Hands orders, signals and time to the guard, and what it tells to the front."""

    def __init__(
        self,
        task: Task,
        orders: int,
        tell: int,
        proof: int,
        lock: int,
        orphaned: Callable[[], None] | None,
    ) -> None:
        self.name = task.settings.name
        self.page = task.page
        self.orphaned = orphaned
        self.proof = proof
        self.lock = lock
        self.signals = calls.Signals({int(_signal.SIGCHLD)})
        self.timer = calls.Timer()
        self.reader = Reader(orders)
        self.front = Writer(tell)
        self.listing = processes.hold_listing()
        self.tree = Tree(task.command, task.page, task.environ())
        self.guard = task.guard(self.tree, self.tell)
        self.poll = select.poll()
        self.jobs = task.jobs(self.poll)
        for descriptor in (orders, self.signals.descriptor, self.timer.descriptor):
            self.poll.register(descriptor, select.POLLIN)

    def tell(self, message: Message) -> None:
        """Tell the front. It may exit when nothing is left, and then the lock has to be free."""
        if message[0] in ("gone", "failed") and self.lock >= 0:
            if self.orphaned is not None and self.reader.closed:
                self.orphaned()
            os.close(self.lock)
            self.lock = -1
        self.front.send(message)

    def loop(self) -> None:
        """Go on until the turn's processes are gone, or nobody is there to order a start."""
        guard, reader = self.guard, self.reader
        while guard.state != GONE and not (guard.state == IDLE and reader.closed):
            self.timer.set(guard.next_look(calls.now()))
            self.poll.poll()
            self.timer.clear()
            # First what has happened, then the clock, as it was before: we may be stopped over a deadline.
            now = calls.now()
            if self.signals.read():
                guard.children(calls.now())
            guard.look(now)
            was_closed = reader.closed
            for order in reader.read():
                self.page.heard += 1
                deliver(order, GuardOrders, self)
            if reader.closed and not was_closed:
                self.front_died()
            if self.jobs is not None and not reader.closed:
                self.jobs.follow()
            if not self.front.flush():
                self.poll.register(self.front.descriptor, select.POLLOUT)

    def front_died(self) -> None:
        """Without the front the command has to end, and the terminal is no matter of ours."""
        self.poll.unregister(self.reader.descriptor)
        if self.guard.state not in (IDLE, GONE):
            last_words(f"the front of {self.name!r} was killed, so its command is killed too")
            self.guard.kill(calls.now())

    # The front's orders, `messages.GuardOrders`; any of them also wakes a guard that was stopped.

    def start(self, token: int, slot: float | None, attempt: int | None) -> None:
        """Start the command, and keep no descriptor that is for it."""
        told = of_slot((slot, attempt)) if attempt is not None else {}
        self.tree.environ = changed(self.tree.environ, {"SINGLETON_TOKEN": str(token), **told})
        self.guard.start(calls.now())
        calls.close_standard(0, 1)
        calls.leave_directory()
        ends = (self.reader.descriptor, self.front.descriptor, self.proof)
        own = (self.signals.descriptor, self.timer.descriptor, *self.listing)
        calls.keep_only([*ends, self.lock, *own, *pipes.traced_to()])

    def signal(self, number: int) -> None:
        """Pass a signal on to the command."""
        if number == _signal.SIGCONT and self.jobs is not None:
            self.jobs.go_on()
        self.guard.signal(number)

    def kill(self) -> None:
        """Kill everything."""
        self.guard.kill(calls.now())

    def wake(self) -> None:
        """The SIGCONT was all."""

    def unknown(self, name: str) -> None:
        """An order that this version does not know."""
        last_words(f"the guard of {self.name!r} does not know the order {name!r}")
