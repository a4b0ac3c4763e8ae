"""A lock server with leases, and the network before it.

Requests get lost, come late or doubled, are done and not answered, by a server that restarts.
Every request names what it is about (holder and attempt, or token) and the server compares. A lease is
counted from when the request is applied, by the server's own clock. Neither a late `leave` nor a late
`acquire` of an attempt that was taken back may touch what a later attempt was given: the contract asks
it of every backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singleton_run.api.contract import Grant, Held
from singleton_run.api.control import ordered, paused, resumed
from singleton_run.errors import Failure, Lost, Unavailable
from tests.simulation import checks

if TYPE_CHECKING:
    from tests.simulation.keeper import Keeper
    from tests.simulation.world import World

FOREVER = float("inf")


class Request:
    """One request of a keeper's. `attempt` grows with every request of a machine."""

    __slots__ = ("answer", "answered", "attempt", "holder", "keeper", "kind", "token", "ttl")

    def __init__(self, keeper: Keeper, kind: str, token: int) -> None:
        self.keeper = keeper
        self.kind = kind
        self.token = token
        self.holder = keeper.trip.holder
        self.ttl = keeper.trip.wishes.ttl
        self.attempt = keeper.world.seq
        self.answered = False
        self.answer: object = None


class Server:
    """Who holds the lock (`holder`, `granted` its token, 0 for nobody) until `expires`, and who waits.

    `settled` is the token of the last release, whose record is beside the lock. `control` is what people ask.
    """

    __slots__ = (
        "attempt",
        "control",
        "down",
        "expires",
        "fifo",
        "granted",
        "holder",
        "queue",
        "rate",
        "settled",
        "slow",
        "token",
        "ttl",
        "watchers",
        "world",
    )

    def __init__(self, world: World) -> None:
        self.world = world
        self.rate = 1.0 + world.chance.uniform(-1e-4, 1e-4)
        self.fifo = world.chance.random() < 0.5
        self.down = False
        self.slow = False
        self.holder = ""
        self.granted = 0
        self.attempt = 0
        self.control: dict[str, Any] | None = None
        self.settled = 0
        self.token = 0
        self.ttl = 0.0
        self.expires = 0.0
        self.queue: dict[str, float] = {}
        self.watchers: dict[str, Keeper] = {}

    def send(self, request: Request) -> None:
        """Put a request on its way."""
        world = self.world
        luck = world.chance.random()
        if request.keeper.machine.cut or luck < 0.004:
            request.keeper.trip.unlucky = True
            return
        late = self._latency(request.keeper)
        if request.kind == "leave" and luck > 0.6:
            late += 20.0 * world.chance.random()
        world.at(world.now + late, self._receive, request)
        if luck < 0.009:
            late = self._latency(request.keeper) + 20.0 * world.chance.random()
            world.at(world.now + late, self._receive, request)

    def _latency(self, keeper: Keeper) -> float:
        luck = self.world.chance.random()
        if self.slow and luck < 0.5:
            return 10.0 * luck
        if luck < 0.985:
            return 0.0005 + 0.01 * luck
        keeper.trip.unlucky = True
        return 2.0 * self.world.chance.random() if luck < 0.997 else 60.0 * self.world.chance.random()

    def _receive(self, request: Request) -> None:
        if self.down:
            if self.world.chance.random() < 0.5:
                self._answer(request, Unavailable("the server is down"))
            return
        answer = getattr(self, f"_{request.kind}")(request)
        self.world.note("server", request.kind, "of", request.keeper, "->", _plain(answer))
        self._answer(request, answer)

    def _answer(self, request: Request, answer: object) -> None:
        chance = self.world.chance
        if request.keeper.alive and not request.keeper.machine.cut and chance.random() > 0.004:
            late = self._latency(request.keeper)
            if request.keeper.machine.fading:
                late += 5.0 * chance.random()
            self.world.at(self.world.now + late, request.keeper.answered, (request, answer))
        else:
            request.keeper.trip.unlucky = True

    def _acquire(self, request: Request) -> Grant | Held:
        holder = request.holder
        if self.holder == holder:
            self.attempt = max(self.attempt, request.attempt)
            self._extend(request.ttl)
            return self._grant()
        if self.holder or (self.fifo and self._first() not in ("", holder)):
            self.queue[holder] = self.world.now + request.ttl
            self.watchers[holder] = request.keeper
            until = request.keeper.machine.clock() + self.expires - self.world.now
            return Held(self.holder, "", None, until, control=self.control)
        self.queue.pop(holder, None)
        self.watchers.pop(holder, None)
        self.holder = holder
        self.token += 1
        self.granted = self.token
        self.attempt = request.attempt
        self.expires = 0.0
        self._extend(request.ttl)
        self.world.at(self.expires, self._lapse, self.granted)
        return self._grant()

    def _grant(self) -> Grant:
        return Grant("lock", self.holder, self.granted, self.ttl, {}, RECORD, control=self.control)

    def _extend(self, ttl: float) -> None:
        self.ttl = ttl
        self.expires = max(self.expires, self.world.now + ttl * self.rate)

    def _stay(self, request: Request) -> bool:
        """Keep a place in the queue; whether the lock may be free, or the place is gone."""
        if request.holder not in self.queue:
            return True
        self.queue[request.holder] = self.world.now + request.ttl
        self.watchers[request.holder] = request.keeper
        return not self.holder and (not self.fifo or self._first() == request.holder)

    def _renew(self, request: Request) -> Lost | dict[str, Any] | None:
        if not self._is_granted(request):
            return Lost("the lock is another's")
        self._extend(request.ttl)
        return self.control

    def _read(self, request: Request) -> tuple[None, dict[str, Any]]:
        return None, RECORD

    def _write(self, request: Request) -> Lost | None:
        if not self._is_granted(request):
            return Lost("the lock is another's")
        checks.written(self, request.token)
        return None

    def _release(self, request: Request) -> Lost | None:
        if request.token != self.granted:
            return Lost("the lock is another's")
        self.settled = request.token
        self._free()
        return None

    def _leave(self, request: Request) -> None:
        self.queue.pop(request.holder, None)
        self.watchers.pop(request.holder, None)
        if self.holder == request.holder and self._is_newer(request):
            self._free()
        else:
            self._tell()

    def _is_newer(self, request: Request) -> bool:
        """Whether a request was made after the attempt that was given the lock."""
        return request.attempt > self.attempt

    def _is_granted(self, request: Request) -> bool:
        """Whether a request is about the grant that holds now."""
        return request.token == self.granted

    def _free(self) -> None:
        checks.released(self.world, self.holder)
        self._drop()

    def _drop(self) -> None:
        self.holder = ""
        self.granted = 0
        self._tell()

    def _lapse(self, token: int) -> None:
        if token != self.granted or self.down:
            self.world.events -= 1
        elif self.world.now < self.expires:
            self.world.events -= 1
            self.world.at(self.expires, self._lapse, token)
        else:
            self.world.note("server", "the lease of", self.holder, "has lapsed")
            checks.lapses(self.world, self.holder)
            self._drop()

    def _first(self) -> str:
        for holder, until in list(self.queue.items()):
            if until > self.world.now:
                return holder
            del self.queue[holder]
        return ""

    def _tell(self) -> None:
        """Those who wait are told that the lock may be free: all, or the first in the queue."""
        if self.holder:
            return
        first = self._first() if self.fifo else ""
        for holder, keeper in list(self.watchers.items()):
            if (not self.fifo or holder == first) and self.world.chance.random() > 0.02:
                self.world.at(self.world.now + self._latency(keeper), keeper.notified, None)

    def steal(self) -> None:
        """Somebody deletes the key by hand."""
        if not self.holder:
            return
        for trip in self.world.trips:
            if trip.holder == self.holder:
                trip.stolen = True
                allowed = self.ttl * (1.0 + 1e-3) + 0.1
                self.world.at(self.world.now + allowed, checks.theft_is_known, trip)
        self.world.note("server", "the key of", self.holder, "is deleted")
        self._drop()

    def pause(self, span: float | None) -> None:
        """Somebody pauses the lock for so long, or until it is resumed."""
        now = self.world.now
        until = None if span is None else now + span
        self._steer(paused(self.control, by="somebody", at=now, until=until, reason=""))

    def resume(self, _: object = None) -> None:
        """Somebody ends the pause."""
        self._steer(resumed(self.control))

    def order(self) -> None:
        """Somebody orders that the holder give the lock back."""
        for trip in self.world.trips:
            if trip.holder == self.holder:
                checks.ordered(trip, self.granted)
        if self.holder:
            now = self.world.now
            self._steer(ordered(self.control, holder=self.holder, token=self.granted, by="somebody", at=now))

    def _steer(self, control: dict[str, Any]) -> None:
        """The control is replaced, and the holder's watch may tell of it."""
        self.control = control
        self.world.note("server", "is steered:", control)
        for trip in self.world.trips:
            if trip.holder == self.holder and trip.keeper is not None and self.world.chance.random() < 0.7:
                self.world.at(self.world.now + self._latency(trip.keeper), trip.keeper.steered, None)

    def stop(self) -> None:
        """The server goes down; what it had answered is kept, watches are not."""
        self.down = True
        self.watchers.clear()
        self.world.note("server", "down")

    def start(self, anew: object) -> None:
        """It comes back, with leases counted on or counted `anew`."""
        if not self.down:
            return
        self.down = False
        self.world.note("server", "up")
        if self.granted:
            if anew:
                self._extend(self.ttl)
            self.world.at(max(self.expires, self.world.now), self._lapse, self.granted)


# What earlier holders left; it changes no history.
RECORD: dict[str, Any] = {"token": 0, "state": "succeeded", "runs": []}


def _plain(answer: object) -> Any:
    if isinstance(answer, Grant):
        return f"token {answer.token}"
    if isinstance(answer, Held):
        return f"held by {answer.holder}"
    return str(answer) if isinstance(answer, Failure) else answer
