"""Where zoneinfo looks for a zone: in the executable, then in this machine's directories."""

import io
import os
from zoneinfo import _common

import _singleton_run

TZPATH = ("/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo")


class InvalidTZPathWarning(RuntimeWarning):
    """A part of zoneinfo's interface."""


def find_tzfile(key: str) -> str | None:
    """The path of a zone that isn't in the executable; None otherwise."""
    if _singleton_run.zone(key) is not None:
        return None
    return next(
        (path for path in (f"{directory}/{key}" for directory in TZPATH) if os.path.isfile(path)), None
    )


def load_tzdata(key: str) -> io.BytesIO:
    """The zone that is in the executable. Raises ZoneInfoNotFoundError."""
    zone = _singleton_run.zone(key)
    if zone is None:
        raise _common.ZoneInfoNotFoundError(f"No time zone found with key {key}")
    return io.BytesIO(zone)


def reset_tzpath(_: object = None) -> None:
    """A part of zoneinfo's interface: the path is fixed here."""


def available_timezones() -> set[str]:
    """The names of the zones in the executable."""
    return set(_singleton_run.zones())


_common.load_tzdata = load_tzdata
