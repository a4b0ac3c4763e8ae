"""The backend `file` passes what holds for a lock that lasts as long as its holder's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from singleton_run.errors import Refused
from singleton_run.testing import Conformance, Fault, Site
from tests.support.commands import Commands

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process


@pytest.fixture(scope="class")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("file")


def _faults(folder: Path) -> list[Fault]:
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    link = folder / "link"
    link.symlink_to(folder)
    plain = folder / "plain"
    plain.touch()
    return [
        Fault("a directory that is not absolute", Refused, "file://locks"),
        Fault("no such character", Refused, "file:///%zz"),
        Fault("a directory that others can write", Refused, f"file://{shared}"),
        Fault("a symbolic link", Refused, f"file://{link}"),
        Fault("a plain file", Refused, f"file://{plain}"),
        Fault("a directory below a plain file", Refused, f"file://{plain}/locks"),
    ]


class Here:
    """One directory of locks on this machine."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, folder: Path) -> Site:
        return Site(
            opener="singleton_run_file:open_backend",
            lock=f"file://{folder}/locks",
            delete=lambda name: folder.joinpath("locks", f"{name}.lock").unlink(missing_ok=True),
            faults=_faults(folder),
            tells=True,
        )


class TestFile(Here, Conformance):
    """The backend by itself."""


class TestCommand(Here, Commands):
    """The whole program."""
