"""What `doctor` finds in a directory of locks. Its owner and its way were checked when it was opened."""

from __future__ import annotations

import fcntl
import os

from singleton_run.api import toolbox
from singleton_run.api.finding import bad, good, warning
from singleton_run_file.address import ASK
from singleton_run_file.directory import reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from singleton_run.api.finding import Finding

# The numbers that statfs(2) lists.
_IN_MEMORY = {0x01021994: "tmpfs", 0x858458F6: "ramfs"}
_OF_A_CONTAINER = 0x794C7630
_SHARED = {
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB",
    0x517B: "SMB",
    0x00C36400: "Ceph",
    0x01021997: "9P",
    0x65735546: "FUSE",
    0x5346414F: "AFS",
    0x01161970: "GFS2",
    0x7461636F: "OCFS2",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
}
_EMPTIED = ("/tmp", "/var/tmp", "/run", "/var/run", "/dev/shm")  # noqa: S108 - of these we warn


def examine(directory: int, path: str) -> Iterator[Finding]:
    """See `contract.Backend`: by the open directory and its path. No file is made."""
    yield good(f"the locks are in {path}, which nobody but us and root can write")
    yield _writable(directory, path)
    yield _flock(directory, path)
    yield _kind(toolbox.file_system(directory), path)
    yield _lasting(directory, path)


def _writable(directory: int, path: str) -> Finding:
    # Not by the path first: the directory may have another name by now. By it too, because older filters of
    # containers refuse the other call (faccessat2), which no run makes.
    how = os.W_OK | os.X_OK
    if not (os.access(".", how, dir_fd=directory, effective_ids=True) or os.access(path, how)):
        return bad(f"{path} can't be written", ASK)
    found = os.fstatvfs(directory)
    free_files = found.f_favail if found.f_files else 1
    if not (found.f_bavail and free_files):
        return bad(f"{path} is on a file system that is full", f"make room there, or {ASK}")
    return good(f"{path} can be written, and has room")


def _flock(directory: int, path: str) -> Finding:
    """Whether flock(2) works there: tried on the directory itself, which is no lock of anybody's."""
    try:
        fcntl.flock(directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(directory, fcntl.LOCK_UN)
    except BlockingIOError:
        return good(f"flock works in {path}")
    except OSError as error:
        return bad(f"{path} can't hold locks ({reason(error)})", ASK)
    return good(f"flock works in {path}")


def _kind(number: int, path: str) -> Finding:
    if number in _SHARED:
        return warning(
            f"{path} is on {_SHARED[number]}: machines that share it may not keep each other out",
            "see that no other machine mounts it, or take a lock on a server",
        )
    if number == _OF_A_CONTAINER:
        return warning(
            f"{path} is in the image of a container: each container has locks of its own",
            "mount a directory of the machine there, or take a lock on a server",
        )
    return good(f"{path} is on a file system of this machine")


def _lasting(directory: int, path: str) -> Finding:
    in_memory = _IN_MEMORY.get(toolbox.file_system(directory))
    emptied = [place for place in _EMPTIED if f"{os.path.realpath(path)}/".startswith(f"{place}/")]
    where = f"on {in_memory}" if in_memory else f"below {emptied[0]}" if emptied else ""
    if where:
        return warning(
            f"{path} is {where}, emptied at times: then records and tokens are lost, and two commands "
            "may run if it happens while one does",
            ASK,
        )
    return good(f"{path} survives a reboot")
