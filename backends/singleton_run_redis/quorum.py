"""The contract's calls on a majority of independent servers, by Redlock's rules.

Each server runs the same script on the same keys as a server alone. The lock is ours while a majority says
so; what was taken without one is given back at once. A lease is counted from before the first request, and
the servers are asked for a little more, as their clocks may run faster. The token is one that a majority has
stored before it is used, so that the next majority, which has a server in common with it, gives a greater.
"""

from __future__ import annotations

from singleton_run.api import toolbox
from singleton_run.api.contract import Grant, Held, Look
from singleton_run.api.deadline import Deadline, Interrupted
from singleton_run.api.keys import plain
from singleton_run.api.record import parsed_mark
from singleton_run.errors import UNUSABLE, Failure, Lost, Refused
from singleton_run_redis import votes
from singleton_run_redis.backend import (
    LISTEN_AFTER,
    LONGEST_PAUSE,
    Place,
    held_by,
    in_ms,
    loaded,
    loaded_control,
    look_at,
    lost_by,
    plain_holder,
    wait_in,
)
from singleton_run_redis.masters import LINGER, Masters, script
from singleton_run_redis.scripts import PREFIX, channels_of, keys_of, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from singleton_run.api.finding import Finding
    from singleton_run_redis.address import Address
    from singleton_run_redis.masters import Enough
    from singleton_run_redis.node import Node, Request

    Answer = list[Any]  # named here, for `list` is a method below
    Answers = list[list[Any] | None]
    Rows = list[list[Any]]
    Names = list[str]

_DRIFT = 1.01, 0.002


class QuorumBackend:
    """Locks on a majority of the servers at `addresses`. See `contract.Backend`."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.warning: tuple[str, str] | None = None
        self._addresses = addresses
        self._masters = Masters(addresses)
        self._need = self._masters.need
        self._few = len(addresses) - self._need
        self._place: Place | None = None
        self._arrival = 0
        self._version: str | None = None
        self._asked: Sequence[Request] = ()

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Take the lock on a majority, else give back what was taken, and wait in a queue on each server."""
        deadline = Deadline.after(limit)
        holder = plain_holder(holder)
        if self._place is None or (self._place.name, self._place.holder) != (name, holder):
            self._arrival = 0
        self._place = Place(name, holder, ttl)
        token: Names = []

        def values() -> Names:
            if not token:  # only now is the time of a server known
                token.append(str(self._masters.time()))
            return [holder, in_ms(_lengthened(ttl)), self._arrived(), token[0]]

        answers = self._ask("take", name, values, self._any_way("mine"), deadline, linger=LINGER)
        if any(answer is not None and answer[1] == "worn" for answer in answers):
            raise Refused(f"redis: a token in a key {keys_of(name)[1]} can't grow: delete it", UNUSABLE)
        mine = [answer for answer in answers if answer and answer[1] == "mine"]
        if len(mine) >= self._need:
            return self._granted(self._place, mine, deadline)
        self._give_back(self._place, answers, deadline)
        held = [answer[2:] for answer in answers if answer and answer[1] == "held"]
        if len(mine) + len(held) < self._need:
            raise self._masters.trouble(self._asked)
        return self._held(held, [0.0] * len(mine))

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Listen on our own channels, and look again when a majority may be free, as on one server."""
        if self._place is not None:
            wait_in(self._place, held, Deadline(until, wake), self._wait)

    def leave(self, limit: float) -> None:
        """Give up the places in the queues, and what `acquire` may have got."""
        place, deadline = self._place, Deadline.after(limit)
        if place is None:
            return
        answers = self._ask("leave", place.name, lambda: [place.holder], self._done, deadline, linger=LINGER)
        self._majority(answers)
        self._place = None

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:
        """Renew on a majority, and take the lock where a server has lost it, so that it has all again."""
        deadline = Deadline.after(limit)
        length = in_ms(_lengthened(grant.ttl))
        answers = self._hold("renew", grant, lambda: [length], deadline, linger=LINGER)
        text, self._version = votes.latest(_controls(answers))
        self._heal(grant, answers, deadline)
        return loaded_control(text)

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Listen on our own channels. While no majority can be listened to, try less and less often."""
        deadline = Deadline(until, wake)
        if not self._masters.tracks() and toolbox.wait(deadline.within(LISTEN_AFTER).until, [wake]):
            return
        pause = 0.1
        while not deadline.passed():
            try:
                if self._has_changed(grant, deadline) or self._masters.pause(deadline):
                    return
            except (Interrupted, Lost):
                return
            except Failure:
                if toolbox.wait(deadline.within(pause).until, [wake]):
                    return
                pause = min(2 * pause, LONGEST_PAUSE)

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Put the record into the keys of a majority."""
        text = _stamped(grant, record)
        self._hold("write", grant, lambda: [text], Deadline.after(limit))

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        """Delete the lock's keys, at once or in `keep` seconds, put the record, and wake who is next."""
        values = [_stamped(grant, record), in_ms(_lengthened(keep) if keep > 0 else 0.0)]
        self._hold("release", grant, lambda: values, Deadline.after(limit), linger=LINGER)
        self._place = None

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        """The holder by a majority, and the newest record."""
        look = self.look(name, limit)
        return look.holder, look.record

    def list(self, limit: float) -> Names:
        """The names that have a lock, a record or a control on a majority's servers, sorted."""
        deadline = Deadline.after(limit)
        cursors = dict.fromkeys(self._masters.nodes, "0")
        found: set[str] = set()

        def make(node: Node) -> Names:
            return ["SCAN", cursors[node] or "0", "MATCH", f"{PREFIX}*", "COUNT", "1000"]

        while any(cursors.values()):
            requests = self._masters.ask(make, self._some_answers, deadline, LINGER)
            for node, request in zip(self._masters.nodes, requests, strict=True):
                if request.answer is not None:
                    found |= {_text(key) for key in request.answer[1]}
                    after = _text(request.answer[0])
                    cursors[node] = "" if after == "0" or not cursors[node] else after
                else:
                    cursors[node] = ""
            if not self._some_answers(requests):
                raise self._masters.trouble(requests)
        return sorted({name_of(key) for key in found} - {""})

    def look(self, name: str, limit: float) -> Look:
        """What a majority tells of `name`. A holder that may have a majority counts as one."""
        deadline = Deadline.after(limit)
        answers = self._majority(self._ask("look", name, lambda: [""], self._some, deadline, linger=LINGER))
        seen = [(answer[2], answer[5] or "") if answer[2] else None for answer in answers]
        who = votes.holder(seen, len(self._masters.nodes) - len(seen), self._need)
        held = None
        state = Look.FREE
        if who is not None:
            same = [answer for answer, other in zip(answers, seen, strict=True) if other == who]
            held = self._held(
                [[*who[:1], row[3], row[4], row[5], row[8], 0] for row in same], [0.0] * seen.count(None)
            )
            state = Look.KEPT if same[0][6] else Look.HELD
        control, version = votes.latest((answer[8], answer[9]) for answer in answers)
        waiting = {who: int(at) for row in answers for who, at in zip(row[10::2], row[11::2], strict=True)}
        return Look(
            state,
            held,
            loaded(votes.newest(answer[7] for answer in answers)[1]),
            control=loaded_control(control),
            version=version or "",
            waiting=[
                Held(who, since=waiting[who] / 1e6)
                for who in sorted(waiting, key=lambda who: (waiting[who], who))
            ],
        )

    def steer(self, name: str, version: str, control: Mapping[str, Any], limit: float) -> bool:
        """Agree on the control with a majority. See `steering`."""
        from singleton_run_redis.steering import Proposer

        deadline = Deadline.after(limit)

        def ask(operation: str, values: Callable[[], Names]) -> Answers:
            linger = LINGER if operation == "accept" else 0.0
            return self._ask(operation, name, values, self._any_way("done"), deadline, linger=linger)

        def trouble() -> Failure:
            return self._masters.trouble(self._asked)

        text = toolbox.dumps(control)
        return Proposer(votes.number(version), text, self._masters, ask, trouble).steer(deadline)

    def free(self, name: str, seen: Look, limit: float) -> bool:
        """Delete the lock's keys where they are that holder's: true if it has no majority any more."""
        if seen.holder is None:
            return False
        token = "" if seen.holder.token is None else str(seen.holder.token)
        holder = seen.holder.holder
        answers = self._ask(
            "free", name, lambda: [holder, token], self._some, Deadline.after(limit), linger=LINGER
        )
        return any(answer[1] == "done" for answer in self._majority(answers))

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        """The newest mark that a majority has; None without one, or if that one was taken back."""
        mark = self._mark(name, key, Deadline.after(limit))[1]
        where = f"redis: the field {plain(key)} of the key {keys_of(name)[-1]}"
        return parsed_mark(mark, where) if mark else None

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        """Put the mark into a field of its own, on a majority."""
        deadline = Deadline.after(limit)
        stamp = max(self._mark(grant.name, key, deadline)[0] + 1, self._masters.time())
        values = [plain(key), votes.stamped(stamp, toolbox.dumps(mark))]
        self._hold("mark", grant, lambda: values, deadline)

    def forget(self, name: str, key: str, limit: float) -> bool:
        """Put an empty mark in its place, which is newer than what other servers still have."""
        deadline = Deadline.after(limit)
        stamp, mark = self._mark(name, key, deadline)
        if not mark:
            return False
        values = ["", plain(key), votes.stamped(max(stamp + 1, self._masters.time()), "")]
        answers = self._ask("bury", name, lambda: values, self._done, deadline, linger=LINGER)
        self._majority(answers)
        return True

    def offset(self) -> tuple[float, float] | None:
        """How far the servers' clocks are ahead of ours: of those who told theirs, the middle one."""
        told = sorted(found for node in self._masters.nodes if (found := node.clock.offset()) is not None)
        return told[len(told) // 2] if told else None

    def examine(self, name: str, ttl: float, limit: float) -> Iterator[Finding]:
        """See `contract.Backend`."""
        from singleton_run_redis.doctor import examine_all

        return examine_all(self._addresses, name, limit)

    def setup(self, name: str, limit: float) -> str:
        """See `contract.Backend`."""
        from singleton_run_redis.doctor import setup

        return setup(self._addresses[0])

    def close(self) -> None:
        """Drop all connections."""
        self._masters.drop()

    # What the answers mean.

    def _granted(self, place: Place, mine: Sequence[Answer], deadline: Deadline) -> Grant:
        token = max(int(answer[2]) for answer in mine)
        if sum(int(answer[2]) == token for answer in mine) < self._need:
            values = [place.holder, str(token), "0", in_ms(_lengthened(place.ttl))]
            answers = self._ask("seal", place.name, lambda: values, self._done, deadline)
            if sum(_is_done(answer) for answer in answers) < self._need:
                self._give_back(place, answers, deadline)
                raise self._masters.trouble(self._asked)
        stamp, record = votes.newest(answer[3] for answer in mine)
        text, self._version = votes.latest((answer[4], answer[5]) for answer in mine)
        handle = {"stamp": max(stamp + 1, token), "began": toolbox.now()}
        control = loaded_control(text)
        return Grant(place.name, place.holder, token, place.ttl, handle, record, control=control)

    def _give_back(self, place: Place, answers: Answers, deadline: Deadline) -> None:
        """Free what isn't a majority on all servers, but in this order: our place in the queue stays."""
        if all(answer and answer[1] == "held" for answer in answers):
            return
        listens = "l" if self._masters.listening() else "n"
        values = [place.holder, in_ms(place.ttl), self._arrived(), listens]
        asked = self._asked
        is_taken = [answer is not None and answer[1] != "held" for answer in answers]

        def enough(found: Answers) -> bool:
            return all(answer is not None for answer, was in zip(found, is_taken, strict=True) if was)

        # A moment more than the deadline leaves: what we keep, nobody can have.
        soon = Deadline(max(deadline.until, toolbox.now() + LINGER))
        self._ask("yield", place.name, lambda: values, enough, soon)
        self._asked = asked

    def _held(self, rows: Sequence[Answer], free: Sequence[float]) -> Held:
        """Who has the lock on most servers, by the script's answers, and when a majority may be free."""
        names = [row[0] for row in rows]
        row = max(rows, key=lambda row: (row[3] is not None, names.count(row[0])))
        held = held_by([*row[:5], min(row[5] for row in rows)])
        left = [None if row[2] < 0 else (row[2] + 1) / 1000 for row in rows]
        soon = votes.free_in([*left, *free], len(self._masters.nodes), self._need)
        held.until = None if soon is None else toolbox.now() + soon
        return held

    def _wait(self, place: Place, again: float, deadline: Deadline) -> None:
        """Return when a majority may be free, or at the deadline. Raises Interrupted and failures."""
        while not deadline.passed():
            soon = deadline.within(toolbox.request_limit(place.ttl))
            began = self._masters.listen(channels_of(place.name, place.holder), soon)
            if not began and self._masters.pause(deadline.earlier(again)):
                return
            if deadline.passed():
                return
            place.stood = toolbox.now()
            soon = deadline.within(toolbox.request_limit(place.ttl))
            length = in_ms(place.ttl)
            values = [place.holder, length, self._arrived()]
            answers = self._ask("stand", place.name, lambda: values, self._any_way("free"), soon)  # noqa: B023 - at once
            free = sum(answer is not None and answer[1] == "free" for answer in answers)
            if free >= self._need:
                return
            held = [answer[2:] for answer in answers if answer and answer[1] == "held"]
            if free + len(held) < self._need:
                raise self._masters.trouble(self._asked)
            again = look_at(self._held(held, [0.0] * free), place)

    def _has_changed(self, grant: Grant, deadline: Deadline) -> bool:
        """Listen; where that begins now, whether the control has changed since we last heard of it.

        A server that freed the lock only after we had asked it for the lock has it from here on.
        """
        soon = deadline.within(toolbox.request_limit(grant.ttl))
        if not self._masters.listen(channels_of(grant.name, grant.holder), soon, tracks=True):
            return False
        answers = self._hold("check", grant, list, soon, linger=LINGER)
        self._heal(grant, answers, soon)
        return votes.latest(_controls(answers))[1] != self._version

    def _heal(self, grant: Grant, answers: Answers, deadline: Deadline) -> None:
        """Take the lock on the servers that say they have lost it, where nobody else has it.

        One of them may be the last that answers, so `answers` are of a request that lingered.
        """
        if any(answer and answer[1] == "lost" for answer in answers):
            again = [grant.holder, str(grant.token), str(grant.generation), in_ms(_lengthened(grant.ttl))]
            self._ask("heal", grant.name, lambda: again, lambda _: True, deadline)

    def _mark(self, name: str, key: str, deadline: Deadline) -> tuple[int, str | None]:
        """The newest mark and its stamp; an empty one was taken back."""
        values = ["", plain(key)]
        answers = self._majority(self._ask("done", name, lambda: values, self._some, deadline, looks=True))
        return votes.newest(answer[2] for answer in answers)

    def _hold(
        self,
        operation: str,
        grant: Grant,
        values: Callable[[], Names],
        deadline: Deadline,
        linger: float = 0.0,
    ) -> Answers:
        """Do what only the holder may. Raises Lost, Unavailable, Refused."""
        mine = [grant.holder, str(grant.token), str(grant.generation)]
        answers = self._ask(
            operation, grant.name, lambda: [*mine, *values()], self._any_way("done"), deadline, linger=linger
        )
        if sum(_is_done(answer) for answer in answers) >= self._need:
            return answers
        lost = [found for answer in answers if answer and (found := lost_by(answer)) is not None]
        if len(lost) > self._few:
            raise lost[0]
        raise self._masters.trouble(self._asked)

    def _ask(
        self,
        operation: str,
        name: str,
        values: Callable[[], Names],
        enough: Callable[[Answers], bool],
        deadline: Deadline,
        *,
        linger: float = 0.0,
        looks: bool = False,
    ) -> Answers:
        """The servers' answers; None of one that has none in time. Raises Interrupted."""
        looks = looks or operation in ("look", "check")

        def all_values(node: Node) -> Names:
            not_after = "" if looks else f"{node.clock.at(deadline.until) * 1e6:.0f}"
            return [not_after, *values()]

        make = script(operation, name, all_values)
        over: Enough = lambda requests: enough([_answer(request) for request in requests])  # noqa: E731
        self._asked = toolbox.request(
            lambda: self._masters.ask(make, over, deadline, linger, tells_all=operation in ("take", "renew")),
            operation,
            lambda: name,
            lambda requests: f"{sum(request.answer is not None for request in requests)} answers",
        )
        return [_answer(request) for request in self._asked]

    def _majority(self, answers: Answers) -> Rows:
        """The answers that there are. Raises Unavailable, Refused without a majority."""
        found = [answer for answer in answers if answer is not None]
        if len(found) < self._need:
            raise self._masters.trouble(self._asked)
        return found

    def _arrived(self) -> str:
        """When we came, by the servers' clocks: the same on all of them, so that all have one order."""
        self._arrival = self._arrival or self._masters.time()
        return str(self._arrival)

    def _any_way(self, good: str) -> Callable[[Answers], bool]:
        """Enough is a majority that says so, or so many others that there can't be one."""

        def enough(answers: Answers) -> bool:
            said = [answer[1] == good for answer in answers if answer is not None]
            return said.count(True) >= self._need or said.count(False) > self._few

        return enough

    def _some(self, answers: Answers) -> bool:
        return sum(answer is not None for answer in answers) >= self._need

    def _done(self, answers: Answers) -> bool:
        return sum(_is_done(answer) for answer in answers) >= self._need

    def _some_answers(self, requests: Sequence[Request]) -> bool:
        return sum(request.answer is not None for request in requests) >= self._need


def _answer(request: Request) -> Answer | None:
    """What the script answered, with its texts decoded; None for nothing, or if it came too late."""
    if request.answer is None or request.answer[1] == b"late":
        return None
    return [_text(value) if isinstance(value, bytes) else value for value in request.answer]


def _controls(answers: Answers) -> Iterator[tuple[Any, Any]]:
    """The control and its version in the answers to a holder."""
    for answer in answers:
        if answer is not None and answer[1] == "done":
            yield answer[2], answer[3]


def _is_done(answer: Answer | None) -> bool:
    return answer is not None and answer[1] == "done"


def _stamped(grant: Grant, record: Mapping[str, Any]) -> str:
    """A record with its stamp: greater than all that were written before, in this turn or another."""
    passed = toolbox.now() - float(grant.handle["began"])
    return votes.stamped(int(grant.handle["stamp"]) + max(0, int(passed * 1e6)), toolbox.dumps(record))


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _lengthened(seconds: float) -> float:
    """A time for servers whose clocks may run faster than ours."""
    factor, more = _DRIFT
    return seconds * factor + more
