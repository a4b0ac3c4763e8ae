"""Recognizes a call that is written for flock(1), and says how to write it here."""

from __future__ import annotations

from singleton_run.api.lock_address import redact
from singleton_run.call.output import NAME, quoted
from singleton_run.names import LONGEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_HERE = {
    "-w": "--wait",
    "-x": "always so: leave it out",
    "-e": "always so: leave it out",
    "-o": "always so: leave it out",
    "-F": "not available, because the lock would not outlive a kill: leave it out",
    "-s": "not available: each lock is for one at a time",
    "-u": "not available: a lock is given back when the command has ended",
    "-c": "-- sh -c 'COMMAND'",
    "--exclusive": "always so: leave it out",
    "--shared": "not available: each lock is for one at a time",
    "--unlock": "not available: a lock is given back when the command has ended",
    "--nonblock": "--no-wait",
    "--nb": "--no-wait",
    "--close": "always so: leave it out",
    "--no-fork": "not available, because the lock would not outlive a kill: leave it out",
    "--command": "-- sh -c 'COMMAND'",
}
_WITH_VALUE = {
    "-w": "--wait",
    "--timeout": "--wait",
    "--wait": "--wait",
    "-E": "-E",
    "--conflict-exit-code": "-E",
}
_KEPT = {"-n": "-n", "--nonblock": "-n", "--nb": "-n", "--verbose": "-v"}
_IMPOSSIBLE = ("-s", "-u", "--shared", "--unlock")


def hint(option: str) -> str:
    """How flock's option is written here, as ` (flock's -w is --wait)`; '' if flock has no such option."""
    return f" (flock's {option} is {_HERE[option]})" if option in _HERE else ""


def rewritten(words: Sequence[str]) -> str:
    """The sentence for a call that looks like flock's: options, a file or a descriptor, a command.

    It is '' for any other call: one without a word in the place of flock's file, or one whose word doesn't
    look like a lock, and that has no option that only flock has.
    """
    options, sure, rest = _options(words)
    if not rest:
        return ""
    file, *command = rest
    if file.isascii() and file.isdigit() and not command:
        return (
            "this looks like flock's lock on an open descriptor, which is not available here: put what is to "
            f"run under the lock into a command: {NAME} --name NAME -- sh -c 'COMMANDS' (docs/flock.md)"
        )
    if not command or not (sure or _is_lock(file)):
        return ""
    impossible = next((option for option in _IMPOSSIBLE if option in words), "")
    if impossible:
        return f"this looks like a call of flock, whose {impossible} is {_HERE[impossible]} (docs/flock.md)"
    if command[0] in ("-c", "--command"):
        command = ["sh", "-c", *command[1:]]
    elif command[0] == "--":
        command = command[1:]
    line = [NAME, "--name", _name(file), *options, "--", *command]
    return (
        f"this looks like a call of flock, which here is: {' '.join(quoted(redact(word)) for word in line)}"
    )


def _options(words: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    """The options before flock's file, written as ours; whether only flock has one; the other words."""
    ours: list[str] = []
    sure = False
    rest = list(words)
    while rest and rest[0][:1] == "-" and rest[0] != "--":
        flag, equals, value = rest.pop(0).partition("=")
        if flag in _WITH_VALUE:
            if not equals and not rest:
                return [], False, []
            ours += [_WITH_VALUE[flag], value if equals else rest.pop(0)]
        elif flag in _KEPT:
            ours.append(_KEPT[flag])
        elif flag not in _HERE:
            return [], False, []
        sure = sure or flag in _HERE
    return ours, sure, rest if rest[:1] != ["--"] else []


def _is_lock(file: str) -> bool:
    return file.endswith((".lock", ".lck", ".pid")) or "/lock/" in file or "/run/" in file


def _name(file: str) -> str:
    """A legal lock name, made from the file's name."""
    base = file.rstrip("/").rpartition("/")[2]
    legal = (letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in base)
    return "".join(legal).lstrip(".-")[:LONGEST] or "NAME"
