"""Kernel calls that Python's standard library doesn't offer.

Deadlines are by the boot clock (CLOCK_BOOTTIME), in seconds. It goes on while the machine is suspended, and
nobody can set it.
"""

from __future__ import annotations

import posix as os
import select
import sys
import time

from singleton_run.system import libc
from singleton_run.system.libc import checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable
else:
    import _signal

FOREVER = float("inf")
FROM_KERNEL = 0x80

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_TFD_TIMER_ABSTIME = 1
_TFD_TIMER_CANCEL_ON_SET = 2
_NEVER = 1 << 40
# IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_DELETE
_CHANGES = 0x08 | 0x40 | 0x80 | 0x200
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_SIGNAL_INFO = 128
# Few at once, for which Python has memory. More would come from the kernel, and go back to it.
_SIGNAL_INFOS = 3 * _SIGNAL_INFO
_MOST_INHERITED = 1024
# Where our arguments begin and end in memory, once it was read: it is the same in a forked process.
_arguments_at: list[int] = []
_NULL = "/dev/null"
_NFS_MAGIC = 0x6969
_CLOCK_BOOTTIME = time.CLOCK_BOOTTIME
_prctl = libc.function("prctl")
_timerfd_settime = libc.function("timerfd_settime")


def now() -> float:
    """The boot clock's reading, in seconds."""
    return time.clock_gettime(_CLOCK_BOOTTIME)


def become_subreaper() -> None:
    """From now on a descendant whose parent has died becomes our child (prctl(2))."""
    checked(_prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def die_with(parent: int, number: int = int(_signal.SIGKILL)) -> None:
    """Have the kernel send us this signal when `parent`, which forked us, ends (PR_SET_PDEATHSIG).

    If it has ended already, we end at once.
    """
    checked(_prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(1)


def outlive_parent() -> None:
    """Take `die_with` back."""
    checked(_prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0), "prctl")


def _timerfd(clock: int) -> int:
    return checked(libc.function("timerfd_create")(clock, _NONBLOCK_CLOEXEC), "timerfd_create")


class Timer:
    """A descriptor that becomes readable at a reading of the boot clock (timerfd_create(2))."""

    def __init__(self) -> None:
        self.descriptor = _timerfd(_CLOCK_BOOTTIME)
        self._set = 0.0
        self.set(FOREVER)  # a system that refuses timers is noticed now, before anything has begun

    def set(self, at: float) -> None:
        """Fire once at `at` (boot clock): now if that has passed, never if it is FOREVER."""
        if at == self._set:
            return
        self._set = at
        seconds, nanoseconds = (0, 0) if at == FOREVER else (int(at), int(at % 1 * 1e9))
        if at != FOREVER and at < 1:
            seconds, nanoseconds = 0, 1
        value = libc.longs(0, 0, seconds, nanoseconds)
        checked(_timerfd_settime(self.descriptor, _TFD_TIMER_ABSTIME, value, None), "timerfd_settime")

    def clear(self) -> None:
        """Forget that the timer has fired: the descriptor is readable again after the next `set`."""
        try:
            os.read(self.descriptor, 8)
        except BlockingIOError:
            return
        self._set = FOREVER


class ClockSet:
    """A descriptor that becomes readable when somebody sets the wall clock (timerfd_create(2)).

    A timer on CLOCK_REALTIME with TFD_TIMER_CANCEL_ON_SET is cancelled by that, which is readable. `before`
    is the descriptor of one that was made before an execve(2).
    """

    def __init__(self, before: int | None = None) -> None:
        if before is not None:
            self.descriptor = before
            return
        self.descriptor = _timerfd(time.CLOCK_REALTIME)
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        value = libc.longs(0, 0, _NEVER, 0)
        checked(_timerfd_settime(self.descriptor, flags, value, None), "timerfd_settime")


def catchable() -> set[int]:
    """Every signal that can be caught, except those that were ignored at our start (by nohup, for example).

    SIGPIPE and SIGXFSZ are included: Python ignores them, and nobody knows what they were at our start.
    SIGSEGV and the like are included too: they end a process that causes them, although they are blocked.
    """
    every = {int(number) for number in _signal.valid_signals()} - {int(_signal.SIGKILL), int(_signal.SIGSTOP)}
    not_by_us = every - {int(_signal.SIGPIPE), int(_signal.SIGXFSZ)}
    return every - {number for number in not_by_us if _signal.getsignal(number) == _signal.SIG_IGN}


class Signals:
    """Blocks `numbers` for this process and reads them from a descriptor (signalfd(2))."""

    def __init__(self, numbers: Iterable[int]) -> None:
        numbers = set(numbers)
        _signal.pthread_sigmask(_signal.SIG_BLOCK, numbers)
        mask = sum(1 << (number - 1) for number in numbers)
        whole = mask.to_bytes(8, sys.byteorder) + bytes(120)
        self.descriptor = checked(libc.function("signalfd")(-1, whole, _NONBLOCK_CLOEXEC), "signalfd")

    def read(self) -> list[tuple[int, int, int]]:
        """The signals that have come: (number, si_code, process id of the sender or 0 if we can't see it).

        The code is FROM_KERNEL for a signal of the terminal, another number above 0 for the kernel's SIGCHLD,
        and 0 or less for a signal that a process sent (sigaction(2)).
        """
        data = b""
        try:
            while True:
                data += os.read(self.descriptor, _SIGNAL_INFOS)
        except BlockingIOError:
            pass
        came = []
        for start in range(0, len(data), _SIGNAL_INFO):
            number, code, sender = (
                int.from_bytes(data[start + place : start + place + 4], sys.byteorder, signed=True)
                for place in (0, 8, 12)
            )
            came.append((number, code, sender))
        return came


def set_title(title: str) -> None:
    """Show `title` to ps and pkill in place of our arguments. Best effort.

    The kernel reads a process's arguments from the process's own memory. The title is written over them
    there, and cut at their end (proc_pid_stat(5), arg_start and arg_end).
    """
    _prctl(_PR_SET_NAME, b"singleton-run", 0, 0, 0)
    if not _arguments_at:
        try:
            with open("/proc/self/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            return
        _arguments_at.extend(int(field) for field in fields[45:47])
    start, end = _arguments_at
    if 0 < start < end:
        text = title.encode(errors="surrogateescape")[: end - start - 1]
        libc.function("memcpy")(libc.address(start), text.ljust(end - start, b"\0"), end - start)


def leave_directory() -> None:
    """Change to /, so that the directory of our start can be unmounted. Best effort."""
    try:
        os.chdir("/")
    except OSError:
        return


def keep_only(descriptors: Iterable[int]) -> None:
    """Close every descriptor from 3 on that isn't among `descriptors`."""
    low = 3
    kept = set(descriptors)
    for number in sorted(kept):
        if number > low and not libc.close_range(low, number - 1):
            break
        low = max(low, number + 1)
    else:
        if libc.close_range(low):
            return
    for number in _open_now():
        if number > 2 and number not in kept:
            _close(number)


def _open_now() -> list[int]:
    """The open descriptors, by the kernel's list. If it can't be read, all numbers below 1024."""
    try:
        return [int(entry) for entry in os.listdir("/proc/self/fd")]
    except OSError:
        return list(range(_MOST_INHERITED))


def _close(number: int) -> None:
    try:
        os.close(number)
    except OSError:  # it isn't open, or not any more
        pass


def drop_inherited() -> None:
    """Close every descriptor from 3 on that our caller passed to us.

    These are the inheritable ones: our own are closed on exec.
    """
    for number in _open_now():
        try:
            if number > 2 and os.get_inheritable(number):
                os.close(number)
        except OSError:  # it isn't open, or not any more
            pass


def reserve_standard() -> None:
    """Put a placeholder on each closed standard descriptor. The command does not inherit it.

    Otherwise one of ours would get its number, and be taken for stdin, stdout or stderr. In a root directory
    without /dev it is no file of use: who reads or writes it gets an error, as from the closed one. That in
    the place of stdout never is: what is printed there fails.
    """
    descriptor = _open_stand_in()
    while descriptor < 3:
        if descriptor == 1:
            os.close(1)
            os.open("/", os.O_PATH)
        descriptor = _open_stand_in()
    os.close(descriptor)


def _open_stand_in() -> int:
    try:
        return os.open(_NULL, os.O_RDWR)
    except OSError:
        return os.open("/", os.O_PATH)


def close_standard(*numbers: int) -> None:
    """Put /dev/null, or the placeholder of a root directory without it, in place of these descriptors.

    None of them is free meanwhile or afterwards: a pipe or a connection of ours could get its number. They
    are just closed if nothing can be opened.
    """
    for number in numbers:
        null = _open_if_possible()
        if null < 0:  # there may be no number for it
            _close(number)
            null = _open_if_possible()
        if null == number:
            os.set_inheritable(null, True)
        elif null >= 0:
            os.dup2(null, number, inheritable=True)
            os.close(null)


def _open_if_possible() -> int:
    try:
        return _open_stand_in()
    except OSError:
        return -1


def wait(until: float, descriptors: Iterable[int]) -> list[int]:
    """Wait until one of `descriptors` is readable, or until `until` (boot clock). The readable ones."""
    timer = Timer()
    timer.set(until)
    poll = select.poll()
    for descriptor in (timer.descriptor, *descriptors):
        poll.register(descriptor, select.POLLIN)
    ready = [descriptor for descriptor, _ in poll.poll()]
    os.close(timer.descriptor)
    return [descriptor for descriptor in ready if descriptor != timer.descriptor]


def changes_of(descriptor: int) -> int:
    """A descriptor that is readable when an open file or directory has changed (inotify(7)).

    A file has when somebody who could write it closes it; a directory also when a file came into it by a new
    name, or left it. Raises OSError where the kernel refuses (the user's limit of them), or shows no /proc.
    """
    watch = checked(libc.function("inotify_init1")(_NONBLOCK_CLOEXEC), "inotify_init1")
    try:
        path = b"/proc/self/fd/%d" % descriptor
        checked(libc.function("inotify_add_watch")(watch, path, _CHANGES), "inotify_add_watch")
    except OSError:
        os.close(watch)
        raise
    return watch


def is_nfs(descriptor: int) -> bool:
    """Whether an open file is on NFS."""
    return file_system(descriptor) == _NFS_MAGIC


def file_system(descriptor: int) -> int:
    """The number of the kind of file system that an open file is on (statfs(2)); 0 if it isn't told."""
    answer = libc.longs(count=64)
    if libc.function("fstatfs")(descriptor, answer):
        return 0
    return int(answer[0]) & 0xFFFFFFFF


def wait_to_write(descriptor: int) -> None:
    """Wait until a write to `descriptor` doesn't block, or its reader has closed it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
