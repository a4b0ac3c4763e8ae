"""Group 4: the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.fault import Fault, Strike

if TYPE_CHECKING:
    from tests.faults.scene import Scene

ETCD = ("etcd", "etcd+grpc")
POSTGRES = ("postgres", "pgbouncer")
SERVERS = (*ETCD, *POSTGRES, "k8s-lease", "redis")
QUORUM = ("redis+quorum",)
REPLICATED = ("redis+sentinel", "redis+cluster")
LEAPS = "the server's clock leaps forward"
FORGETS = "a fail-over forgets what it had acknowledged"


def _lasting(name: str) -> Strike:
    """Call that method of the site, and leave it so for a moment or for longer than the lease."""

    def strike(scene: Scene) -> None:
        getattr(scene.site, name)()
        scene.hit += 1
        scene.wait(scene.chance.choice((0.3, 2.0, scene.ttl + 1.5)))

    return strike


def _with_lock(name: str) -> Strike:
    """The same with a method that is told the lock's name, because it strikes the server that has it."""

    def strike(scene: Scene) -> None:
        getattr(scene.site, name)(scene.name)
        scene.hit += 1
        scene.wait(scene.chance.choice((0.3, 2.0, scene.ttl + 1.5)))

    return strike


def _some(name: str, *words: int) -> Strike:
    """The same with a method that is told how many servers to strike, and perhaps how."""

    def strike(scene: Scene) -> None:
        getattr(scene.site, name)(*words)
        scene.hit += 1
        scene.wait(scene.chance.choice((0.3, 2.0, scene.ttl + 1.5)))

    return strike


def _heal(scene: Scene) -> None:
    scene.site.heal()


def _frozen(scene: Scene) -> None:
    scene.site.freeze()
    scene.hit += 1
    scene.wait(scene.ttl + 0.2, scene.ttl + 1.5)


def _step(seconds: int) -> Strike:
    def strike(scene: Scene) -> None:
        scene.site.step_clock(seconds)
        scene.hit += 1
        scene.wait(1.0)

    return strike


def _row(name: str, strike: Strike, on: tuple[str, ...], world: str = "plain", exception: str = "") -> Fault:
    return Fault(name, 4, strike, on=on, world=world, heal=_heal, waits_lease=True, exception=exception)


ROWS = [
    _row("server killed", _lasting("crash"), SERVERS),
    _row("server stopped", _frozen, SERVERS),
    _row("pooler killed", _lasting("crash_pooler"), ("pgbouncer",)),
    _row("disk full", _lasting("fill_disk"), (*ETCD, *POSTGRES, *QUORUM), "small disk"),
    _row("read-only", _lasting("forbid_writes"), ETCD, "quota"),
    _row("read-only", _lasting("forbid_writes"), POSTGRES),
    _row("too many connections", _lasting("refuse_connections"), (*ETCD, *POSTGRES)),
    _row("password changed", _lasting("change_password"), ETCD, "users"),
    _row("password changed", _lasting("change_password"), POSTGRES),
    _row("sessions ended", _lasting("end_sessions"), POSTGRES),
    _row("leader killed", _lasting("kill_leader"), ETCD, "cluster"),
    _row("leader stopped", _lasting("stop_leader"), ETCD, "cluster"),
    _row("leader moved", _lasting("move_leader"), ETCD, "cluster"),
    _row("read-only", _lasting("forbid_writes"), ("redis",)),
    _row("too many connections", _lasting("refuse_connections"), ("redis",)),
    _row("password changed", _lasting("change_password"), ("redis",), "users"),
    _row("sessions ended", _lasting("end_sessions"), ("redis", *QUORUM)),
    _row("memory full", _lasting("fill_memory"), ("redis",)),
    _row("scripts flushed", _lasting("flush_scripts"), ("redis", *QUORUM)),
    _row("leader killed", _with_lock("kill_leader"), REPLICATED, exception=FORGETS),
    _row("leader stopped", _with_lock("stop_leader"), REPLICATED, exception=FORGETS),
    _row("leader moved", _with_lock("move_leader"), REPLICATED, exception=FORGETS),
    _row("slot moved", _with_lock("move_slot"), ("redis+cluster",)),
    *(_row(f"{count} of 5 killed", _some("kill_some", count), QUORUM) for count in (2, 3, 5)),
    *(_row(f"{count} of 5 stopped", _some("stop_some", count), QUORUM) for count in (2, 3, 5)),
    *(_row(f"{count} of 5 black-holed", _some("swallow_some", count), QUORUM) for count in (2, 3)),
    *(_row(f"memory of {count} of 5 full", _some("fill_some", count), QUORUM) for count in (2, 3, 5)),
    _row("1 of 5 emptied", _some("empty_some", 1), QUORUM),
    # A minority too, while the holder hasn't got the lock on all of the others yet.
    _row("clock of 2 of 5 1 h forward", _some("step_clocks", 2, 3600), QUORUM, "own clock", LEAPS),
    _row("clock of 3 of 5 1 h forward", _some("step_clocks", 3, 3600), QUORUM, "own clock", LEAPS),
    _row("clock of 3 of 5 1 h back", _some("step_clocks", 3, -3600), QUORUM, "own clock"),
    _row("clock 1 h forward", _step(3600), (*POSTGRES, "redis"), "own clock", LEAPS),
    _row("clock 1 h back", _step(-3600), (*POSTGRES, "redis"), "own clock"),
]
