"""Start to end of `true`, bare and behind each wrapper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import commands, measure

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 100
BASE = "python -c pass"


def _candidates(folder: Path) -> dict[str, list[str] | None]:
    true = commands.program("true") or "/bin/true"
    flock, tini, dumb_init = (commands.program(name) for name in ("flock", "tini", "dumb-init"))
    return {
        "true": [true],
        BASE: [commands.PYTHON, "-c", "pass"],
        "flock -n f true": [flock, "-n", str(folder / "flock"), true] if flock else None,
        "tini -s -- true": [tini, "-s", "--", true] if tini else None,
        "dumb-init true": [dumb_init, true] if dumb_init else None,
        "singleton-run --name b -- true": commands.ours(folder, true),
    }


def report(folder: Path) -> None:
    """Print the table. The target for singleton-run is 2.5 × `python -c pass`."""
    candidates = _candidates(folder)
    times = measure.interleaved({name: argv for name, argv in candidates.items() if argv}, ROUNDS)
    base = measure.percentile(times[BASE], 50)
    rows = []
    for name in candidates:
        if name in times:
            p50, p99 = (measure.percentile(times[name], percent) for percent in (50, 99))
            rows.append([name, f"{p50:.1f}", f"{p99:.1f}", f"{p50 / base:.2f}"])
        else:
            rows.append([name, "-", "-", commands.advice(name.split()[0])])
    title = f"Start to end, {ROUNDS} rounds (target: singleton-run <= 2.5 x {BASE})"
    measure.table(title, ["", "p50 ms", "p99 ms", "x python"], rows)
