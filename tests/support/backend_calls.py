"""Calls of a backend's own methods, as the tests of several backends need them.

Each test module has the fixtures of its own server, and reads as a story of these calls.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from singleton_run.api import control as controls
from singleton_run.api.contract import Backend, Grant, Held
from singleton_run.errors import Unavailable
from singleton_run.system import calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

LIMIT = 5.0
"""Seconds that a call may take."""
LONG = 600.0
"""Seconds: a ttl or a wait that no test sees the end of."""
B = TypeVar("B", bound=Backend)


class Opened(Generic[B]):
    """Opens backends by `open_one`, and closes them when the test is over."""

    def __init__(self, open_one: Callable[..., B]) -> None:
        self._open_one = open_one
        self._backends: list[B] = []

    def __call__(self, *words: Any) -> B:
        self._backends.append(self._open_one(*words))
        return self._backends[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        for backend in self._backends:
            backend.close()


def take(backend: Backend, name: str, holder: str = "host:1:a", ttl: float = LONG) -> Grant:
    """The lock, which must be free."""
    got = backend.acquire(name, holder, ttl, LIMIT)
    assert isinstance(got, Grant), got.holder
    return got


def refused(backend: Backend, name: str, holder: str = "host:2:b", ttl: float = LONG) -> Held:
    """Who has the lock, which must be held."""
    got = backend.acquire(name, holder, ttl, LIMIT)
    assert isinstance(got, Held)
    return got


def attempt(backend: Backend, name: str, holder: str, ttl: float = LONG) -> Grant | Held | None:
    """One attempt; None where the server is away."""
    try:
        return backend.acquire(name, holder, ttl, LIMIT)
    except Unavailable:
        return None


def renews(backend: Backend, grant: Grant) -> bool:
    """Whether a renewal succeeds. Raises Lost."""
    try:
        backend.renew(grant, LIMIT)
    except Unavailable:
        return False
    return True


def pause(reason: str = "an upgrade") -> dict[str, Any]:
    """A control that pauses the lock without an end."""
    return controls.paused(None, by="ann@desk", at=1.0, until=None, reason=reason)


def steer(backend: Any, name: str, control: dict[str, Any]) -> None:
    """Replace whatever control there is."""
    assert backend.steer(name, backend.look(name, LIMIT).version, control, LIMIT)


def holding(backend: Backend, grant: Grant, seconds: float = LONG) -> Any:
    """Hold the lock in a thread; the function that is given returns when the hold ends by itself."""
    return _in_thread(backend.hold, grant, seconds)


def waiting(backend: Backend, held: Held) -> Any:
    """Wait for the lock in a thread; the function that is given ends with the wait."""
    return _in_thread(backend.wait, held, LONG)


@contextmanager
def _in_thread(
    call: Callable[[Any, float, int], object], what: object, seconds: float
) -> Iterator[Callable[[], object]]:
    never, end = os.pipe()
    with ThreadPoolExecutor() as pool:
        done = pool.submit(call, what, calls.now() + seconds, never)
        try:
            yield lambda: done.result(4 * LIMIT)
        finally:
            os.write(end, b".")
    os.close(never)
    os.close(end)


def steered_by_many(holder: Backend, grant: Grant, name: str, people: list[Any], times: int) -> None:
    """Let `people` count in the control, `times` each, while the holder renews: no step is lost."""

    def push(person: Any) -> None:
        for _ in range(times):
            done = False
            while not done:
                seen = person.look(name, LIMIT)
                count = 0 if seen.control is None else seen.control["count"]
                done = person.steer(name, seen.version, {**pause(), "count": count + 1}, LIMIT)

    with ThreadPoolExecutor(len(people)) as pool:
        pushes = [pool.submit(push, person) for person in people]
        last = 0
        while not all(one.done() for one in pushes):
            control = holder.renew(grant, LIMIT)
            count = 0 if control is None else control["count"]
            assert count >= last
            last = count
        for one in pushes:
            one.result()
    assert holder.renew(grant, LIMIT) == {**pause(), "count": times * len(people)}


def paused_by_damage(backend: Any, name: str, damage: Callable[[], object]) -> None:
    """What `damage` does to the lock's control pauses the lock, until the control is replaced."""
    steer(backend, name, pause())
    damage()
    grant = take(backend, name)
    for control in (grant.control, backend.renew(grant, LIMIT), backend.look(name, LIMIT).control):
        found = controls.pause_of(control, 2.0)
        assert found is not None
        assert "can't be read" in found["reason"]
    steer(backend, name, controls.resumed(None))
    assert controls.pause_of(backend.renew(grant, LIMIT), 2.0) is None
