"""Bugs made by hand: small patches to the decisions, or to what surrounds them; each must be caught.

A bug that another layer of defence makes harmless would prove nothing here, so where two layers do the
same work the bug takes away both.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from singleton_run import lease_times
from singleton_run.errors import LOST
from singleton_run.front.decisions import RUNNING, STARTING, Turn
from singleton_run.front.ending import Ending
from singleton_run.front.keeper_watch import KeeperWatch
from singleton_run.guard import decisions as guard_decisions
from singleton_run.guard.decisions import Guard
from singleton_run.keeper import decisions as keeper_decisions
from singleton_run.keeper import pausing
from singleton_run.keeper.acquiring import acquire
from singleton_run.keeper.operations import Orders, Result
from singleton_run.system.messages import GuardTells
from tests.simulation import keeper as keeper_process
from tests.simulation.front import Front, _Adopted
from tests.simulation.guard import GuardProcess
from tests.simulation.keeper import Keeper
from tests.simulation.machine import Machine
from tests.simulation.server import Request, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from singleton_run.api.contract import Grant, Held
    from singleton_run.errors import Failure
    from tests.simulation.world import World

    Patch = tuple[object, str, object]

FOREVER = float("inf")
_ENDLESS = {"by": "", "at": 0.0, "until": None, "reason": ""}


def _release_before_proof() -> list[Patch]:
    """The command itself has ended, and that is taken for the end of all."""
    real = Turn.guard_ended

    def guard_ended(self: Turn, status: int) -> None:
        real(self, status)
        self._gone()

    return [(Turn, "guard_ended", guard_ended)]


def _end_from_the_answer() -> list[Patch]:
    """The lease is counted from when the answer came, not from before the request."""

    def done(self: Keeper, result: object = None, error: Failure | None = None) -> Result:
        self.request = None
        now = self.machine.clock()
        return Result(now, now, result, error)

    return [(Keeper, "_done", done)]


def _renew_without_compare() -> list[Patch]:
    """The server renews whatever lease there is."""

    def renew(self: Server, request: Request) -> None:
        self._extend(request.ttl)

    return [(Server, "_renew", renew)]


def _late_release_of_an_old_grant() -> list[Patch]:
    """The server releases without looking whose grant it was."""

    def release(self: Server, _request: Request) -> None:
        if self.holder:
            self._free()

    return [(Server, "_release", release)]


def _acquired_again_but_not_extended() -> list[Patch]:
    """Who holds already is given the same grant again, without its lease being counted anew."""
    real = Server._acquire  # noqa: SLF001 - the simulation's own

    def acquire(self: Server, request: Request) -> Grant | Held:
        return self._grant() if self.holder == request.holder else real(self, request)

    return [(Server, "_acquire", acquire)]


def _clock_that_sleeps() -> list[Patch]:
    """CLOCK_MONOTONIC for CLOCK_BOOTTIME: it stands still while the machine is frozen."""
    real, real_true_time = Machine.clock, Machine.true_time

    def clock(self: Machine) -> float:
        return real(self) - self.frozen_for * self.rate

    def true_time(self: Machine, reading: float) -> float:
        return real_true_time(self, reading) + self.frozen_for

    return [(Machine, "clock", clock), (Machine, "true_time", true_time)]


def _wall_clock() -> list[Patch]:
    """A clock that somebody sets: back by 20 s, and forward again, every 50 s."""
    real, real_true_time = Machine.clock, Machine.true_time

    def leap(world: World) -> float:
        return 20.0 * (int(world.now / 50.0) % 2)

    def clock(self: Machine) -> float:
        return real(self) - leap(self.world)

    def true_time(self: Machine, reading: float) -> float:
        return real_true_time(self, reading + leap(self.world))

    return [(Machine, "clock", clock), (Machine, "true_time", true_time)]


def _two_keepers() -> list[Patch]:
    """A keeper is replaced without waiting for the old one's end."""

    def kill(self: KeeperWatch) -> None:
        self._effects.kill_keeper()
        self.died()
        self.fork_at = 0.0

    return [(KeeperWatch, "kill", kill)]


def _stop_without_kill() -> list[Patch]:
    """The stop signal is all that a command ever gets."""
    return [(lease_times, name, lambda _end, _ttl: FOREVER) for name in ("kill_at", "enforce_at")]


def _hang_never_noticed() -> list[Patch]:
    """A stopped keeper is waited for, however long that takes."""
    return [(lease_times, "hangs_at", lambda _end, _ttl, _reported: FOREVER)]


def _guard_deaf_to_the_fronts_death() -> list[Patch]:
    """End-of-file on the front's pipe means nothing to the guard."""
    return [(GuardProcess, "_front_died", lambda _self: None)]


def _front_dead_so_release() -> list[Patch]:
    """The keeper releases when the front has died, without the guard's word."""
    return [(Orders, "over", lambda self: self.leaving or self.record is not None or self.no_front)]


def _any_echild_is_proof() -> list[Patch]:
    """A keeper that was never above the guard believes that it has no children."""
    return [(Keeper, "_is_above", lambda _self: True)]


def _enforced_once() -> list[Patch]:
    """The keeper kills the children that it sees, and doesn't look again for one born meanwhile."""
    return [(keeper_process, "AGAIN", FOREVER), (Keeper, "_has_orphans", lambda _self: False)]


def _emptiness_by_looking() -> list[Patch]:
    """The adopting front believes the list of children, and leaves its keeper be."""
    return [(_Adopted, "empty", lambda self: not self.children())]


def _late_start() -> list[Patch]:
    """The guard starts the command without a look at the lease."""

    def start(self: Guard, _now: float) -> None:
        self.command = self.tree.spawn()
        self.state = guard_decisions.RUNNING
        self.tell(GuardTells.started(self.command))

    return [(Guard, "start", start)]


def _started_twice() -> list[Patch]:
    """A guard's death before it said `started` is taken for proof that nothing was started."""
    return [(Front, "start_begun", lambda _self: False)]


def _started_after_the_loss() -> list[Patch]:
    """A guard that died before the start is replaced though the lock was lost meanwhile."""
    real = Turn.guard_died

    def guard_died(self: Turn, now: float) -> None:
        ending, stopped = self.ending, self.ending.stopped
        ending.stopped = stopped and self.phase != STARTING
        real(self, now)
        ending.stopped = stopped

    return [(Turn, "guard_died", guard_died)]


def _end_moved_by_a_failure() -> list[Patch]:
    """Every report of an attempt moves the lease's end."""

    def report(self: Keeper, _end: float) -> bool:
        self.trip.end = self.machine.clock() + self.trip.wishes.ttl
        self.trip.reported = self.machine.clock()
        return True

    return [(Keeper, "_report", report)]


def _clock_before_messages() -> list[Patch]:
    """A front that was stopped looks at its deadlines before it hears what has come meanwhile."""
    real = Front._hear_guard  # noqa: SLF001 - what is patched

    def hear_guard(self: Front) -> None:
        if self.sigchld or self.turn.phase == RUNNING:
            self.turn.look(self.machine.clock())
        real(self)

    def command_ended(self: Turn, now: float) -> None:
        pass

    return [(Front, "_hear_guard", hear_guard), (Turn, "command_ended", command_ended)]


def _pause_overlooked() -> list[Patch]:
    """A keeper that is given the lock doesn't look at what people ask."""
    return [(keeper_decisions, "acquire_to_run", acquire)]


def _pause_without_end() -> list[Patch]:
    """A keeper that sees a control takes it for a pause that nobody ends."""
    return [(pausing, "pause_of", lambda _control, _now: _ENDLESS)]


def _order_overlooked() -> list[Patch]:
    """A keeper that holds the lock doesn't look at what people ask."""
    return [(keeper_decisions, "_obey", lambda _control, _job, _grant: iter(()))]


def _released_by_order() -> list[Patch]:
    """The front takes an order to give the lock back for the command's end."""

    def revoked(self: Turn, _by: str, _now: float) -> None:
        self.guard_gone(proved=True)

    return [(Turn, "revoked", revoked)]


def _stop_by_order_without_kill() -> list[Patch]:
    """A command that is deaf to the stop signal outlives an order."""

    def revoked(self: Ending, _by: str, _now: float) -> None:
        self.impose(LOST)
        self._guard.signal(15)

    return [(Ending, "revoked", revoked)]


BUGS: dict[str, Callable[[], list[Patch]]] = {
    bug.__name__.strip("_").replace("_", "-"): bug
    for bug in (
        _release_before_proof,
        _end_from_the_answer,
        _renew_without_compare,
        _late_release_of_an_old_grant,
        _acquired_again_but_not_extended,
        _clock_that_sleeps,
        _wall_clock,
        _two_keepers,
        _stop_without_kill,
        _hang_never_noticed,
        _guard_deaf_to_the_fronts_death,
        _front_dead_so_release,
        _any_echild_is_proof,
        _enforced_once,
        _emptiness_by_looking,
        _late_start,
        _started_twice,
        _started_after_the_loss,
        _end_moved_by_a_failure,
        _clock_before_messages,
        _pause_overlooked,
        _pause_without_end,
        _order_overlooked,
        _released_by_order,
        _stop_by_order_without_kill,
    )
}


@contextmanager
def planted(name: str) -> Generator[None, Any, None]:
    """Inside this block the product has the bug of that name; '' for none."""
    patches = BUGS[name]() if name else []
    old = [(target, attribute, getattr(target, attribute)) for target, attribute, _ in patches]
    for target, attribute, value in patches:
        setattr(target, attribute, value)
    try:
        yield
    finally:
        for target, attribute, value in old:
            setattr(target, attribute, value)
