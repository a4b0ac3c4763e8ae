"""`python -m bench [SECTION[.TABLE]…]`: measure, print tables, assert nothing. Needs Linux.

A section that has `TABLES` can print one of them by itself.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench import (
    crontab,
    etcd,
    handover,
    idle,
    kubernetes,
    measure,
    memory,
    mishaps,
    postgres,
    redis,
    reporter,
    signals,
    slots,
    standalone,
    startup,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SECTIONS = {
    "startup": startup,
    "handover": handover,
    "memory": memory,
    "idle": idle,
    "reporter": reporter,
    "signals": signals,
    "etcd": etcd,
    "postgres": postgres,
    "redis": redis,
    "mishaps": mishaps,
    "slots": slots,
    "crontab": crontab,
    "kubernetes": kubernetes,
    "standalone": standalone,
}


def main(names: list[str]) -> None:
    """Run the sections asked for, all of them if none is, each in a folder of its own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended on the way out
    reports = _reports()
    for name in names or SECTIONS:
        if name not in reports:
            sys.exit(f"bench: no section {name}: choose from {', '.join(reports)}")
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            try:
                reports[name](Path(folder))
            except measure.Broken as error:
                print(f"\nbench: {name}: {error}", file=sys.stderr)


def _reports() -> dict[str, Callable[[Path], None]]:
    """What prints the tables of each section, and each table that can be had by itself."""
    found: dict[str, Callable[[Path], None]] = {}
    for name, section in SECTIONS.items():
        found[name] = section.report
        found |= {f"{name}.{table}": show for table, show in getattr(section, "TABLES", {}).items()}
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
