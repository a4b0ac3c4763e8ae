"""All faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults import byhand, machine, network, processes, servers

if TYPE_CHECKING:
    from tests.faults.fault import Fault

FAULTS = [*processes.ROWS, *network.ROWS, *servers.ROWS, *machine.ROWS, *byhand.ROWS]
# Those that can befall any wrapper, whatever its processes are.
ANYBODYS = (
    "kill front",
    "kill wrapper's group",
    "kill command",
    "stop front",
    "stop all and the command",
    "reset",
    "black hole both ways",
    "server killed",
    "server stopped",
)
NAMES = {fault.name: fault for fault in FAULTS}


def is_of_time(fault: Fault, site: str) -> bool:
    """Whether the fault changes what slots mean, or takes their record: not for a judge of slots.

    Slots go by the server's clock, where that can be asked. Without such a server a leap of the wall
    clock wakes those that wait for a slot by the kernel, which knows nothing of ours that is preloaded.
    """
    of_wall = fault.name.startswith("wall clock") and site in ("file", "etcd+grpc")
    return of_wall or fault.name.startswith("clock") or fault.name.startswith("lock")
