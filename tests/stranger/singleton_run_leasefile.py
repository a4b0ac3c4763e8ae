"""A backend as a stranger would write it: a lock under a lease, kept in one file on this machine.

It is found by its entry point, and asked for by `--lock leasefile:///DIRECTORY`. What a server
would do happens in the caller, under a flock: the file NAME.lease holds who has the lock, by
which token, and until when by the boot clock. Waiters look at it every few milliseconds, which a
real backend would not do.

The tests cut it off through files in the directory: while `outage` exists every call is
Unavailable; while `stuck` exists every call hangs; while `denied` exists every call is Refused.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singleton_run import system
from singleton_run.contract import Grant, Held
from singleton_run.errors import Lost, Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOOK_EVERY = 0.02


def open_backend(lock: str, environ: Mapping[str, str]) -> LeaseFile:
    """The backend for `leasefile:///DIRECTORY`."""
    directory = Path(lock.partition("://")[2])
    if not directory.is_dir():
        raise Refused(f"{lock}: there is no such directory")
    return LeaseFile(directory)


class LeaseFile:
    """Leases in one directory. See `singleton_run.contract.Backend`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mine: tuple[str, str] | None = None

    @contextmanager
    def _state(self, name: str, limit: float) -> Iterator[dict[str, Any]]:
        """The state of a lock, changed in place and written back, while nobody else can."""
        self._meet_faults(limit)
        with (self._directory / f"{name}.lease").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            state = json.loads(file.read() or '{"token": 0, "holder": "", "until": 0, "since": 0, "record": null}')
            yield state
            file.truncate(0)
            file.write(json.dumps(state))

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
            if state["holder"] not in ("", holder) and system.now() < state["until"]:
                return Held(state["holder"], state["holder"].partition(":")[0], state["since"], state["until"])
            state.update(token=state["token"] + 1, holder=holder, until=system.now() + ttl, since=time.time())
            return Grant(name, holder, state["token"], ttl, {}, state["record"])

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Look until the lock is free."""
        name = self._mine[0] if self._mine else ""
        while system.now() < until:
            if system.wait(min(until, system.now() + LOOK_EVERY), [wake]):
                return
            with self._state(name, LOOK_EVERY) as state:
                if not state["holder"] or system.now() >= state["until"]:
                    return

    def leave(self, limit: float) -> None:
        """Give back what `acquire` took."""
        if self._mine is None:
            return
        name, holder = self._mine
        with self._state(name, limit) as state:
            if state["holder"] == holder:
                state.update(holder="", until=0)

    def renew(self, grant: Grant, limit: float) -> None:
        """Hold it for another ttl."""
        with self._state(grant.name, limit) as state:
            self._must_be(grant, state)
            state["until"] = system.now() + grant.ttl

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Wait: this server tells nobody of a loss."""
        system.wait(until, [wake])

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Put the record beside the lock."""
        with self._state(grant.name, limit) as state:
            self._must_be(grant, state)
            state["record"] = dict(record)

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Give the lock back, with its record."""
        with self._state(grant.name, limit) as state:
            if state["token"] == grant.token and not state["holder"]:
                return
            self._must_be(grant, state)
            state.update(holder="", until=0, record=dict(record))

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        """Who holds it, and the record."""
        with self._state(name, limit) as state:
            held = state["holder"] and system.now() < state["until"]
            return (Held(state["holder"], since=state["since"]) if held else None), state["record"]

    def list(self, limit: float) -> list[str]:
        """Every name."""
        return sorted(path.stem for path in self._directory.glob("*.lease"))

    def close(self) -> None:
        """Nothing is kept open."""

    def _must_be(self, grant: Grant, state: Mapping[str, Any]) -> None:
        if (state["token"], state["holder"]) != (grant.token, grant.holder):
            raise Lost(f"{state['holder'] or 'nobody'} holds it")
