"""What must be true, asked wherever it could become false, of true time and the true processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run.api.control import pause_of
from singleton_run.errors import TIMED_OUT
from tests.simulation.world import Broken

if TYPE_CHECKING:
    from tests.simulation.server import Server
    from tests.simulation.trip import Trip
    from tests.simulation.world import World

GRACE = 0.7
ORPHANED = 2.0
SETTLED = 1.0
OBEYED = 6.0


def excuse(trip: Trip) -> str:
    """Which documented exception covers a command that runs without its lock now, '' for none."""
    now = trip.world.now
    if trip.machine.frozen:
        return "machine frozen"
    if now - trip.machine.thawed_at < GRACE:
        return "machine thawed just now"
    if not trip.watched() or now - trip.seen_at < GRACE:
        return "all of ours stopped or dead"
    if trip.stolen:
        return "key deleted by hand"
    if trip.tree.reaper is None and trip.tree.tasks:
        return "nobody was left above the command"
    return ""


def _broken_unless_excused(trip: Trip, promise: str) -> None:
    reason = excuse(trip)
    if not reason:
        raise Broken(f"{trip}: {promise}")
    trip.world.excuse(f"{promise.partition(' (')[0]}: {reason}")


def granted(trip: Trip) -> None:
    """The keeper is about to have the command started."""
    if pause_of(trip.shown, trip.world.now) is not None:
        raise Broken(f"{trip}: the start is granted under a pause that the server has told")


def written(server: Server, token: int) -> None:
    """The server is about to write down that a run goes on."""
    if token == server.settled:
        raise Broken(f"the record of token {token} is overtaken: it has ended")


def ordered(trip: Trip, token: int) -> None:
    """Somebody orders that a turn give the lock back: after a renewal and the command's grace it has."""
    trip.ordered = True
    allowed = trip.wishes.ttl / 3 + OBEYED + trip.wishes.grace
    trip.world.at(trip.world.now + allowed, _has_obeyed, (trip, token))


def _has_obeyed(order: tuple[Trip, int]) -> None:
    trip, token = order
    if _was_disturbed(trip):
        trip.world.excuse("an order, and other things that befell the turn")
    elif trip.tree.tasks or (trip.starts and trip.world.server.granted == token):
        raise Broken(f"{trip}: an order to give the lock back is not obeyed")


def _was_disturbed(trip: Trip) -> bool:
    """Whether something befell a turn that excuses it from what else it must do in time."""
    troubled = trip.world.troubled_until >= trip.began
    return trip.stolen or trip.unlucky or trip.signalled or troubled or trip.faulted > 0


def start_ordered(trip: Trip) -> None:
    """The front is about to order the start."""
    ending = trip.front.turn.ending
    if ending.lost or ending.stopped or ending.killed:
        raise Broken(f"{trip}: the start is ordered though the lock is lost, or the time for it is over")


def starts(trip: Trip) -> None:
    """The command is being started."""
    world = trip.world
    trip.starts += 1
    if trip.starts > 1:
        raise Broken(f"{trip}: the command is started a second time")
    if trip.token <= world.last_token:
        _broken_unless_excused(trip, f"the token falls (from {world.last_token} to {trip.token})")
    world.last_token = max(world.last_token, trip.token)
    if world.server.granted != trip.token:
        _broken_unless_excused(trip, "started without the lock")
    for other in world.running:
        if excuse(other):
            world.excuse(f"two at a time: {excuse(other)}")
        else:
            _broken_unless_excused(trip, f"two at a time (with {other})")


def lives_rightly(trip: Trip) -> None:
    """Some time after the lock was or may have been lost: no process lives without it."""
    if trip.tree.tasks and trip.world.server.granted != trip.token:
        _broken_unless_excused(trip, "the command outlives its lock")


def theft_is_known(trip: Trip) -> None:
    """So long after its key was deleted by hand the command must be gone."""
    trip.stolen = False
    lives_rightly(trip)


def lapses(world: World, holder: str) -> None:
    """The server is about to count a lease as over."""
    for trip in world.running:
        if trip.holder == holder:
            _broken_unless_excused(trip, "the lease lapses while the command runs")


def releases(trip: Trip) -> None:
    """The keeper is about to ask for the release."""
    if trip.starts and not trip.proved and not trip.stolen:
        raise Broken(f"{trip}: released without proof")


def released(world: World, holder: str) -> None:
    """The server has given the lock back for a holder."""
    for trip in world.running:
        if trip.holder == holder:
            raise Broken(f"{trip}: released while the command runs")


def keeper_forked(trip: Trip) -> None:
    """Another keeper is about to be forked."""
    if trip.keeper is not None and trip.keeper.alive:
        raise Broken(f"{trip}: two keepers")


def front_exits(trip: Trip) -> None:
    """The front ends by itself, with a status."""
    if trip.tree.tasks:
        raise Broken(f"{trip}: the front exits before its command")
    timeout, tree, imposed = trip.wishes.timeout, trip.tree, trip.front.turn.ending.imposed
    if imposed == TIMED_OUT and timeout is not None and tree.over - tree.began < timeout:
        raise Broken(f"{trip}: {tree.over - tree.began:.3f} s of --timeout {timeout:.3f} s were too long")


def ends_with_front(trip: Trip) -> None:
    """Some time after the front's death a guard that could has killed everything."""
    guard = trip.guard
    could = guard.active() and trip.tree.reaper is guard and not trip.machine.frozen
    for_long = trip.world.now - max(guard.resumed_at, trip.machine.thawed_at) > ORPHANED - 0.1
    if trip.tree.tasks and could and for_long:
        raise Broken(f"{trip}: the front is dead, and its command lives on")


def trip_ended(trip: Trip) -> None:
    """A turn is over. If nothing befell it, it has had its turn and has the command's status.

    One keeper's being killed or stopped while the command runs counts as nothing: the command
    notices nothing of it.
    """
    world, wishes = trip.world, trip.wishes
    if trip.stolen or trip.unlucky or trip.signalled or world.troubled_until >= trip.began:
        return
    if trip.ordered:
        return
    if trip.faulted and not trip.faulted == trip.keeper_faults == 1:
        return
    if wishes.wait is None and trip.starts != 1:
        raise Broken(f"{trip}: nothing happened to it, and it ended with {trip.status} without its turn")
    if trip.starts and wishes.timeout is None and trip.status != _exit_status(trip.tree.status):
        raise Broken(f"{trip}: nothing happened to it, and it ended with {trip.status}")
    if trip.starts and not trip.faulted and world.now - trip.settling_since > SETTLED:
        raise Broken(f"{trip}: it took {world.now - trip.settling_since:.1f} s to settle")


def _exit_status(ended_with: int | None) -> int | None:
    return 128 - ended_with if ended_with is not None and ended_with < 0 else ended_with
