"""The contract's calls, and the few that the front makes on a lock that the kernel holds.

Beside `NAME.lock` (see `lock_file`) lie `NAME.json`, the record, `NAME.control`, the control (see
`steering`), and in `NAME.once` a file for each key that is done. A lock's file is never removed, or two
callers could hold two files of one name.
"""

from __future__ import annotations

import fcntl
import posix as os
import stat

from singleton_run.api import toolbox
from singleton_run.api.contract import Grant, Held
from singleton_run.api.record import LONGEST, parsed, parsed_mark, unreadable
from singleton_run.errors import SCARCE, UNUSABLE, Lost, Refused, Unavailable, scarce
from singleton_run_file import lock_file
from singleton_run_file.address import ASK
from singleton_run_file.directory import DIRECTORY, MEND, reason, refused
from singleton_run_file.lock_file import TO_READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, TypeVar

    from singleton_run.api.contract import Look
    from singleton_run.api.finding import Finding

    Result = TypeVar("Result")


class FileBackend:
    """Locks in one directory, given as an open descriptor and its path. See `contract.KernelLock`.

    The lock belongs to the open file `descriptor` (-1: none is open). Processes forked after `acquire` share
    it. Each gives it back by closing the file; LOCK_UN would free it for all of them.
    """

    def __init__(self, directory: int, path: str) -> None:
        self._directory = directory
        self._path = path
        self._released: int | None = None
        # The content of NAME.control when the lock was granted or renewed.
        self._control: str | None = None
        self.descriptor = -1

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Take the lock if it is free. It stays held without renewals until the file is closed."""
        while True:
            if self.descriptor < 0:
                self.descriptor = self._open(name)
            if lock_file.kept_until(self.descriptor) and self._is_current(name):
                return self._held(name)
            try:
                self._flock(name, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return self._held(name)
            except OSError as error:
                raise refused(f"{self._path} can't hold locks", error) from None
            if not self._is_current(name):
                self._close_lock()
                continue
            if not lock_file.kept_until(self.descriptor):
                lock_file.show(self.descriptor)
                return self._granted(name, holder, ttl)
            # Closing gives it back. Other processes may share that open file; the new one is ours alone.
            self._close_lock()
            self.descriptor = self._open(name)
            return self._held(name)

    def open(self, name: str) -> None:
        """Open the lock's file without locking it: processes forked from now on share it. Raises Refused."""
        if self.descriptor >= 0 and not self._is_current(name):
            self._close_lock()
        if self.descriptor < 0:
            self.descriptor = self._open(name)

    def descriptors(self) -> list[int]:
        """The descriptors that a process which shares this backend must keep open."""
        return [self._directory, self.descriptor]

    def holds(self, grant: Grant) -> bool:
        """Whether `grant`, given to a process that shares our open file, is a grant of that file."""
        return self._is_held(grant) and self._is_current(grant.name)

    def take(self, name: str, holder: str, ttl: float, parent: int) -> Grant:
        """Wait in the kernel's queue until the lock is ours, however long.

        The process ends when its `parent` ends, because a process that is blocked in flock(2) notices nothing
        else and shares the lock. It also ends if the file was removed meanwhile. At the head of the queue it
        waits for the end of a lock that is kept; later callers stay behind it.
        """
        toolbox.die_with(parent)
        self._flock(name, fcntl.LOCK_EX)
        while until := lock_file.kept_until(self.descriptor):
            self._wait_while_kept(until, [])
        lock_file.show(self.descriptor)
        toolbox.outlive_parent()
        if os.getppid() != parent or not self._is_current(name):
            os._exit(1)
        return self._granted(name, holder, ttl)

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Wait in the kernel's queue, in a child that shares the open file.

        A lock that is kept after its turn is held by no process: then wait for its end, or until it is freed.
        """
        if held.until is not None:
            self._wait_while_kept(min(until, held.until), [wake])
            return
        parent = os.getpid()
        ended, lives = os.pipe()
        waiter = os.fork()
        if not waiter:
            try:
                toolbox.die_with(parent)
                fcntl.flock(self.descriptor, fcntl.LOCK_EX)
            finally:
                os._exit(0)
        os.close(lives)
        toolbox.wait(until, [ended, wake])
        os.close(ended)
        os.kill(waiter, 9)
        os.waitpid(waiter, 0)

    def leave(self, limit: float) -> None:
        """Close the file, which frees the lock if no other process shares it."""
        self._close_lock()

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:
        """Read the control. The lock is held as long as the file is open."""
        self._control = read_control(self._directory, grant.name)
        return control_in(self._control)

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Return when NAME.control has changed since the last renewal."""
        from singleton_run_file.watching import wait_for_change

        def is_new() -> bool:
            return read_control(self._directory, grant.name) != self._control

        wait_for_change(self._directory, until, [wake], is_new)

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Replace the record in one step. Raises Lost without the lock, or Unavailable."""
        self._must_hold(grant)
        try:
            self._told(
                "write",
                grant.name,
                lambda: replace(
                    self._directory, f"{grant.name}.json", f".{grant.name}.tmp", toolbox.dumps(record)
                ),
            )
        except OSError as error:
            raise Unavailable(f"{self._path} can't be written ({reason(error)})") from None

    def keep(self, seconds: float) -> None:
        """Have our lock kept that long from now on, also when the machine fails. Raises Unavailable."""
        try:
            lock_file.keep(self.descriptor, seconds)
        except OSError as error:
            raise Unavailable(f"{self._path} can't be written ({reason(error)})") from None

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        """Write the record, and until when the lock is kept, and close the file."""
        if self._released == grant.token:
            return
        try:
            if keep > 0:
                self._must_hold(grant)
                self.keep(keep)
            self.write(grant, record, limit)
            self._released = grant.token
        finally:
            self._close_lock()

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        """The present holder of `name`, if there is one, and its record."""
        record = self._read_record(name)
        try:
            probe = os.open(f"{name}.lock", TO_READ, dir_fd=self._directory)
        except OSError:
            return None, record
        try:
            taken = lock_file.kept_until(probe) or lock_file.is_held(probe)
            return (self._held(name) if taken else None), record
        finally:
            os.close(probe)

    def list(self, limit: float) -> list[str]:
        """The names that have a lock file or a control, sorted. Something else of such a name is no lock."""
        with os.scandir(self._directory) as entries:
            files = [entry.name.rpartition(".") for entry in entries if entry.is_file(follow_symlinks=False)]
        return sorted({name for name, _, kind in files if name and kind in ("lock", "control")})

    def look(self, name: str, limit: float) -> Look:
        """The lock's file, as the kernel shows its holder, the record and the control."""
        from singleton_run_file import steering

        return steering.look(self._directory, name, self._read_record(name))

    def steer(self, name: str, version: str, control: Mapping[str, Any], limit: float) -> bool:
        """Replace NAME.control in one step, alone in the directory."""
        from singleton_run_file import steering

        return steering.steer(self._directory, self._path, name, version, toolbox.dumps(control), limit)

    def free(self, name: str, seen: Look, limit: float) -> bool:
        """End the time for which the lock is kept. Raises Refused for a process that has the lock."""
        from singleton_run_file import steering

        return steering.free(self._directory, self._path, name, seen)

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        """The mark in the key's file, None without one. Raises Refused (78) for one that can't be read."""
        file = _mark_file(key)
        path = f"{self._path}/{name}.once/{file}"
        try:
            directory = os.open(f"{name}.once", DIRECTORY, dir_fd=self._directory)
            try:
                content = _read(directory, file).decode()
            finally:
                os.close(directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Refused(f"{path} can't be read ({reason(error)}): {ASK}", UNUSABLE) from None
        except UnicodeError:
            content = ""
        return parsed_mark(content, path, "mark")

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        """Write the key's file. Once this returns, a failure of the machine doesn't take it away."""
        self._must_hold(grant)
        file = _mark_file(key)
        try:
            try:
                os.mkdir(f"{grant.name}.once", 0o700, dir_fd=self._directory)
                os.fsync(self._directory)
            except FileExistsError:
                pass
            directory = os.open(f"{grant.name}.once", DIRECTORY, dir_fd=self._directory)
            try:
                content = toolbox.dumps({"key": key, "mark": mark})
                replace(directory, file, f".{file}.tmp", content, lasting=True)
            finally:
                os.close(directory)
        except OSError as error:
            raise Unavailable(f"{self._path}/{grant.name}.once can't be written ({reason(error)})") from None

    def forget(self, name: str, key: str, limit: float) -> bool:
        """Remove the key's file; false if there was none."""
        try:
            directory = os.open(f"{name}.once", DIRECTORY, dir_fd=self._directory)
            try:
                os.unlink(_mark_file(key), dir_fd=directory)
                os.fsync(directory)
            finally:
                os.close(directory)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Refused(
                f"{self._path}/{name}.once can't be written ({reason(error)}): {MEND}", UNUSABLE
            ) from None
        return True

    def examine(self, name: str, ttl: float, limit: float) -> Iterator[Finding]:
        """The directory: whether it can be written, is this machine's alone, and survives a reboot."""
        from singleton_run_file import doctor

        yield from doctor.examine(self._directory, self._path)

    def offset(self) -> tuple[float, float] | None:
        """None: the time is this machine's."""
        return None

    def close(self) -> None:
        """Close the directory and the lock's file."""
        self._close_lock()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _open(self, name: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
        try:
            descriptor = self._told(
                "open", name, lambda: os.open(f"{name}.lock", flags, 0o600, dir_fd=self._directory)
            )
        except OSError as error:
            raise refused(f"{self._path}/{name}.lock can't be opened", error) from None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
            os.close(descriptor)
            raise Refused(f"{self._path}/{name}.lock isn't a plain file of yours: remove it", UNUSABLE)
        return descriptor

    def _flock(self, name: str, how: int) -> None:
        """Lock the open file. Raises OSError."""
        self._told("flock", name, lambda: fcntl.flock(self.descriptor, how))

    def _told(self, kind: str, name: str, work: Callable[[], Result]) -> Result:
        """Do `work` on a file of that lock, and have the trace tell of it."""
        return toolbox.request(work, kind, lambda: f"{self._path}/{name}", lambda _: "done")

    def _is_current(self, name: str) -> bool:
        """Whether our open file still is the one of that name: somebody may have removed it."""
        try:
            found = os.stat(f"{name}.lock", dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        opened = os.fstat(self.descriptor)
        return (found.st_ino, found.st_dev) == (opened.st_ino, opened.st_dev)

    def _is_held(self, grant: Grant) -> bool:
        return self.descriptor >= 0 and lock_file.last_token(self.descriptor) == grant.token

    def _must_hold(self, grant: Grant) -> None:
        """Raise Lost if our open file isn't that of the grant."""
        if not self._is_held(grant):
            raise Lost(f"{self._path}/{grant.name}.lock is not held by this turn")

    def _granted(self, name: str, holder: str, ttl: float) -> Grant:
        try:
            token = lock_file.write_next_token(self.descriptor)
        except OSError as error:
            self._close_lock()
            raise refused(f"{self._path} can't be written", error) from None
        try:
            self._control = read_control(self._directory, name)
        except Refused:
            self._close_lock()
            raise
        control = control_in(self._control)
        return Grant(name, holder, token, ttl, {}, self._read_record(name), control=control)

    def _held(self, name: str) -> Held:
        kept = token = None
        try:
            probe = os.open(f"{name}.lock", TO_READ, dir_fd=self._directory)
            kept = lock_file.kept_until(probe) or None
            if not kept and lock_file.is_shown(probe):
                token = lock_file.last_token(probe)
            os.close(probe)
        except OSError:
            pass
        control = control_in(read_control(self._directory, name))
        record = self._read_record(name) or {}
        if not kept and record.get("state") != "running":
            return Held(token=token, control=control)
        return Held(
            record.get("holder", ""), since=record.get("start"), until=kept, token=token, control=control
        )

    def _wait_while_kept(self, until: float, wake: Sequence[int]) -> None:
        from singleton_run_file.watching import wait_for_change

        wait_for_change(self.descriptor, until, wake, lambda: not lock_file.kept_until(self.descriptor))

    def _read_record(self, name: str) -> Mapping[str, Any] | None:
        try:
            return parsed(_read(self._directory, f"{name}.json").decode())
        except ValueError:
            return unreadable()
        except OSError:
            return None

    def _close_lock(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _mark_file(key: str) -> str:
    """The name of a key's file: a digest, so that no key names another file or one too long."""
    from singleton_run.api.keys import plain

    return f"{toolbox.digest([plain(key)])}.json"


def read_control(directory: int, name: str) -> str | None:
    """The content of NAME.control; None without one. Raises Refused (78) where descriptors or memory lack."""
    try:
        return _read(directory, f"{name}.control").decode(errors="backslashreplace")
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in SCARCE:
            raise Refused(scarce(str(error.strerror)), UNUSABLE) from None
        # A file that can't be read is no control that lets a command start.
        return str(error)


def control_in(content: str | None) -> Mapping[str, Any] | None:
    """The control in what `read_control` has read. Its first line is a number: no content comes twice."""
    if content is None:
        return None
    from singleton_run.api.control import parsed

    return parsed(content.partition("\n")[2])


def _read(directory: int, name: str) -> bytes:
    descriptor = os.open(name, TO_READ, dir_fd=directory)
    try:
        return os.read(descriptor, LONGEST + 1)
    finally:
        os.close(descriptor)


def replace(directory: int, name: str, temporary: str, content: str, *, lasting: bool = False) -> None:
    """Put `content` into a file in one step; with `lasting` a failure of the machine doesn't take it back."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        lock_file.write_at(descriptor, content.encode(), 0)
        if lasting:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    if lasting:
        os.fsync(directory)
