"""A process's children: which there are, which have ended, and the command among them."""

from __future__ import annotations

import errno
import os
import select
import time

from singleton_run.system import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from singleton_run.system.shared_page import Page
else:
    import _signal

_WALL = 0x40000000
_MOST_PROCESSES = 4_194_304
_IDS_AT_ONCE = 16_384
_SHELL = "/bin/sh"
_LOOK = 10


def reap() -> tuple[list[tuple[int, int]], bool]:
    """Wait for every child that has ended: its id and status as subprocess gives it.

    The second value is true if the kernel says that there is no child at all.
    """
    ended: list[tuple[int, int]] = []
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG | _WALL)
        except ChildProcessError:
            return ended, True
        if process == 0:
            return ended, False
        ended.append((process, os.waitstatus_to_exitcode(status)))


def reap_turn(page: Page) -> tuple[list[tuple[int, int]], bool]:
    """`reap`, and clear the page's word of the command if that has ended.

    That is done before its id can be another's, unless it ends at this very moment. A command whose
    guard is just dying is not our child yet, and is not forgotten.
    """
    command = page.command
    try:
        if command and os.waitid(os.P_PID, command, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            page.command = 0
    except ChildProcessError:
        pass
    ended, none_left = reap()
    if any(process == command for process, _ in ended):
        page.command = 0
    return ended, none_left


def readable(descriptor: int, milliseconds: int) -> bool:
    """Whether `descriptor` is readable, or becomes so within that time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(milliseconds))


def exited(process: int, milliseconds: int) -> bool:
    """Whether a child has ended, or does so within that time. It isn't waited for."""
    try:
        descriptor = libc.pidfd_open(process)
    except ProcessLookupError:
        return True
    except OSError:  # no descriptor is left: look at it again and again
        return _exited_by_looking(process, milliseconds)
    in_time = readable(descriptor, milliseconds)
    os.close(descriptor)
    return in_time


def _exited_by_looking(process: int, milliseconds: int) -> bool:
    for _ in range(milliseconds // _LOOK + 1):
        try:
            if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL):
                return True
        except ChildProcessError:
            return True
        select.poll().poll(_LOOK)
    return False


def reap_one(process: int, milliseconds: int) -> bool:
    """Wait that long for one child to end; False if it didn't (uninterruptible sleep, say)."""
    in_time = exited(process, milliseconds)
    try:
        if in_time:
            os.waitpid(process, 0)
    except ChildProcessError:
        return True
    return in_time


_listing = (0, -1)


def hold_listing() -> list[int]:
    """Keep the list of our children open, for a time in which nothing can be opened; its descriptor, if any.

    Without it whoever has to kill them would have to ask about every process id that there may be.
    """
    global _listing  # noqa: PLW0603 - there is one for each process
    own = os.getpid()
    if _listing[0] == own:
        return [_listing[1]]
    if not proc_is_ours():
        return []
    try:
        _listing = own, os.open(f"/proc/{own}/task/{own}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    return [_listing[1]]


def children() -> list[int]:
    """Our children now, ended ones that weren't waited for among them.

    One that is born or adopted meanwhile may be missing: this is for finding whom to signal, not
    for proving anything.
    """
    own = os.getpid()
    if _listing[0] == own:
        return [int(word) for word in _read_from_start(_listing[1]).split()]
    if not proc_is_ours():
        return _search.more()
    try:
        with open(f"/proc/{own}/task/{own}/children", "rb") as listing:
            return [int(word) for word in listing.read().split()]
    except OSError:  # the kernel was built without it, or nothing can be opened
        pass
    try:
        return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal() and parent(entry) == own]
    except OSError:
        return _search.more()


def proc_is_ours() -> bool:
    """Whether /proc is there, and knows processes by the ids that we know them by.

    In a namespace of process ids under another's /proc the same number is somebody else.
    """
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _read_from_start(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    content = b""
    while piece := os.read(descriptor, 65536):
        content += piece
    return content


def parent(process: int | str) -> int:
    """The parent's process id; 0 for none that we see."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


class _Search:
    """Finds our children where /proc is of no help: asks of one process id after the other."""

    def __init__(self) -> None:
        self._next = 0
        self._found: list[int] = []

    def more(self) -> list[int]:
        """Those of the last time that still are there, and what a look at a few more ids brings to light.

        The ids after our own, where children are likely to be, are among them every time.
        """
        near, far = os.getpid(), self._next
        asked = {*self._found, *range(near, near + _IDS_AT_ONCE), *range(far, far + _IDS_AT_ONCE)}
        self._next = (far + _IDS_AT_ONCE) % _MOST_PROCESSES
        self._found = sorted(process for process in asked if process > 1 and _is_child(process))
        return self._found


_search = _Search()


def _is_child(process: int) -> bool:
    try:
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
    except ChildProcessError:
        return False
    return True


def name(process: int) -> str:
    """What a process is called, for a log: its first arguments, or the name of its program."""
    for file in ("cmdline", "comm") if proc_is_ours() else ():
        try:
            with open(f"/proc/{process}/{file}", "rb") as content:
                text = content.read(80).replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if text:
            return "".join(letter if letter.isprintable() else "?" for letter in text)
    return "?"


def send(process: int, number: int) -> bool:
    """Send a signal; a process that has gone meanwhile is no error. False if we may not."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True


def _mapping(entries: Sequence[bytes]) -> dict[bytes, bytes] | None:
    """The entries as Python's calls take an environment; None if one is doubled or has no name or `=`."""
    environ = dict(entry.split(b"=", 1) for entry in entries if entry.find(b"=") > 0)
    return environ if len(environ) == len(entries) else None


class Command:
    """What to start, and how: `own_session` unless it shares a terminal with us.

    Its signals go to its process group, unless it has none of its own or is to have them `alone`.
    """

    def __init__(
        self, path: str, arguments: Sequence[str], mask: set[int], *, own_session: bool, alone: bool
    ) -> None:
        self.alone = alone or not own_session
        self.path = path
        self.arguments = list(arguments)
        self.mask = mask
        self.own_session = own_session
        self._group = os.getpgrp()

    @property
    def leaves_group(self) -> bool:
        """Whether its parent may have a process group of its own, which spares it the terminal's signals.

        From a namespace of process ids that our group's leader isn't in nobody can join the group
        again: there it has no id, and is told as 0.
        """
        return self.own_session or self._group != 0

    def spawn(self, environ: Sequence[bytes]) -> int:
        """Start it with these entries as its environment; its process id. Raises OSError.

        A script without a `#!` line goes to sh.
        """
        try:
            return self._spawn(self.path, self.arguments, environ)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
        return self._spawn(_SHELL, [_SHELL, self.path, *self.arguments[1:]], environ)

    def _spawn(self, path: str, arguments: list[str], entries: Sequence[bytes]) -> int:
        environ = _mapping(entries)
        if environ is None:
            return self._fork_and_exec(libc.to_exec(path, arguments, entries))
        defaults = [_signal.SIGPIPE, _signal.SIGXFSZ]
        try:
            if self.own_session:
                return os.posix_spawn(
                    path, arguments, environ, setsid=True, setsigmask=self.mask, setsigdef=defaults
                )
            if not self.leaves_group:
                return os.posix_spawn(path, arguments, environ, setsigmask=self.mask, setsigdef=defaults)
            return os.posix_spawn(
                path, arguments, environ, setpgroup=self._group, setsigmask=self.mask, setsigdef=defaults
            )
        except (AttributeError, NotImplementedError):  # this Python's C library has no such thing
            return self._fork_and_exec(lambda: os.execve(path, arguments, environ))

    def _fork_and_exec(self, execute: Callable[[], object]) -> int:
        """What posix_spawn(3) does, by hand, with this execve(2); the process id. Raises OSError."""
        read, write = os.pipe()
        try:
            process = os.fork()
            if process == 0:
                self._become(execute, write)
        finally:
            os.close(write)
            try:
                failure = os.read(read, 16)  # the start closes the other end
            finally:
                os.close(read)
        if failure:
            os.waitpid(process, 0)
            raise OSError(int(failure), os.strerror(int(failure)))
        return process

    def _become(self, execute: Callable[[], object], tell: int) -> NoReturn:
        try:
            if self.own_session:
                os.setsid()
            elif self.leaves_group:
                os.setpgid(0, self._group)
            for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
                _signal.signal(number, _signal.SIG_DFL)
            if callable(_signal.getsignal(_signal.SIGINT)):  # Python's own
                _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self.mask)
            execute()
        except OSError as error:
            os.write(tell, str(error.errno).encode())
        finally:
            os._exit(127)

    def signal(self, process: int, number: int) -> bool:
        """Send a signal to the command, whose process id is given, and to its group if that is asked for.

        False if we may not: the kernel is content if one of a group could be signalled.
        """
        if self.alone:
            return send(process, number)
        return send(-process, number) and send(process, 0)


class Tree:
    """The command below this process, which is its parent: the guard's `Tree`."""

    def __init__(self, command: Command, page: Page, environ: list[bytes]) -> None:
        self._command = command
        self._page = page
        self._none_left = False
        self.environ = environ

    def spawn(self) -> int:
        """Start the command; its process id. Raises OSError."""
        self._page.start_begun = True
        self._page.started_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._page.command = self._command.spawn(self.environ)
        return self._page.command

    def reap(self) -> list[tuple[int, int]]:
        """Every child that has ended since: (process id, status as subprocess gives it)."""
        ended, self._none_left = reap_turn(self._page)
        return ended

    def empty(self) -> bool:
        """Whether the last `reap` found that there is no child any more."""
        return self._none_left

    def children(self) -> list[int]:
        """The children there are now."""
        return children()

    def signal(self, process: int, number: int) -> bool:
        """Send a signal to a child; False if we may not."""
        return send(process, number)

    def signal_command(self, number: int) -> bool:
        """Send a signal to the command, with its process group where it has its own."""
        return not self._page.command or self._command.signal(self._page.command, number)

    def name(self, process: int) -> str:
        """What the process is called, for the log."""
        return name(process)

    def lease_end(self) -> float:
        """When the lease lapses, a reading of the boot clock."""
        return self._page.end
