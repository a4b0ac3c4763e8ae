"""The C library's functions that Python doesn't offer.

Importing ctypes takes 3 ms, nearly all of it for types that are not needed here: so its C part is
used directly, and ctypes itself where that has changed.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
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


try:
    _load, _longs, _address = _directly()
except (ImportError, AttributeError, TypeError):
    _load, _longs, _address = _by_ctypes()


def function(name: str) -> Function:
    """The function of that name: it takes int, bytes, None, `longs` and `address`, and returns int."""
    return _load(name)


def longs(*values: int, count: int = 0) -> Any:
    """An array of C longs, at least `count` of them, to be read or written by a function."""
    return _longs(max(count, len(values)), values)


def address(value: int) -> Any:
    """A place in memory, as an argument."""
    return _address(value)


def checked(result: int) -> int:
    """The result of a call, or OSError if it is negative."""
    if result < 0:
        import _ctypes

        number = _ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
