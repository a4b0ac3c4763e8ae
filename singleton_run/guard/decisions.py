"""What the guard decides: it is the parent of the command, and proves that a turn's processes are gone.

The command is its child, and as a child subreaper it becomes the parent of whatever the command
leaves behind, however that forked or hid. So `Tree.empty`, the kernel's word that there is no
child, is the proof; nothing is searched for and nothing can be overlooked.

No clock, no descriptor and no process is in here: they are handed in as a `Tree` and a `Tell`.
The front takes the same decisions for itself when the guard has been killed.
"""

from __future__ import annotations

from singleton_run import lease_times
from singleton_run.lease_times import FOREVER
from singleton_run.system.messages import GuardTells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from singleton_run.system.messages import Message

    Tell = Callable[[Message], object]

    class Tree(Protocol):
        """The command and its descendants, as their parent sees them."""

        def spawn(self) -> int:
            """Start the command; its process id. Raises OSError."""

        def reap(self) -> list[tuple[int, int]]:
            """Every child that has ended since: (process id, status as subprocess gives it)."""

        def empty(self) -> bool:
            """Whether there is no child any more, by the kernel's word."""

        def children(self) -> list[int]:
            """The children there are now; one that was just born may be missing."""

        def signal(self, process: int, number: int) -> bool:
            """Send a signal to a child; False if we may not."""

        def signal_command(self, number: int) -> bool:
            """Send a signal to the command, with its process group where it has its own."""

        def name(self, process: int) -> str:
            """What the process calls itself, for the log."""

        def lease_end(self) -> float:
            """When the lease lapses, a reading of the boot clock; infinite without one."""


KILL = 9
IDLE, RUNNING, LEFTOVERS, GONE = "idle", "running", "leftovers", "gone"
AGAIN = 0.1
STUCK_AFTER = 5.0
MOST_NAMED = 50


class Guard:
    """One turn of the guard. Each method is an event; what it decides goes to `tree` and `tell`.

    `tell` is given "started" pid | "failed" errno | "late" | "expired" | "ended" status |
    "leftover" pid name |
    "more leftovers" | "forbidden" pid name | "stuck" pid name | "gone" proved. `grace` is in
    seconds, `ttl` is None without a lease.
    """

    def __init__(
        self,
        tree: Tree,
        tell: Tell,
        *,
        ttl: float | None,
        stop_signal: int,
        grace: float,
        leftovers: str,
    ) -> None:
        self.tree = tree
        self.tell = tell
        self.ttl = ttl
        self.stop_signal = stop_signal
        self.grace = grace
        self.leftovers = leftovers
        self.state = IDLE
        self.command = 0
        self.killing = False
        self.say_stuck_at = FOREVER
        self.kill_leftovers_at = FOREVER
        self.asked: set[int] = set()
        self.named = 0
        self.forbidden: set[int] = set()

    def start(self, now: float) -> None:
        """Start the command, unless its lease is already so old that it would have to stop."""
        if self.state != IDLE:
            return
        if self.ttl is not None and now >= lease_times.stop_at(self.tree.lease_end(), self.ttl):
            self.tell(GuardTells.late())
            return
        try:
            self.command = self.tree.spawn()
        except OSError as error:
            self.tell(GuardTells.failed(error.errno or 0))
            return
        self.state = RUNNING
        self.tell(GuardTells.started(self.command))

    def adopt(self, command: int, now: float) -> None:
        """Go on with a tree whose guard was killed; `command` is 0 if it has ended or is unknown."""
        self.command = command
        self.state = RUNNING if command else LEFTOVERS
        self.children(now)
        if self.state == LEFTOVERS:
            self._leftovers(now)

    def signal(self, number: int) -> None:
        """Pass a signal on to the command, or to what it left behind."""
        if self.state == RUNNING and not self.tree.signal_command(number):
            self._say_forbidden(self.command)
        elif self.state == LEFTOVERS:
            for process in self.tree.children():
                self._send(process, number)

    def kill(self, now: float) -> None:
        """SIGKILL to everything, again and again, until nothing is left."""
        if not self.killing:
            self.killing = True
            self.say_stuck_at = now + STUCK_AFTER
        self.children(now)

    def children(self, now: float) -> None:
        """Some child has ended, or may have."""
        for process, status in self.tree.reap():
            self.asked.discard(process)
            if process == self.command and self.state == RUNNING:
                self.state = LEFTOVERS
                self.tell(GuardTells.ended(status))
        if self.state in (RUNNING, LEFTOVERS) and self.tree.empty():
            self._gone(proved=True)
        elif self.killing:
            self._kill_all()
        elif self.state == LEFTOVERS:
            self._leftovers(now)

    def look(self, now: float) -> None:
        """It is later now: enforce what was due."""
        leased_out = self.ttl is not None and now >= lease_times.kill_at(self.tree.lease_end(), self.ttl)
        if leased_out and self.state == RUNNING and not self.killing:
            self.tell(GuardTells.expired())
        if self.state in (RUNNING, LEFTOVERS) and (
            self.killing or leased_out or now >= self.kill_leftovers_at
        ):
            self.kill(now)
        if self.state in (RUNNING, LEFTOVERS) and now >= self.say_stuck_at:
            self.say_stuck_at = FOREVER
            for process in self.tree.children()[:MOST_NAMED]:
                self.tell(GuardTells.stuck(process, self.tree.name(process)))

    def next_look(self, now: float) -> float:
        """When `look` has something to do next, a reading of the boot clock."""
        if self.state not in (RUNNING, LEFTOVERS):
            return FOREVER
        if self.killing:
            return now + AGAIN
        leased = FOREVER if self.ttl is None else lease_times.kill_at(self.tree.lease_end(), self.ttl)
        return min(leased, self.kill_leftovers_at)

    def _leftovers(self, now: float) -> None:
        if self.leftovers == "ignore":
            self._gone(proved=False)
            return
        for process in self.tree.children():
            if process not in self.asked:
                self.asked.add(process)
                self._say_leftover(process)
                if self.leftovers == "kill":
                    self._send(process, self.stop_signal)
        if self.leftovers == "kill" and self.kill_leftovers_at == FOREVER:
            self.kill_leftovers_at = now + self.grace

    def _say_leftover(self, process: int) -> None:
        self.named += 1
        if self.named < MOST_NAMED:
            self.tell(GuardTells.leftover(process, self.tree.name(process)))
        elif self.named == MOST_NAMED:
            self.tell(GuardTells.more_leftovers())

    def _kill_all(self) -> None:
        if self.state == RUNNING:
            self.tree.signal_command(KILL)
        for process in self.tree.children():
            self._send(process, KILL)

    def _send(self, process: int, number: int) -> None:
        if not self.tree.signal(process, number):
            self._say_forbidden(process)

    def _say_forbidden(self, process: int) -> None:
        if process not in self.forbidden:
            self.forbidden.add(process)
            self.tell(GuardTells.forbidden(process, self.tree.name(process)))

    def _gone(self, *, proved: bool) -> None:
        self.state = GONE
        self.tell(GuardTells.gone(proved=proved))
