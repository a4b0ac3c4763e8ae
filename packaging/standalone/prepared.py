"""The module `_prepared`: what the executable has in its memory when it starts (native/image.c)."""

from __future__ import annotations

import _io
import gc
import posix
import sys
import time

from singleton_run import __main__, preload  # noqa: F401 - loaded, and not called
from singleton_run.api import registry
from singleton_run.system import texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any
else:
    import _signal

# What CPython loads by itself, as far as it is written in Python.
OF_PYTHON = (
    "__future__",
    "_frozen_importlib",
    "_frozen_importlib_external",
    "abc",
    "codecs",
    "encodings",
    "io",
)

# What is loaded before preload.py, and what is loaded in another way.
OURS = (
    "_prepared",
    "singleton_run",
    "singleton_run.__main__",
    "singleton_run.errors",
    "singleton_run.front.keeper_handle",
    "singleton_run.preload",
)


def names() -> list[str]:
    """The names of all modules in Python that the image has."""
    first = (name for package, modules in registry.LOADED_FIRST.items() for name in (package, *modules))
    listed = (*preload.CALL, *preload.TURN, *preload.KEEPER, *first)
    return sorted({*OF_PYTHON, *OURS, *(name.removesuffix(".__init__") for name in listed)})


def load() -> None:
    """Load the modules that are on the way to the command."""
    preload.load((*preload.CALL, *preload.TURN, *preload.KEEPER))
    for package, modules in registry.LOADED_FIRST.items():
        preload.load((f"{package}.__init__",), modules)
    for name in names():
        __import__(name)
    for name in ("stdin", "stdout", "stderr"):
        _set(name, None)
    gc.collect()
    gc.freeze()


def go_on(arguments: list[str], variables: dict[bytes, bytes], ignored: list[int]) -> None:
    """Take over what is this process's own: arguments, variables, ignored signals, streams and time zone."""
    sys.argv, sys.orig_argv = arguments, arguments.copy()
    for number in ignored:
        _signal.signal(number, _signal.SIG_IGN)
    posix.environ.clear()
    posix.environ.update(variables)
    texts.environ.clear()
    texts.environ.update({texts.fsdecode(name): texts.fsdecode(value) for name, value in variables.items()})
    time.tzset()
    _set("stdin", _stream(0, "r", "surrogateescape"))
    _set("stdout", _stream(1, "w", "surrogateescape"))
    _set("stderr", _stream(2, "w", "backslashreplace"))


def _set(name: str, stream: Any) -> None:
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


def _stream(number: int, mode: str, errors: str) -> Any:
    """A standard stream as CPython makes it (create_stdio in Python/pylifecycle.c); None if it is closed."""
    try:
        raw = _io.FileIO(number, mode, closefd=False)
    except OSError:
        return None
    names = {0: "<stdin>", 1: "<stdout>", 2: "<stderr>"}
    raw.name = names[number]
    buffered = _io.BufferedReader(raw) if mode == "r" else _io.BufferedWriter(raw)
    at_terminal = raw.isatty()
    ends = None if mode == "r" else "\n"
    stream: Any = _io.TextIOWrapper(
        buffered, "utf-8", errors, ends, line_buffering=at_terminal or number == 2
    )
    stream.mode = mode
    return stream
