"""Processes: our children, which of them have ended, and the command.

The proof that nothing is left is `reap`: when waitpid(2) fails with ECHILD, we have no child, living or
ended. In a child subreaper there is then no descendant either, because an orphaned descendant becomes a child
(see `guard.decisions`). `children` only finds processes to signal. It proves nothing: a process can be born
while the list is read.
"""

from __future__ import annotations

import errno
import posix as os
import select
import time

from singleton_run.system import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from singleton_run.system.shared_page import Page
else:
    import _signal

_WALL = 0x40000000
_MOST_PROCESSES = 4_194_304
_IDS_AT_ONCE = 16_384
_SHELL = "/bin/sh"
_LOOK = 10
_FROM_START = 0  # SEEK_SET


def reap() -> tuple[list[tuple[int, int]], bool]:
    """Wait for every child that has ended: (process id, status), without blocking.

    A negative status is minus the number of the signal that ended the process. The second value is true if
    the kernel says that there is no child at all (ECHILD). __WALL includes children that a clone(2) without
    SIGCHLD has made.
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
    """`reap`, and clear the command's process id in the page if the command has ended.

    The id is cleared before the command is reaped, because another process may get the id afterwards. Only a
    command that ends at this very moment is cleared just after. A command that is not our child (yet) keeps
    its id in the page.
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
    """Whether `descriptor` is readable, or becomes readable within that time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(milliseconds))


def exited(process: int, milliseconds: int) -> bool:
    """Whether a child has ended, or ends within that time. It is not reaped."""
    try:
        descriptor = libc.pidfd_open(process)
    except ProcessLookupError:
        return True
    except OSError:  # no descriptor is left: poll
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
    """Wait for one child to end, and reap it. False if it doesn't end in time (uninterruptible sleep)."""
    in_time = exited(process, milliseconds)
    try:
        if in_time:
            os.waitpid(process, 0)
    except ChildProcessError:
        return True
    return in_time


_listing = (0, -1)


def hold_listing() -> list[int]:
    """Open the kernel's list of our children now, and keep it: later no descriptor may be free.

    Without the list we would have to ask about every possible process id to find our children. Returns its
    descriptor, or nothing if there is no list.
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
    """The process ids of our children now, including ended ones that were not reaped.

    A child that is born or adopted meanwhile may be missing: use the list to send signals, not as a proof.
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
    """Whether /proc is mounted and has the process ids of our own namespace.

    With the /proc of another PID namespace, the same number would be another process.
    """
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _read_from_start(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, _FROM_START)
    content = b""
    while piece := os.read(descriptor, 65536):
        content += piece
    return content


def parent(process: int | str) -> int:
    """The process id of the parent; 0 if we can't see it."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


class _Search:
    """Finds our children without /proc: it asks the kernel about one process id after the other."""

    def __init__(self) -> None:
        self._of = 0
        self._next = 0
        self._found: list[int] = []

    def more(self) -> list[int]:
        """The children found before that still exist, and those among some thousand further process ids.

        The ids just after our own are always asked about, because children are likely to be there.
        """
        near = os.getpid()
        if self._of != near:  # forked from a process that has searched: begin anew
            self._of, self._next, self._found = near, 0, []
        far = self._next
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
    """A process's name for the log: the beginning of its arguments, or its program's name; `?` if unknown."""
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
    """Send a signal. False if we may not (EPERM); a process that has ended is no error."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True


def _mapping(entries: Sequence[bytes]) -> dict[bytes, bytes] | None:
    """The entries as a mapping; None if a name comes twice, or an entry has no name or no `=`."""
    environ = dict(entry.split(b"=", 1) for entry in entries if entry.find(b"=") > 0)
    return environ if len(environ) == len(entries) else None


class Command:
    """The command: what to start, and how to signal it.

    `own_session` starts it in a session of its own; it is false if the command shares our terminal. Signals
    go to its process group. With `alone`, or without a session of its own, they go to the command alone.
    `mask` has the signals that are blocked in it. `standard` has the descriptors that become its 0, 1 and 2;
    without them it has ours. `user` is who it is run as: name, group and user id; None for us.
    """

    def __init__(
        self,
        path: str,
        arguments: Sequence[str],
        mask: set[int],
        *,
        own_session: bool,
        alone: bool,
        standard: Sequence[int] = (),
        user: tuple[str, int, int] | None = None,
    ) -> None:
        self.alone = alone or not own_session
        self.path = path
        self.arguments = list(arguments)
        self.mask = mask
        self.own_session = own_session
        self.standard = standard
        self.user = user
        self._group = os.getpgrp()

    @property
    def leaves_group(self) -> bool:
        """Whether the guard can leave our process group, so that the terminal doesn't signal the guard.

        The command has to join the group again, by its id. That is not possible in a PID namespace without
        the group's leader: the group has no id there, and getpgrp(2) returns 0.
        """
        return self.own_session or self._group != 0

    def spawn(self, environ: Sequence[bytes]) -> int:
        """Start the command with the environment `environ`. Its process id. Raises OSError.

        A script without a `#!` line is run by sh, as a shell does.
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
        if self.user is not None:
            return self._fork_and_exec(lambda: os.execve(path, arguments, environ))
        how: Any = {"setsigmask": self.mask, "setsigdef": [_signal.SIGPIPE, _signal.SIGXFSZ]}
        if self.own_session:
            how["setsid"] = True
        elif self.leaves_group:
            how["setpgroup"] = self._group
        if self.standard:
            how["file_actions"] = [
                (os.POSIX_SPAWN_DUP2, given, number) for number, given in enumerate(self.standard)
            ]
        try:
            return os.posix_spawn(path, arguments, environ, **how)
        except (AttributeError, NotImplementedError):  # this C library lacks posix_spawn or an option of it
            return self._fork_and_exec(lambda: os.execve(path, arguments, environ))

    def _fork_and_exec(self, execute: Callable[[], object]) -> int:
        """Do by hand what posix_spawn(3) does, with `execute` as execve(2). Raises OSError."""
        read, write = os.pipe()
        try:
            process = os.fork()
            if process == 0:
                self._become(execute, write)
        finally:
            os.close(write)
            try:
                failure = os.read(read, 16)  # empty when execve has closed the other end
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
            for standard, given in enumerate(self.standard):
                os.dup2(given, standard)
            if self.user is not None:
                name, group, user = self.user
                os.initgroups(name, group)
                os.setgid(group)
                os.setuid(user)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self.mask)
            execute()
        except OSError as error:
            os.write(tell, str(error.errno).encode())
        finally:
            os._exit(127)

    def signal(self, process: int, number: int) -> bool:
        """Send a signal to the command, whose process id is `process`, or to its whole process group.

        False if we may not. For a group the kernel only says whether it could signal any member, so the
        command itself is asked about as well.
        """
        if self.alone:
            return send(process, number)
        return send(-process, number) and send(process, 0)


class Tree:
    """The guard's `Tree` in a real process, which is the command's parent."""

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
        """The children that have ended since the last call: (process id, status); see `reap`."""
        ended, self._none_left = reap_turn(self._page)
        return ended

    def empty(self) -> bool:
        """Whether the last `reap` has found that there is no child (ECHILD)."""
        return self._none_left

    def children(self) -> list[int]:
        """The process ids of the children now."""
        return children()

    def signal(self, process: int, number: int) -> bool:
        """Send a signal to a child; False if we may not."""
        return send(process, number)

    def signal_command(self, number: int) -> bool:
        """Send a signal to the command, and to its process group if it has one; False if we may not."""
        return not self._page.command or self._command.signal(self._page.command, number)

    def name(self, process: int) -> str:
        """The process's name, for the log."""
        return name(process)

    def lease_end(self) -> float:
        """When the lease ends, by the boot clock."""
        return self._page.end
