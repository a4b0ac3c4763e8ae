"""All faults."""

from __future__ import annotations

from tests.faults import network, processes, servers

FAULTS = [*processes.ROWS, *network.ROWS, *servers.ROWS]
NAMES = {fault.name: fault for fault in FAULTS}
