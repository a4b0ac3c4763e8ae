"""Which slot of a schedule to start, and when: decisions from a record and a time, without a clock.

A slot is named by its scheduled time. Only a record that was read under the lock says whether a slot may be
started: the slot must be later than the last one that was started, or have attempts left. A record that was
read without the lock is good enough to leave a slot to another.

All times are in Unix seconds (UTC). In the record, `slot` is an object: schedule (its text), grid (a point of
the grid of --every), slot, attempt (from 1), state (as in `record`), start, end (null while it runs), missed
(how many slots before this one were not started), overlap (the word of --overlap, if it isn't queue).
"""

from __future__ import annotations

import os

from singleton_run import lease_times
from singleton_run.api.record import SKIPPED, UNREADABLE, ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from singleton_run.call.settings import Settings
    from singleton_run.schedule.slot_times import Cron, Grid

    Record = Mapping[str, Any]
    Notes = list[tuple[str, float]]

RUN, QUEUE, REST, MEND = "run", "queue", "rest", "mend"
FOREVER = float("inf")
_HAIR = 0.001
_LONGEST_LEAD = 5.0
_SETTLES_IN = 0.5
_SPREAD = 1.0
_MOST_BEHIND = 30.0
_MOST_COUNTED = 1000
_NO_MORE = 1000  # an attempt's number that leaves no retry
_LEAST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0


class Decision:
    """What to do about a schedule. `kind` is RUN, QUEUE, MEND or REST.

    RUN: start `slot` at `at`, or later, but before `deadline`. This is its attempt number `attempt`.
    QUEUE: another has the lock. For RUN and QUEUE: wait for the lock until `until`, then decide anew.
    `briefly` says that another is about to start the slot, and that we wait only because it may die before.
    MEND: nobody knows which slot was started last. Under the lock, write a record that says: the slot that is
    due at `at` was (see `Plan.mended`).
    REST: there is nothing to do before `at`; then decide anew about `slot`, the next. If `at` is None there
    is never anything to do, and `why` says why.

    `notes` are events for the user, each with a time or a number of seconds.
    """

    __slots__ = (
        "at",
        "attempt",
        "briefly",
        "deadline",
        "grid",
        "kind",
        "missed",
        "notes",
        "slot",
        "until",
        "why",
    )

    def __init__(
        self,
        kind: str,
        slot: float,
        at: float | None,
        *,
        attempt: int = 1,
        deadline: float = FOREVER,
        why: str = "",
    ) -> None:
        self.kind = kind
        self.slot = slot
        self.at = at
        self.attempt = attempt
        self.deadline = deadline
        self.until = deadline if kind == QUEUE else -FOREVER
        self.briefly = False
        self.why = why
        self.missed = 0
        self.grid = 0.0
        self.notes: Notes = []

    def waits(self) -> bool:
        """Whether to wait for a lock that is held."""
        return self.until > -FOREVER


class Plan:
    """The rules by which one call runs slots; see `decide`.

    `since` is when the call was made, by this machine's clock. The clock that slots go by is `offset` seconds
    ahead of it. `second_look` says that the lock was held when the last decision was made. `chance` returns a
    number in [0, 1): it spreads the replicas, so that they don't all ask in the same moment.

    Raises Failure(UNUSABLE) for a time zone that this machine doesn't know.
    """

    def __init__(
        self, settings: Settings, since: float, chance: Callable[[], float], *, second_look: bool = False
    ) -> None:
        self.loops = settings.loop
        self.overlap = settings.overlap
        self.second_look = second_look
        self.offset = 0.0
        self._settings = settings
        self._since = since
        self._waits = settings.wait != 0
        self._chance = chance
        self.lead = 0.0
        self._cron: Cron | None = None
        if settings.cron is not None:
            from singleton_run.schedule import slot_times

            self._cron = slot_times.Cron(settings.cron, settings.zone or "")

    def decide(self, record: Record | None, now: float, *, held: bool, exact: bool) -> Decision:
        """What to do at `now` by `record`. `held` says that another has the lock.

        `exact` is false if `now` is by this machine's clock, because the server doesn't tell its time.
        """
        last = last_slot(record)
        times = _Times(self._settings, self._cron, last, now)
        if last is None and record is not None and "slot" in record:
            return Decision(MEND, times.due(now), now)
        self.lead = min(self._settings.ttl / 6, _LONGEST_LEAD, times.interval / 4)
        decision = self._of_loop(times, last, now, held=held)
        if self._waits and not held and self.loops and decision.kind == RUN:
            self._settle(decision)
        if decision.kind == RUN:
            decision.missed = times.between(last, decision.slot)
        decision.grid = times.grid
        if last is not None and last["schedule"] != times.text:
            decision.notes.append(("other schedule", last["slot"]))
        behind = 0.0 if last is None or exact else last["start"] - now
        if behind > min(times.interval / 2, _MOST_BEHIND):
            decision.notes.append(("behind", round(behind, 0 if behind < 60 else -1)))
        return decision

    def started(self, run: Record, decision: Decision, start: float) -> dict[str, Any]:
        """`run`, the record of a turn that starts at `start`, with the slot of `decision` added."""
        slot = {
            "schedule": _slots(self._settings, self._cron, 0.0).text,
            "grid": decision.grid,
            "slot": decision.slot,
            "attempt": decision.attempt,
            "state": "running",
            "start": start,
            "end": None,
            "missed": decision.missed,
        }
        if self.overlap != "queue":
            slot["overlap"] = self.overlap
        return {**run, "slot": slot}

    def mended(self, run: Record, decision: Decision) -> dict[str, Any]:
        """`run` with a slot that may have been started, and is not tried again."""
        known = Decision(REST, decision.slot, None, attempt=_NO_MORE)
        known.grid = decision.slot if self._cron is None else 0.0
        mended = self.started({**run, "state": "lost"}, known, decision.at or 0.0)
        return {**mended, "slot": {**mended["slot"], "state": UNREADABLE}}

    def skipped(self, run: Record, decision: Decision, at: float) -> dict[str, Any]:
        """`run` with a slot that was not started because of a pause, and is not tried again."""
        return ended(self.started(run, decision, at), SKIPPED, None, at)

    def following(self, decision: Decision, at: float) -> tuple[float, float]:
        """The slot after that of `decision`, which starts at `at`, and its start; inf if there is none."""
        text = _slots(self._settings, self._cron, 0.0).text
        times = _Times(
            self._settings, self._cron, {"schedule": text, "grid": decision.grid, "slot": decision.slot}, at
        )
        slot = times.next(decision.slot)
        while times.start(slot) <= at:
            slot = times.next(slot)
        return slot, times.start(slot)

    def after(self, slot: float) -> tuple[float, float]:
        """The slot after `slot`, and how long after that one's start it starts, in seconds."""
        decision = Decision(RUN, slot, slot)
        decision.grid = slot
        start = _Times(self._settings, self._cron, None, slot).start(slot)
        following, at = self.following(decision, start)
        return following, at - start

    def blind(self, now: float) -> float:
        """When the next slot starts, as far as that is known without a record."""
        times = _Times(self._settings, self._cron, None, now)
        return times.start(times.around(now)[1])

    def _of_loop(self, times: _Times, last: Record | None, now: float, *, held: bool) -> Decision:
        if not self._settings.loop:
            return self._of_one(times, last, now, held=held)
        due, upcoming = times.around(now)
        runs = last is not None and last["state"] == "running" and held
        floor = times.floor(last, self._since + self.offset)
        skipped: Notes = []
        if due is not None and due > floor:
            deadline = self._deadline(times, due, upcoming)
            if self._is_overlapped(times, last, due, now, runs=runs):
                skipped = [("overlapped", due)]
            elif now <= deadline:
                return self._start(due, times.start(due), deadline, now, held=held, runs=runs)
            else:
                skipped = [("skipped", due)]
        elif due is not None and last is not None and due <= last["slot"] + _HAIR:
            again = self._again(times, last, now, times.start(upcoming), held=held)
            if again is not None:
                return again
        if upcoming <= floor:
            upcoming = times.next(max(now, floor))
        if last is not None and not runs and self._is_overlapped(times, last, upcoming, now, runs=False):
            upcoming = times.next(last["end"])  # by its clock, which is ahead of ours
        at = times.start(upcoming)
        if at > now + self.lead:
            decision = self._ahead(upcoming, at)
        else:
            deadline = self._deadline(times, upcoming, times.next(upcoming))
            decision = self._start(upcoming, at, deadline, now, held=held, runs=runs)
        decision.notes += skipped
        return decision

    def _ahead(self, slot: float, at: float) -> Decision:
        """Rest until shortly before a slot's start: nobody renews a lock that waits for its slot."""
        return Decision(REST, slot, at - self.lead * (0.3 + 0.7 * self._chance()))

    def _start(
        self, slot: float, at: float, deadline: float, now: float, *, held: bool, runs: bool
    ) -> Decision:
        """Run a slot that starts at `at`. If another has the lock, wait a little: it may start the slot."""
        start = max(at, now)
        if not held:
            return Decision(RUN, slot, start, deadline=deadline)
        if not self._waits:
            return Decision(REST, slot, start + _SETTLES_IN + _SPREAD * self._chance())
        decision = Decision(QUEUE, slot, start, deadline=deadline)
        passes_over = runs and self._settings.overlap == "skip"
        if (not runs or passes_over) and now <= at + _SETTLES_IN:
            self._settle(decision)
        return decision

    def _is_overlapped(
        self, times: _Times, last: Record | None, slot: float, now: float, *, runs: bool
    ) -> bool:
        """Whether a slot is passed over because the run of the last one wasn't over at its start.

        A moment after its start we wait and see: the run's end may have been just before.
        """
        if self._settings.overlap != "skip" or last is None:
            return False
        start = times.start(slot)
        return now > start + _SETTLES_IN if runs else last["end"] is not None and start <= last["end"]

    def _settle(self, decision: Decision) -> None:
        """Wait only until shortly after the start: the lock's holder has written its attempt down by then."""
        decision.briefly = True
        settled = (decision.at or 0.0) + _SETTLES_IN + _SPREAD * self._chance()
        decision.until = min(decision.deadline, settled)

    def _again(self, times: _Times, last: Record, now: float, until: float, *, held: bool) -> Decision | None:
        """The next attempt at the last slot; None if there is none before `until`."""
        settings = self._settings
        attempts = last["attempt"]
        if attempts > settings.retries:
            return None
        if last["state"] == "running" and held:
            return Decision(QUEUE, last["slot"], now, deadline=until)
        due = retry_at(last, settings)
        at = max(now, due)
        if at >= until:
            return None
        if at > now + self.lead:
            return Decision(REST, last["slot"], at - self.lead * self._chance())
        if held:
            return self._start(last["slot"], due, until, now, held=True, runs=False)
        return Decision(RUN, last["slot"], at, attempt=attempts + 1, deadline=until)

    def _of_one(self, times: _Times, last: Record | None, now: float, *, held: bool) -> Decision:
        """Take part in the current slot only."""
        slot = times.current(now, -self.offset)
        if slot is None:
            return Decision(REST, now, None, why="none")
        until = times.start(times.next(slot))
        runs = last is not None and last["state"] == "running" and held
        if last is not None and slot <= last["slot"] + _HAIR:
            if runs:
                return self._wait_for(last["slot"], until)
            again = self._again(times, last, now, max(until, now + _HAIR), held=held)
            return again or Decision(REST, last["slot"], None, why=_ending(last))
        deadline = self._deadline(times, slot, times.next(slot))
        passes_over = runs and self._settings.overlap == "skip"
        if (passes_over and self.second_look) or self._is_overlapped(times, last, slot, now, runs=runs):
            return Decision(REST, slot, None, why="overlapped")
        if now > deadline:
            return Decision(REST, slot, None, why="skipped")
        at = max(now, times.start(slot)) if self._settings.jitter or self._cron is not None else now
        if at > now + self.lead:
            return self._ahead(slot, at)
        if held and self._waits:
            decision = Decision(QUEUE, slot, at, deadline=deadline)
            if passes_over:
                self._settle(decision)
            return decision
        return Decision(RUN, slot, at, deadline=deadline)

    def _wait_for(self, slot: float, until: float) -> Decision:
        if self._waits:
            return Decision(QUEUE, slot, None, deadline=until)
        return Decision(REST, slot, None, why="elsewhere")

    def _deadline(self, times: _Times, slot: float, following: float) -> float:
        given = self._settings.start_deadline
        return times.start(following) if given is None else times.start(slot) + given


class _Times:
    """A schedule's slots, and when they start, by the grid of the record `last`."""

    def __init__(self, settings: Settings, cron: Cron | None, last: Record | None, now: float) -> None:
        self._settings = settings
        self.text = _slots(settings, cron, 0.0).text
        self._same = last is not None and last["schedule"] == self.text
        self.grid = 0.0
        if cron is None:
            self.grid = float(int(now)) if last is None else last["grid" if self._same else "slot"]
        self._slots = _slots(settings, cron, self.grid)
        self.interval = settings.every or self.next(now) - self.due(now)

    def next(self, at: float) -> float:
        return self._slots.next(at)

    def due(self, now: float) -> float:
        """The latest slot not after `now`, or `now` if there is none."""
        return self._slots.latest(now) or now

    def start(self, slot: float) -> float:
        """When a slot starts: at its time plus the jitter, which is the same on every machine."""
        if not self._settings.jitter:
            return slot
        from singleton_run.schedule import slot_times

        return slot + slot_times.jitter(self._settings.name, slot, self._settings.jitter)

    def around(self, now: float) -> tuple[float | None, float]:
        """The slot with the latest start before `now`, and the slot with the next start."""
        slot = self._slots.latest(now)
        if slot is None or self.start(slot) <= now:
            return slot, self.next(now)
        return self._slots.latest(slot - _HAIR), slot

    def current(self, now: float, early: float) -> float | None:
        """The slot of a call with --no-loop, which is made at about the slot's time.

        cron makes the call by its own machine's clock, which is `early` seconds ahead: the slot may be due
        only in a moment.
        """
        slots = self._slots
        if self._settings.every is not None:
            return slots.nearest(now)  # type: ignore[union-attr]
        return slots.latest(now + early if 0 < early <= min(self.interval / 2, _MOST_BEHIND) else now)

    def floor(self, last: Record | None, since: float) -> float:
        """The time that a slot must be later than to be started.

        A cron schedule that is new under this lock starts no slot of before the call.
        """
        started = -FOREVER if last is None else last["slot"] + _HAIR
        made_up = self._settings.every is not None or self._same
        return started if made_up else max(started, since - _HAIR)

    def between(self, last: Record | None, slot: float) -> int:
        """The number of slots after the last one and before `slot`, at most 1000."""
        count = 0
        at = slot if last is None or not self._same else self.next(last["slot"] + _HAIR)
        while at < slot - _HAIR and count < _MOST_COUNTED:
            count += 1
            at = self.next(at)
        return count


def last_slot(record: Record | None) -> Record | None:
    """The slot that was started last, as a record has it; None if the record has no usable one."""
    slot = None if record is None else record.get("slot")
    if not isinstance(slot, dict):
        return None
    numbers = all(_is_time(slot.get(word)) for word in ("slot", "grid", "start"))
    texts = all(isinstance(slot.get(word), str) for word in ("schedule", "state"))
    end = slot.get("end") is None or _is_time(slot["end"])
    return slot if numbers and texts and end and isinstance(slot.get("attempt"), int) else None


def taken_back(run: Record, earlier: Record | None) -> Record:
    """The record that replaces `run`, which was written down, but not started."""
    if earlier is not None:
        return earlier
    return {word: value for word, value in {**run, "state": "interrupted"}.items() if word != "slot"}


def retry_at(last: Record, settings: Settings) -> float:
    """When the slot may be tried again: FOREVER for never, -FOREVER for at once (after a crash)."""
    state = last["state"]
    if state in ("succeeded", SKIPPED) or (state == "interrupted" and not settings.retry_interrupted):
        return FOREVER
    if state != "failed" or last["end"] is None:
        return -FOREVER
    end: float = last["end"]
    return end + settings.retry_delay * settings.retry_backoff ** (int(last["attempt"]) - 1)


def pause(failures: int, settings: Settings, chance: float) -> float:
    """The pause after this many failures in a row, in seconds.

    It is at most 30 s, and at most a quarter of the time in which a slot can start.
    """
    window = min(settings.start_deadline or FOREVER, settings.every or FOREVER)
    most = min(_LONGEST_PAUSE, window / 4)
    return max(_LEAST_PAUSE, lease_times.back_off(failures, most)) * (1.0 - chance / 4)


def chance() -> float:
    """A number in [0, 1), without importing random."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


def _ending(last: Record) -> str:
    """Why there is nothing to do about the last slot, as a word of `Decision.why`."""
    return {"running": "crashed", SKIPPED: "paused"}.get(last["state"], str(last["state"]))


def _slots(settings: Settings, cron: Cron | None, anchor: float) -> Cron | Grid:
    """The slots of the schedule. Those of --every begin at `anchor`."""
    if cron is not None:
        return cron
    from singleton_run.schedule import slot_times

    return slot_times.Grid(settings.every, anchor)  # type: ignore[arg-type] # there is one or the other


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e11 < value < 3e11
