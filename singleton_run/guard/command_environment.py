"""What the command is told of its lock, and what of ours it never sees.

Our options' variables are taken out, or a nested call would take the outer one's name.
"""

from __future__ import annotations

from singleton_run.api.lock_address import HELD, lock_id
from singleton_run.api.timestamps import rfc3339
from singleton_run.call.options import OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from singleton_run.call.settings import Settings

_STALE = ("SINGLETON_SLOT", "SINGLETON_ATTEMPT")


def for_command(
    environ: Mapping[str, str], settings: Settings, *, token: int, holder: str, turn_id: str
) -> dict[str, str]:
    """The command's environment: `environ`, without our options, with what is known of this turn.

    SINGLETONHELD lists the locks that are held around the command, so that a nested call sees when
    it would wait for itself (`lock_address.nested`).
    """
    ours = {variable for option in OPTIONS for variable in option.variables}
    ours.update(_STALE)
    result = {name: value for name, value in environ.items() if name not in ours}
    held = [*result.get(HELD, "").split(), lock_id(settings.lock, settings.name)]
    result["SINGLETON_NAME"] = settings.name
    result["SINGLETON_TOKEN"] = str(token)
    result["SINGLETON_HOLDER"] = holder
    result["SINGLETON_ID"] = turn_id
    result[HELD] = " ".join(dict.fromkeys(held))
    return result


def of_slot(told: Sequence[object]) -> dict[str, str]:
    """The variables for a slot's time (Unix seconds, None without) and attempt; none for nothing told."""
    if not told:
        return {}
    slot, attempt = told
    variables = {"SINGLETON_ATTEMPT": str(attempt)}
    if isinstance(slot, int | float):
        variables["SINGLETON_SLOT"] = rfc3339(slot)
    return variables
