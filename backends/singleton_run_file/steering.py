"""The calls for people: look at a lock, change its control, free it. No turn needs this module.

`NAME.control` has two lines: a number that grows with each change, and the control. It is replaced in one
step. Who changes it holds a flock(2) on the directory meanwhile; who reads it needs none.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from singleton_run.api import toolbox
from singleton_run.api.contract import Held, Look
from singleton_run.errors import UNUSABLE, Refused, Unavailable
from singleton_run_file import lock_file
from singleton_run_file.backend import control_in, read_control, replace
from singleton_run_file.directory import DIRECTORY, MEND, reason
from singleton_run_file.lock_file import TO_READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# Others have the directory for some milliseconds, unless they are stopped. The kernel's queue can't be left
# at a given time, so we ask again.
_ASK_EVERY = 0.01


def look(directory: int, name: str, record: Mapping[str, Any] | None) -> Look:
    """See `contract.Backend`. The kernel doesn't tell who waits. No lock is EXPIRED: a crash frees it."""
    content = read_control(directory, name)
    state, holder = _holder(directory, name, record or {})
    return Look(state, holder, record, control=control_in(content), version=_version(content))


def steer(directory: int, path: str, name: str, version: str, control: str, limit: float) -> bool:
    """See `contract.Backend`."""
    until = toolbox.now() + limit
    try:
        # Of our own: a flock on the descriptor that forked processes share would keep none of them out.
        alone = os.open(".", DIRECTORY, dir_fd=directory)
        try:
            while not _is_alone(alone):
                if toolbox.now() >= until:
                    raise Unavailable(f"another process holds the directory {path}: `lslocks` shows it")
                toolbox.wait(toolbox.now() + _ASK_EVERY, [])
            content = read_control(directory, name)
            if _version(content) != version:
                return False
            new = f"{max(_number(content) + 1, time.time_ns() // 1000)}\n{control}"
            replace(directory, f"{name}.control", f".{name}.control.tmp", new, lasting=True)
            return True
        finally:
            os.close(alone)
    except OSError as error:
        raise _unwritable(path, error) from None


def free(directory: int, path: str, name: str, seen: Look) -> bool:
    """See `contract.Backend`. It frees a lock that is kept; the kernel holds one that a process has."""
    if seen.holder is None:
        return False
    try:
        descriptor = os.open(f"{name}.lock", os.O_RDWR | TO_READ, dir_fd=directory)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Refused(f"{path}/{name}.lock can't be opened ({reason(error)}): {MEND}", UNUSABLE) from None
    try:
        is_same = seen.holder.token == lock_file.last_token(descriptor)
        is_kept = lock_file.kept_until(descriptor) > 0 and not lock_file.is_shown(descriptor)
        if is_same and is_kept:
            # A guard that waits for this time's end has the file locked. It sees that the time is over.
            lock_file.end_keeping(descriptor)
        elif (is_same or seen.holder.token is None) and not is_kept and lock_file.is_held(descriptor):
            raise _held_by_a_process(name, seen.holder)
    except OSError as error:
        raise _unwritable(f"{path}/{name}.lock", error) from None
    finally:
        os.close(descriptor)
    return is_same and is_kept


def _unwritable(path: str, error: OSError) -> Refused:
    """The error for a disk that is full or fails: a run ends with the same status there."""
    return Refused(f"{path} can't be written ({reason(error)}): {MEND}", UNUSABLE)


def _held_by_a_process(name: str, holder: Held) -> Refused:
    """The error for a holder that nobody but itself can end."""
    process = holder.holder.partition(":")[2].partition(":")[0]
    who = f"process {process} on {holder.host}" if process else "a process"
    return Refused(f"lock {name!r} is held by {who}, and is free when that has ended: end it there")


def _holder(directory: int, name: str, record: Mapping[str, Any]) -> tuple[str, Held | None]:
    """The state, and who has the lock."""
    try:
        probe = os.open(f"{name}.lock", TO_READ, dir_fd=directory)
    except OSError:
        return Look.FREE, None
    try:
        if not stat.S_ISREG(os.fstat(probe).st_mode):
            raise Refused(f"{name}.lock isn't a plain file: remove it", UNUSABLE)
        kept, shown = lock_file.kept_until(probe), lock_file.is_shown(probe)
        if not kept and not lock_file.is_held(probe):
            return Look.FREE, None
        token = lock_file.last_token(probe)
    finally:
        os.close(probe)
    if not kept and not shown:
        return Look.HELD, Held()  # by a program that isn't ours: the kernel doesn't tell which
    known = record if record.get("token") == token else {}
    state, until = (Look.HELD, None) if shown else (Look.KEPT, kept)
    return state, Held(known.get("holder", ""), since=known.get("start"), until=until, token=token)


def _is_alone(descriptor: int) -> bool:
    """Whether the flock on that open directory is ours, now or already. Raises OSError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _version(content: str | None) -> str:
    """The version of a control file with that content; '' without one."""
    return "" if content is None else toolbox.digest([content])


def _number(content: str | None) -> int:
    """The number in the first line; 0 without one that we wrote."""
    line = (content or "").partition("\n")[0]
    return int(line) if line.isdigit() and len(line) < 20 else 0
