"""Time zones by name: the zone of this machine, and whether a zone is installed.

The front asks for this before anything is contacted. zoneinfo takes 9 ms to import, and reads the zone later.
"""

from __future__ import annotations

import os
import sys

from singleton_run.errors import UNUSABLE, USAGE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_DIRECTORIES = ("/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo")
_LOCALTIME = "/etc/localtime"
_TIMEZONE = "/etc/timezone"
_LEGAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-/")
_UTC = ("Etc/UTC", "Etc/UCT", "Etc/Universal", "Etc/Zulu", "UCT", "Universal", "Zulu")
_INSTALL = "install the package tzdata (apt-get install tzdata, apk add tzdata, or pip install tzdata)"


def find(name: str) -> str:
    """The zone's name, with one name for UTC.

    Raises Failure: USAGE if it is no name of a zone, UNUSABLE if this machine doesn't know the zone.
    """
    name = "UTC" if name in _UTC else name
    if not name or not _LEGAL.issuperset(name) or name.startswith(("/", "-")):
        raise Failure(
            USAGE, f"--tz: {name!r} is not the name of a time zone: Europe/Berlin is, and so is UTC"
        )
    if not _installed(name):
        known = _installed("Europe/London")
        doing = "look for it in /usr/share/zoneinfo" if known else _INSTALL
        raise Failure(UNUSABLE, f"the time zone {name} isn't known on this machine: {doing}")
    return name


def local(environ: Mapping[str, str]) -> str:
    """The name of the zone that cron would use here: TZ, else the target of /etc/localtime, else UTC.

    A TZ that names /etc/localtime itself counts as none. Raises Failure(UNUSABLE) if the zone has no name or
    isn't installed.
    """
    text = environ.get("TZ")
    name = _after_zoneinfo((text or "").removeprefix(":"))
    if text is not None and name not in (_LOCALTIME, "localtime"):
        name = name or "UTC"
        if not _LEGAL.issuperset(name) or name.startswith("/") or not _installed(name):
            raise Failure(
                UNUSABLE, f"TZ is {text!r}, which is no time zone that is known here: say --tz ZONE"
            )
        return find(name)
    return _of_machine()


def _of_machine() -> str:
    if not os.path.exists(_LOCALTIME):
        return "UTC"
    target = os.path.realpath(_LOCALTIME)
    name = _after_zoneinfo(target)
    if name == target:
        name = _copied(target)
    if not name or not _installed(name):
        raise Failure(
            UNUSABLE,
            f"which time zone {_LOCALTIME} is can't be told, for it is no link to one and {_TIMEZONE} "
            "doesn't name it: say --tz ZONE",
        )
    return find(name)


def _copied(path: str) -> str:
    """The zone that /etc/timezone names, if `path` is a copy of its file; else ''."""
    try:
        with open(_TIMEZONE) as file:
            name = file.read().strip()
        with open(path, "rb") as one, open(f"{_DIRECTORIES[0]}/{name}", "rb") as other:
            return name if one.read() == other.read() else ""
    except (OSError, ValueError):
        return ""


def _after_zoneinfo(path: str) -> str:
    """`Europe/Berlin` of `/usr/share/zoneinfo/Europe/Berlin`. Any other text is returned as it is."""
    name = path.rpartition("/zoneinfo/")[2]
    return name.removeprefix("posix/")


def _installed(name: str) -> bool:
    """Whether the zone is in the system's directories or in the package tzdata, where zoneinfo looks."""
    if name == "UTC":
        return True
    packages = (f"{directory}/tzdata/zoneinfo" for directory in sys.path)
    if any(os.path.isfile(f"{directory}/{name}") for directory in (*_DIRECTORIES, *packages)):
        return True
    # PYTHONTZPATH, a Python that was built to look elsewhere, or no such zone: rare, so it may be slow.
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        return False
    return True
