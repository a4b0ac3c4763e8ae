"""What the command is told of its lock, and what of ours it never sees.

Our options' variables are taken out, or a nested call would take the outer one's name. All else goes on as
execve(2) gave it to us, so an environment is a list of entries here: a name may be doubled, empty or missing.
"""

from __future__ import annotations

import os

from singleton_run.api.lock_address import HELD, lock_id
from singleton_run.api.timestamps import rfc3339
from singleton_run.call.options import OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from singleton_run.call.settings import Settings

_CHOSEN = (b"C.UTF-8", b"C.utf8", b"UTF-8")
_STALE = ("SINGLETON_SLOT", "SINGLETON_ATTEMPT")


def given() -> list[bytes]:
    """The entries that this process was started with.

    The kernel knows them. Where /proc can't be read, what Python has of them does: a mapping, without the
    locale that it has chosen for itself, as it seems (PEP 538: in place of C, as the last variable).
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read()
    except OSError:
        known = dict(os.environb)
        if [*known][-1:] == [b"LC_CTYPE"] and known[b"LC_CTYPE"] in _CHOSEN and not known.get(b"LC_ALL"):
            del known[b"LC_CTYPE"]
        return [name + b"=" + value for name, value in known.items()]
    return entries.removesuffix(b"\0").split(b"\0") if entries else []


def for_command(
    entries: Sequence[bytes], settings: Settings, *, token: int, holder: str, turn_id: str
) -> list[bytes]:
    """The command's environment: `entries`, without our options, with what is known of this turn.

    SINGLETON_HELD lists the locks that are held around the command, so that a nested call sees when
    it would wait for itself (`lock_address.nested`).
    """
    ours = {variable for option in OPTIONS for variable in option.variables}
    ours.update(_STALE)
    start = HELD.encode() + b"="
    held = next((os.fsdecode(entry[len(start) :]) for entry in entries if entry.startswith(start)), "")
    locks = [*held.split(), lock_id(settings.lock_address, settings.name)]
    told = {
        "SINGLETON_NAME": settings.name,
        "SINGLETON_TOKEN": str(token),
        "SINGLETON_HOLDER": holder,
        "SINGLETON_ID": turn_id,
        HELD: " ".join(dict.fromkeys(locks)),
    }
    return changed(entries, told, without=ours)


def changed(
    entries: Sequence[bytes], variables: Mapping[str, str], without: Iterable[str] = ()
) -> list[bytes]:
    """`entries` with these variables at the end, in place of those of the same names and of `without`."""
    names = {os.fsencode(name) for name in (*variables, *without)}
    kept = [entry for entry in entries if b"=" not in entry or entry.partition(b"=")[0] not in names]
    return [*kept, *(os.fsencode(f"{name}={value}") for name, value in variables.items())]


def of_slot(told: Sequence[object]) -> dict[str, str]:
    """The variables for a slot's time (Unix seconds, None without) and attempt; none for nothing told."""
    if not told:
        return {}
    slot, attempt = told
    variables = {"SINGLETON_ATTEMPT": str(attempt)}
    if isinstance(slot, int | float):
        variables["SINGLETON_SLOT"] = rfc3339(slot)
    return variables
