"""What is put before the command: singleton-run, a peer, or nothing at all."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Tool:
    """A wrapper. `argv` gives the call for a lock's URL, a name, a ttl in seconds and a command.

    `ends_leftovers`: what the command leaves behind when it ends is the wrapper's business, so the
    command needn't tidy up. `has_records`: it writes down how a run ended.
    """

    name: str
    argv: Callable[[str, str, float, list[str]], list[str]]
    ends_leftovers: bool = False
    has_records: bool = False

    def environ(self, environ: dict[str, str]) -> dict[str, str]:
        """The environment of its calls."""
        return environ


def _ours(lock: str, name: str, ttl: float, command: list[str]) -> list[str]:
    options = ["--lock", lock, "--name", name, "--ttl", f"{ttl}s", "--kill-after", "300ms"]
    return [sys.executable, "-m", "singleton_run", *options, "--", *command]


OURS = Tool("singleton-run", _ours, ends_leftovers=True, has_records=True)
# Two that must be caught: no lock at all, and one that lives and dies with the process in front.
NONE = Tool("none", lambda lock, name, ttl, command: command)
LETS_GO = Tool(
    "flock -o",
    lambda lock, name, ttl, command: ["flock", "-o", f"/tmp/{name}.lock", *command],  # noqa: S108
)
TOOLS = {tool.name: tool for tool in (OURS, NONE, LETS_GO)}
