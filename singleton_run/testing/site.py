"""What the suite has to know of a backend, as plain data."""

# ruff: noqa: TID253 - a tool of tests: the command never imports it

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from singleton_run.errors import Failure


@dataclass(frozen=True)
class Fault:
    """A way in which the backend can't be used, and how it has to say so.

    With `lock` and `environ` either `open_backend` or `acquire` raises `kind` (`Refused` or
    `Unavailable`) within its limit. `during` is entered around the attempt: a server that is
    stopped, a directory that is not readable. `secret` must not be in the error's text.
    """

    what: str
    kind: type[Failure]
    lock: str
    environ: Mapping[str, str] = field(default_factory=dict)
    during: Callable[[], AbstractContextManager[object]] = nullcontext
    secret: str = ""


@dataclass(frozen=True)
class Site:
    """One place where locks are kept, and what can be expected of it.

    `opener` is the backend's `module:open_backend`, imported in other processes (they have our
    `sys.path`). `lock` and `environ` are its two arguments; `environ` is the whole environment of
    those processes, not an addition to ours.

    `delete(name)` removes the lock from the server as a person would by hand, if there is one; its
    record may go with it.
    The rest of these calls is for `LeasedConformance`: `take(name)` makes it, by hand, the lock of
    somebody else who never renews it but has at least a minute; `outage()` gives a context manager
    within which the server answers nothing or refuses to, and after which it is as before; `restart()`
    kills the server and starts it again on its data, and returns when it serves.

    `ttl` is the shortest lease that can be had, seconds: what has to expire is given that one, and a
    lock is kept as long after a release.
    `fifo`: the lock is handed on in the order of the first refused `acquire`s.
    `watches`: `hold` returns at once when the lock is deleted or taken by hand.
    `patience` is how long the suite waits, in seconds, for what has to come, lease time not counted:
    more than any machine needs, for it is only ever waited out by a backend that is broken.
    """

    opener: str
    lock: str
    faults: Sequence[Fault]
    delete: Callable[[str], object]
    take: Callable[[str], object] | None = None
    outage: Callable[[], AbstractContextManager[object]] | None = None
    restart: Callable[[], object] | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    ttl: float = 2.0
    fifo: bool = False
    watches: bool = False
    patience: float = 15.0
