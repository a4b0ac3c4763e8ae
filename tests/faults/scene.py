"""One round: contenders on one lock, one fault at a random moment, and what came of it."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tests.faults import check, command, slots
from tests.faults.contenders import CONTENDERS, Call, Contender, left
from tests.faults.pace import Pace
from tests.faults.tools import KEY
from tests.support.harness import environment, send_if_there

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.fault import Fault
    from tests.faults.tools import Tool

# Only a failure takes that long, however busy the machine is.
LIMIT = 120.0
LINGER = 30.0
MORE = 2
KEPT = 6
OURS = (2, 69, 75, 77, 78, 79, 124, 126, 127)
KEPT_FOR_EVER = "is kept: nothing proves that its command is gone"


def now() -> float:
    """The boot clock, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Stuck(Exception):
    """Something that must come did not."""


class Scene:
    """What a fault sees and does: the contenders, the site, and a source of chance."""

    def __init__(
        self, directory: Path, site: Any, tool: Tool, fault: Fault, chance: random.Random, number: int
    ) -> None:
        self.directory = directory
        self.site = site
        self.tool = tool
        self.fault = fault
        self.chance = chance
        self.name = f"faults-{os.getpid()}-{number}"
        self.ttl = chance.choice((6.0, 6.0, 6.0, 7.5))
        self.log = directory / "log"
        self.finish = directory / "finish"
        # Nobody else in the machine listens there: a port that is taken was taken by a command.
        own = os.getpid() % 64516
        self.address = f"127.{1 + number % 250}.{1 + own // 254}.{1 + own % 254}"
        # A long command is in the middle of its work when the fault comes; short ones also start and end.
        self.is_long = fault.long or chance.random() < 0.6
        self.target: Contender | None = None
        self.hit = 0
        self.undo = ExitStack()
        self.pipe: tuple[int, int] | None = None
        self.pace = Pace()
        fault.prepare(self)
        self.contenders = [self._contender(index) for index in range(CONTENDERS)]

    def _contender(self, index: int) -> Contender:
        environ = environment(**self.site.environ(index))
        environ = {**environ, **self.fault.environ(self)}
        lock = self.fault.lock(self.site.lock(index, self.directory))
        return Contender(
            index,
            lambda key: self._argv(lock, key),
            environ,
            self.directory,
            stderr=self.fault.stderr(self),
            wrap=self.fault.wrap(self, index),
            loops=self.tool.loops,
        )

    def _argv(self, lock: str, key: str) -> list[str]:
        argv = self.tool.argv(lock, self.name, self.ttl, self._command())
        return [key if word == KEY else word for word in argv]

    def _command(self) -> list[str]:
        seconds = command.LONGEST if self.is_long else self.chance.choice((0.0, 0.05, 0.3))
        leave = self.tool.ends_leftovers and self.chance.random() < 0.5
        return command.argv(str(self.log), self.address, seconds, str(self.finish), leave=leave)

    def turns(self) -> list[check.Turn]:
        """The commands up to now."""
        return check.turns(check.lines(self.log.read_text() if self.log.exists() else ""))

    def until(self, condition: Callable[[], object], what: str, seconds: float = LIMIT) -> None:
        """Wait for something. Raises Stuck."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise Stuck(f"not within {seconds:.0f} s: {what}")
            time.sleep(0.01)

    def wait(self, least: float, most: float | None = None) -> None:
        """Let time pass: a fault that lasts, or a moment of chance."""
        time.sleep(least if most is None else self.chance.uniform(least, most))

    def holder(self) -> Contender:
        """Whose command began last, or in some rounds one that waits; the same throughout the fault."""
        if self.target is None:
            if not self.is_long and self.chance.random() < 0.3:
                self.target = self.chance.choice(self.contenders)
            else:
                self.target = self.contenders[int(self.turns()[-1].run.split(".")[0])]
        return self.target

    def roles(self, *wanted: str) -> dict[str, int]:
        """Processes of one contender's, by role; another contender is looked for if some aren't there."""
        end = time.monotonic() + 2.0
        while True:
            found = self.holder().processes()
            if all(role in found for role in wanted) or time.monotonic() > end:
                return {role: found[role] for role in wanted if role in found}
            self.target = None

    def victims(self) -> list[int]:
        """The indexes of those whom a fault of the network strikes: the holder, or everyone."""
        if self.chance.random() < 0.5:
            return [self.holder().number]
        return [contender.number for contender in self.contenders]

    def send(self, number: int, *roles: str) -> list[int]:
        """Send a signal to the holder's processes of these roles, as close together as can be."""
        processes = list(self.roles(*roles).values())
        self.chance.shuffle(processes)
        for process in processes:
            send_if_there(number, process)
        self.hit += len(processes)
        return processes

    def play(self) -> dict[str, Any]:
        """Play the round; what came of it, for a line of JSON."""
        began = now()
        stuck = ""
        struck = healed = 0.0
        self.pace.start()
        try:
            for contender in self.contenders:
                contender.start()
            self.until(self.turns, "a first command")
            self.wait(0.0, slots.INTERVAL if self.tool.loops else 1.0)
            struck = now()
            try:
                self.fault.strike(self)
            finally:
                self.fault.heal(self)
                healed = now()
            self._linger(healed)
            self.finish.touch()
            what = f"{MORE} commands after the fault"
            fault = self._explained(struck, healed)
            self.until(lambda: self._went_on(fault.end), what, self.ttl + LIMIT)
            stuck = self._stop()
        except Stuck as error:
            stuck = str(error)
        finally:
            self.finish.touch()
            for contender in self.contenders:
                contender.end()
        try:
            result = self._judge(struck, healed, stuck)
        finally:
            self.undo.close()
        return {**result, "left": self._left(), "seconds": round(now() - began, 1)}

    def _left(self) -> list[str]:
        """The processes that don't end by themselves; they are killed then."""
        end = time.monotonic() + LINGER
        while (found := left(self.directory, self.name)) and time.monotonic() < end:
            time.sleep(0.02)
        for process in found:
            send_if_there(signal.SIGKILL, process)
        return list(found.values())

    def _linger(self, healed: float) -> None:
        """Let a long command go on for a moment; in some rounds past its lease, so that an orphan is seen."""
        if not self.is_long or (self.tool.has_records and self.chance.random() < 0.6):
            self.wait(0.0, 0.3)
            return
        end = healed + self.ttl + 1.5
        while now() < end and not any(turn.start > healed for turn in self.turns()):
            time.sleep(0.05)

    def _explained(self, struck: float, healed: float) -> slots.Span:
        """The time of the fault; with slots, that in which it explains whatever becomes of one."""
        if not self.tool.loops:
            return slots.Span(struck, healed)
        # Whatever was killed may have been in the queue: its place there lapses with its lease.
        lapse = self.ttl if self.site.leased else 0.0
        return slots.Span(struck - slots.INTERVAL, healed + lapse + slots.INTERVAL)

    def _went_on(self, since: float) -> bool:
        later = [turn for turn in self.turns() if turn.ended and turn.start > since]
        return len({turn.slot for turn in later} if self.tool.loops else later) >= MORE

    def _stop(self) -> str:
        for contender in self.contenders:
            contender.stop()
        ended = [contender.join(self.ttl + LIMIT) for contender in self.contenders]
        return "" if all(ended) else "a call did not end"

    def _judge(self, struck: float, healed: float, stuck: str) -> dict[str, Any]:
        found = self.turns()
        calls = [call for contender in self.contenders for call in contender.calls]
        overlaps = check.overlaps(found)
        idle = check.idle(found, struck, healed) if struck and not stuck and not self.tool.loops else None
        allowed = self.ttl if self.site.leased and self.fault.waits_lease else 0.0
        return {
            "turns": len(found),
            "overlaps": overlaps,
            "overlapped": round(check.longest_overlap(found), 3),
            "orphans": check.orphans(found),
            "backward": check.backward(found),
            "idle": None if idle is None else round(idle, 3),
            "over": None if idle is None else round(max(0.0, idle - allowed), 3),
            "lost": self._lost_records(found, calls) if self.tool.has_records and not stuck else 0,
            **self._judge_slots(found, calls, self._explained(struck, healed)),
            "told": dict(Counter(str(call.status) for call in calls)),
            "tracebacks": sum("Traceback" in call.said and "/singleton_run/" in call.said for call in calls),
            "silent": sum(_is_silent(call) for call in calls) if self.fault.speaks else 0,
            "noticed": self._noticed(found, struck),
            "stuck": stuck,
            "kept": any(KEPT_FOR_EVER in path.read_text() for path in self.directory.glob("stderr.*")),
            "ttl": self.ttl,
            "long": self.is_long,
            "hit": self.hit,
            "pace": round(self.pace.typical(), 3),
        }

    def _noticed(self, found: list[check.Turn], struck: float) -> float | None:
        """How long a command that ran when the fault came went on, in seconds, if it was stopped for it."""
        running = [turn for turn in found if turn.start < struck <= turn.last and not turn.ended]
        return round(max(turn.last for turn in running) - struck, 3) if running else None

    def _judge_slots(self, found: list[check.Turn], calls: list[Call], fault: slots.Span) -> dict[str, Any]:
        """What became of the slots, or of the keys; nothing for plain turns."""
        if self.tool.has_keys:
            done: dict[str, float] = {}
            for call in sorted(calls, key=lambda call: -call.when):
                if call.status == 0 and not self._told_trouble(call):
                    done[call.key] = call.when
            again = slots.keys_again(found, done)
            return {"slots": len(done), "doubled": again, "lost slots": slots.keys_lost(found, done)}
        if not self.tool.loops:
            return {}
        ahead = time.time() - now()
        retries = self.tool.retries
        return {
            "slots": len(slots.by_slot(found)),
            "doubled": slots.doubled(found, retries, fault),
            "slots back": slots.backward(found),
            "slots missing": len(slots.missing(found, ahead)),
            "lost slots": slots.lost(found, ahead, fault),
            "attempts unseen": slots.unseen(found, fault),
            "not retried": slots.unretried(found, retries, ahead, fault),
        }

    def _told_trouble(self, call: Call) -> bool:
        said = (f"singleton-run: lock {self.name!r}: ", "could not be given back")
        return not self.fault.speaks or any(words in call.said for words in said)

    def _lost_records(self, found: list[check.Turn], calls: list[Call]) -> int:
        """How many of the last runs that their callers saw succeed are not in the record as such."""
        record = self.site.record(self.name, self.directory)
        if self.tool.loops:
            noted = record.get("slot", {})
            begun = (slots.due(found[-1]), found[-1].attempt)
            return int((noted.get("slot", 0.0), noted.get("attempt", 0)) < begun)
        runs = [record, *record.get("runs", [])] if record else []
        noted = {run["token"] for run in runs if run["state"] == "succeeded"}
        # It may have runs that are not in the log: of a wrapper that was killed before its command began.
        oldest = min(run["token"] for run in runs) if len(runs) == KEPT else 0
        # A record that couldn't be written is not lost if that was said.
        told = {call.run for call in calls if call.status == 0 and not self._told_trouble(call)}
        last = [turn for turn in found if turn.token >= oldest]
        return sum(turn.run in told and turn.token not in noted for turn in last)


def _is_silent(call: Call) -> bool:
    """Whether a call ended with a status of ours and didn't say why."""
    return call.status in OURS and not call.said.strip()


def keep(directory: Path, place: Path) -> None:
    """Keep what a round left, for whoever has to find out."""
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(directory, place, dirs_exist_ok=True)
