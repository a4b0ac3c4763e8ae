"""A stranger's kernel-held backend passes the suite too: `file` is not the only one of its kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import Refused
from singleton_run.testing import Conformance, Fault, Site

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process


class TestOfdFile(Conformance):
    """One directory of locks on this machine."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, tmp_path_factory: pytest.TempPathFactory) -> Site:
        folder: Path = tmp_path_factory.mktemp("ofdfile")

        def delete(name: str) -> None:
            for end in ("lock", "json"):
                folder.joinpath(f"{name}.{end}").unlink(missing_ok=True)

        return Site(
            opener="tests.example_backends.singleton_run_ofdfile:open_backend",
            lock=f"kernel+ofdfile://{folder}",
            delete=delete,
            faults=[Fault("no such directory", Refused, f"kernel+ofdfile://{folder}/none")],
        )
