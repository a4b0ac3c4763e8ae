"""Starts singleton-run under libfaketime with its timers unharmed.

libfaketime takes every absolute timer for one of the wall clock, ours of the boot clock too, and sets it
wrong. So the C library's functions are not looked up where it has put itself before them. What Python
itself asks for, time.time() first of all, stays faked.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from singleton_run.system import libc

if TYPE_CHECKING:
    from singleton_run.system.libc import Function

_library = ctypes.CDLL("libc.so.6", use_errno=True)


def _kernels(name: str) -> Function:
    function: Function = getattr(_library, name)
    return function


libc._load = _kernels  # noqa: SLF001 - see above

from singleton_run.__main__ import main  # noqa: E402 - only now

main()
