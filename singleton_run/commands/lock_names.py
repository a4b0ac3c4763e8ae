"""The names of locks, for the completion of a word that is one."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from singleton_run.commands.connection import LIMIT, opened
from singleton_run.system import calls

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

PATIENCE = 0.3
"""Seconds that a person who has pressed the tab key waits for a server."""


def known(lock: str | None, environ: Mapping[str, str], patience: float = PATIENCE) -> list[str]:
    """The names at the address `lock`, if they come within `patience` seconds; else none.

    Another process asks, which is killed then: nothing can delay this, neither the lookup of a host nor a
    program that logs in. Nothing is said, and nothing is raised.
    """
    try:
        reading, writing = os.pipe()
        child = os.fork()
    except OSError:
        return []
    if not child:
        _ask(lock, environ, writing)
    os.close(writing)
    with open(reading, "rb", buffering=0) as answer:
        told = _all_of(answer.fileno(), calls.now() + patience)
    for kill in (os.kill, os.killpg):  # its group is there a moment after it
        with suppress(OSError):
            kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return told.decode().split("\n")[:-1]


def _ask(lock: str | None, environ: Mapping[str, str], writing: int) -> NoReturn:
    """Write the names, one a line, and end. No terminal hears of it, and none is asked for a password."""
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        with opened({"lock": lock}, environ) as backend:
            found = backend.list(LIMIT)
        with open(writing, "wb") as answer:
            answer.write("".join(f"{name}\n" for name in found).encode())
    finally:
        os._exit(0)


def _all_of(reading: int, until: float) -> bytes:
    """All that is written there; nothing if its end doesn't come before `until` (boot clock)."""
    told = b""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    while poll.poll(max(0.0, until - calls.now()) * 1000):
        chunk = os.read(reading, 1 << 16)
        if not chunk:
            return told
        told += chunk
    return b""
