"""What a fault is: a row of plain functions. The rows themselves are in `table`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Strike = Callable[[Any], object]
REDIS = ("redis", "redis+sentinel", "redis+cluster", "redis+quorum")


@dataclass(frozen=True)
class Fault:
    """One row, of the group of that number in docs/reliability.md.

    `strike` breaks something, and mends it if it lasts; `heal` is called in any case. `on` says at
    which sites it can happen (empty: all), `world` in which state of theirs. With `waits_lease`
    others may have to wait out the ttl. `exception` names the row of docs/promises.md by which it
    may end in an overlap at a site with leases, `file_exception` with `file`. `long` means that the
    command must be in the middle of its work.

    `prepare` is called before the contenders start; `wrap` is put before a contender's call, `environ`
    is added to its environment, `stderr` is a descriptor for its standard error, `lock` changes its
    URL. Without `speaks` nobody hears what the wrapper says.
    """

    name: str
    group: int
    strike: Strike
    on: tuple[str, ...] = ()
    world: str = "plain"
    waits_lease: bool = False
    exception: str = ""
    file_exception: str = ""
    long: bool = False
    prepare: Strike = lambda scene: None
    heal: Strike = lambda scene: None
    wrap: Callable[[Any, int], tuple[str, ...]] = lambda scene, index: ()
    environ: Callable[[Any], dict[str, str]] = lambda scene: {}
    speaks: bool = True
    stderr: Callable[[Any], int | None] = lambda scene: None
    lock: Callable[[str], str] = lambda lock: lock

    def excuse(self, site: str) -> str:
        """The exception that holds at a site, empty if there is none."""
        return self.file_exception if site == "file" else self.exception
