"""What was played, as tables: which (state, event) pairs were visited, and how fast it went."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.history import Totals, Visits

TITLES = {
    "turn": "the front: phase of the turn, and what came",
    "guard": "the guard: its state, and what came",
    "own guard": "the front in the guard's place",
    "keeper": "the keeper: operation, and how it went",
}


def _table(visits: Visits, machinery: str) -> str:
    seen = {(state, event): n for (which, state, event), n in visits.items() if which == machinery}
    states = sorted({state for state, _ in seen})
    events = sorted({event for _, event in seen})
    width = max([len(event) for event in events] + [12])
    lines = [TITLES[machinery], " " * width + "".join(f"{state:>12}" for state in states)]
    for event in events:
        counts = "".join(f"{seen.get((state, event), '-'):>12}" for state in states)
        lines.append(f"{event:<{width}}{counts}")
    return "\n".join(lines)


def _keepers_table(visits: Visits) -> str:
    turned = {(which, event, state): n for (which, state, event), n in visits.items() if which == "keeper"}
    return _table(turned, "keeper")


def show(totals: Totals) -> str:
    """Everything about some histories."""
    parts = [_table(totals.visits, which) for which in ("turn", "guard", "own guard")]
    parts.append(_keepers_table(totals.visits))
    excuses = [f"{count:>12}  {reason}" for reason, count in sorted(totals.excuses.items())]
    parts.append("\n".join(["documented exceptions", *excuses]))
    parts.append(
        f"{totals.seeds} histories, {totals.turns} turns ({totals.ran} ran the command), "
        f"{totals.faults} faults ({totals.faults / max(1, totals.turns):.2f} a turn), "
        f"{totals.steps} actions, {totals.events} events; broken: {len(totals.broken)}"
    )
    return "\n\n".join(parts)
