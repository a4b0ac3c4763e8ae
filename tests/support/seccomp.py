"""Makes this kernel one that refuses a system call: `python seccomp.py CALL ERRNO PROGRAM ARGUMENT…`.

The call fails with that error in the program and in all that it starts (seccomp(2), a filter). With KILL for
the error it ends whoever makes it, at that place.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys

# As x86-64 and as the machines with the common table (arm64, riscv64) number them.
NUMBERS = {
    "clone3": (435, 435),
    "close_range": (436, 436),
    "epoll_create1": (291, 20),
    "faccessat2": (439, 439),
    "fsync": (74, 82),
    "inotify_init1": (294, 26),
    "memfd_create": (319, 279),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "prctl": (157, 167),
    "signalfd4": (289, 74),
    "timerfd_create": (283, 85),
    "timerfd_settime": (286, 86),
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


class _Step(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("yes", ctypes.c_uint8),
        ("no", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.POINTER(_Step)))


def refuse(call: str, error: str) -> None:
    """From now on the system call fails with `error`, here and in all that is started from here."""
    action = _KILL if error == "KILL" else _FAIL | getattr(errno, error)
    number = NUMBERS[call][platform.machine() != "x86_64"]
    steps = (_Step * 4)(
        _Step(_LOAD, 0, 0, 0),
        _Step(_JUMP_IF_EQUAL, 0, 1, number),
        _Step(_RETURN, 0, 0, action),
        _Step(_RETURN, 0, 0, _ALLOW),
    )
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    program = ctypes.byref(_Program(len(steps), steps))
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(_PR_SET_SECCOMP, _FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "no filter can be set")


if __name__ == "__main__":
    refuse(sys.argv[1], sys.argv[2])
    os.execv(sys.argv[3], sys.argv[3:])
