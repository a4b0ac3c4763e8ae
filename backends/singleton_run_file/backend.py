"""The lock without a server: flock(2) on a file, one lock per user, machine and mount namespace.

Whoever holds the open file holds the lock, and the kernel frees it when the last of them is gone:
nothing has to be renewed, and nobody is left with a lock that a crash kept. Waiters queue in the
kernel. The file is never removed, for two could then hold two files of one name.

The kernel doesn't tell who has a flock(2): one can only try, and whoever tries has it for a moment, in
which another is told "held". So the holder has a lock of fcntl(2) on the same open file too: it is freed
together with the other, and may be asked for. Of a stranger, who has no such lock, /proc/locks tells.

Beside `NAME.lock`, which contains the last fencing token, lies `NAME.json`, the record, and in
`NAME.once` a file for each key that is done. A lock that is kept after its turn has the time in
its file too: nobody holds the file then, so it only holds for those who read that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import time

from singleton_run.api import toolbox
from singleton_run.api.contract import Grant, Held, host_of
from singleton_run.api.record import LONGEST, damaged_mark, parsed, unreadable
from singleton_run.errors import UNUSABLE, Lost, Refused, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    Result = TypeVar("Result")

_TOKEN_WIDTH = 20
_LONGEST_LOCK = 256
_LONGEST_KEEP = 1e10  # longer than any duration that can be asked for
_NO_TOKEN = 1 << 62
_ROOT_DIRECTORY = "/var/lib/singleton-run"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a named pipe in a file's place would stop us.
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Locks of an open file, whoever has it. Not every Python names these; zeros are "the whole file".
_OFD_GETLK, _OFD_SETLK = 36, 37
_WRITE_LOCK = fcntl.F_WRLCK.to_bytes(2, sys.byteorder) + bytes(38)
# In a user namespace whoever isn't mapped is shown as this user; outside of any, each is itself.
_NOT_MAPPED = 65534
_EVERYBODY = [0, 0, 2**32 - 1]
_MOST_LINKS = 40  # as for the kernel
_LOCKS = "/proc/locks"
_ASK = "name one with --lock file:///DIRECTORY"


def open_backend(lock: str, environ: Mapping[str, str]) -> FileBackend:
    """The backend for `file` (the default directory) or `file:///DIRECTORY`. Raises Refused."""
    given = lock.partition("://")[2]
    if given and not given.startswith("/"):
        raise Refused("file://…: a directory must be absolute, as in file:///var/lib/locks", UNUSABLE)
    # O_NOFOLLOW would follow a link that is named with a slash behind it.
    directory = _unquoted(given).rstrip("/") or "/" if given else default_directory()
    return FileBackend(_open_directory(directory, create=True), directory)


def default_directory() -> str:
    """Where locks are kept: it depends on the user alone, not on the environment or the session.

    In a user namespace on the machine's own files that is the user outside. Raises Refused for one without
    an entry in the password database.
    """
    user = _user_outside() if _is_hidden(os.stat("/").st_uid) else os.geteuid()
    if user == 0:
        return _ROOT_DIRECTORY
    import pwd

    try:
        home = pwd.getpwuid(user).pw_dir
    except KeyError:
        raise Refused(
            f"user {user} has no entry in the password database, so no directory for locks: {_ASK}",
            UNUSABLE,
        ) from None
    return os.path.join(home, ".local/state/singleton-run")


def _is_hidden(owner: int) -> bool:
    """Whether that is the one number of all who aren't mapped into our user namespace, root among them."""
    return owner == _NOT_MAPPED and _mapping() != _EVERYBODY


def _user_outside() -> int:
    """Who we are outside of our user namespace."""
    own, words = os.geteuid(), _mapping()
    for inside, outside, count in zip(words[::3], words[1::3], words[2::3], strict=True):
        if inside <= own < inside + count:
            return outside + own - inside
    return own


def _mapping() -> list[int]:
    """Of our user namespace: a first user inside, who that is outside, how many, and so on."""
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return _EVERYBODY


def _unquoted(text: str) -> str:
    if "%" not in text:
        return text
    from singleton_run.api.url import unquoted

    try:
        return unquoted(text)
    except ValueError as error:
        raise Refused(f"file://{text}: {error}", UNUSABLE) from None


def _open_directory(directory: str, *, create: bool) -> int:
    weakness = _weakness(directory)
    if weakness:
        raise Refused(f"{directory} could be exchanged, for {weakness}: {_ASK} that only you can", UNUSABLE)
    try:
        descriptor = os.open(directory, _DIRECTORY)
    except FileNotFoundError:
        if create:
            _make_directory(directory)
            return _open_directory(directory, create=False)
        raise Refused(f"{directory} was removed: {_ASK}", UNUSABLE) from None
    except OSError as error:
        raise Refused(f"{directory} can't be used for locks ({_reason(error)}): {_ASK}", UNUSABLE) from None
    except ValueError:
        raise Refused(f"{directory!r} can't be a directory: {_ASK}", UNUSABLE) from None
    found = os.fstat(descriptor)
    wrong = ""
    if found.st_uid not in (os.geteuid(), 0):
        wrong = _stranger(found.st_uid)
    elif found.st_mode & 0o022:
        wrong = "can be written by others"
    elif toolbox.is_nfs(descriptor):
        wrong = "is on NFS, where locks outlive machines"
    if wrong:
        os.close(descriptor)
        raise Refused(f"{directory} {wrong}: {_ASK} that only you can write", UNUSABLE)
    return descriptor


def _weakness(directory: str) -> str:
    """Where, on the way to `directory`, another user could put something else; empty for nowhere.

    Who exchanges a directory gives two callers two locks. In a sticky one like /tmp nobody can
    exchange what is ours. In a user namespace nothing tells root from others who aren't mapped: there what
    lies in / is taken for root's, who alone can put something there.
    """
    place = "/"
    links = 0
    parts = directory.split("/")[::-1]
    while parts:
        part = parts.pop()
        if part in {"", "."}:
            continue
        path = os.path.dirname(place) if part == ".." else os.path.join(place, part)
        try:
            found = os.lstat(path)
        except (OSError, ValueError):
            return ""  # nothing can be exchanged that isn't there, and opening it says what is wrong
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _MOST_LINKS:
                return ""
            target = os.readlink(path)
            place = "/" if target.startswith("/") else place
            parts += target.split("/")[::-1]
        else:
            place = path
        roots = os.path.dirname(path) == "/" and _is_hidden(found.st_uid)
        if path != "/" and not roots and found.st_uid not in (os.geteuid(), 0):
            return f"{path} {_stranger(found.st_uid)}"
        if parts and stat.S_ISDIR(found.st_mode) and _is_open_to_others(found):
            return f"{path} can be written by others"
    return ""


def _stranger(owner: int) -> str:
    """What is wrong with a directory that belongs to neither us nor root."""
    if _is_hidden(owner):
        return "has an owner whom this user namespace hides (take the lock before you enter it)"
    return "belongs to another user"


def _is_open_to_others(directory: os.stat_result) -> bool:
    """Whether another user may rename what is in it; a group of ours alone is not another."""
    mode = directory.st_mode
    group = mode & stat.S_IWGRP and directory.st_gid not in (0, os.getegid())
    return not mode & stat.S_ISVTX and bool(group or mode & stat.S_IWOTH)


def _make_directory(directory: str) -> None:
    mask = os.umask(0o022)
    os.umask(mask | 0o022)  # else we would refuse tomorrow what we made today
    try:
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        os.mkdir(directory, 0o700)
    except FileExistsError:
        return
    except OSError as error:
        raise Refused(f"{directory} can't be made ({_reason(error)}): {_ASK}", UNUSABLE) from None
    finally:
        os.umask(mask)


def _reason(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "it is a symbolic link or not a directory"
    return error.strerror or str(error)


class FileBackend:
    """Locks in one directory, whose open descriptor it is given. See `contract.Backend`.

    The lock belongs to the open file, so processes forked after `acquire` share it: they give it
    back by closing (never by LOCK_UN, which would free it for all).
    """

    def __init__(self, directory: int, path: str) -> None:
        self._directory = directory
        self._path = path
        self._released: int | None = None
        self.lock = -1

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Take the lock if it is free; it stays held without renewals."""
        while True:
            if self.lock < 0:
                self.lock = self._open(name)
            if _kept_until(self.lock) and self._is_current(name):
                return self._held(name)
            try:
                self._flock(name, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return self._held(name)
            except OSError as error:
                raise Refused(f"{self._path} can't hold locks ({_reason(error)}): {_ASK}", UNUSABLE) from None
            if not self._is_current(name):
                self._close_lock()
                continue
            if not _kept_until(self.lock):
                _show(self.lock)
                return Grant(name, holder, self._next_token(), ttl, {}, self._read_record(name))
            # Given back by closing: another may share the file, but none shares the one opened now.
            self._close_lock()
            self.lock = self._open(name)
            return self._held(name)

    def open(self, name: str) -> None:
        """Open the lock's file without locking it: processes forked from now on share it. Raises Refused."""
        if self.lock >= 0 and not self._is_current(name):
            self._close_lock()
        if self.lock < 0:
            self.lock = self._open(name)

    def descriptors(self) -> list[int]:
        """What a process that shares this backend has to keep open."""
        return [self._directory, self.lock]

    def holds(self, grant: Grant) -> bool:
        """Whether a grant that was given to a process which shares our open file is of that file."""
        return self.lock >= 0 and self._is_current(grant.name) and self._last_token() == grant.token

    def take(self, name: str, holder: str, ttl: float, parent: int) -> Grant:
        """Wait in the kernel's queue until the lock is ours, however long.

        The process ends if `parent` does meanwhile (it shares the lock, and whoever is blocked in
        flock notices nothing else), and if somebody has removed the file. A lock that is kept is
        waited for at the head of the queue: whoever came later is behind.
        """
        toolbox.die_with(parent)
        self._flock(name, fcntl.LOCK_EX)
        _show(self.lock)
        while until := _kept_until(self.lock):
            toolbox.wait(until, [])
        toolbox.outlive_parent()
        if os.getppid() != parent or not self._is_current(name):
            os._exit(1)
        return Grant(name, holder, self._next_token(), ttl, {}, self._read_record(name))

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Wait in the kernel's queue, by a child of ours that shares the open file.

        A lock that is kept is in nobody's hand: then just wait for its time.
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
                fcntl.flock(self.lock, fcntl.LOCK_EX)
            finally:
                os._exit(0)
        os.close(lives)
        toolbox.wait(until, [ended, wake])
        os.close(ended)
        os.kill(waiter, 9)
        os.waitpid(waiter, 0)

    def leave(self, limit: float) -> None:
        """Close the file: what was locked is free, if nobody shares it."""
        self._close_lock()

    def renew(self, grant: Grant, limit: float) -> None:
        """Nothing has to be renewed: the lock is held as long as the file is open."""

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Return at `until` or when `wake` is readable."""
        toolbox.wait(until, [wake])

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Replace the record, atomically. Raises Lost without the lock, or Unavailable."""
        self._must_be(grant)
        try:
            self._told(
                "write",
                grant.name,
                lambda: _replace(self._directory, f"{grant.name}.json", f".{grant.name}.tmp", record),
            )
        except OSError as error:
            raise Unavailable(f"{self._path} can't be written ({_reason(error)})") from None

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        """Write the record, and until when the lock is kept, and close the file."""
        if self._released == grant.token:
            return
        try:
            if keep > 0:
                self._must_be(grant)
                self.keep(keep)
            self.write(grant, record, limit)
            self._released = grant.token
        finally:
            self._close_lock()

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        """Who holds `name` now, if anyone, and its record."""
        record = self._read_record(name)
        try:
            probe = os.open(f"{name}.lock", _TO_READ, dir_fd=self._directory)
        except OSError:
            return None, record
        try:
            taken = _kept_until(probe) or _is_shown(probe) or _is_listed(probe)
            return (self._held(name) if taken else None), record
        finally:
            os.close(probe)

    def list(self, limit: float) -> list[str]:
        """The names that have a lock file, sorted."""
        return sorted(file[:-5] for file in os.listdir(self._directory) if file.endswith(".lock"))

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        """What the key's file says. Raises Refused for one that can't be read."""
        path = f"{self._path}/{name}.once/{_mark_of(key)}"
        try:
            directory = os.open(f"{name}.once", _DIRECTORY, dir_fd=self._directory)
            try:
                found = toolbox.loads(_read(directory, _mark_of(key)))["mark"]
            finally:
                os.close(directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Refused(f"{path} can't be read ({_reason(error)}): {_ASK}", UNUSABLE) from None
        except (ValueError, TypeError, KeyError):
            found = None
        if not isinstance(found, dict):
            raise damaged_mark(path)
        return found

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        """Write the key's file, which is there for good when this returns."""
        self._must_be(grant)
        name = _mark_of(key)
        try:
            try:
                os.mkdir(f"{grant.name}.once", 0o700, dir_fd=self._directory)
                os.fsync(self._directory)
            except FileExistsError:
                pass
            directory = os.open(f"{grant.name}.once", _DIRECTORY, dir_fd=self._directory)
            try:
                _replace(directory, name, f".{name}.tmp", {"key": key, "mark": mark}, lasting=True)
            finally:
                os.close(directory)
        except OSError as error:
            raise Unavailable(f"{self._path}/{grant.name}.once can't be written ({_reason(error)})") from None

    def forget(self, name: str, key: str, limit: float) -> bool:
        """Remove the key's file."""
        try:
            directory = os.open(f"{name}.once", _DIRECTORY, dir_fd=self._directory)
            try:
                os.unlink(_mark_of(key), dir_fd=directory)
                os.fsync(directory)
            finally:
                os.close(directory)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unavailable(f"{self._path}/{name}.once can't be written ({_reason(error)})") from None
        return True

    def offset(self) -> tuple[float, float] | None:
        """The time is this machine's."""
        return None

    def close(self) -> None:
        """Drop the directory and the lock's file."""
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
                f"{self._path}/{name}.lock can't be opened ({_reason(error)}): {_ASK}", UNUSABLE
            ) from None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
            os.close(descriptor)
            raise Refused(f"{self._path}/{name}.lock isn't a plain file of yours: remove it", UNUSABLE)
        return descriptor

    def _flock(self, name: str, how: int) -> None:
        """Lock the open file. Raises OSError."""
        self._told("flock", name, lambda: fcntl.flock(self.lock, how))

    def _told(self, kind: str, name: str, work: Callable[[], Result]) -> Result:
        """Do `work` on a file of that lock, and have the trace tell of it."""
        return toolbox.request(work, kind, lambda: f"{self._path}/{name}", lambda _: "done")

    def _is_current(self, name: str) -> bool:
        try:
            found = os.stat(f"{name}.lock", dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self.lock))

    def _must_be(self, grant: Grant) -> None:
        if self.lock < 0 or self._last_token() != grant.token:
            raise Lost(f"{self._path}/{grant.name}.lock is not held by this turn")

    def keep(self, seconds: float) -> None:
        """Have the lock, which is ours, kept from now on, also when the machine fails. Raises Unavailable."""
        words = (toolbox.now() + seconds, time.time() + seconds, seconds)
        line = " ".join([*(f"{word:.6f}" for word in words), _boot_id()])
        try:
            _write_at(self.lock, f"{line}\n".encode(), _TOKEN_WIDTH + 1)
            os.fsync(self.lock)
        except OSError as error:
            raise Unavailable(f"{self._path} can't be written ({_reason(error)})") from None

    def _last_token(self) -> int:
        last = os.pread(self.lock, _TOKEN_WIDTH, 0).strip()
        # What was written there by hand is no token, and the clock is ahead of every one of ours.
        return int(last) if last.isdigit() and int(last) < _NO_TOKEN else 0

    def _next_token(self) -> int:
        token = max(self._last_token() + 1, time.time_ns() // 1000)
        try:
            _write_at(self.lock, b"%0*d\n" % (_TOKEN_WIDTH, token), 0)
            if os.fstat(self.lock).st_size > _TOKEN_WIDTH + 1:
                os.ftruncate(self.lock, _TOKEN_WIDTH + 1)
        except OSError as error:
            self._close_lock()
            raise Refused(f"{self._path} can't be written ({_reason(error)}): {_ASK}", UNUSABLE) from None
        return token

    def _held(self, name: str) -> Held:
        kept = None
        try:
            probe = os.open(f"{name}.lock", _TO_READ, dir_fd=self._directory)
            kept = _kept_until(probe) or None
            os.close(probe)
        except OSError:
            pass
        record = self._read_record(name) or {}
        if not kept and record.get("state") != "running":
            return Held()
        who = record.get("holder", "")
        return Held(who, host_of(who), since=record.get("start"), until=kept)

    def _read_record(self, name: str) -> Mapping[str, Any] | None:
        try:
            return parsed(_read(self._directory, f"{name}.json"))
        except ValueError:
            return unreadable()
        except OSError:
            return None

    def _close_lock(self) -> None:
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def _show(lock: int) -> None:
    """Let others see that this open file, which is locked, is held. What can't be shown still is held."""
    try:
        fcntl.fcntl(lock, _OFD_SETLK, _WRITE_LOCK)
    except OSError:
        pass


def _is_shown(probe: int) -> bool:
    """Whether another open file is shown to be held (`_show`)."""
    try:
        answer = fcntl.fcntl(probe, _OFD_GETLK, _WRITE_LOCK)
    except OSError:
        return False
    return answer[:2] != fcntl.F_UNLCK.to_bytes(2, sys.byteorder)


def _is_listed(probe: int) -> bool:
    """Whether /proc/locks has a flock(2) on the file: of one whom we see and who still lives."""
    found = os.fstat(probe)
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}".encode()
    try:
        with open(_LOCKS, "rb") as listing:
            lines = [line.split() for line in listing]
    except OSError:
        return False
    return any(len(words) > 5 and words[1] == b"FLOCK" and words[5] == place for words in lines)


def _mark_of(key: str) -> str:
    """The file of a key: no key can name another file, or one too long."""
    from singleton_run.api.keys import plain
    from singleton_run.api.toolbox import digest

    return f"{digest([plain(key)])}.json"


def _read(directory: int, name: str) -> str:
    descriptor = os.open(name, _TO_READ, dir_fd=directory)
    try:
        return os.read(descriptor, LONGEST + 1).decode()
    finally:
        os.close(descriptor)


def _replace(
    directory: int, name: str, temporary: str, value: Mapping[str, Any], *, lasting: bool = False
) -> None:
    """Put `value` into a file in one step; `lasting`: a failure of the machine doesn't take it back."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        _write_at(descriptor, toolbox.dumps(value).encode(), 0)
        if lasting:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    if lasting:
        os.fsync(directory)


def _write_at(descriptor: int, data: bytes, place: int) -> None:
    """Write all of `data` there. Raises OSError where that ends early, as at the end of a disk."""
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written


def _boot_id() -> str:
    """Which of the machine's boots this is, without a blank."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return "unknown"


def _kept_until(lock: int) -> float:
    """The boot clock's reading until which the lock of an open file is kept; 0 if it isn't, or is damaged.

    After a reboot it goes by the wall clock; whatever that says, no longer than the whole time.
    """
    line = os.pread(lock, _LONGEST_LOCK, _TOKEN_WIDTH + 1)
    if not line:
        return 0.0
    try:
        boot, wall, seconds, boot_id = line.decode().split()
        left = float(boot) - toolbox.now() if boot_id == _boot_id() else float(wall) - time.time()
        left = min(left, float(seconds))
    except ValueError:
        return 0.0
    return toolbox.now() + left if 0 < left < _LONGEST_KEEP else 0.0
