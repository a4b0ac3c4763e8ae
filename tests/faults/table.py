"""All faults."""

from __future__ import annotations

from tests.faults import byhand, machine, network, processes, servers

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
