"""How a call that runs nothing ends: with text on stdout, or one line on stderr and a status."""

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
    """A word as a shell reads it, on one line whatever is in it."""
    if word.isprintable():
        return shlex.quote(word)
    plain = (
        chr(byte) if 31 < byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in fsencode(word)
    )
    return f"$'{''.join(plain)}'"


def show(text: str) -> NoReturn:
    """Print to stdout and end: status 0, or 1 if it can't be written (`--help | head -1`)."""
    try:
        _write(1, text)
    except OSError:
        raise SystemExit(1) from None
    raise SystemExit(0)


def refuse(message: str, status: int = USAGE) -> NoReturn:
    """Say in one line what is wrong, and end."""
    with suppress(OSError):
        _write(2, f"{NAME}: {one_line(message)}\n")
    raise SystemExit(status)


def _write(descriptor: int, text: str) -> None:
    """Write it all or raise OSError, leaving nothing in a buffer that is written at exit."""
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as stream:
        stream.write(text)
