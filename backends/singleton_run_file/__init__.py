"""The lock without a server: flock(2) on a file, one lock per user, machine and mount namespace.

Every process that has the open file holds the lock, and the kernel frees it when the last of them has ended:
nothing is renewed, and a crash leaves no lock behind. Waiters queue in the kernel.
"""

from __future__ import annotations

from singleton_run_file.address import default_directory, directory_of
from singleton_run_file.backend import FileBackend
from singleton_run_file.directory import open_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FileBackend", "default_directory", "open_backend"]


def open_backend(url: str, environ: Mapping[str, str]) -> FileBackend:
    """The backend for `file` (the user's default directory) or `file:///DIRECTORY`.

    Makes the directory where it is missing. Raises Refused (78) for one that can't be used for locks, or that
    another user could exchange.
    """
    directory = directory_of(url)
    return FileBackend(open_directory(directory, create=True), directory)
