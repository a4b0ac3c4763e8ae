"""The directory that locks are in: opened, made where it is missing, and safe from other users."""

from __future__ import annotations

import errno
import posix as os
import stat

from singleton_run.api import toolbox
from singleton_run.errors import SCARCE, UNUSABLE, Refused, scarce
from singleton_run_file.address import ASK, is_hidden

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""The flags for opening a directory."""
MEND = "mend that, and call again"
"""What to do about a lock that is there and can't be written."""
_MOST_LINKS = 40  # as the kernel allows


def open_directory(directory: str, *, create: bool) -> int:
    """A descriptor of `directory`, which the caller closes; with `create` it is made where it is missing.

    Raises Refused (78) where it can't be opened, another user could write or exchange it, or it is on NFS.
    """
    weakness = _weakness(directory)
    if weakness:
        raise Refused(f"{directory} could be exchanged, for {weakness}: {ASK} that only you can", UNUSABLE)
    try:
        descriptor = os.open(directory, DIRECTORY)
    except FileNotFoundError:
        if create:
            _make(directory)
            return open_directory(directory, create=False)
        raise Refused(f"{directory} was removed: {ASK}", UNUSABLE) from None
    except OSError as error:
        raise refused(f"{directory} can't be used for locks", error) from None
    except ValueError:
        raise Refused(f"{directory!r} can't be a directory: {ASK}", UNUSABLE) from None
    wrong = _fault(descriptor)
    if wrong:
        os.close(descriptor)
        raise Refused(f"{directory} {wrong}: {ASK} that only you can write", UNUSABLE)
    return descriptor


def refused(what: str, error: OSError) -> Refused:
    """The error for what can't be used: another directory may do, unless descriptors or memory lack."""
    if error.errno in SCARCE:
        return Refused(scarce(reason(error)), UNUSABLE)
    return Refused(f"{what} ({reason(error)}): {ASK}", UNUSABLE)


def reason(error: OSError) -> str:
    """What went wrong, in the system's words, or in ours where these mislead."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "it is a symbolic link or not a directory"
    return error.strerror or str(error)


def above(path: str) -> str:
    """The directory that an absolute path is in."""
    return path.rpartition("/")[0] or "/"


def _fault(descriptor: int) -> str:
    """What is wrong with an open directory, as the end of a sentence; empty if nothing is."""
    found = os.fstat(descriptor)
    if found.st_uid not in (os.geteuid(), 0):
        return _stranger(found.st_uid)
    if found.st_mode & 0o022:
        return "can be written by others"
    return "is on NFS, where locks outlive machines" if toolbox.is_nfs(descriptor) else ""


def _weakness(directory: str) -> str:
    """The place on the way to `directory` where another user could put something else; empty for none.

    A user who exchanges a directory gives two callers two locks. Nobody can exchange our files in a sticky
    directory like /tmp. In a user namespace nothing tells root from the other users outside: there the
    entries of / are taken for root's, because root alone can write to /.
    """
    place = "/"
    links = 0
    parts = directory.split("/")[::-1]
    while parts:
        part = parts.pop()
        if part in {"", "."}:
            continue
        path = above(place) if part == ".." else f"{place.rstrip('/')}/{part}"
        try:
            found = os.lstat(path)
        except (OSError, ValueError):
            return ""  # what isn't there can't be exchanged, and the opening says what is wrong
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _MOST_LINKS:
                return ""
            target = os.readlink(path)
            place = "/" if target.startswith("/") else place
            parts += target.split("/")[::-1]
        else:
            place = path
        roots = above(path) == "/" and is_hidden(found.st_uid)
        if path != "/" and not roots and found.st_uid not in (os.geteuid(), 0):
            return f"{path} {_stranger(found.st_uid)}"
        if parts and stat.S_ISDIR(found.st_mode) and _is_open_to_others(found):
            return f"{path} can be written by others"
    return ""


def _stranger(owner: int) -> str:
    """What is wrong with a directory whose owner is neither we nor root, as the end of a sentence."""
    if is_hidden(owner):
        return "has an owner whom this user namespace hides (take the lock before you enter it)"
    return "belongs to another user"


def _is_open_to_others(directory: os.stat_result) -> bool:
    """Whether another user may rename the directory's entries; our own group is no other user."""
    mode = directory.st_mode
    group = mode & stat.S_IWGRP and directory.st_gid not in (0, os.getegid())
    return not mode & stat.S_ISVTX and bool(group or mode & stat.S_IWOTH)


def _make(directory: str) -> None:
    from os import makedirs

    mask = os.umask(0o022)
    os.umask(mask | 0o022)  # a directory that others can write would be refused at the next start
    try:
        makedirs(above(directory), exist_ok=True)
        os.mkdir(directory, 0o700)
    except FileExistsError:
        return
    except OSError as error:
        raise refused(f"{directory} can't be made", error) from None
    finally:
        os.umask(mask)
