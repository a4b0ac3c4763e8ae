"""Group 3: the network between a contender, or all of them, and the server."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tests.faults.fault import Fault, Strike
from tests.support.proxy import DOWN, UP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.scene import Scene
    from tests.support.proxy import Proxy

    Break = Callable[[Proxy], None]

SERVERS = ("etcd", "etcd+grpc", "postgres", "pgbouncer", "k8s-lease", "redis")
HOST = "faults.test"


def _lasting(breaks: Break) -> Strike:
    """Break the holder's way to the server or everyone's, for a moment or for longer than the lease."""

    def strike(scene: Scene) -> None:
        for index in scene.victims():
            breaks(scene.site.proxies[index])
            scene.hit += 1
        scene.wait(scene.chance.choice((0.3, 2.0, scene.ttl + 1.5)))

    return strike


def _mend(scene: Scene) -> None:
    for between in scene.site.proxies:
        between.mend()


def _half_open(scene: Scene) -> None:
    """The server's machine dies without a word, and comes back knowing of no connection."""
    for between in scene.site.proxies:
        between.deafen(UP, DOWN)
    scene.site.crash()
    scene.hit += 1
    scene.wait(scene.chance.choice((0.3, 2.0, scene.ttl + 1.5)))
    scene.site.heal()
    for between in scene.site.proxies:
        between.cut()


def _with_hosts(scene: Scene, index: int) -> tuple[str, ...]:
    """The call in a mount namespace in which /etc/hosts is the scene's."""
    script = f'mount --bind {shlex.quote(str(scene.directory / "hosts"))} /etc/hosts && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


def _forget_names(scene: Scene) -> None:
    """The name doesn't resolve any more, and every connection has to be made anew."""
    (scene.directory / "hosts").write_text("127.0.0.1 localhost\n")
    for between in scene.site.proxies:
        between.cut()
        between.mend()
    scene.hit += 1
    scene.wait(scene.chance.choice((0.3, 2.0, scene.ttl + 1.5)))


def _know_names(scene: Scene) -> None:
    (scene.directory / "hosts").write_text(f"127.0.0.1 localhost {HOST}\n")


def _row(name: str, strike: Strike) -> Fault:
    return Fault(name, 3, strike, on=SERVERS, heal=_mend, waits_lease=True)


ROWS = [
    _row("reset", _lasting(lambda between: between.cut())),
    _row("black hole both ways", _lasting(lambda between: between.deafen(UP, DOWN))),
    _row("black hole to the server", _lasting(lambda between: between.deafen(UP))),
    _row("black hole from the server", _lasting(lambda between: between.deafen(DOWN))),
    _row("2 s latency", _lasting(lambda between: between.slow(2.0))),
    _row("a byte a second", _lasting(lambda between: between.trickle())),
    _row("half-open", _half_open),
    Fault(
        "names don't resolve",
        3,
        _forget_names,
        on=("etcd", "etcd+grpc", "postgres", "pgbouncer", "redis"),
        prepare=_know_names,
        heal=_know_names,
        waits_lease=True,
        wrap=_with_hosts,
        lock=lambda lock: lock.replace("127.0.0.1", HOST),
    ),
]
