"""Functions of the C library that Python doesn't offer.

Importing ctypes takes 3 ms, nearly all of it for types that are not needed here: so its C part is
used directly, and ctypes itself where that has changed. The executable that needs no Python has
neither, but these functions in a module of its own (packaging/standalone/native/system.c).
"""

from __future__ import annotations

import posix as os

from singleton_run.system.texts import fsencode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Function = Callable[..., int]
    Library = tuple[Callable[[str], Function], Callable[..., Any], Callable[[int], Any], Callable[[], int]]


def _directly() -> Library:
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

    return load, make_longs, Address, _ctypes.get_errno


def _built_in() -> Library:
    import _singleton_run  # type: ignore[import-not-found]  # only in the executable that needs no Python

    def load(name: str) -> Function:
        number = _singleton_run.number(name)
        return lambda *arguments: _singleton_run.call(number, *arguments)

    def make_longs(count: int, values: tuple[int, ...]) -> Any:
        array = memoryview(bytearray(8 * count)).cast("l")
        for place, value in enumerate(values):
            array[place] = value
        return array

    return load, make_longs, int, _singleton_run.get_errno


def _by_ctypes() -> Library:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)

    def load(name: str) -> Function:
        function: Function = getattr(library, name)
        return function

    def make_longs(count: int, values: tuple[int, ...]) -> Any:
        return (ctypes.c_long * count)(*values)

    return load, make_longs, ctypes.c_void_p, ctypes.get_errno


def _library() -> Library:
    try:
        return _directly()
    except (AttributeError, TypeError):
        return _by_ctypes()
    except ImportError:
        pass
    try:
        return _built_in()
    except ImportError:
        return _by_ctypes()


# The numbers of these calls are the same on every architecture of Linux except Alpha.
_PIDFD_OPEN, _CLOSE_RANGE = 434, 436
_LAST_DESCRIPTOR = 2**31 - 1

_load, _longs, _address, _errno = _library()


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
        number = _errno()
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
    """What becomes another program, with an environment that no mapping holds (execve(2)). Raises OSError."""
    execve = _execve()
    program, words, environ = fsencode(path), tuple(map(fsencode, arguments)), tuple(entries)

    def execute() -> int:
        number = execve(program, words, environ)
        raise OSError(number, os.strerror(number))

    return execute


def _execve() -> Callable[[bytes, tuple[bytes, ...], tuple[bytes, ...]], int]:
    """The function execve(2), which returns the error's number."""
    try:
        import ctypes
    except ImportError:
        import _singleton_run

        execve: Callable[[bytes, tuple[bytes, ...], tuple[bytes, ...]], int] = _singleton_run.execve
        return execve

    def strings(items: tuple[bytes, ...]) -> Any:
        return (ctypes.c_char_p * (len(items) + 1))(*items, None)

    library = ctypes.CDLL(None, use_errno=True)

    def by_ctypes(program: bytes, words: tuple[bytes, ...], environ: tuple[bytes, ...]) -> int:
        library.execve(program, strings(words), strings(environ))
        return ctypes.get_errno()

    return by_ctypes
