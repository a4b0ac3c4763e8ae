"""The guard's process: the loop around the decisions of `guard.decisions`."""

from __future__ import annotations

import posix as os
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
    from collections.abc import Callable, Mapping

    from singleton_run.api.contract import Grant
    from singleton_run.call.settings import Settings
    from singleton_run.guard.decisions import Tell
    from singleton_run.guard.decisions import Tree as AnyTree
    from singleton_run.guard.job_control import Jobs
    from singleton_run.guard.output import Output
    from singleton_run.system.messages import Message
    from singleton_run.system.shared_page import Page

    Take = Callable[[int, Tell], Grant | None]
else:
    import _signal


class Task:
    """What a guard has to know of its turn. The front has it too, because it may take the guard's place.

    `leased` is false for a lock that the kernel frees when its last holder is gone. `grace` is how long
    leftovers have between stop signal and SIGKILL, in seconds. `variables` are put into the command's
    environment before our own. `output` passes on what the command prints, None where that needs no help.
    `take_back` gives up our place in the lock's queue in the place of a dead keeper, None without one.
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
        variables: Mapping[str, str],
    ) -> None:
        self.settings = settings
        self.command = command
        self.page = page
        self.holder = holder
        self.turn_id = turn_id
        self.grace = grace
        self.leased = leased
        self.variables = variables
        self.front = os.getpid()
        self.output: Output | None = None
        self.take_back: Callable[[], None] | None = None

    def jobs(self, poll: select.poll | None = None) -> Jobs | None:
        """The job control of the command's parent (see `job_control`); None without a terminal."""
        if self.command.own_session:
            return None
        from singleton_run.guard.job_control import Jobs

        return Jobs(self.page, self.front, poll)

    def guard(self, tree: AnyTree, tell: Tell) -> Guard:
        """The decisions of the command's parent."""
        return Guard(
            tree if pipes.tracer is None else pipes.tracer.tree(tree),
            tell,
            ttl=self.settings.ttl if self.leased else None,
            stop_signal=self.settings.stop_signal,
            grace=self.grace,
            leftovers=self.settings.leftovers,
        )

    def environ(self) -> list[bytes]:
        """The command's environment. The token is not known yet: it is 0."""
        entries = changed(given(), self.variables) if self.variables else given()
        return for_command(entries, self.settings, token=0, holder=self.holder, turn_id=self.turn_id)


def run(
    task: Task,
    orders: int,
    tell: int,
    proof: int,
    lock_descriptor: int,
    take: Take | None = None,
    orphaned: Callable[[], None] | None = None,
) -> None:
    """Be the guard until the turn's processes are gone, in a process forked for it.

    The guard reads orders from the descriptor `orders` and tells the front what happens on `tell`. On `proof`
    it says "gone" to the keeper, which reads it only if the front has died. `lock_descriptor` holds a lock of
    the kernel's: it stays open until nothing of the turn is left. Each of these two is -1 if there is none.

    `take` waits for a lock of the kernel's, or until `orders` are readable: then the front has died. It tells
    of a pause. It returns None if there is nothing to start any more. The guard then
    tells "locked" and starts the command without an order. `orphaned` is called before the lock is given
    back, if the front has died.
    """
    if task.command.leaves_group:
        os.setpgid(0, 0)
    calls.become_subreaper()
    calls.set_title(f"singleton-run: guard of {task.settings.name}")
    if pipes.tracer is not None:
        pipes.tracer.become("guard")
    task.page.guard = os.getpid()
    process = _Process(task, orders, tell, proof, lock_descriptor, orphaned)
    if take is not None:
        grant = take(orders, process.tell)
        if grant is None or task.page.over:
            return
        process.front.send(GuardTells.locked(grant.as_dict()))
        process.start(grant.token, None, None)
    process.loop()
    if proof >= 0:
        Writer(proof).send(Proof.gone())
    while not process.front.flush():
        calls.wait_to_write(tell)
    # To give our memory back takes the kernel half a millisecond. The front, just woken, is first.
    os.sched_yield()
    if task.take_back is not None and process.is_forsaken():
        task.take_back()


class _Process:
    """Hands orders, signals and time to the guard's decisions, and sends their messages to the front."""

    def __init__(
        self,
        task: Task,
        orders: int,
        tell: int,
        proof: int,
        lock_descriptor: int,
        orphaned: Callable[[], None] | None,
    ) -> None:
        self.name = task.settings.name
        self.ttl = task.settings.ttl
        self.page = task.page
        self.orphaned = orphaned
        self.proof = proof
        self.lock_descriptor = lock_descriptor
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
        """Send a message to the front. When it exits after the last one, the lock has to be free already."""
        if message[0] in ("gone", "failed") and self.lock_descriptor >= 0:
            if self.orphaned is not None and self.reader.closed:
                self.orphaned()
            os.close(self.lock_descriptor)
            self.lock_descriptor = -1
        self.front.send(message)

    def loop(self) -> None:
        """Go on until no process of the turn is left, or the front has died before it ordered a start."""
        guard, reader = self.guard, self.reader
        while guard.state != GONE and not (guard.state == IDLE and reader.closed):
            self.timer.set(guard.next_look(calls.now()))
            self.poll.poll()
            self.timer.clear()
            # First hear what has happened, then enforce deadlines, by the clock as it was before. If we were
            # stopped until after a deadline, the command may have ended in time.
            now = calls.now()
            if self.signals.read():
                guard.children(calls.now())
            guard.look(now)
            was_closed = reader.closed
            for order in reader.read():
                self.page.orders_read += 1
                deliver(order, GuardOrders, self)
            if reader.closed and not was_closed:
                self.front_died()
            if self.jobs is not None and not reader.closed:
                self.jobs.follow()
            if not self.front.flush():
                self.poll.register(self.front.descriptor, select.POLLOUT)

    def front_died(self) -> None:
        """The front has died: the command has to end."""
        self.poll.unregister(self.reader.descriptor)
        if self.guard.state not in (IDLE, GONE):
            last_words(f"the front of {self.name!r} was killed, so its command is killed too")
            self.guard.kill(calls.now())

    def is_forsaken(self) -> bool:
        """Whether front and keeper were killed, and nothing was started: nobody gives our place up.

        A keeper that lives is waited for. One that hangs renews nothing, so our place ends by itself.
        """
        if self.guard.state != IDLE or self.page.over:
            return False
        calls.keep_only([self.proof, *pipes.traced_to()])  # who reads the caller's output doesn't wait for us
        calls.close_standard(0, 1)
        # The keeper has the last end to read from, so its death is an error of ours.
        ended = calls.wait(calls.now() + self.ttl, [self.proof])
        return bool(ended) and not self.page.over

    # The front's orders, `messages.GuardOrders`. Each comes with a SIGCONT, which wakes a stopped guard.

    def start(self, token: int, slot: float | None, attempt: int | None) -> None:
        """Start the command, and close our copies of its descriptors."""
        told = of_slot((slot, attempt)) if attempt is not None else {}
        self.tree.environ = changed(self.tree.environ, {"SINGLETON_TOKEN": str(token), **told})
        self.guard.start(calls.now())
        calls.close_standard(0, 1)
        calls.leave_directory()
        ends = (self.reader.descriptor, self.front.descriptor, self.proof)
        own = (self.signals.descriptor, self.timer.descriptor, *self.listing)
        calls.keep_only([*ends, self.lock_descriptor, *own, *pipes.traced_to()])

    def signal(self, number: int) -> None:
        """Pass a signal on to the command."""
        if number == _signal.SIGCONT and self.jobs is not None:
            self.jobs.go_on()
        self.guard.signal(number)

    def kill(self) -> None:
        """Kill the command and all its descendants."""
        self.guard.kill(calls.now())

    def wake(self) -> None:
        """Do nothing: the SIGCONT has woken us."""

    def unknown(self, name: str) -> None:
        """Say that this version does not know an order."""
        last_words(f"the guard of {self.name!r} does not know the order {name!r}")
