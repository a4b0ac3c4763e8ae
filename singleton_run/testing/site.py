"""The description of a backend for the suite, as plain data."""

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
    """A way in which the backend can't be used, and the error that it has to raise.

    With `lock` and `environ` either `open_backend` or `acquire` has to raise `kind` (`Refused` or
    `Unavailable`) within its limit. The attempt runs within `during`: for example a stopped server, or a
    directory that can't be read. `secret` must not be in the error's text. `what` names the fault.
    """

    what: str
    kind: type[Failure]
    lock: str
    environ: Mapping[str, str] = field(default_factory=dict)
    during: Callable[[], AbstractContextManager[object]] = nullcontext
    secret: str = ""


@dataclass(frozen=True)
class Site:
    """One place where locks are kept, and what the backend promises there.

    `opener` is the backend's `module:open_backend`, imported in other processes (they have our
    `sys.path`). `lock` and `environ` are its two arguments; `environ` is the whole environment of
    those processes, not an addition to ours.

    `delete(name)` removes the lock from the server, as a person would by hand. The lock may be missing, and
    its record may be removed with it. The other calls are for `LeasedConformance`. `take(name)` gives the
    lock by hand to another holder, who never renews it and has it for at least a minute. `outage()` returns a
    context manager: within it the server doesn't answer or refuses to, and after it the server is as before.
    `restart()` kills the server, starts it again on its data, and returns when it serves.

    `ttl` is the shortest possible lease, in seconds. The suite uses it for leases that have to expire, and
    for locks that are kept after a release.
    `fifo` says that the lock is handed on in the order of the first refused `acquire`s.
    `watches` says that `hold` returns at once when the lock is deleted or taken by hand.
    `tells` says that `hold` returns at once when the control changes.
    `runs` is how many earlier runs of a record are kept at the least, where there isn't the room for all 50.
    `patience` is how long the suite waits for something to happen, in seconds, apart from the time of leases.
    It is more than any machine needs: only a broken backend lets it pass.
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
    tells: bool = False
    runs: int = 50
    patience: float = 15.0
