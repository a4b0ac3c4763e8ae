"""Ends a call that runs no command: with a text on stdout, or with one line on stderr and an exit status."""

from __future__ import annotations

import shlex
from contextlib import suppress
from os import fsencode
from typing import TYPE_CHECKING

from singleton_run.errors import USAGE, one_line

if TYPE_CHECKING:
    from typing import NoReturn

NAME = "singleton-run"


def quoted(word: str) -> str:
    """A word, quoted for a shell. The result is on one line, whatever is in the word."""
    if word.isprintable():
        return shlex.quote(word)
    plain = (
        chr(byte) if 31 < byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in fsencode(word)
    )
    return f"$'{''.join(plain)}'"


def show(text: str, status: int = 0) -> NoReturn:
    """Print to stdout and end with `status`, or as `say` if stdout can't be written."""
    say(text)
    raise SystemExit(status)


def say(text: str) -> None:
    """Print to stdout at once, and go on. If stdout can't be written, end as `unwritable`."""
    try:
        _write(1, text)
    except OSError as error:
        unwritable(error, text)


def unwritable(error: OSError, text: str) -> NoReturn:
    """End with 1 because stdout can't be written: silently if nobody reads it (`--help | head -1`).

    Else the first line of `text` goes to stderr with the reason: what a call has changed stays changed.
    """
    if not isinstance(error, BrokenPipeError):
        first = text.lstrip().partition("\n")[0]
        wanted = f": it should begin with {first!r}" if first else ""
        warn(f"standard output {_fault(error)}{wanted}")
    raise SystemExit(1)


def _fault(error: OSError) -> str:
    """What is wrong with stdout. In place of a closed one stands a directory (`calls.reserve_standard`)."""
    return "is closed" if isinstance(error, IsADirectoryError) else f"can't be written ({error.strerror})"


def refuse(message: str, status: int = USAGE) -> NoReturn:
    """Print one line that says what is wrong, and end with `status`."""
    warn(message)
    raise SystemExit(status)


def warn(message: str) -> None:
    """Print one line to stderr, and go on, also if stderr can't be written."""
    with suppress(OSError):
        _write(2, f"{NAME}: {one_line(message)}\n")


def _write(descriptor: int, text: str) -> None:
    """Write the whole text or raise OSError. Nothing stays in a buffer until exit."""
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as stream:
        stream.write(text)
