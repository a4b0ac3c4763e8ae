"""All faults."""

from __future__ import annotations

from tests.faults import byhand, machine, network, processes, servers

FAULTS = [*processes.ROWS, *network.ROWS, *servers.ROWS, *machine.ROWS, *byhand.ROWS]
NAMES = {fault.name: fault for fault in FAULTS}
