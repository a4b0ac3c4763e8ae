"""All faults."""

from __future__ import annotations

from tests.faults import processes

FAULTS = [*processes.ROWS]
NAMES = {fault.name: fault for fault in FAULTS}
