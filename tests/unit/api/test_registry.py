"""What the executable leaves to the Python command beside it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from singleton_run.api import registry
from singleton_run.system import beside

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize("is_there", [True, False])
def test_a_kubeconfig_is_read_only_where_python_could_take_over(
    is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []

    def names_auth_provider(environ: Mapping[str, str]) -> bool:
        looked.append(environ)
        return False

    monkeypatch.setattr(registry, "IS_ALONE", True)
    monkeypatch.setattr(registry, "began_in", os.getpid())
    monkeypatch.setattr(beside, "is_there", lambda: is_there)
    monkeypatch.setattr(beside, "names_auth_provider", names_auth_provider)
    registry.leave_to_python("k8s-lease", {}, [])
    assert len(looked) == is_there
