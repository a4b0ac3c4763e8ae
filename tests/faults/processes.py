"""Groups 1 and 2: processes that are killed, or stopped for longer than the lease."""

from __future__ import annotations

from itertools import combinations
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import TYPE_CHECKING

from tests.faults.fault import REDIS, Fault, Strike
from tests.support.harness import below, send_if_there

if TYPE_CHECKING:
    from tests.faults.scene import Scene

OURS = ("front", "guard", "keeper")
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
ALL_KILLED = "all of our processes are killed in the same instant"
ALL_STOPPED = "all of our processes are stopped"
PAUSED = "a virtual machine is paused"


def _kill(*roles: str) -> Strike:
    return lambda scene: scene.send(SIGKILL, *roles)


def _stop(*roles: str) -> Strike:
    def strike(scene: Scene) -> None:
        stopped = scene.send(SIGSTOP, *roles)
        scene.wait(scene.ttl + 0.2, scene.ttl + 1.5)
        for process in stopped:
            send_if_there(SIGCONT, process)

    return strike


def _kill_group(scene: Scene) -> None:
    """The wrapper's process group, as a shell's `kill -9 %1` does."""
    _kill_group_of(scene, "front")


def _kill_command_group(scene: Scene) -> None:
    _kill_group_of(scene, "command")


def _kill_group_of(scene: Scene, role: str) -> None:
    for process in scene.roles(role).values():
        send_if_there(SIGKILL, -process)
        scene.hit += 1


def _freeze(scene: Scene) -> None:
    """Everything of the holder's, the command's processes too: what a paused machine looks like."""
    frozen = [process for front in scene.roles("front").values() for process in (front, *below(front))]
    for process in frozen:
        send_if_there(SIGSTOP, process)
    scene.hit += len(frozen)
    scene.wait(scene.ttl + 0.2, scene.ttl + 1.5)
    for process in frozen:
        send_if_there(SIGCONT, process)


def _kills() -> list[Fault]:
    rows = [Fault("kill command", 1, _kill("command"))]
    for count in (1, 2, 3):
        for roles in combinations(OURS, count):
            gone = {"front", "guard"} <= set(roles)
            rows.append(
                Fault(
                    f"kill {' + '.join(roles)}",
                    1,
                    _kill(*roles),
                    # With `file` there is no keeper to kill.
                    on=() if "keeper" not in roles else LEASED,
                    waits_lease="keeper" in roles and len(roles) > 1,
                    exception=ALL_KILLED if len(roles) == 3 else "",
                    file_exception=ALL_KILLED if gone else "",
                )
            )
    return rows


LEASED = ("etcd", "etcd+grpc", "postgres", "pgbouncer", "k8s-lease", *REDIS)

ROWS = [
    *_kills(),
    Fault("kill wrapper's group", 1, _kill_group),
    Fault("kill command's group", 1, _kill_command_group),
    Fault("kill container", 1, _kill("front"), wrap=lambda scene, index: CONTAINER, waits_lease=True),
    Fault("stop front", 2, _stop("front")),
    Fault("stop guard", 2, _stop("guard")),
    Fault("stop keeper", 2, _stop("keeper"), on=LEASED),
    Fault("stop command", 2, _stop("command")),
    Fault("stop front + guard", 2, _stop("front", "guard")),
    Fault("stop front + keeper", 2, _stop("front", "keeper"), on=LEASED, waits_lease=True),
    Fault("stop guard + keeper", 2, _stop("guard", "keeper"), on=LEASED, waits_lease=True),
    Fault("stop all of ours", 2, _stop(*OURS), waits_lease=True, exception=ALL_STOPPED),
    Fault("stop all and the command", 2, _freeze, waits_lease=True, exception=PAUSED),
]
