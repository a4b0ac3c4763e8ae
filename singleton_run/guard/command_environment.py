"""The command's environment: ours, with variables about the lock and without those of our options.

A nested call would otherwise take the outer call's name. All other entries stay as execve(2) gave them to us.
So an environment is a list of entries here: a name may come twice, or be empty, or have no `=`.
"""

from __future__ import annotations

import posix

from singleton_run.api.lock_address import HELD, lock_id, redact
from singleton_run.api.timestamps import rfc3339
from singleton_run.call.options import OPTIONS, RESTED
from singleton_run.names import digest
from singleton_run.system.texts import fsdecode, fsencode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from singleton_run.call.settings import Settings

_CHOSEN = (b"C.UTF-8", b"C.utf8", b"UTF-8")
# The last is `system.beside.LEFT_BY`: the kernel's list, from which the command's is made, still has it.
_STALE = ("SINGLETON_SLOT", "SINGLETON_ATTEMPT", RESTED, "_SINGLETON_RUN_LEFT_BY")


def given() -> list[bytes]:
    """The entries that this process was started with, as the kernel has them.

    If /proc can't be read, Python's mapping is used instead. Python may have added a locale of its own to it
    (PEP 538: LC_CTYPE, as the last variable): that is left out.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read()
    except OSError:
        known = dict(posix.environ)
        if [*known][-1:] == [b"LC_CTYPE"] and known[b"LC_CTYPE"] in _CHOSEN and not known.get(b"LC_ALL"):
            del known[b"LC_CTYPE"]
        return [name + b"=" + value for name, value in known.items()]
    return entries.removesuffix(b"\0").split(b"\0") if entries else []


def for_command(
    entries: Sequence[bytes], settings: Settings, *, token: int, holder: str, turn_id: str
) -> list[bytes]:
    """The command's environment: `entries` without our options' variables, and with those of this turn.

    SINGLETON_HELD lists the locks that are held around the command, and their holders. By it a nested call
    sees that it would wait for itself, however it spells the address (`lock_address.nested`, `Turn.held`).
    SINGLETON_LOCK, by which `check` finds the lock, has no password.
    """
    ours = {variable for option in OPTIONS for variable in option.variables}
    ours.update(_STALE)
    start = HELD.encode() + b"="
    held = next((fsdecode(entry[len(start) :]) for entry in entries if entry.startswith(start)), "")
    locks = [*held.split(), lock_id(settings.lock_address, settings.name), digest([holder])]
    told = {
        "SINGLETON_LOCK": redact(settings.lock_address),
        "SINGLETON_NAME": settings.name,
        "SINGLETON_TOKEN": str(token),
        "SINGLETON_HOLDER": holder,
        "SINGLETON_TTL": f"{settings.ttl:g}",
        "SINGLETON_ID": turn_id,
        HELD: " ".join(dict.fromkeys(locks)),
    }
    return changed(entries, told, without=ours)


def changed(
    entries: Sequence[bytes], variables: Mapping[str, str], without: Iterable[str] = ()
) -> list[bytes]:
    """`entries` without the names in `variables` and `without`, and with `variables` at the end."""
    names = {fsencode(name) for name in (*variables, *without)}
    kept = [entry for entry in entries if b"=" not in entry or entry.partition(b"=")[0] not in names]
    return [*kept, *(fsencode(f"{name}={value}") for name, value in variables.items())]


def of_slot(told: Sequence[object]) -> dict[str, str]:
    """The variables for a slot (Unix seconds, or None) and an attempt; none if `told` is empty."""
    if not told:
        return {}
    slot, attempt = told
    variables = {"SINGLETON_ATTEMPT": str(attempt)}
    if isinstance(slot, int | float):
        variables["SINGLETON_SLOT"] = rfc3339(slot)
    return variables
