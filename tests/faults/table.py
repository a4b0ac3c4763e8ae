"""All faults."""

from __future__ import annotations

from tests.faults import network, processes

FAULTS = [*processes.ROWS, *network.ROWS]
NAMES = {fault.name: fault for fault in FAULTS}
