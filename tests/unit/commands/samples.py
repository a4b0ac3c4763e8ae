"""Looks at locks, for the tests of what is made of them."""

from __future__ import annotations

from typing import Any

from singleton_run.api.contract import Held, Look
from singleton_run.api.record import ended, started
from singleton_run.commands.looking import Seen

NOW = 1_800_000_000.0
BOOT = 5000.0
HOLDER = "host-1:123:0a1b2c3d"
EARLIER = "host-2:456:ffffffff"
TOKEN = 7


def record(
    state: str = "running", *, slot: dict[str, Any] | None = None, ago: float = 60.0
) -> dict[str, Any]:
    """A record of HOLDER's run, which began `ago` seconds before NOW, after one that failed."""
    before = ended(started(None, "job", EARLIER, 6, NOW - 500, "/bin/job.sh"), "failed", 3, NOW - 400)
    run = started(before, "job", HOLDER, TOKEN, NOW - ago, "/bin/job.sh")
    if slot is not None:
        run["slot"] = {"start": NOW - ago, "state": "running", "end": None, **slot}
    return run if state == "running" else ended(run, state, 0 if state == "succeeded" else 1, NOW - ago + 5)


def slot_of(text: str = "every 1h", at: float = NOW - 60, **words: Any) -> dict[str, Any]:
    """The slot of a record."""
    return {"schedule": text, "grid": at, "slot": at, "attempt": 1, "missed": 0, **words}


def held(holder: str = HOLDER, **words: Any) -> Held:
    """A holder, by default the one of `record`."""
    return Held(holder, since=NOW - 60, until=BOOT + 20, token=words.pop("token", TOKEN), **words)


def seen(
    state: str = Look.HELD,
    holder: Held | None = None,
    recorded: dict[str, Any] | None = None,
    *,
    steered: bool = True,
    **words: Any,
) -> Seen:
    """What is seen at NOW."""
    return Seen(Look(state, holder, recorded, **words), NOW, BOOT, steered)
