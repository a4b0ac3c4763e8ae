"""Backends with one bug each, for the suite to catch: `leasefile:///DIRECTORY?CLASS` opens one of them."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singleton_run.api.contract import Grant, Held, Look
from singleton_run.api.finding import bad, good
from singleton_run.errors import Lost, Refused, Unavailable
from singleton_run.system import calls
from tests.example_backends.singleton_run_leasefile import held_in, is_held
from tests.example_backends.singleton_run_queuefile import QueueFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from singleton_run.api.finding import Finding


def open_backend(lock: str, environ: Mapping[str, str]) -> QueueFile:
    """The backend with the bug that the address names."""
    directory, _, bug = lock.partition("://")[2].partition("?")
    backend: QueueFile = globals()[bug](Path(directory))
    return backend


class GrantsEverybody(QueueFile):
    """The lock is granted although another has it."""

    def _is_turn(self, state: Mapping[str, Any]) -> bool:
        return True


class LooksThenTakes(QueueFile):
    """Acquire is two steps, and others come in between."""

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        self._mine = (name, holder)
        self.ttl = ttl
        with self._state(name, limit) as state:
            if is_held(state):
                return held_in(state)
        time.sleep(0.01)
        with self._state(name, limit) as state:
            return self._granted(name, holder, ttl, state)

    def _is_turn(self, state: Mapping[str, Any]) -> bool:
        return not is_held(state)


class ForgetsTheOrder(QueueFile):
    """Whoever comes first after a release has the lock."""

    def _is_turn(self, state: Mapping[str, Any]) -> bool:
        return not is_held(state)


class GrantsLess(QueueFile):
    """The lease is shorter than what was asked for."""

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        return super().acquire(name, holder, ttl / 2, limit)


class EndsTheLeaseEarly(QueueFile):
    """The lease is over before it should be."""

    def _granted(self, name: str, holder: str, ttl: float, state: dict[str, Any]) -> Grant:
        grant = super()._granted(name, holder, ttl, state)
        state["until"] -= ttl / 2
        return grant


class NeverEndsTheLease(QueueFile):
    """Who crashed has the lock for ever."""

    def _granted(self, name: str, holder: str, ttl: float, state: dict[str, Any]) -> Grant:
        grant = super()._granted(name, holder, ttl, state)
        state["until"] += 1e6
        return grant


class KeepsThePlacesOfTheDead(QueueFile):
    """A dead waiter is waited for."""

    def _keep_place(self, state: dict[str, Any]) -> None:
        super()._keep_place(state)
        state["queue"] = dict.fromkeys(state["queue"], calls.now() + 1e6)


class LetsPlacesLapse(QueueFile):
    """A waiter's place is not kept while it waits, so who came later gets the lock first."""

    def _keep_place(self, state: dict[str, Any]) -> None:
        assert self._mine is not None, "nobody has a place who wasn't refused"
        own = state.get("queue", {}).get(self._mine[1])
        super()._keep_place(state)
        if own is not None:
            place = state["queue"].pop(self._mine[1])
            state["queue"][self._mine[1]] = place if own < calls.now() else own


class StartsTokensAgain(QueueFile):
    """Tokens are counted in what is deleted with the lock."""

    def _next_token(self, last: int) -> int:
        return last + 1


class KeepsTheTokenOfTheDead(QueueFile):
    """Who follows a dead holder has its token."""

    def _next_token(self, last: int) -> int:
        return max(last, 1)


class HoldsItselfUp(QueueFile):
    """An acquire whose answer was lost is held up by itself when it is repeated."""

    def _is_turn(self, state: Mapping[str, Any]) -> bool:
        return not is_held(state) and super()._is_turn(state)


class RepeatsTheGrant(QueueFile):
    """A repeated acquire gives the first grant again, with what is left of its lease."""

    def _granted(self, name: str, holder: str, ttl: float, state: dict[str, Any]) -> Grant:
        until = state["until"] if state["holder"] == holder else calls.now() + ttl
        grant = super()._granted(name, holder, ttl, state)
        state["until"] = until
        return grant


class ObservesFirst(QueueFile):
    """A lease that is over is taken by the second attempt only."""

    seen = False

    def _is_turn(self, state: Mapping[str, Any]) -> bool:
        if state["holder"] and not is_held(state) and not self.seen:
            self.seen = True
            return False
        return super()._is_turn(state)


class TellsTheWallClock(QueueFile):
    """`Held.until` is by another clock."""

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        got = super().acquire(name, holder, ttl, limit)
        if isinstance(got, Held):
            got.until = time.time() + ttl
        return got


class FoldsCase(QueueFile):
    """Names that differ by case are one lock."""

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        return super().acquire(name.lower(), holder, ttl, limit)


class CutsNames(QueueFile):
    """Long names that begin alike are one lock."""

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        return super().acquire(name[:150], holder, ttl, limit)


class NeverWakes(QueueFile):
    """A wait goes on to its end, whatever happens."""

    def wait(self, held: Held, until: float, wake: int) -> None:
        calls.wait(until, [wake])


class WatchesFromNowOn(QueueFile):
    """A wait, and a hold, sees what changes after it began, and not what had changed before."""

    def wait(self, held: Held, until: float, wake: int) -> None:
        assert self._mine is not None, "nobody waits who wasn't refused"
        with self._state(self._mine[0], 1.0) as state:
            before = state["token"], state["holder"], state["version"]
        while calls.now() < until and not calls.wait(calls.now() + 0.01, [wake]):
            with self._state(self._mine[0], 1.0) as state:
                if before != (state["token"], state["holder"], state["version"]):
                    return

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        self._mine = (grant.name, grant.holder)
        self.wait(Held(), until, wake)


class Deaf(QueueFile):
    """Neither a wait nor a hold can be interrupted."""

    def wait(self, held: Held, until: float, wake: int) -> None:
        super().wait(held, until, socket.socketpair()[0].fileno())

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        calls.wait(until, [])


class SpinsRound(QueueFile):
    """A wait, and a hold, returns at once, so that its caller asks again and again."""

    def wait(self, held: Held, until: float, wake: int) -> None:
        return

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        return


class OversleepsTheEnd(QueueFile):
    """A wait, and a hold, returns only when something happens."""

    def wait(self, held: Held, until: float, wake: int) -> None:
        super().wait(held, until + 1000.0, wake)

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        super().hold(grant, until + 1000.0, wake)


class WatchesNothing(QueueFile):
    """The holder hears of a loss when it renews."""

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        calls.wait(until, [wake])


class NeverLeaves(QueueFile):
    """Nothing is given back by who leaves."""

    def leave(self, limit: float) -> None:
        return


class GivesNothingBack(NeverLeaves):
    """Nor by who releases."""

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        return


class LeavesItsPlaceBehind(QueueFile):
    """Who leaves is still waited for."""

    def leave(self, limit: float) -> None:
        super(QueueFile, self).leave(limit)


class LeavesWithTheHolder(QueueFile):
    """Who leaves takes the lock from whoever has it."""

    def leave(self, limit: float) -> None:
        if self._mine is not None:
            with self._state(self._mine[0], limit) as state:
                state.update(holder="", until=0)


class RenewsNothing(QueueFile):
    """The lease is not made longer."""

    def renew(self, grant: Grant, limit: float) -> None:
        with self._state(grant.name, limit) as state:
            until = state["until"]
        super().renew(grant, limit)
        with self._state(grant.name, limit) as state:
            state["until"] = until


class TakesBackByRenewing(QueueFile):
    """A lock that is free, for whatever reason, is had again by renewing it."""

    def renew(self, grant: Grant, limit: float) -> None:
        with self._state(grant.name, limit) as state:
            if not is_held(state):
                state.update(holder=grant.holder, token=grant.token)
        super().renew(grant, limit)


class RenewsUnseen(QueueFile):
    """Renewing does not look whose lock it is."""

    def renew(self, grant: Grant, limit: float) -> None:
        with self._state(grant.name, limit) as state:
            state["until"] = calls.now() + grant.ttl


class WritesUnseen(QueueFile):
    """Writing does not look whose lock it is."""

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        with self._state(grant.name, limit) as state:
            state["record"] = dict(record)


class ReleasesUnseen(QueueFile):
    """Releasing does not look whose lock it is."""

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        with self._state(grant.name, limit) as state:
            state.update(holder="", until=0, record=dict(record))


class ReleasesOnce(QueueFile):
    """A release that is repeated is an error."""

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        with self._state(grant.name, limit) as state:
            if not state["holder"] or state["kept"]:
                raise Lost("nobody holds it")
        super().release(grant, record, limit, keep)


class ReleasesThenWrites(QueueFile):
    """The record comes after the lock was given back: the next holder may miss it."""

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        super().release(grant, grant.record or {}, limit)
        time.sleep(0.05)
        with self._state(grant.name, limit) as state:
            state["record"] = dict(record)


class ForgetsGenerations(QueueFile):
    """A keeper that was replaced can still write and release."""

    def renew(self, grant: Grant, limit: float) -> None:
        super().renew(Grant(**{**grant.as_dict(), "generation": 0}), limit)


class LetsOldKeepersBack(QueueFile):
    """A late renewal by a keeper that was replaced makes its writes count again."""

    def renew(self, grant: Grant, limit: float) -> None:
        with self._state(grant.name, limit) as state:
            state["generation"] = 0
        super().renew(grant, limit)


class CountsGenerationsOn(QueueFile):
    """The keepers of an earlier turn fence off those of the next."""

    def _granted(self, name: str, holder: str, ttl: float, state: dict[str, Any]) -> Grant:
        generation = state["generation"]
        grant = super()._granted(name, holder, ttl, state)
        state["generation"] = generation
        return grant


class RemembersInTheObject(QueueFile):
    """What a renewal needs is not in the grant."""

    def renew(self, grant: Grant, limit: float) -> None:
        if self._mine is None:
            raise Lost("this process never had it")
        super().renew(grant, limit)


class LosesTheRecord(QueueFile):
    """A record is gone with the lock."""

    def _granted(self, name: str, holder: str, ttl: float, state: dict[str, Any]) -> Grant:
        state["record"] = None
        return super()._granted(name, holder, ttl, state)


class MakesByReading(QueueFile):
    """A lock that was only looked at is listed from then on."""

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        with self._state(name, limit) as state:
            state["read"] = True
        return super().read(name, limit)


class ClosesWithAnError(QueueFile):
    """To close what is closed raises."""

    closed = False

    def close(self) -> None:
        if self.closed:
            raise OSError("closed already")
        self.closed = True


class ClosesNothing(QueueFile):
    """A connection stays open."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.connection = socket.socket()


class ReleasesByClosing(QueueFile):
    """The lock goes with the connection."""

    def close(self) -> None:
        self.leave(1.0)


class Impatient(QueueFile):
    """A server that is out of reach is a reason to give up."""

    def _meet_faults(self, limit: float) -> None:
        try:
            super()._meet_faults(limit)
        except Unavailable as error:
            raise Refused(str(error)) from None


class TooPatient(QueueFile):
    """A server that is out of reach is waited for, however long."""

    def _meet_faults(self, limit: float) -> None:
        while (self._directory / "outage").exists():
            time.sleep(0.01)


class TellsSecrets(QueueFile):
    """The error shows the password."""

    def _meet_faults(self, limit: float) -> None:
        try:
            super()._meet_faults(limit)
        except Refused:
            raise Refused("no access by the password 'wrong'") from None


class TellsNothing(QueueFile):
    """An error has no words."""

    def _meet_faults(self, limit: float) -> None:
        try:
            super()._meet_faults(limit)
        except Refused:
            raise Refused("") from None


class NeverComesBack(QueueFile):
    """After one outage the object finds its server no more."""

    gone = False

    def _meet_faults(self, limit: float) -> None:
        if self.gone:
            raise Unavailable("the connection is closed")
        self.gone = True
        super()._meet_faults(limit)
        self.gone = False


class KeepsNothing(QueueFile):
    """Who gives the lock back for later gives it back at once."""

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        super().release(grant, record, limit)


class KeepsNotLongEnough(QueueFile):
    """A lock is kept for half of the time."""

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        super().release(grant, record, limit, keep / 2)


class KeepsForItself(QueueFile):
    """The last holder gets a kept lock again, also by leaving it first."""

    def _is_turn(self, state: Mapping[str, Any]) -> bool:
        return super()._is_turn({**state, "kept": False})

    def leave(self, limit: float) -> None:
        if self._mine is not None:
            with self._state(self._mine[0], limit) as state:
                state["kept"] = False
        super().leave(limit)


class KeepsWithoutATime(QueueFile):
    """Nobody is told until when a lock is kept."""

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        got = super().acquire(name, holder, ttl, limit)
        if isinstance(got, Held):
            got.until = None
        return got


class HidesWhatIsKept(QueueFile):
    """To look at a kept lock is to see a free one."""

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        held, record = super().read(name, limit)
        with self._state(name, limit) as state:
            return (None if state["kept"] else held), record


class KeepsWhileItLives(QueueFile):
    """What is kept is free again when its holder has closed the backend."""

    kept: tuple[str, int] | None = None

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        super().release(grant, record, limit, keep)
        self.kept = grant.name, grant.token

    def close(self) -> None:
        if self.kept is not None:
            with self._state(self.kept[0], 1.0) as state:
                if state["token"] == self.kept[1]:
                    state["until"] = 0


class ForgetsWhatItKeeps(QueueFile):
    """What was kept is free when the server was restarted."""

    def _is_turn(self, state: Mapping[str, Any]) -> bool:
        restarted = (self._directory / "restarted").exists()
        return super()._is_turn({**state, "until": 0} if state["kept"] and restarted else state)


class RenewsWhatIsKept(QueueFile):
    """Who gave the lock back for later can still renew it, and then has it."""

    def renew(self, grant: Grant, limit: float) -> None:
        with self._state(grant.name, limit) as state:
            state["kept"] = False
        super().renew(grant, limit)


class WritesWhereItKeeps(QueueFile):
    """And can write to it."""

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        with self._state(grant.name, limit) as state:
            state["kept"] = False
        super().write(grant, record, limit)


class MarksUnseen(QueueFile):
    """Marking does not look whose lock it is."""

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        path = self._directory / f"{grant.name}.once"
        path.write_text(json.dumps(self._read_marks(grant.name) | {key: dict(mark)}))


class MarksNothing(QueueFile):
    """A mark is not to be seen."""

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        super().mark(grant, key, mark, limit)
        super().forget(grant.name, key, limit)


class MarksLocks(QueueFile):
    """A mark is a lock of that name."""

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        super().mark(grant, key, mark, limit)
        (self._directory / f"{grant.name}.{key}.lease").write_text("{}")


class KeepsFewMarks(QueueFile):
    """Of many marks the oldest goes."""

    def _read_marks(self, name: str) -> dict[str, Any]:
        return dict(list(super()._read_marks(name).items())[-5:])


class MarksForOneTurn(QueueFile):
    """The marks are the lock's, and go with it."""

    def _granted(self, name: str, holder: str, ttl: float, state: dict[str, Any]) -> Grant:
        (self._directory / f"{name}.once").unlink(missing_ok=True)
        return super()._granted(name, holder, ttl, state)


class ForgetsBlindly(QueueFile):
    """There always was a mark."""

    def forget(self, name: str, key: str, limit: float) -> bool:
        super().forget(name, key, limit)
        return True


class FoldsKeys(QueueFile):
    """Keys that differ by case are one."""

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        return super().done(name, key.lower(), limit)

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        super().mark(grant, key.lower(), mark, limit)


class CutsKeys(QueueFile):
    """Long keys that begin alike are one."""

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        return super().done(name, key[:250], limit)

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        super().mark(grant, key[:250], mark, limit)


class JoinsNameAndKey(QueueFile):
    """Where the name ends and the key begins is not to be seen."""

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        return super().done("", f"{name}{key}", limit)

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        path = self._directory / ".once"
        path.write_text(json.dumps(self._read_marks("") | {f"{grant.name}{key}": dict(mark)}))


class KnowsTheTimeAtOnce(QueueFile):
    """It tells a server's time before it has asked for it."""

    def offset(self) -> tuple[float, float] | None:
        return 0.0, 1.0


class TellsAnotherTime(QueueFile):
    """The server's time is not told by how far it is ahead."""

    def offset(self) -> tuple[float, float] | None:
        return None if self._mine is None else (time.time(), 0.5)


class ListsLocksOnly(QueueFile):
    """A name that only has a control isn't listed."""

    def list(self, limit: float) -> list[str]:
        return [name for name in super().list(limit) if self._has_lock(name, limit)]

    def _has_lock(self, name: str, limit: float) -> bool:
        with self._state(name, limit) as state:
            return bool(state["token"])


class SteersUncompared(QueueFile):
    """Whoever steers last wins."""

    def steer(self, name: str, version: str, control: Mapping[str, Any], limit: float) -> bool:
        return super().steer(name, self.look(name, limit).version, control, limit)


class NamesVersionsByContent(QueueFile):
    """The version of a control is the same when the control is."""

    def look(self, name: str, limit: float) -> Look:
        seen = super().look(name, limit)
        seen.version = str(seen.control or "")
        return seen

    def steer(self, name: str, version: str, control: Mapping[str, Any], limit: float) -> bool:
        if version != self.look(name, limit).version:
            return False
        return super().steer(name, super().look(name, limit).version, control, limit)


class ReadsTheControlEarly(QueueFile):
    """The grant has the control that the first attempt saw."""

    early: tuple[Mapping[str, Any] | None] | None = None

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        got = super().acquire(name, holder, ttl, limit)
        self.early = self.early or (got.control,)
        got.control = self.early[0]
        return got


class RenewsWithoutControl(QueueFile):
    """A renewal doesn't look at the control."""

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:
        super().renew(grant, limit)
        return grant.control


class ReleasesTheControl(QueueFile):
    """The control goes with the turn."""

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        super().release(grant, record, limit, keep)
        with self._state(grant.name, limit) as state:
            state["control"] = ""


class SteersOverTheRecord(QueueFile):
    """Who steers puts back the record that it saw first."""

    first: Mapping[str, Any] | None = None

    def look(self, name: str, limit: float) -> Look:
        seen = super().look(name, limit)
        self.first = self.first or seen.record
        return seen

    def steer(self, name: str, version: str, control: Mapping[str, Any], limit: float) -> bool:
        with self._state(name, limit) as state:
            state["record"] = self.first
        return super().steer(name, version, control, limit)


class TellsNoControl(QueueFile):
    """A holder that watches the lock doesn't see a new control."""

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        self.version = -1
        calls.wait(until, [wake])


class StartsInSpiteOfDamage(QueueFile):
    """A control that can't be read counts as none."""

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:
        control = super().renew(grant, limit)
        return None if control is None or not control["pause"]["by"] else control


class FoldsCaseOfControls(QueueFile):
    """Names that differ by case have one control."""

    def look(self, name: str, limit: float) -> Look:
        return super().look(name.lower(), limit)

    def steer(self, name: str, version: str, control: Mapping[str, Any], limit: float) -> bool:
        return super().steer(name.lower(), version, control, limit)


class MakesByLooking(QueueFile):
    """To look at a lock is to make one."""

    def look(self, name: str, limit: float) -> Look:
        with self._state(name, limit) as state:
            state["queue"] = state.get("queue", {})
        return super().look(name, limit)


class LooksWithoutToken(QueueFile):
    """A look doesn't tell the holder's token."""

    def look(self, name: str, limit: float) -> Look:
        seen = super().look(name, limit)
        if seen.holder is not None:
            seen.holder.token = None
        return seen


class LooksPastTheKeeping(QueueFile):
    """A kept lock looks like any other."""

    def look(self, name: str, limit: float) -> Look:
        seen = super().look(name, limit)
        seen.state = Look.HELD if seen.state == Look.KEPT else seen.state
        return seen


class TellsTheQueueBackwards(QueueFile):
    """Who came last is told first."""

    def look(self, name: str, limit: float) -> Look:
        seen = super().look(name, limit)
        seen.waiting = [*(seen.waiting or ())][::-1]
        return seen


class LooksAtTheDead(QueueFile):
    """A lease that is over looks as if it went on."""

    def look(self, name: str, limit: float) -> Look:
        seen = super().look(name, limit)
        seen.state = Look.HELD if seen.state == Look.EXPIRED else seen.state
        return seen


class FreesNothing(QueueFile):
    """To free a lock is to say so."""

    def free(self, name: str, seen: Look, limit: float) -> bool:
        return True


class FreesUnseen(QueueFile):
    """Whoever has the lock loses it."""

    def free(self, name: str, seen: Look, limit: float) -> bool:
        return super().free(name, self.look(name, limit), limit)


class FreesByEndingTheLease(QueueFile):
    """The holder of a lock that was freed can renew it."""

    def free(self, name: str, seen: Look, limit: float) -> bool:
        with self._state(name, limit) as state:
            is_same = seen.holder is not None and seen.holder.token == state["token"]
            if is_same:
                state["until"] = 0
            return is_same


class ExaminesByTaking(QueueFile):
    """Whether a lock can be taken is seen by taking it."""

    def examine(self, name: str, ttl: float, limit: float) -> Iterator[Finding]:
        self.acquire(name, "doctor", ttl, limit)
        yield good("it can be taken")


class ExaminesInVain(QueueFile):
    """What is well is called bad."""

    def examine(self, name: str, ttl: float, limit: float) -> Iterator[Finding]:
        yield bad("it can't be taken", "wait")


class WantsEveryWord(QueueFile):
    """A record without the later words counts as none."""

    def _granted(self, name: str, holder: str, ttl: float, state: dict[str, Any]) -> Grant:
        grant = super()._granted(name, holder, ttl, state)
        grant.record = grant.record if grant.record and "command" in grant.record else None
        return grant


class KeepsFewRuns(QueueFile):
    """Of many runs the earliest are left out."""

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        super().write(grant, {**record, "runs": record["runs"][:10]}, limit)
