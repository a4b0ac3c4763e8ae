"""The process that writes to stderr, so that nobody else has to wait for it.

While the lock is waited for it says so: at a terminal in one line that is written over every
second, elsewhere in a line at the start and one a minute, for those who stop a silent step.
"""

from __future__ import annotations

import os
import select
import time

from singleton_run import durations
from singleton_run.api.timestamps import rfc3339
from singleton_run.errors import one_line
from singleton_run.system import fastjson
from singleton_run.system.pipes import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Facts = dict[str, Any]

SENTENCES = {
    "held": "waiting{for} for lock {name!r}{held_by}",
    "acquired": "got lock {name!r}{waited} (token {token})",
    "trouble": "lock {name!r}: {text}; trying again",
    "started": "the command runs as process {pid}",
    "not started": "{text}",
    "late": "the lease of lock {name!r} was over before the command could start: run it again",
    "lost": "lock {name!r} is lost, so the command is killed: {text}",
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
    "guard hangs": "the guard of the command does not answer; it is woken, and then replaced",
    "unnamed": "without --name, lock {name!r} depends on the command's arguments: "
    "change one, and old and new run side by side",
    "gave up": "{text}",
    "insecure": "{text}",
    "rest": "the next slot of {name!r} is {when}",
    "slot over": "slot {when} of {name!r}: nothing to do, {state}",
    "once done": "{key!r} is done already under {name!r}",
    "skipped": "slot {when} of {name!r} is skipped: it could not start within --start-deadline",
    "missed": "before this slot of {name!r} {number:.0f} were missed",
    "other schedule": "the last slot of {name!r}, {when}, was run by another schedule than ours",
    "offset": "the server's clock is {ahead} that of this machine: slots go by the server's",
    "behind": "this machine's clock is {length} behind that of the last slot's: it sits out the slots "
    "until then; set the clock",
}
_OF_SLOTS = {
    "elsewhere": "it is run elsewhere",
    "skipped": "it is past its --start-deadline",
    "none": "there has been none yet",
    "interrupted": "it was interrupted",
}
_REMINDER_SECONDS = 60.0
_REFRESH_SECONDS = 1.0
_LINE_ABOVE = "\x1b[1A\x1b[2K"


def sentence(facts: Facts, waited: float | None) -> str:
    """The line for a message; `waited` is in seconds."""
    words = dict(facts)
    words["held_by"] = _held_by(facts)
    length = "" if waited is None else durations.text(round(waited))
    words["waited"] = f" after {length}" if length else ""
    words["for"] = f" for {length}" if length else ""
    number = facts.get("number", 0.0)
    words["when"] = rfc3339(float(facts.get("slot") or number))
    words["length"] = durations.text(round(abs(number), 1 if abs(number) < 60 else None))
    words["ahead"] = f"{words['length']} {'ahead of' if number > 0 else 'behind'}"
    words["state"] = _OF_SLOTS.get(facts.get("text", ""), f"it has {facts.get('text')}")
    if facts["event"] == "gave up" and not facts["text"]:
        words["text"] = f"lock {facts['name']!r} is held{_held_by(facts, by=' by')}"
    text = SENTENCES[facts["event"]].format(**words)
    return one_line(text) + (f" ({facts['dropped']} messages were dropped)" if "dropped" in facts else "")


def _held_by(facts: Facts, by: str = ": held by") -> str:
    if not facts.get("holder"):
        return ""
    since = facts.get("since")
    when = "" if since is None else f" since {rfc3339(int(since))}"
    where = f" on {facts['host']}" if facts.get("host") else ""
    return f"{by} {facts['holder']}{where}{when}"


def write(descriptor: int, *, as_json: bool) -> None:
    """Write what comes out of the pipe until its end."""
    reader = Reader(descriptor)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    rewrite = _rewriter() if not as_json and _has_own_terminal() else None
    pause = (_REFRESH_SECONDS if rewrite else _REMINDER_SECONDS) * 1000
    since = 0.0
    held: Facts | None = None
    while not reader.closed:
        news: list[Any] = reader.read() if poll.poll(pause if held else None) else [held]
        for facts in news:
            waited = time.monotonic() - since if since else None
            if facts["event"] == "held":
                first, reminded = held is None, facts is held
                since = since or time.monotonic()
                held = facts
                if rewrite:
                    rewrite(sentence(facts, waited or 0.0))
                elif first or reminded:
                    _line(facts, waited, as_json=as_json)
            else:
                held = None if facts["event"] in ("acquired", "gave up") else held
                _line(facts, waited, as_json=as_json)
                rewrite = rewrite and _rewriter()  # the line above is another now


def _line(facts: Facts, waited: float | None, *, as_json: bool) -> None:
    text = sentence(facts, waited)
    if as_json:
        line = fastjson.dumps({"time": rfc3339(int(time.time())), **facts, "waited": waited, "message": text})
    else:
        line = f"singleton-run: {text}"
    _write(line + "\n")


def _write(text: str) -> None:
    data = text.encode(errors="replace")
    while data:
        data = data[os.write(2, data) :]


def _has_own_terminal() -> bool:
    try:
        os.tcgetpgrp(2)
    except OSError:
        return False
    return True


def _rewriter() -> Callable[[str], None]:
    """A function that writes its text over what it wrote before; nothing while in the background.

    The cursor is left on the line below, where the command may begin to write at any moment.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    written = False

    def rewrite(text: str) -> None:
        nonlocal written
        if os.tcgetpgrp(2) == os.getpgrp():
            _write(_LINE_ABOVE if written else "")
            console.print(Text(text, style="dim"), no_wrap=True, overflow="ellipsis")
            written = True

    return rewrite
