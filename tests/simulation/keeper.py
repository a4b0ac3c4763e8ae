"""The keeper's process: carries out the operations that `singleton_run.keeper.decisions` yields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singleton_run.api.contract import Grant
from singleton_run.errors import Failure, Unavailable
from singleton_run.job import Job
from singleton_run.keeper import decisions as keeper_decisions
from singleton_run.keeper.operations import Operation, Orders, Result
from singleton_run.system.messages import KeeperOrders, deliver
from tests.simulation import checks
from tests.simulation.machine import Process
from tests.simulation.server import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.simulation.guard import GuardProcess
    from tests.simulation.trip import Trip

KILL = 9
ENFORCE_LIMIT = 5.0
AGAIN = 0.1
LOAD = 0.3


class Keeper(Process):
    """A keeper: `above` is the guard that it forked, if it did."""

    __slots__ = (
        "above",
        "began",
        "breaks",
        "enforcing",
        "has_enforced",
        "heard_dead",
        "heard_gone",
        "inbox",
        "loaded_at",
        "news",
        "op",
        "orders",
        "outbox",
        "request",
        "stay_at",
        "steps",
        "until",
        "value",
    )

    def __init__(self, trip: Trip, grant: Grant | None, above: GuardProcess | None) -> None:
        self.above = above
        super().__init__(trip, "keeper")
        self.orders = Orders()
        self.inbox: list[tuple[Any, ...]] = []
        self.outbox: list[tuple[Any, ...]] = []
        self.heard_gone = False
        self.heard_dead = False
        self.news = False
        self.op = ""
        self.began = 0.0
        self.until = 0.0
        self.value: object = None
        self.stay_at = 0.0
        self.request: Request | None = None
        self.breaks = False
        self.enforcing = False
        self.has_enforced = False
        self.loaded_at = 0.0
        resumed = None if grant is None else (Grant(**grant.as_dict()), trip.end)
        job = Job("lock", trip.holder, trip.wishes.ttl, trip.front.turn.wait.until)
        self.steps: Generator[Operation, Result, None] = keeper_decisions.lifecycle(job, self.orders, resumed)
        self.wake()

    def run(self) -> None:
        """Go on if the operation that is under way has ended."""
        if not self.loaded_at:
            self._load()
        elif not self.op:
            if self.machine.clock() >= self.loaded_at:
                self._go_on(None)
        else:
            done = self._outcome()
            if done is not None:
                self._finish(done)

    def answered(self, arrived: tuple[Request, object]) -> None:
        """The network brings an answer; one that nobody waits for any more is dropped."""
        request, answer = arrived
        if self.request is request and not request.answered:
            request.answered = True
            request.answer = answer
            self.wake()
        else:
            self.world.events -= 1

    def notified(self, _: object) -> None:
        """The server says that the lock may be free."""
        if self.op == "wait" and not self.machine.cut:
            self.news = True
            self.wake()

    def steered(self, _: object) -> None:
        """The server says that the control has changed."""
        if self.op == "hold" and not self.machine.cut:
            self.news = True
            self.wake()

    def _load(self) -> None:
        """Fork the guard at once, then load a backend."""
        if self.above is not None:
            self.step()
            self.above.be_born()
        self.loaded_at = self.machine.clock() + LOAD * self.world.chance.random()
        self.set_timer(self.loaded_at)

    def _listen(self) -> None:
        orders, trip = self.orders, self.trip
        for message in self.inbox:
            deliver(message, KeeperOrders, orders)
        self.inbox.clear()
        if trip.gone_said:
            self.heard_gone = True
            orders.nothing_runs = True
        if not trip.front.alive:
            if not orders.no_front:
                trip.guard.resume()
            orders.no_front = True
            if not trip.guard.alive and not self.heard_dead:
                self.heard_dead = True
                orders.nothing_runs = orders.nothing_runs or not trip.started
                orders.unguarded = not orders.nothing_runs
        if self._has_orphans():
            self._kill_children()

    def _unread(self) -> bool:
        """Whether a descriptor that wakes an operation is readable."""
        trip = self.trip
        if self.inbox or (trip.gone_said and not self.heard_gone):
            return True
        if trip.front.alive:
            return False
        return not self.orders.no_front or (not trip.guard.alive and not self.heard_dead)

    def _finish(self, done: Result) -> None:
        self.world.visit("keeper", self.op, _outcome_name(done))
        self.world.note(self, self.op, "->", _outcome_name(done))
        self._listen()
        self._go_on(done)

    def _go_on(self, done: Result | None) -> None:
        while True:
            try:
                do = next(self.steps) if done is None else self.steps.send(done)
            except StopIteration:
                self.world.note(self, "has done its work")
                self.die()
                return
            self.step()
            self.op = do.name
            self.began = self.machine.clock()
            begin: Callable[..., bool] = getattr(self, f"_{do.name}")
            if not begin(*do.arguments):
                return
            self.world.visit("keeper", do.name, "done")
            self._listen()
            done = Result(self.began, self.machine.clock(), self.value)
            self.value = None

    # How each operation begins; true if it is done already.

    def _ask(self, kind: str, limit: float, token: int = 0) -> bool:
        self.request = Request(self, kind, token)
        self.world.server.send(self.request)
        self.until = self.began + limit
        self.set_timer(self.until)
        self.step()
        return False

    def _acquire(self, limit: float) -> bool:
        self.news = False
        return self._ask("acquire", limit)

    def _leave(self, limit: float) -> bool:
        return self._ask("leave", limit)

    def _renew(self, grant: Grant, limit: float) -> bool:
        return self._ask("renew", limit, grant.token)

    def _prepare(self, grant: Grant) -> bool:
        grant.record = {"token": grant.token, "state": "running", "runs": []}
        return True

    def _read(self, limit: float) -> bool:
        return self._ask("read", limit)

    def _release(self, grant: Grant, _record: object, limit: float) -> bool:
        checks.releases(self.trip)
        return self._ask("release", limit, grant.token)

    def _hold(self, _grant: Grant, until: float) -> bool:
        """A watch: now and then it ends early, and now and then because it has broken."""
        luck = self.world.chance.random()
        if luck < 0.03:
            until = self.began + (until - self.began) * self.world.chance.random()
        self.breaks = luck < 0.015
        self.news = False
        return self._sleep(until)

    def _sleep(self, until: float) -> bool:
        self.request = None
        self.until = until
        self.set_timer(until)
        return self._unread() or self.began >= until

    def _wait(self, _held: object, until: float) -> bool:
        if self._sleep(until) or self.news:
            return True
        self.stay_at = self.began + self.trip.wishes.ttl / 3
        self.set_timer(min(self.until, self.stay_at))
        return False

    def _write(self, grant: Grant, _record: object, limit: float) -> bool:
        return self._ask("write", limit, grant.token)

    def _clock(self) -> bool:
        """The server's time."""
        self.value = self.world.now, 0.0
        return True

    def _report(self, end: float) -> bool:
        trip = self.trip
        trip.end = max(trip.end, end)
        trip.reported = self.machine.clock()
        return True

    def _tell(self, *message: Any) -> bool:
        self.world.note(self, "tells", *message[:1])
        if message[0] == "granted":
            self.trip.token = message[1]["token"]
            checks.granted(self.trip)
        self.outbox.append(message)
        self.trip.front.wake()
        return True

    def _wake(self) -> bool:
        self.world.note(self, "wakes front and guard")
        self.trip.front.resume()
        self.trip.guard.resume()
        return True

    def _enforce(self) -> bool:
        self.world.note(self, "enforces")
        self.enforcing = True
        self.has_enforced = True
        self.until = self.began + ENFORCE_LIMIT
        if self.trip.guard.alive:
            self.trip.guard.kill_soon()
        if self.trip.command:
            self.trip.tree.signal(self.trip.command, KILL)
        return self._enforced()

    def _enforced(self) -> bool:
        """Whether what has fallen to us is all gone, or the time is up."""
        none_left = self._kill_children()
        now = self.machine.clock()
        self.enforcing = not none_left and now < self.until
        self.set_timer(min(now + AGAIN, self.until))
        return not self.enforcing

    def _kill_children(self) -> bool:
        """Reap and kill what has fallen to us; true if nothing is left, which may be the proof."""
        trip, tree = self.trip, self.trip.tree
        tree.reap(self)
        for task in tree.children_of(self):
            task.signal(KILL)
        guard_gone = self.above is None or not self.above.alive
        none_left = guard_gone and tree.none_below(self)
        if none_left and self.heard_dead and self._is_above():
            self.orders.nothing_runs = True
            trip.proved = tree.reaper is self
        return none_left

    def _has_orphans(self) -> bool:
        """Whether something may still fall to us that was not there when we killed."""
        return self.has_enforced and not self.enforcing and self.heard_dead and not self.orders.nothing_runs

    def _is_above(self) -> bool:
        """Whether the guard that died last was our child, so that what it left fell to us."""
        return self.above is self.trip.guard

    # How each ends.

    def _outcome(self) -> Result | None:
        if self.enforcing:
            self._listen()
            return self._done() if self._enforced() else None
        if self.op == "wait":
            return self._waited()
        if self.request is not None:
            return self._replied()
        if self._unread() or (self.op == "hold" and self.news):
            return self._done()
        if self.machine.clock() < self.until:
            return None
        broken = self.op == "hold" and self.breaks
        return self._done(error=Unavailable("the watch is broken") if broken else None)

    def _done(self, result: object = None, error: Failure | None = None) -> Result:
        self.request = None
        return Result(self.began, self.machine.clock(), result, error)

    def _replied(self) -> Result | None:
        """An answer that has come in time, or at a time of our own stand-still: both are possible."""
        request = self.request
        late = self.machine.clock() >= self.until
        if request is None or not (request.answered or late):
            return None
        if not request.answered or (late and self.world.chance.random() < 0.5):
            return self._done(error=Unavailable("no answer"))
        if isinstance(request.answer, Failure):
            return self._done(error=request.answer)
        answer: Any = request.answer
        if request.kind == "renew" or isinstance(answer, Grant):
            self.trip.shown = answer.control if isinstance(answer, Grant) else answer
        return self._done(answer)

    def _waited(self) -> Result | None:
        now = self.machine.clock()
        if self.news or self._unread() or now >= self.until:
            return self._done()
        if self.request is None:
            if now >= self.stay_at:
                self.request = Request(self, "stay", 0)
                self.world.server.send(self.request)
                self.stay_at = now + self.trip.wishes.ttl / 6
                self.set_timer(min(self.until, self.stay_at))
            return None
        if not self.request.answered:
            return self._done(error=Unavailable("the watch is broken")) if now >= self.stay_at else None
        answer = self.request.answer
        if answer is not False:
            return self._done(error=answer if isinstance(answer, Failure) else None)
        self.request = None
        self.stay_at = now + self.trip.wishes.ttl / 3
        self.set_timer(min(self.until, self.stay_at))
        return None


def _outcome_name(done: Result) -> str:
    if done.error is not None:
        return type(done.error).__name__
    return "done" if done.value is None else type(done.value).__name__
