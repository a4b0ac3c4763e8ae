"""A lock's file: the last fencing token, until when the lock is kept, and who holds it.

The token is in the first line. A second line is there while the lock is kept after its turn: no process holds
the file then, so only callers that read this line respect it.

The kernel doesn't tell who has a flock(2). One can only try it, and during a try another caller is told
"held". So the holder takes a lock of fcntl(2) on the same open file too: the kernel frees both together, and
F_OFD_GETLK asks for the second without taking it. A holder that isn't ours has no such lock; /proc/locks
shows it.
"""

from __future__ import annotations

import fcntl
import posix as os
import sys
import time

from singleton_run.api import toolbox

TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""The flags for reading a file: without O_NONBLOCK a named pipe in its place would stop us."""

_TOKEN_WIDTH = 20
_NO_TOKEN = 1 << 62
_LONGEST_LINE = 256
_LONGEST_KEEP = 1e10  # seconds; longer than any duration that can be asked for
# Locks of an open file (F_OFD_GETLK, F_OFD_SETLK): not every Python names these. Zeros mean the whole file.
_OFD_GETLK, _OFD_SETLK = 36, 37
_WRITE_LOCK = fcntl.F_WRLCK.to_bytes(2, sys.byteorder) + bytes(38)
_LOCKS = "/proc/locks"


def last_token(descriptor: int) -> int:
    """The fencing token in the file; 0 for none, and for one that was written by hand."""
    last = os.pread(descriptor, _TOKEN_WIDTH, 0).strip()
    # The clock, which the next token is taken from, is ahead of every token of ours.
    return int(last) if last.isdigit() and int(last) < _NO_TOKEN else 0


def write_next_token(descriptor: int) -> int:
    """Write a greater token than the last, and return it; the lock is not kept any more. Raises OSError."""
    token = max(last_token(descriptor) + 1, time.time_ns() // 1000)
    write_at(descriptor, b"%0*d\n" % (_TOKEN_WIDTH, token), 0)
    if os.fstat(descriptor).st_size > _TOKEN_WIDTH + 1:
        os.ftruncate(descriptor, _TOKEN_WIDTH + 1)
    return token


def keep(descriptor: int, seconds: float) -> None:
    """Have the lock kept for that long from now on, also when the machine fails. Raises OSError."""
    words = (toolbox.now() + seconds, time.time() + seconds, seconds)
    line = " ".join([*(f"{word:.6f}" for word in words), _boot_id()])
    write_at(descriptor, f"{line}\n".encode(), _TOKEN_WIDTH + 1)
    os.fsync(descriptor)


def kept_until(descriptor: int) -> float:
    """The boot clock's reading until which the lock is kept; 0.0 if it isn't, or the line is damaged.

    After a reboot the wall clock decides, and the lock is kept no longer than it was asked for.
    """
    line = os.pread(descriptor, _LONGEST_LINE, _TOKEN_WIDTH + 1)
    if not line:
        return 0.0
    try:
        boot, wall, seconds, boot_id = line.decode().split()
        left = float(boot) - toolbox.now() if boot_id == _boot_id() else float(wall) - time.time()
        left = min(left, float(seconds))
    except ValueError:
        return 0.0
    return toolbox.now() + left if 0 < left < _LONGEST_KEEP else 0.0


def end_keeping(descriptor: int) -> None:
    """Have the lock kept no longer, also when the machine fails. Raises OSError."""
    os.ftruncate(descriptor, _TOKEN_WIDTH + 1)
    os.fsync(descriptor)


def show(descriptor: int) -> None:
    """Let others see that this open file holds the lock. Where that fails it holds the lock all the same."""
    try:
        fcntl.fcntl(descriptor, _OFD_SETLK, _WRITE_LOCK)
    except OSError:
        pass


def is_held(probe: int) -> bool:
    """Whether another open file holds the lock, asked through an open file that doesn't."""
    return is_shown(probe) or _is_listed(probe)


def write_at(descriptor: int, data: bytes, place: int) -> None:
    """Write all of `data` at `place`. Raises OSError where that ends early, as on a full disk."""
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written


def is_shown(probe: int) -> bool:
    """Whether a holder shows itself (`show`): one of ours that has the lock, and doesn't wait for its end."""
    try:
        answer = fcntl.fcntl(probe, _OFD_GETLK, _WRITE_LOCK)
    except OSError:
        return False
    return answer[:2] != fcntl.F_UNLCK.to_bytes(2, sys.byteorder)


def _is_listed(probe: int) -> bool:
    """Whether /proc/locks has a flock(2) on the file, of a living process that our namespace shows."""
    found = os.fstat(probe)
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}".encode()
    try:
        with open(_LOCKS, "rb") as listing:
            lines = [line.split() for line in listing]
    except OSError:
        return False
    return any(len(words) > 5 and words[1] == b"FLOCK" and words[5] == place for words in lines)


def _boot_id() -> str:
    """The id of the machine's present boot, without a blank."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return "unknown"
