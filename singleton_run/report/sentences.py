"""The sentence for each event that the user is told of."""

from __future__ import annotations

from singleton_run import durations
from singleton_run.api.timestamps import rfc3339
from singleton_run.errors import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Facts = dict[str, Any]

SENTENCES = {
    "held": "waiting{for} for lock {name!r}{held_by}",
    "paused": "waiting{for}: lock {name!r} is {paused}",
    "acquired": "got lock {name!r}{waited} (token {token})",
    "trouble": "lock {name!r}: {text}; trying again",
    "started": "the command runs as process {pid}",
    "not started": "{text}",
    "too late": "the lease of lock {name!r} was over before the command could start: run it again",
    "succeeded": "the command succeeded",
    "failed": "the command failed with status {status}",
    "interrupted": "the command was asked to stop, and ended with status {status}",
    "lost": "lock {name!r} is lost, so the command is killed: {text}",
    "revoked": "lock {name!r} is taken away by {by}, so the command is stopped",
    "not renewed": "lock {name!r} can't be renewed in time, so the command is stopped",
    "not released": "lock {name!r} could not be given back before its lease ended by itself",
    "unsettled": "lock {name!r}: {text}",
    "keeper died": "the keeper of lock {name!r} died; another takes over",
    "keeper hangs": "the keeper of lock {name!r} hangs; another takes over",
    "guard died": "the guard of the command was killed; its work goes on here",
    "timeout": "the command ran into its --timeout and is stopped",
    "leftover": "the command left process {pid} behind ({command}){verb}",
    "more leftovers": "the command left more processes behind, not named here",
    "leftovers ignored": "what the command left behind runs on without the lock",
    "forbidden": "process {pid} ({command}) may not be signalled by us, so the lock is kept until it ends: "
    "run singleton-run itself as the other user, as in 'sudo singleton-run -- COMMAND'",
    "stuck": "process {pid} ({command}) was killed and has not ended yet: the lock is kept until it does",
    "guard frozen": "the guard of the command is frozen and can't be ended, so the command can't be stopped: "
    "thaw it (a debugger, a cgroup's freezer)",
    "guard hangs": "the guard of the command does not answer; it is woken, and then replaced",
    "unknown message": "{text} is not known to this version: was singleton-run replaced while it ran?",
    "undelivered": "{text}",
    "untold": "{text}: others are not told what happens here",
    "unnamed": "without --name, lock {name!r} depends on the command's arguments: "
    "change one, and old and new run side by side",
    "gave up": "{text}",
    "insecure": "{text}",
    "rest": "the next slot of {name!r} is {when}",
    "slot over": "slot {when} of {name!r}: nothing to do, {state}",
    "slot interrupted": "slot {when} of {name!r} was interrupted: --retry-interrupted would try it again",
    "once done": "{key!r} is done already under {name!r}",
    "skipped": "slot {when} of {name!r} is skipped: it could not start within --start-deadline",
    "overlapped": "slot {when} of {name!r} is passed over: the last run still went on when it was due",
    "replaced": "slot {when} of {name!r} is due, so the last run, which still goes on, is stopped",
    "not replaced": "slot {when} of {name!r} is due, but the lock is {paused}, so the last run goes on",
    "slot paused": "slot {when} of {name!r} is skipped: the lock is {paused}",
    "unreadable": "the record of {name!r} can't be read: slot {when} may have been started and is left out, "
    "the next is not",
    "missed": "before this slot of {name!r} {missed}",
    "other schedule": "the last slot of {name!r}, {when}, was run by another schedule than ours",
    "crontab": "runs {text}",
    "passed over": "{text} is passed over: in a directory only names of letters, digits, _ and - count",
    "unnamed line": "{text} has no name, so {line!r} is made of what it says: edit the line, and it is "
    "another (# singleton-run: name=NAME above it gives it one)",
    "crontab read": "the crontab is read again: {text}",
    "crontab fault": "{text}",
    "crontab kept": "the crontab of before stays, for the new one can't be taken: {text}",
    "line died": "the process of line {line!r}: {text}; it is started again in {length}",
    "output died": "the process that writes the commands' output: {text}; it is started again, and what runs "
    "now has lost its output",
    "offset": "the server's clock is {ahead} that of this machine: slots go by the server's",
    "behind": "this machine's clock is {length} behind that of the last slot's: it sits out the slots "
    "until then; set the clock",
}
_OF_SLOTS = {
    "elsewhere": "it is run elsewhere",
    "skipped": "it is past its --start-deadline",
    "overlapped": "the last run still went on when it was due",
    "paused": "it was skipped, because the lock was paused",
    "unreadable": "its record could not be read, so it may have been run",
    "none": "there has been none yet",
    "interrupted": "it was interrupted",
}
_NO_NEWS = ("level", "event", "name", "dropped")


def sentence(facts: Facts, waited: float | None) -> str:
    """The line for an event. `waited` is how long the lock was waited for, in seconds, None if it wasn't."""
    words = dict(facts)
    words["held_by"] = _held_by(facts)
    length = "" if waited is None else durations.text(round(waited))
    words["waited"] = f" after {length}" if length else ""
    words["for"] = f" for {length}" if length else ""
    number = facts.get("number", 0.0)
    words["missed"] = f"{number:.0f} {'was' if number == 1 else 'were'} missed"
    words["when"] = rfc3339(float(facts.get("slot") or number))
    words["length"] = durations.text(round(abs(number), 1 if abs(number) < 60 else None))
    words["ahead"] = f"{words['length']} {'ahead of' if number > 0 else 'behind'}"
    words["state"] = _OF_SLOTS.get(facts.get("text", ""), f"it has {facts.get('text')}")
    words["paused"] = _paused(facts)
    if facts["event"] == "gave up" and not facts["text"]:
        words["text"] = _not_had(facts, words)
    known = SENTENCES.get(facts["event"])
    text = _unknown(facts) if known is None else known.format(**words)
    return one_line(text) + (f" ({facts['dropped']} messages were dropped)" if "dropped" in facts else "")


def _unknown(facts: Facts) -> str:
    """The line for an event without a sentence: another version may have replaced ours while we run."""
    told = ", ".join(f"{fact} {value}" for fact, value in facts.items() if fact not in _NO_NEWS)
    return f"lock {facts['name']!r}: {facts['event']}" + (f" ({told})" if told else "")


def _not_had(facts: Facts, words: Facts) -> str:
    """Why we have not got the lock: another has it, or it is paused."""
    if "slot" in facts:
        return SENTENCES["slot paused"].format(**words)
    if "reason" in facts and "holder" not in facts:
        return f"lock {facts['name']!r} is {words['paused']}"
    return f"lock {facts['name']!r} is held{_held_by(facts, by=' by')}"


def _held_by(facts: Facts, by: str = ": held by") -> str:
    """The lock's holder, and the pause that is in force as well."""
    paused = f"; it is {_paused(facts)}" if "reason" in facts else ""
    if not facts.get("holder"):
        return paused
    where = f" on {facts['host']}" if facts.get("host") else ""
    return f"{by} {facts['holder']}{where}{_at(' since', facts.get('since'))}{paused}"


def _paused(facts: Facts) -> str:
    """Who has paused the lock, since and until when, and why."""
    by = f" by {facts['paused_by']}" if facts.get("paused_by") else ""
    until = _at(" until", facts.get("paused_until")) or " until it is resumed"
    why = f": {facts['reason']}" if facts.get("reason") else ""
    return f"paused{by}{_at(' since', facts.get('paused_since'))}{until}{why}"


def _at(word: str, moment: float | None) -> str:
    """The word and the time (Unix seconds); '' for an unknown time."""
    return "" if moment is None else f"{word} {rfc3339(int(moment))}"
