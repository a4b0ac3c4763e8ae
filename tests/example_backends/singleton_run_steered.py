"""The kernel-held backend with a control, in NAME.control. `hold` looks at it every few milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singleton_run.api.contract import Look
from singleton_run.api.control import parsed
from singleton_run.system import calls
from tests.example_backends.singleton_run_ofdfile import OfdFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run.api.contract import Grant, Held

LOOK_EVERY = 0.02


def open_backend(lock: str, environ: Mapping[str, str]) -> Steered:
    """The backend for `kernel+steered:///DIRECTORY`."""
    return Steered(Path(lock.partition("://")[2]))


class Steered(OfdFile):
    """Locks of the kernel's with a control. See `singleton_run.api.contract.KernelLock`."""

    # The control as it was told last.
    told = ""

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Try, and tell the control."""
        answer = super().acquire(name, holder, ttl, limit)
        answer.control = self._tell(name)
        return answer

    def take(self, name: str, holder: str, ttl: float, parent: int) -> Grant:
        """Wait for the lock, and tell the control."""
        grant = super().take(name, holder, ttl, parent)
        grant.control = self._tell(name)
        return grant

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:  # type: ignore[override]
        """Tell the control."""
        return self._tell(grant.name)

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Look until the control is another."""
        while calls.now() < until and self._text(grant.name) == self.told:
            if calls.wait(min(until, calls.now() + LOOK_EVERY), [wake]):
                return

    def look(self, name: str, limit: float) -> Look:
        """The control alone; its text is its version."""
        text = self._text(name)
        return Look(Look.FREE, None, None, control=parsed(text) if text else None, version=text)

    def steer(self, name: str, version: str, control: Mapping[str, Any], limit: float) -> bool:
        """Replace the control. Nobody else does so between the two steps: each test has its own."""
        if self._text(name) != version:
            return False
        self._write(f"{name}.control", control)
        return True

    def _tell(self, name: str) -> Mapping[str, Any] | None:
        self.told = self._text(name)
        return parsed(self.told) if self.told else None

    def _text(self, name: str) -> str:
        path = self._directory / f"{name}.control"
        return json.dumps(json.loads(path.read_text())) if path.exists() else ""
