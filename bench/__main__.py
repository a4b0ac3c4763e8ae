"""`python -m bench [SECTION…]`: measure, print tables, assert nothing. Needs Linux."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

from bench import (
    crontab,
    etcd,
    handover,
    idle,
    kubernetes,
    measure,
    memory,
    postgres,
    redis,
    reporter,
    signals,
    slots,
    standalone,
    startup,
)

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
    "slots": slots,
    "crontab": crontab,
    "kubernetes": kubernetes,
    "standalone": standalone,
}


def main(names: list[str]) -> None:
    """Run the sections asked for, all of them if none is, each in a folder of its own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended on the way out
    for name in names or SECTIONS:
        if name not in SECTIONS:
            sys.exit(f"bench: no section {name}: choose from {', '.join(SECTIONS)}")
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            try:
                SECTIONS[name].report(Path(folder))
            except measure.Broken as error:
                print(f"\nbench: {name}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
