"""The contract's calls, and the few that the front makes on a lock that the kernel holds.

Beside `NAME.lock` (see `lock_file`) lies `NAME.json`, the record, and in `NAME.once` a file for each key that
is done. A lock's file is never removed, or two callers could hold two files of one name.
"""

from __future__ import annotations

import fcntl
import os
import stat

from singleton_run.api import toolbox
from singleton_run.api.contract import Grant, Held
from singleton_run.api.record import LONGEST, parsed, parsed_mark, unreadable
from singleton_run.errors import UNUSABLE, Lost, Refused, Unavailable
from singleton_run_file import lock_file
from singleton_run_file.address import ASK
from singleton_run_file.directory import DIRECTORY, reason
from singleton_run_file.lock_file import TO_READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeVar

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
                raise Refused(f"{self._path} can't hold locks ({reason(error)}): {ASK}", UNUSABLE) from None
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
        lock_file.show(self.descriptor)
        while until := lock_file.kept_until(self.descriptor):
            toolbox.wait(until, [])
        toolbox.outlive_parent()
        if os.getppid() != parent or not self._is_current(name):
            os._exit(1)
        return self._granted(name, holder, ttl)

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Wait in the kernel's queue, in a child that shares the open file.

        A lock that is kept after its turn is held by no process: then wait for its end.
        """
        if held.until is not None:
            toolbox.wait(min(until, held.until), [wake])
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

    def renew(self, grant: Grant, limit: float) -> None:
        """Do nothing: the lock is held as long as the file is open."""

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Return at `until` or when `wake` is readable."""
        toolbox.wait(until, [wake])

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Replace the record in one step. Raises Lost without the lock, or Unavailable."""
        self._must_hold(grant)
        try:
            self._told(
                "write",
                grant.name,
                lambda: _replace(self._directory, f"{grant.name}.json", f".{grant.name}.tmp", record),
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
        """The names that have a lock file, sorted."""
        return sorted(file[:-5] for file in os.listdir(self._directory) if file.endswith(".lock"))

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        """The mark in the key's file, None without one. Raises Refused (78) for one that can't be read."""
        file = _mark_file(key)
        path = f"{self._path}/{name}.once/{file}"
        try:
            directory = os.open(f"{name}.once", DIRECTORY, dir_fd=self._directory)
            try:
                content = _read(directory, file)
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
                _replace(directory, file, f".{file}.tmp", {"key": key, "mark": mark}, lasting=True)
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
            raise Unavailable(f"{self._path}/{name}.once can't be written ({reason(error)})") from None
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
            raise Refused(
                f"{self._path}/{name}.lock can't be opened ({reason(error)}): {ASK}", UNUSABLE
            ) from None
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
        return os.path.samestat(found, os.fstat(self.descriptor))

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
            raise Refused(f"{self._path} can't be written ({reason(error)}): {ASK}", UNUSABLE) from None
        return Grant(name, holder, token, ttl, {}, self._read_record(name))

    def _held(self, name: str) -> Held:
        kept = None
        try:
            probe = os.open(f"{name}.lock", TO_READ, dir_fd=self._directory)
            kept = lock_file.kept_until(probe) or None
            os.close(probe)
        except OSError:
            pass
        record = self._read_record(name) or {}
        if not kept and record.get("state") != "running":
            return Held()
        return Held(record.get("holder", ""), since=record.get("start"), until=kept)

    def _read_record(self, name: str) -> Mapping[str, Any] | None:
        try:
            return parsed(_read(self._directory, f"{name}.json"))
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


def _read(directory: int, name: str) -> str:
    descriptor = os.open(name, TO_READ, dir_fd=directory)
    try:
        return os.read(descriptor, LONGEST + 1).decode()
    finally:
        os.close(descriptor)


def _replace(
    directory: int, name: str, temporary: str, value: Mapping[str, Any], *, lasting: bool = False
) -> None:
    """Put `value` into a file in one step; with `lasting` a failure of the machine doesn't take it back."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        lock_file.write_at(descriptor, toolbox.dumps(value).encode(), 0)
        if lasting:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    if lasting:
        os.fsync(directory)
