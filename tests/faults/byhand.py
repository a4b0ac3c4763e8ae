"""Group 6: what people do to the lock by hand. The old holder can only notice: how soon is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.fault import REDIS, Fault, Strike

if TYPE_CHECKING:
    from tests.faults.scene import Scene

BY_HAND = "somebody deletes the lock by hand"


def _do(name: str, *words: int) -> Strike:
    def strike(scene: Scene) -> None:
        getattr(scene.site, name)(scene.name, *(words or [scene.directory]))
        scene.hit += 1
        scene.wait(2.0)

    return strike


MAJORITY = 3
SERVERS = ("etcd", "etcd+grpc", "postgres", "pgbouncer", "k8s-lease", *REDIS)
ROWS = [
    Fault(
        "lock deleted",
        6,
        _do("delete"),
        on=(*SERVERS, "file"),
        long=True,
        waits_lease=True,
        exception=BY_HAND,
        file_exception=BY_HAND,
    ),
    Fault(
        "lock overwritten",
        6,
        _do("overwrite"),
        on=SERVERS,
        long=True,
        waits_lease=True,
        exception=BY_HAND,
    ),
    # A minority of a quorum's servers is none of the holder's business.
    *(
        Fault(
            f"lock {done} on {count} of 5",
            6,
            _do(f"{name}_some", count),
            on=("redis+quorum",),
            long=True,
            waits_lease=True,
            exception="" if count < MAJORITY else BY_HAND,
        )
        for done, name in (("deleted", "delete"), ("overwritten", "overwrite"))
        for count in (2, MAJORITY)
    ),
]
