"""flock on this machine."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.faults.sites.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.sites.site import Record


class FileSite(Site):
    """A directory for each round."""

    leased = False

    def lock(self, contender: int, round_directory: Path) -> str:
        """The round's own."""
        (round_directory / "locks").mkdir(mode=0o700, exist_ok=True)
        return f"file://{round_directory / 'locks'}"

    def record(self, name: str, round_directory: Path) -> Record:
        """The JSON beside the lock."""
        try:
            return dict(json.loads((round_directory / "locks" / f"{name}.json").read_text()))
        except FileNotFoundError:
            return {}

    def delete(self, name: str, round_directory: Path) -> None:
        """Somebody deletes the lock by hand."""
        (round_directory / "locks" / f"{name}.lock").unlink()


@contextmanager
def opened(name: str, world: str, folder: Path) -> Iterator[Site]:
    """The one state that it has."""
    yield FileSite(name)
