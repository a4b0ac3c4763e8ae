"""What the processes of wrappers take, holding and waiting, as multiples of a peer's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import commands, measure
from bench.baton import Baton
from bench.pair import Pair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.commands import Maker


class Footprint:
    """What a wrapper's processes take now, in MB."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.count = len(pids)
        self.pss, self.alone = measure.memory(pids)
        self.rss = measure.resident(pids)

    def cells(self, peer: Footprint | None) -> list[str]:
        """Cells of a table; the last three are multiples of what the peer takes."""
        sizes = [str(self.count), *(f"{size:.1f}" for size in (self.pss, self.alone, self.rss))]
        if peer is None:
            return [*sizes, "-", "-", "-"]
        ratios = (self.pss / peer.pss, self.alone / peer.alone, self.pss / peer.rss)
        return [*sizes, *(f"{ratio:.2f}" for ratio in ratios)]


def _found(name: str, make: Maker, folder: Path) -> list[Footprint]:
    """Holding and waiting; nothing if the program is missing."""
    own = folder / f"memory-{name}"
    own.mkdir()
    baton = Baton(own)
    argv = make(own, *baton.argv)
    if not argv:
        return []
    pair = Pair(argv, baton)
    try:
        return [Footprint(pair.holding), Footprint(pair.wait())]
    finally:
        pair.close()


def table(title: str, makers: Mapping[str, Maker], base: str, folder: Path) -> None:
    """Print what each wrapper takes; `base` is what 1.0 is."""
    found = {name: _found(name, make, folder) for name, make in makers.items()}
    rows = []
    for number, state in enumerate(("holding", "waiting")):
        for name, sizes in found.items():
            label = f"{name}, {state}"
            if sizes:
                peer = found[base][number] if found.get(base) else None
                rows.append([label, *sizes[number].cells(peer)])
            else:
                rows.append([label, *"------", commands.advice(name)])
    head = ["", "processes", "PSS MB", "alone MB", "RSS MB", "x its PSS", "x its alone", "PSS / its RSS"]
    measure.table(title, head, rows)
