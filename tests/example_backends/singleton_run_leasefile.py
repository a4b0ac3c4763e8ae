"""A backend as a stranger would write it: a lock under a lease, kept in one file on this machine.

It is found by its entry point, and asked for by `--lock leasefile:///DIRECTORY`. What a server
would do happens in the caller, under a flock: the file NAME.lease holds who has the lock, by
which token, and until when by the boot clock, the record and the control. Waiters look at it
every few milliseconds, which a real backend would not do.

The tests cut it off through files in the directory: while `outage` exists every call is
Unavailable; while `stuck` exists every call hangs; while `denied` exists every call is Refused;
while `broken` exists every call raises what no backend should.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singleton_run.api.contract import Grant, Held, Look
from singleton_run.api.control import parsed
from singleton_run.errors import Lost, Refused, Unavailable
from singleton_run.system import calls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOOK_EVERY = 0.02
NOBODY = {
    "token": 0,
    "generation": 0,
    "holder": "",
    "until": 0,
    "since": 0,
    "kept": False,  # the holder has given it back, but until then nobody gets it
    "record": None,
    "control": "",  # as text: anybody may have written it
    "version": 0,  # the number of the control, never the same twice
}


def open_backend(lock: str, environ: Mapping[str, str]) -> LeaseFile:
    """The backend for `leasefile:///DIRECTORY`."""
    directory = Path(lock.partition("://")[2])
    if not directory.is_dir():
        raise Refused(f"{lock}: there is no such directory")
    return LeaseFile(directory)


class LeaseFile:
    """Leases in one directory. See `singleton_run.api.contract.Backend`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mine: tuple[str, str] | None = None

    @contextmanager
    def _state(self, name: str, limit: float) -> Iterator[dict[str, Any]]:
        """The state of a lock while nobody else can look: what is changed in it is kept."""
        self._meet_faults(limit)
        path = self._directory / f"{name}.lease"
        with (self._directory / "server").open("a") as server:
            fcntl.flock(server, fcntl.LOCK_EX)
            before = path.read_text() if path.exists() else json.dumps(NOBODY)
            state = NOBODY | json.loads(before)
            yield state
            after = json.dumps(state)
            if after != before:
                self._put(path, after)

    def _next_token(self, last: int) -> int:
        """Greater than `last` and all before, of any name: it outlives a lock's file that is deleted."""
        path = self._directory / "token"
        token = max(last, int(path.read_text()) if path.exists() else 0) + 1
        self._put(path, str(token))
        return token

    def _put(self, path: Path, text: str) -> None:
        whole = self._directory / "whole"
        whole.write_text(text)
        whole.replace(path)

    def _meet_faults(self, limit: float) -> None:
        with (self._directory / "requests").open("a") as log:
            log.write(f"{os.getpid()}\n")
        while (self._directory / "stuck").exists():
            time.sleep(LOOK_EVERY)
        if (self._directory / "outage").exists():
            raise Unavailable("the lease file's server is out of reach")
        if (self._directory / "denied").exists():
            raise Refused("the lease file's server says no")
        if (self._directory / "broken").exists():
            raise RuntimeError("a bug in a backend")

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Take the lock if nobody has it, or its lease is over."""
        self._mine = (name, holder)
        with self._state(name, limit) as state:
            if is_held(state) and not is_own(state, holder):
                return held_in(state)
            return self._granted(name, holder, ttl, state)

    def _granted(self, name: str, holder: str, ttl: float, state: dict[str, Any]) -> Grant:
        token = self._next_token(state["token"])
        until = calls.now() + ttl
        state.update(token=token, generation=0, holder=holder, until=until, since=time.time(), kept=False)
        return Grant(name, holder, token, ttl, {}, state["record"], control=control_in(state))

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Look until the lock is free."""
        name = self._mine[0] if self._mine else ""
        while calls.now() < until:
            with self._state(name, LOOK_EVERY) as state:
                if not is_held(state):
                    return
            if calls.wait(min(until, calls.now() + LOOK_EVERY), [wake]):
                return

    def leave(self, limit: float) -> None:
        """Give back what `acquire` took."""
        if self._mine is None:
            return
        name, holder = self._mine
        with self._state(name, limit) as state:
            if is_own(state, holder):
                state.update(holder="", until=0)

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:
        """Hold it for another ttl."""
        with self._state(grant.name, limit) as state:
            must_be(grant, state)
            state.update(generation=grant.generation, until=calls.now() + grant.ttl)
            return control_in(state)

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Wait: this server tells nobody of a loss."""
        calls.wait(until, [wake])

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Put the record beside the lock."""
        with self._state(grant.name, limit) as state:
            must_be(grant, state)
            state["record"] = dict(record)

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        """Give the lock back, with its record, to be had after `keep` seconds."""
        until = calls.now() + keep
        with self._state(grant.name, limit) as state:
            if state["token"] == grant.token and (state["kept"] or not state["holder"]):
                return
            must_be(grant, state)
            if keep > 0:
                state.update(until=until, kept=True, record=dict(record))
            else:
                state.update(holder="", until=0, record=dict(record))

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        """Who holds it, and the record."""
        with self._state(name, limit) as state:
            return (held_in(state) if is_held(state) else None), state["record"]

    def look(self, name: str, limit: float) -> Look:
        """All that is in the file. Nobody knows who waits."""
        with self._state(name, limit) as state:
            version = str(state["version"] or "")
            holder = held_in(state) if state["holder"] else None
            return Look(state_of(state), holder, state["record"], control=control_in(state), version=version)

    def steer(self, name: str, version: str, control: Mapping[str, Any], limit: float) -> bool:
        """Replace the control if its version is that one. A holder looks by itself."""
        with self._state(name, limit) as state:
            if version != str(state["version"] or ""):
                return False
            state.update(control=json.dumps(control), version=self._next_token(0))
            return True

    def free(self, name: str, seen: Look, limit: float) -> bool:
        """Take the lock from the holder that was seen."""
        with self._state(name, limit) as state:
            if seen.holder is None or seen.holder.holder != state["holder"]:
                return False
            if seen.holder.token != state["token"]:
                return False
            state.update(holder="", until=0, kept=False)
            return True

    def list(self, limit: float) -> list[str]:
        """Every name."""
        self._meet_faults(limit)
        return sorted(path.stem for path in self._directory.glob("*.lease"))

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        """What was marked for the key."""
        with self._marks(name, limit) as marks:
            mark: Mapping[str, Any] | None = marks.get(key)
            return mark

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        """Mark the key."""
        with self._state(grant.name, limit) as state:
            must_be(grant, state)
            marks = self._read_marks(grant.name)
            self._put(self._directory / f"{grant.name}.once", json.dumps(marks | {key: dict(mark)}))

    def forget(self, name: str, key: str, limit: float) -> bool:
        """Take the mark of the key away."""
        with self._marks(name, limit) as marks:
            if key not in marks:
                return False
            del marks[key]
            self._put(self._directory / f"{name}.once", json.dumps(marks))
            return True

    @contextmanager
    def _marks(self, name: str, limit: float) -> Iterator[dict[str, Any]]:
        """The marks of a name while nobody else can look."""
        self._meet_faults(limit)
        with (self._directory / "server").open("a") as server:
            fcntl.flock(server, fcntl.LOCK_EX)
            yield self._read_marks(name)

    def _read_marks(self, name: str) -> dict[str, Any]:
        path = self._directory / f"{name}.once"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def offset(self) -> tuple[float, float] | None:
        """The time is this machine's."""
        return None

    def close(self) -> None:
        """Nothing is kept open."""


def is_held(state: Mapping[str, Any]) -> bool:
    """Whether somebody has the lock, and its lease is not over."""
    return bool(state["holder"]) and calls.now() < state["until"]


def is_own(state: Mapping[str, Any], holder: str) -> bool:
    """Whether the lock is that of `holder`, and not given back."""
    return state["holder"] == holder and not state["kept"]


def held_in(state: Mapping[str, Any]) -> Held:
    """What is told to whoever is refused."""
    return Held(
        state["holder"],
        since=state["since"],
        until=state["until"],
        token=state["token"],
        control=control_in(state),
    )


def state_of(state: Mapping[str, Any]) -> str:
    """The state's name in a `Look`."""
    if not state["holder"]:
        return Look.FREE
    if not is_held(state):
        return Look.EXPIRED
    return Look.KEPT if state["kept"] else Look.HELD


def control_in(state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The control, None without one."""
    return parsed(state["control"]) if state["control"] else None


def must_be(grant: Grant, state: Mapping[str, Any]) -> None:
    """Raise Lost unless the lock is that of `grant`, and no later keeper has it."""
    if (state["token"], state["holder"]) != (grant.token, grant.holder):
        raise Lost(f"{state['holder'] or 'nobody'} holds it")
    if state["kept"]:
        raise Lost("it was given back")
    if grant.generation < state["generation"]:
        raise Lost("a later keeper of the same turn has taken over")
