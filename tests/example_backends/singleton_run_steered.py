"""The lease file and the kernel-held one with a control object, which the tests write by hand.

The control lies in NAME.control. `hold` looks at it every few milliseconds. Nobody compares and swaps: each
test has its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singleton_run.api.control import parsed
from singleton_run.system import calls
from tests.example_backends.singleton_run_leasefile import LeaseFile
from tests.example_backends.singleton_run_ofdfile import OfdFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run.api.contract import Grant, Held

LOOK_EVERY = 0.02


def open_lease(lock: str, environ: Mapping[str, str]) -> SteeredLease:
    """The backend for `steered:///DIRECTORY`."""
    return SteeredLease(Path(lock.partition("://")[2]))


def open_kernel_lock(lock: str, environ: Mapping[str, str]) -> SteeredOfd:
    """The backend for `kernel+steered:///DIRECTORY`."""
    return SteeredOfd(Path(lock.partition("://")[2]))


def steer(directory: Path, name: str, control: Mapping[str, Any]) -> None:
    """Replace the control of that lock, in one step."""
    whole = directory / f"{name}.control.new"
    whole.write_text(json.dumps(control))
    whole.replace(directory / f"{name}.control")


class Steering:
    """The controls in a directory, and which of them was told last."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.told: dict[str, dict[str, Any] | None] = {}

    def now(self, name: str) -> dict[str, Any] | None:
        """The control of that lock, None without one."""
        path = self.directory / f"{name}.control"
        return parsed(path.read_text()) if path.exists() else None

    def tell(self, name: str) -> dict[str, Any] | None:
        """The control of that lock, which `look` then compares with."""
        self.told[name] = self.now(name)
        return self.told[name]

    def look(self, name: str, until: float, wake: int) -> None:
        """Return when the control isn't that which was told, at `until`, or when `wake` is readable."""
        before = self.told[name] if name in self.told else self.tell(name)
        while calls.now() < until and self.now(name) == before:
            if calls.wait(min(until, calls.now() + LOOK_EVERY), [wake]):
                return


class SteeredLease(LeaseFile):
    """Leases with a control. See `singleton_run.api.contract.Backend`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.steering = Steering(directory)

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Try, and tell the control."""
        answer = super().acquire(name, holder, ttl, limit)
        answer.control = self.steering.tell(name)
        return answer

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:
        """Renew, and tell the control."""
        super().renew(grant, limit)
        return self.steering.tell(grant.name)

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Look until the control is another."""
        self.steering.look(grant.name, until, wake)


class SteeredOfd(OfdFile):
    """Locks of the kernel's with a control. See `singleton_run.api.contract.KernelLock`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.steering = Steering(directory)

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Try, and tell the control."""
        answer = super().acquire(name, holder, ttl, limit)
        answer.control = self.steering.tell(name)
        return answer

    def take(self, name: str, holder: str, ttl: float, parent: int) -> Grant:
        """Wait for the lock, and tell the control."""
        grant = super().take(name, holder, ttl, parent)
        grant.control = self.steering.tell(name)
        return grant

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:  # type: ignore[override]
        """Tell the control."""
        return self.steering.tell(grant.name)

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Look until the control is another."""
        self.steering.look(grant.name, until, wake)
