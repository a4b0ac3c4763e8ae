"""The writer: a process that writes to stderr, so that no other process has to wait for stderr.

While we wait for the lock, or for the end of a pause, it says how long. At a terminal it rewrites one line
every second. Elsewhere it writes a line at the start, one at a change of the pause, and one every minute,
when the front asks for it.
"""

from __future__ import annotations

import os
import select
import time

from singleton_run.report.log import END, TRACE, WAITS
from singleton_run.report.sentences import sentence
from singleton_run.system import fastjson
from singleton_run.system.pipes import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Facts = dict[str, Any]

_REFRESH_SECONDS = 1.0
_QUIET_SECONDS = 1.0
_LINE_ABOVE = "\x1b[1A\x1b[2K"


def write(descriptor: int, trace: Reader | None = None, *, as_json: bool, stays: bool = True) -> None:
    """Write what comes out of the pipe until its end.

    With a `trace`, which all processes write to, until the event END; if the front is killed before it
    says that, until nobody is left who could tell more. Otherwise, unless it `stays`, until nothing has come
    for a while: the pipe is empty then.
    """
    sources = [Reader(descriptor)] if trace is None else [Reader(descriptor), trace]
    poll = select.poll()
    for source in sources:
        poll.register(source.descriptor, select.POLLIN)
    rewrite = _rewriter() if not as_json and _has_own_terminal() else None
    patience = None if stays or trace is not None else _QUIET_SECONDS * 1000
    since = 0.0
    held: Facts | None = None
    while sources:
        news: list[Facts] = []
        if poll.poll(_REFRESH_SECONDS * 1000 if rewrite and held else patience):
            news = _news(sources, poll)
        elif rewrite and held:
            rewrite(sentence(held, time.monotonic() - since))
        else:
            return
        for facts in news:
            told_before, waited = _told_of(facts)
            if waited is None and since:
                waited = time.monotonic() - since
            if facts["event"] in WAITS:
                since = since or time.monotonic() - (waited or 0.0)
                held = facts
                if rewrite:
                    rewrite(sentence(facts, waited or 0.0))
                elif not told_before:
                    _line(facts, waited, as_json=as_json)
            else:
                held = None if facts["event"] in ("acquired", "gave up") else held
                _line(facts, waited, as_json=as_json)
                rewrite = rewrite and _rewriter()  # the line above is not the waiting line any more


def _told_of(facts: Facts) -> tuple[bool, float | None]:
    """Take out what the front tells us alone: whether this is known already, and how long we wait."""
    if facts["level"] == TRACE:
        return False, None
    return facts.pop("again", False), facts.pop("waited", None)


def _news(sources: list[Reader], poll: select.poll) -> list[Facts]:
    """What has come from all of them. Those that are at their end are left out from now on."""
    news: list[Any] = [facts for source in sources for facts in source.read()]
    told_to_end = any(facts["event"] == END for facts in news)
    for source in [source for source in sources if source.closed or told_to_end]:
        poll.unregister(source.descriptor)
        sources.remove(source)
    return [facts for facts in news if facts["event"] != END]


def _line(facts: Facts, waited: float | None, *, as_json: bool) -> None:
    text = _of_trace(facts) if facts["level"] == TRACE else sentence(facts, waited)
    if as_json:
        from singleton_run.report.fields import as_object

        line = fastjson.dumps(as_object(facts, waited, text))
    else:
        line = f"singleton-run: {text}"
    _write(line + "\n")


def _of_trace(facts: Facts) -> str:
    from singleton_run.report import trace

    return trace.text(facts)


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
    """A function that writes a text over its last one. In the background it writes nothing.

    It leaves the cursor on the line below, where the command may begin to write at any moment.
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
