"""Functions of the C library that Python doesn't offer.

Importing ctypes takes 3 ms, nearly all of it for types that are not needed here. So its C part is used
directly, and ctypes itself only if that has changed.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Function = Callable[..., int]


def _directly() -> tuple[Callable[[str], Function], Callable[..., Any], Callable[[int], Any]]:
    import _ctypes

    class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - what ctypes.c_int is
        _type_ = "i"

    class Long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
        _type_ = "l"

    class Address(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
        _type_ = "P"

    class Prototype(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = Int

    library = _ctypes.dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type]  # None is the program itself

    def load(name: str) -> Function:
        return Prototype(_ctypes.dlsym(library, name))

    def make_longs(count: int, values: tuple[int, ...]) -> Any:
        array = type("Longs", (_ctypes.Array,), {"_type_": Long, "_length_": count})
        return array(*values)

    return load, make_longs, Address


def _by_ctypes() -> tuple[Callable[[str], Function], Callable[..., Any], Callable[[int], Any]]:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)

    def load(name: str) -> Function:
        function: Function = getattr(library, name)
        return function

    def make_longs(count: int, values: tuple[int, ...]) -> Any:
        return (ctypes.c_long * count)(*values)

    return load, make_longs, ctypes.c_void_p


# The numbers of these calls are the same on every architecture of Linux except Alpha.
_PIDFD_OPEN, _CLOSE_RANGE = 434, 436
_LAST_DESCRIPTOR = 2**31 - 1

try:
    _load, _longs, _address = _directly()
except (ImportError, AttributeError, TypeError):
    _load, _longs, _address = _by_ctypes()


def function(name: str) -> Function:
    """The C function `name`. Its arguments are int, bytes, None, `longs` or `address`; it returns an int."""
    return _load(name)


def longs(*values: int, count: int = 0) -> Any:
    """An array of C longs that a C function can read or write. It has at least `count` items."""
    return _longs(max(count, len(values)), values)


def address(value: int) -> Any:
    """An address in memory, as an argument of a C function."""
    return _address(value)


def checked(result: int, name: str) -> int:
    """Return `result`, the result of the call `name`. Raises OSError by errno if it is negative."""
    if result < 0:
        import _ctypes

        number = _ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def pidfd_open(process: int) -> int:
    """A descriptor that becomes readable when the process ends (pidfd_open(2)). Raises OSError.

    Python's own function is missing if Python was built on an old system.
    """
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(process)
    return checked(function("syscall")(_PIDFD_OPEN, process, 0), "pidfd_open")


def close_range(first: int, last: int = _LAST_DESCRIPTOR) -> bool:
    """Close these descriptors by one kernel call (close_range(2)). False if the kernel doesn't have the call.

    `os.closerange` isn't used: without that call it would close up to 2**31 descriptors one by one.
    """
    return function("syscall")(_CLOSE_RANGE, first, last, 0) == 0


def to_exec(path: str, arguments: Sequence[str], entries: Sequence[bytes]) -> Callable[[], int]:
    """A function that replaces this process by another program (execve(2)). It raises OSError.

    `entries` is the environment. Unlike a mapping it can have a name twice, or an entry without a `=`.
    """
    import ctypes

    def strings(items: Sequence[bytes]) -> Any:
        return (ctypes.c_char_p * (len(items) + 1))(*items, None)

    execve = ctypes.CDLL(None, use_errno=True).execve
    program, words, environ = os.fsencode(path), strings([*map(os.fsencode, arguments)]), strings(entries)

    def execute() -> int:
        execve(program, words, environ)
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

    return execute
