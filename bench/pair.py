"""A holder that runs its command, and a waiter behind it: what they cost while nothing happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import measure

if TYPE_CHECKING:
    from bench.baton import Baton


class Pair:
    """One holder and, once asked for, one waiter; both at rest whenever a method returns."""

    def __init__(self, argv: list[str], baton: Baton) -> None:
        self.argv = argv
        self._pids = [measure.spawn(argv)]
        try:
            _, command = baton.started()
            measure.settle(self._pids)
            self.holding = [pid for pid in measure.tree(*self._pids) if pid not in measure.tree(command)]
        except measure.Broken:
            self.close()
            raise

    def wait(self) -> list[int]:
        """Start the waiter; the pids of its processes."""
        self._pids.append(measure.spawn(self.argv))
        measure.settle(self._pids)
        return measure.tree(self._pids[-1])

    def close(self) -> None:
        """End both."""
        measure.kill(self._pids)
