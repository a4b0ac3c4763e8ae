"""A standard descriptor is never free while it is put away."""

from __future__ import annotations

import os
import posix
from typing import TYPE_CHECKING

from singleton_run.system import calls

if TYPE_CHECKING:
    import pytest


def test_no_thread_can_get_the_number_of_a_standard_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, number = os.pipe()
    closed: list[int] = []
    close = posix.close

    def noted(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)

    monkeypatch.setattr(posix, "close", noted)
    calls.close_standard(number)
    monkeypatch.undo()
    assert number not in closed
    assert os.path.samestat(os.fstat(number), os.stat("/dev/null"))
    assert os.get_inheritable(number)
    for descriptor in (reading, number):
        os.close(descriptor)
