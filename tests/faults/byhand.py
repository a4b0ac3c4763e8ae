"""Group 6: what people do to the lock by hand. The old holder can only notice: how soon is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.fault import REDIS, Fault, Strike

if TYPE_CHECKING:
    from tests.faults.scene import Scene

BY_HAND = "somebody deletes the lock by hand"


def _do(name: str) -> Strike:
    def strike(scene: Scene) -> None:
        getattr(scene.site, name)(scene.name, scene.directory)
        scene.hit += 1
        scene.wait(2.0)

    return strike


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
]
