"""The events of a turn that others are told of, each with its fields: one name for each, wherever it is told.

Metrics, hooks, pings, the log's JSON and the history use these names. The front and the keeper send them to
the reporter (`reporter.channel`). Times are in Unix seconds, lengths in seconds. A field that isn't known is
None or missing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

EVENTS = {
    "waiting": "holder host since paused_by paused_since paused_until reason",
    "paused": "slot paused_by paused_since paused_until reason",
    "acquired": "token holder waited since",
    "started": "pid slot attempt late token holder run",
    "late": "slot seconds",
    "renewed": "result seconds remaining",
    "killed": "reason",
    "lost": "reason text",
    "revoked": "by",
    "succeeded": "status seconds slot attempt token run",
    "failed": "status seconds slot attempt token run outcome text",
    "interrupted": "status seconds slot attempt token run",
    "released": "seconds token",
    "skipped": "slot reason number",
    "resting": "slot",
    "trouble": "text",
    "gave up": "status text holder host since",
}
"""The fields of each event, beside those of every event: `name` is the lock's, `at` when it happened.

- waiting: another holds the lock, `holder` on `host` since `since`; a pause has the other fields.
- paused: a pause keeps us from starting, though the lock is ours; with `slot`, that slot is skipped.
- acquired: the lock is ours. `waited` is for how long we waited, `since` is now.
- started: the command runs, `late` seconds after its slot's time. `run` is SINGLETON_ID.
- late: the slot's command started `seconds` after its time, more than LATE and --jitter.
- renewed: a renewal took `seconds`; `result` is ok, failed or lost. `remaining` is how long the lease still
  had to run when it was sent.
- killed: we stop the command; `reason` is timeout, lost or revoked.
- lost: the lock is not ours any more; `reason` is lost or not renewed.
- revoked: `by` ordered that the lock be given back.
- succeeded, failed, interrupted: the command is gone, with all that it started; `status` is our exit status.
  interrupted: a signal asked it to stop. `outcome` of a failure is failed, or lost if it was ended because of
  the lock. `seconds` is None if it could not be started.
- released: the lock is given back, `seconds` after it was acquired.
- skipped: a slot is not started, for `reason`: deadline, paused, missed, unreadable. `number` is how many.
- resting: nothing is done before the slot `slot` (None: never).
- trouble: a request failed, and is tried again.
- gave up: the lock can't be had.
"""

TOLD = (
    "waiting",
    "acquired",
    "started",
    "late",
    "succeeded",
    "failed",
    "interrupted",
    "lost",
    "revoked",
    "killed",
    "released",
    "skipped",
    "paused",
    "gave_up",
)
"""Those that hooks and webhooks are told, by the names that they have there."""
LATE = 1.0
"""A start that is later than this counts as late, in seconds."""
RUN_OVER = ("succeeded", "failed", "interrupted")


class Event:
    """One event. `again` says that it is told again, to a reporter that took another's place: don't count it.

    `at` is in Unix seconds, `facts` has the fields of `EVENTS`.
    """

    __slots__ = ("again", "at", "event", "facts", "name")

    def __init__(self, event: str, name: str, at: float, facts: Mapping[str, Any], *, again: bool) -> None:
        self.event = event
        self.name = name
        self.at = at
        self.facts = facts
        self.again = again
