"""A kernel-held backend as a stranger would write it: a lock of fcntl(2) on an open file description.

It is found by its entry point, and asked for by `--lock kernel+ofdfile:///DIRECTORY`. The lock belongs to the
open file, so a forked process shares it, and the kernel frees it when the last of them has closed the file.
The file NAME.lock is never removed; beside it, NAME.json has the last token, until when the lock is kept and
the record, and NAME.once the marks.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singleton_run.api.contract import Grant, Held
from singleton_run.errors import Lost, Refused
from singleton_run.system import calls

if TYPE_CHECKING:
    from collections.abc import Mapping

OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38  # linux/fcntl.h; Python names them from 3.9 on, not everywhere
NOTHING = {"token": 0, "holder": "", "kept_until": 0.0, "record": None}
PR_SET_PDEATHSIG = 1


def whole_file(kind: int) -> bytes:
    """A struct flock for all of a file: type, whence, start, length, and a process id that must be 0."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


def open_backend(lock: str, environ: Mapping[str, str]) -> OfdFile:
    """The backend for `kernel+ofdfile:///DIRECTORY`."""
    directory = Path(lock.partition("://")[2])
    if not directory.is_dir():
        raise Refused(f"{lock}: there is no such directory")
    return OfdFile(directory)


class OfdFile:
    """Locks in one directory. See `singleton_run.api.contract.KernelLock`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.descriptor = -1

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Take the lock if it is free."""
        self.open(name)
        if self._state(name)["kept_until"] > calls.now():
            return self._held(name)
        try:
            fcntl.fcntl(self.descriptor, OFD_SETLK, whole_file(fcntl.F_WRLCK))
        except BlockingIOError:
            return self._held(name)
        return self._granted(name, holder, ttl)

    def open(self, name: str) -> None:
        """Open the lock's file, unless it is open."""
        if self.descriptor < 0:
            path = self._directory / f"{name}.lock"
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def descriptors(self) -> list[int]:
        """The lock's file."""
        return [self.descriptor]

    def holds(self, grant: Grant) -> bool:
        """Whether the last grant of that name is this one."""
        return self.descriptor >= 0 and self._state(grant.name)["token"] == grant.token

    def take(self, name: str, holder: str, ttl: float, parent: int) -> Grant:
        """Wait in the kernel's queue, and then until the lock is kept no longer."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)
        fcntl.fcntl(self.descriptor, OFD_SETLKW, whole_file(fcntl.F_WRLCK))
        while (until := self._state(name)["kept_until"]) > calls.now():
            calls.wait(until, [])
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0)
        return self._granted(name, holder, ttl)

    def keep(self, seconds: float) -> None:
        """Have the lock kept after its file is closed; the name is that of the open file."""
        name = Path(os.readlink(f"/proc/self/fd/{self.descriptor}")).stem
        self._change(name, kept_until=calls.now() + seconds)

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Have a child wait in the kernel's queue."""
        if held.until is not None:
            calls.wait(min(until, held.until), [wake])
            return
        ended, lives = os.pipe()
        waiter = os.fork()
        if not waiter:
            fcntl.fcntl(self.descriptor, OFD_SETLKW, whole_file(fcntl.F_WRLCK))
            os._exit(0)
        os.close(lives)
        calls.wait(until, [ended, wake])
        os.close(ended)
        os.kill(waiter, signal.SIGKILL)
        os.waitpid(waiter, 0)

    def leave(self, limit: float) -> None:
        """Close the file."""
        self.close()

    def renew(self, grant: Grant, limit: float) -> None:
        """Nothing has to be renewed."""

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Just wait."""
        calls.wait(until, [wake])

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Put the record beside the lock."""
        self._must_be(grant)
        self._change(grant.name, record=dict(record))

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        """Write the record, and close the file."""
        state = self._state(grant.name)
        if self.descriptor < 0 and (state["token"], state["holder"]) == (grant.token, ""):
            return
        self._must_be(grant)
        until = calls.now() + keep if keep > 0 else state["kept_until"]
        self._change(grant.name, record=dict(record), holder="", kept_until=until)
        self.close()

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        """Who holds it, and the record."""
        path = self._directory / f"{name}.lock"
        state = self._state(name)
        if not path.exists():
            return None, state["record"]
        probe = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        answer = fcntl.fcntl(probe, OFD_GETLK, whole_file(fcntl.F_WRLCK))
        os.close(probe)
        is_locked = struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK
        is_held = is_locked or state["kept_until"] > calls.now()
        return (self._held(name) if is_held else None), state["record"]

    def list(self, limit: float) -> list[str]:
        """Every name."""
        return sorted(path.stem for path in self._directory.glob("*.lock"))

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        """What was marked for the key."""
        mark: Mapping[str, Any] | None = self._read(f"{name}.once").get(key)
        return mark

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        """Mark the key."""
        self._must_be(grant)
        self._write(f"{grant.name}.once", self._read(f"{grant.name}.once") | {key: dict(mark)})

    def forget(self, name: str, key: str, limit: float) -> bool:
        """Take the mark of the key away."""
        marks = self._read(f"{name}.once")
        mark = marks.pop(key, None)
        self._write(f"{name}.once", marks)
        return mark is not None

    def offset(self) -> tuple[float, float] | None:
        """The time is this machine's."""
        return None

    def close(self) -> None:
        """Close the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _granted(self, name: str, holder: str, ttl: float) -> Grant:
        state = self._state(name)
        # The state may have been deleted by hand: the clock is ahead of all tokens that were counted.
        token = max(state["token"] + 1, time.time_ns() if not state["token"] else 0)
        self._change(name, token=token, holder=holder)
        return Grant(name, holder, token, ttl, {}, state["record"])

    def _held(self, name: str) -> Held:
        state = self._state(name)
        until = state["kept_until"]
        return Held(state["holder"], until=until if until > calls.now() else None)

    def _must_be(self, grant: Grant) -> None:
        state = self._state(grant.name)
        if self.descriptor < 0 or (state["token"], state["holder"]) != (grant.token, grant.holder):
            raise Lost(f"{state['holder'] or 'nobody'} holds it")

    def _state(self, name: str) -> dict[str, Any]:
        return NOTHING | self._read(f"{name}.json")

    def _change(self, name: str, **changes: object) -> None:
        self._write(f"{name}.json", self._state(name) | changes)

    def _read(self, file: str) -> dict[str, Any]:
        path = self._directory / file
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _write(self, file: str, value: Mapping[str, Any]) -> None:
        whole = self._directory / f"{file}.{os.getpid()}"
        whole.write_text(json.dumps(value))
        whole.replace(self._directory / file)
