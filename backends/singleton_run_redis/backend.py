"""The contract's calls, one run of the script each."""

from __future__ import annotations

from singleton_run.api import control as controls
from singleton_run.api import toolbox
from singleton_run.api.contract import Grant, Held, Look
from singleton_run.api.deadline import Deadline, Interrupted
from singleton_run.api.keys import plain
from singleton_run.api.record import parsed, parsed_mark
from singleton_run.errors import UNUSABLE, Failure, Lost, Refused, Unavailable
from singleton_run_redis.client import Session
from singleton_run_redis.errors import ServerError
from singleton_run_redis.scripts import PREFIX, channels_of, keys_of, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from singleton_run.api.finding import Finding
    from singleton_run_redis.address import Address

    Answer = list[Any]  # named here, for `list` is a method below
    Names = list[str]

_TOO_SLOW = "redis: the server was too slow"
# A command that ends sooner is spared the subscription, and the start of a command that waited is not held
# up; what changed before it is asked for then.
LISTEN_AFTER = 0.05
# Each waiter looks this much later after the holder's end than the one before it, which takes the lock.
_BEHIND = 0.05
LONGEST_PAUSE = 5.0
_LONGEST_NUMBER = 20
_LOST = {
    "gone": "its lease has ended, or its key was deleted",
    "kept": "it was given back, to be kept for a time",
    "later": "another keeper of this turn has taken over",
}


class Place:
    """A place in the queue for the lock `name`: who stands there, and for how many seconds without a sign."""

    __slots__ = ("holder", "name", "stood", "ttl")

    def __init__(self, name: str, holder: str, ttl: float) -> None:
        self.name = name
        self.holder = holder
        self.ttl = ttl
        self.stood = toolbox.now()


class RedisBackend:
    """Locks on one server. See `contract.Backend`."""

    def __init__(self, address: Address) -> None:
        self.warning: tuple[str, str] | None = None
        self._address = address
        self._session = Session(address)
        self._place: Place | None = None
        self._version: str | None = None

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Take the lock if it is free and nobody who waits comes before, else a place in the queue."""
        deadline = Deadline.after(limit)
        holder = plain_holder(holder)
        self._place = Place(name, holder, ttl)
        _, how, *rest = self._change("take", name, [holder, in_ms(ttl)], deadline)
        self._session.forget_pushes()
        if how == "mine":
            token, record, control, self._version = rest
            self._confirm(deadline)
            return Grant(name, holder, int(token), ttl, {}, record, control=loaded_control(control))
        if how == "worn":
            key = keys_of(name)[1]
            raise Refused(f"redis: the token in the key {key} can't grow: delete the key", UNUSABLE)
        return held_by(rest)

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Listen on our own channel, and look again when the lease ends, and every third of a ttl."""
        if self._place is not None:
            wait_in(self._place, held, Deadline(until, wake), self._wait)

    def leave(self, limit: float) -> None:
        """Give up the place in the queue, and a lock that `acquire` may have got."""
        if self._place is not None:
            self._change("leave", self._place.name, [self._place.holder], Deadline.after(limit))
            self._place = None

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:
        """Move the end of the key's life, if it has our token and holder and no later generation."""
        deadline = Deadline.after(limit)
        control, self._version = self._hold("renew", grant, [in_ms(grant.ttl)], deadline)
        self._session.forget_pushes()
        self._confirm(deadline)
        return loaded_control(control)

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Listen on our own channel. While nobody can be listened to, try again less and less often."""
        deadline = Deadline(until, wake)
        if not self._session.tracks and toolbox.wait(deadline.within(LISTEN_AFTER).until, [wake]):
            return
        pause = 0.1
        while not deadline.passed():
            try:
                if self._has_changed(grant, deadline) or self._session.pause(deadline):
                    return
            except (Interrupted, Lost):
                return
            except Failure:
                self._session.drop()
                if toolbox.wait(deadline.within(pause).until, [wake]):
                    return
                pause = min(2 * pause, LONGEST_PAUSE)

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Put the record into its key."""
        self._hold("write", grant, [toolbox.dumps(record)], Deadline.after(limit))

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        """Delete the lock's key, at once or in `keep` seconds, put the record, and wake who is next."""
        values = [toolbox.dumps(record), in_ms(max(0.0, keep))]
        self._hold("release", grant, values, Deadline.after(limit))
        self._place = None

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        """The present holder of `name`, if there is one, and its record."""
        look = self._look("read", name, limit)
        return look.holder, look.record

    def list(self, limit: float) -> Names:
        """The names that have a lock, a record or a control, sorted. This scans the keys of the database."""
        deadline = Deadline.after(limit)
        self._session.connect(deadline)
        try:
            found = self._session.keys(f"{PREFIX}*", deadline)
        except ServerError as error:
            raise error.failure() from None
        return sorted({name_of(key) for key in found} - {""})

    def look(self, name: str, limit: float) -> Look:
        """All that the server tells of `name`, in one step."""
        return self._look("look", name, limit)

    def steer(self, name: str, version: str, control: Mapping[str, Any], limit: float) -> bool:
        """Replace the control, and wake the holder."""
        values = ["", version, toolbox.dumps(control)]
        return bool(self._change("steer", name, values, Deadline.after(limit))[1] == "done")

    def free(self, name: str, seen: Look, limit: float) -> bool:
        """Delete the lock's key, and wake who is next."""
        if seen.holder is None:
            return False
        token = "" if seen.holder.token is None else str(seen.holder.token)
        values = [seen.holder.holder, token]
        return bool(self._change("free", name, values, Deadline.after(limit))[1] == "done")

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        """The mark in the key's field, None without one. Raises Refused (78) for one that can't be read."""
        mark = self._ask("done", name, ["", "", plain(key)], Deadline.after(limit))[2]
        where = f"redis: the field {plain(key)} of the key {keys_of(name)[-1]}"
        return None if mark is None else parsed_mark(mark, where)

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        """Put the mark into a field of its own."""
        deadline = Deadline.after(limit)
        self._hold("mark", grant, [plain(key), toolbox.dumps(mark)], deadline)
        self._confirm(deadline)

    def forget(self, name: str, key: str, limit: float) -> bool:
        """Delete the key's field; false if there was none."""
        return bool(self._change("forget", name, ["", plain(key)], Deadline.after(limit))[2])

    def examine(self, name: str, ttl: float, limit: float) -> Iterator[Finding]:
        """Version, role, rights, eviction, durability, channels, login, TLS."""
        from singleton_run_redis import doctor

        yield from doctor.examine(self._session, self._address, name, lambda: Deadline.after(limit))

    def setup(self, name: str, limit: float) -> str:
        """The command that gives our user its rights. Nobody is contacted."""
        from singleton_run_redis import doctor

        return doctor.setup(self._address)

    def offset(self) -> tuple[float, float] | None:
        """By the server's clock, which every answer tells."""
        return self._session.clock.offset()

    def close(self) -> None:
        """Drop the connection."""
        self._session.drop()

    def _wait(self, place: Place, again: float, deadline: Deadline) -> None:
        """Return when the lock may be free, or at the deadline. Raises Interrupted, Unavailable, Refused."""
        while not deadline.passed():
            soon = deadline.within(toolbox.request_limit(place.ttl))
            began = self._listen(place.name, place.holder, soon)
            # What was said before we listened is missed: look once more after that.
            if not began and self._session.pause(deadline.earlier(again)):
                return
            if not deadline.passed():
                soon = deadline.within(toolbox.request_limit(place.ttl))
                place.stood = toolbox.now()
                answer = self._change("stand", place.name, [place.holder, in_ms(place.ttl)], soon)
                if answer[1] == "free":
                    return
                self._session.forget_pushes()
                again = look_at(held_by(answer[2:]), place)

    def _listen(self, name: str, holder: str, deadline: Deadline) -> bool:
        self._session.connect(deadline)
        try:
            return self._session.listen(channels_of(name, holder), deadline)
        except ServerError as error:
            raise error.failure() from None

    def _track(self, deadline: Deadline) -> bool:
        try:
            return self._session.track(deadline)
        except ServerError as error:
            raise error.failure() from None

    def _has_changed(self, grant: Grant, deadline: Deadline) -> bool:
        """Listen; where that begins now, whether the control has changed since we last heard of it.

        It begins anew where the node of a cluster that we ask names another one. Who deletes the lock's key
        by hand tells nobody: so the server is asked to tell of that.
        """
        soon = deadline.within(toolbox.request_limit(grant.ttl))
        values = [grant.holder, str(grant.token), str(grant.generation)]
        while any((self._listen(grant.name, grant.holder, soon), self._track(soon))):
            answer = self._ask("check", grant.name, ["", *values], soon)
            if lost_by(answer) is not None or answer[3] != self._version:
                return True
        return False

    def _look(self, operation: str, name: str, limit: float) -> Look:
        answer = self._ask(operation, name, ["", ""], Deadline.after(limit))
        holder, since, left, token, kept, record, control, version, *queue = answer[2:]
        held = None if holder is None else held_by([holder, since, left, token, control, 0])
        state = Look.FREE if held is None else Look.KEPT if kept else Look.HELD
        waiting = [Held(who, since=int(at) / 1e6) for who, at in zip(queue[::2], queue[1::2], strict=True)]
        return Look(
            state,
            held,
            loaded(record),
            control=loaded_control(control),
            version=version or "",
            waiting=waiting,
        )

    def _hold(self, operation: str, grant: Grant, values: Names, deadline: Deadline) -> tuple[Any, Any]:
        """Do what only the holder may: the control and its version. Raises Lost, Unavailable, Refused."""
        mine = [grant.holder, str(grant.token), str(grant.generation)]
        answer = self._change(operation, grant.name, [*mine, *values], deadline)
        lost = lost_by(answer)
        if lost is not None:
            raise lost
        control, version = (*answer[2:], None, None)[:2]
        return control, version

    def _change(self, operation: str, name: str, values: Names, deadline: Deadline) -> Answer:
        """The answer to an operation that changes something, unless it comes too late.

        Raises Unavailable, Refused, Interrupted.
        """
        while True:
            self._session.connect(deadline)
            answer = self._ask(operation, name, [self._session.not_after(deadline), *values], deadline)
            if answer[1] != "late":
                return answer
            # It came too late by the server's clock, as we knew it. It may have leapt; we know it anew.
            deadline.check(_TOO_SLOW)

    def _confirm(self, deadline: Deadline) -> None:
        """Wait for the replicas that the address asks for. Raises Unavailable, Refused."""
        try:
            self._session.confirm(deadline)
        except ServerError as error:
            raise error.failure() from None

    def _ask(self, operation: str, name: str, values: Names, deadline: Deadline) -> Answer:
        self._session.connect(deadline)
        try:
            return self._session.run(operation, name, values, deadline)
        except ServerError as error:
            raise error.failure() from None


def wait_in(
    place: Place, held: Held, deadline: Deadline, wait: Callable[[Place, float, Deadline], None]
) -> None:
    """Wait in the queue by `wait`, which is told when to look again by itself (boot clock).

    It may raise Interrupted, and Unavailable at the deadline: then the wait has ended in the ordinary way.
    """
    try:
        wait(place, look_at(held, place), deadline)
    except Interrupted:
        return
    except Unavailable:
        if not deadline.passed():
            raise


def look_at(held: Held, place: Place) -> float:
    """When a waiter looks again by itself (boot clock): at the holder's end, but the first waiter first."""
    regular = place.stood + place.ttl / 3
    if held.until is None:
        return regular
    return min(regular, held.until + _BEHIND * int(held.handle.get("rank", 0)))


def held_by(answer: Answer) -> Held:
    """Who has the lock, by the script's answer."""
    holder, since, left, token, control, rank = answer
    return Held(
        holder,
        since=_number(since, 1e6),
        # The key lives until its millisecond has passed.
        until=toolbox.now() + (left + 1) / 1000 if left >= 0 else None,
        handle={"rank": rank},
        token=_whole(token),
        control=loaded_control(control),
    )


def _whole(text: str | None) -> int | None:
    """The same for a whole number."""
    return None if _number(text, 1) is None else int(text or "")


def _number(text: str | None, unit: float) -> float | None:
    """The number in a text, in another unit; None where somebody wrote something else."""
    if text is None or len(text) > _LONGEST_NUMBER or not (text.isascii() and text.isdigit()):
        return None
    return int(text) / unit


def lost_by(answer: Answer) -> Lost | None:
    """The loss that the script's answer tells of; None without one."""
    if answer[1] != "lost":
        return None
    _, _, why, holder = answer
    return Lost(_LOST.get(why) or f"{holder or 'nobody'} holds it")


def in_ms(seconds: float) -> str:
    """Whole milliseconds, rounded up."""
    return str(int(-(-seconds * 1000 // 1)))


def plain_holder(holder: str) -> str:
    """`holder` in ASCII."""
    return holder.encode("ascii", "backslashreplace").decode()


def loaded(record: str | None) -> Mapping[str, Any] | None:
    """A record from its text."""
    return None if record is None else parsed(record)


def loaded_control(text: str | None) -> Mapping[str, Any] | None:
    """A control from its text."""
    return None if text is None else controls.parsed(text)
