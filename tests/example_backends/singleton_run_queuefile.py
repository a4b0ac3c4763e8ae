"""The lease file with a queue: the lock is handed on in the order of arrival, and a holder watches it.

A place in the queue lapses like a lease, unless its waiter goes on waiting.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from singleton_run.api.contract import Held, Look
from singleton_run.errors import Lost
from singleton_run.system import calls
from tests.example_backends.singleton_run_leasefile import (
    LOOK_EVERY,
    LeaseFile,
    held_in,
    is_held,
    is_own,
    must_be,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run.api.contract import Grant


def open_backend(lock: str, environ: Mapping[str, str]) -> QueueFile:
    """The backend for `queuefile:///DIRECTORY`."""
    return QueueFile(Path(lock.partition("://")[2]))


class QueueFile(LeaseFile):
    """Leases with queues. See `singleton_run.api.contract.Backend`."""

    ttl = 0.0
    # The control's version when the lock was last granted to us or renewed.
    version = 0

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Take the lock if it is free for us; else take a place in the queue."""
        self._mine = (name, holder)
        self.ttl = ttl
        with self._state(name, limit) as state:
            self._keep_place(state)
            if self._is_turn(state):
                del state["queue"][holder]
                return self._granted(name, holder, ttl, state)
            return held_in(state)

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Look until it is our turn; as long as that takes our place is kept."""
        assert self._mine is not None, "nobody waits who wasn't refused"
        while calls.now() < until:
            with self._state(self._mine[0], LOOK_EVERY) as state:
                self._keep_place(state)
                if self._is_turn(state):
                    return
            if calls.wait(min(until, calls.now() + LOOK_EVERY), [wake]):
                return

    def _keep_place(self, state: dict[str, Any]) -> None:
        now = calls.now()
        assert self._mine is not None, "nobody has a place who wasn't refused"
        queue = {who: until for who, until in state.get("queue", {}).items() if until > now}
        queue[self._mine[1]] = now + self.ttl
        state["queue"] = queue

    def _is_turn(self, state: Mapping[str, Any]) -> bool:
        assert self._mine is not None, "nobody has a turn who wasn't refused"
        holder = self._mine[1]
        if is_held(state):
            return is_own(state, holder)
        return holder == next(iter(state["queue"])) or is_own(state, holder)

    def leave(self, limit: float) -> None:
        """Give back what `acquire` took, and our place."""
        super().leave(limit)
        if self._mine is not None:
            with self._state(self._mine[0], limit) as state:
                state.get("queue", {}).pop(self._mine[1], None)

    def _granted(self, name: str, holder: str, ttl: float, state: dict[str, Any]) -> Grant:
        self.version = state["version"]
        return super()._granted(name, holder, ttl, state)

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:
        """Hold it for another ttl."""
        with self._state(grant.name, limit) as state:
            # Before the control is read: a later one is noticed.
            self.version = state["version"]
        return super().renew(grant, limit)

    def look(self, name: str, limit: float) -> Look:
        """All that is in the file, and who waits."""
        seen = super().look(name, limit)
        with self._state(name, limit) as state:
            queue = state.get("queue", {})
            seen.waiting = [Held(who) for who, until in queue.items() if until > calls.now()]
        return seen

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Look until the lock is not ours, or has another control."""
        while calls.now() < until:
            with self._state(grant.name, LOOK_EVERY) as state:
                try:
                    must_be(grant, state)
                except Lost:
                    return
                if state["version"] != self.version:
                    return
            if calls.wait(min(until, calls.now() + LOOK_EVERY), [wake]):
                return
