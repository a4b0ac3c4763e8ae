"""The parent of a crontab's lines: starts a process for each, and starts it again if it dies."""

from __future__ import annotations

import gc
import os
import select

from singleton_run.errors import Failure, scarce
from singleton_run.report.log import Log
from singleton_run.supervisor import lines, output, worker
from singleton_run.supervisor.crew import Crew, counted
from singleton_run.supervisor.watch import SETTLES_IN, Watch, contents
from singleton_run.system import calls, processes
from singleton_run.system.forked import forked

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from singleton_run.call.settings import Settings
    from singleton_run.supervisor.crew import Member
    from singleton_run.supervisor.lines import Call, Crontab
    from singleton_run.supervisor.output import Channel, Format
    from singleton_run.supervisor.reporting import Reporting
    from singleton_run.system.calls import Signals
else:
    import _signal

STOPPING = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGQUIT)
_AGAIN = 1.0
"""How long after its death the output's process is started again at the earliest, in seconds."""
_FLUSH_MILLISECONDS = 5000


class Task:
    """What the parent does: `call` has the files, and how they are read.

    `says` has the settings of what the parent itself says. `form` is how a line of output is written; None:
    the commands write to our own stdout and stderr. `watches` says to read the files again when they change.
    """

    def __init__(self, call: Call, says: Settings, *, form: Format | None, watches: bool) -> None:
        self.call = call
        self.files = call.files
        self.says = says
        self.form = form
        self.watches = watches


def run(task: Task, crontab: Crontab, signals: Signals, mask: set[int]) -> int:
    """Run this crontab until SIGTERM, SIGINT or SIGQUIT; returns 0 when all its processes have ended.

    `signals` are blocked, and read from their descriptor; `mask` has those that were blocked before. Raises
    Failure if the server refuses all lines, or this machine can't run any, before one of them has run.
    """
    return _Parent(task, signals, mask).run(crontab)


def _reporting(says: Settings) -> Reporting | None:
    """What the parent has of its reporter, None where no option asks for one. Raises Failure."""
    if not says.reports:
        return None
    from singleton_run.supervisor.reporting import Reporting

    return Reporting(says)


class _Parent:
    """The parent's descriptors and its loop.

    `leaves` has for each member the end of the pipe by whose closing its process leaves, and `resting` has
    the members that have not been at rest yet, by the descriptor that tells it. `unheard` has the signals
    that have come and were not looked at. `writer_at` is when to start the output's process (boot clock), and
    `read_at` when to look whether the files have changed.
    """

    def __init__(self, task: Task, signals: Signals, mask: set[int]) -> None:
        self.task = task
        self.signals = signals
        self.mask = mask
        self.crew = Crew()
        self.log = Log(task.says)
        self.timer = calls.Timer()
        self.watch = Watch(task.files) if task.watches else None
        self.known = contents(task.files) if task.watches else []
        self.leaves: dict[Member, int] = {}
        self.resting: dict[int, Member] = {}
        self.channel: Channel | None = None if task.form is None else output.Channel()
        self.reporting = _reporting(task.says)
        self.status = 0
        self.writer = 0
        self.writer_at = calls.FOREVER if task.form is None else 0.0
        self.read_at = calls.FOREVER
        self.unheard: list[int] = []

    def run(self, crontab: Crontab) -> int:
        """Run until there is nothing left to do; see the function `run`."""
        calls.set_title(f"singleton-run: crontab {' '.join(self.task.files)}")
        worker.load(crontab.lines)
        self._take(crontab)
        self.log.say(
            "info", "crontab", text=f"{counted(len(crontab.lines), 'line')} of {' '.join(self.task.files)}"
        )
        self._tell(crontab)
        while self.crew.processes() or not self.crew.is_stopping:
            self._start(calls.now())
            self.log.close()
            self._wait()
            self._hear()
        self._end_output()
        if self.reporting is not None:
            self.reporting.end()
        self.log.close(at_end=True)
        return self.status

    def _take(self, crontab: Crontab) -> tuple[int, list[Member]]:
        if self.reporting is not None:
            self.reporting.take(crontab.lines)
        return self.crew.take(crontab.lines)

    def _tell(self, crontab: Crontab) -> None:
        """Tell once what the user should know of the files."""
        for event, facts in crontab.news:
            told = (f"{event} {facts['text']} {facts.get('line')}", 0)
            if told not in self.log.said:
                self.log.said.add(told)
                self.log.say("wait", event, **facts)

    def _wait(self) -> None:
        report_at = calls.FOREVER if self.reporting is None else self.reporting.begin_at
        self.timer.set(min(self.crew.next_look(calls.now()), self.writer_at, self.read_at, report_at))
        poll = select.poll()
        watched = [] if self.watch is None else self.watch.descriptors
        for descriptor in (self.signals.descriptor, self.timer.descriptor, *self.resting, *watched):
            poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll()}
        self.timer.clear()
        for descriptor in ready & self.resting.keys():
            member = self.resting.pop(descriptor)
            self.crew.rests(member, worked=bool(os.read(descriptor, 1)))
            os.close(descriptor)
        if self.watch is not None and ready & set(watched):
            self.read_at = calls.now() + SETTLES_IN
            self.watch.refresh()

    def _hear(self) -> None:
        self.unheard += self._came()
        while self.unheard:
            number = self.unheard.pop(0)
            if number == _signal.SIGCHLD:
                self._reap()
            elif number == _signal.SIGHUP:
                self._read_again()
            elif number in STOPPING:
                self._stop()
        if calls.now() >= self.read_at:
            self.read_at = calls.FOREVER
            now = contents(self.task.files)
            if now != self.known:
                self._read_again()

    def _came(self) -> list[int]:
        return [number for number, _, _ in self.signals.read()]

    def _hear_stop(self) -> int:
        """The first signal that asks us to end, of those that have come and are unheard; 0 without one."""
        self.unheard += self._came()
        return next((number for number in self.unheard if number in STOPPING), 0)

    # The lines' processes.

    def _start(self, now: float) -> None:
        if now >= self.writer_at and not self.writer:
            self._start_output()
        if self.reporting is not None and now >= self.reporting.begin_at:
            self.reporting.begin()
        due = self.crew.due(now)
        if due:
            gc.collect()
            gc.freeze()  # what is there now stays shared with the lines' processes
        for member in due:
            try:
                self._fork(member)
            except OSError as error:
                pause = self.crew.not_started(member, calls.now())
                self._say_dead(member, scarce(str(error.strerror)), pause)

    def _fork(self, member: Member) -> None:
        """Fork a line's process. Raises OSError, and leaves nothing open then."""
        leave, leaves = os.pipe()
        try:
            rested, first_rest = os.pipe()
        except OSError:
            os.close(leave)
            os.close(leaves)
            raise
        parent = os.getpid()
        sender = None if self.channel is None else self.channel.sender()
        try:
            process = os.fork()
            if not process:
                worker.run(
                    member.line, parent, self.signals, self.mask, leave, first_rest, sender, self.reporting
                )
        except OSError:
            os.close(leaves)
            os.close(rested)
            raise
        finally:
            os.close(leave)
            os.close(first_rest)
        self.crew.started(member, process, calls.now())
        self.leaves[member] = leaves
        self.resting[rested] = member

    def _reap(self) -> None:
        for process, status in processes.reap()[0]:
            if process == self.log.process:
                self.log.gone()
            elif self.reporting is not None and process == self.reporting.process:
                self.reporting.gone()
            elif process == self.writer:
                self._output_ended()
            elif member := self.crew.of(process):
                self._ended(member, status)

    def _ended(self, member: Member, status: int) -> None:
        self._leave(member)
        if self.reporting is not None:
            self.reporting.ended(member.line.name)
        pause = self.crew.ended(member, status, calls.now())
        if self.crew.is_hopeless:
            self.status = status
            self._stop()
        elif pause is not None:
            how = f"signal {-status}" if status < 0 else f"status {status}"
            self._say_dead(member, f"it ended by {how}" if status < 0 else f"it ended with {how}", pause)

    def _say_dead(self, member: Member, text: str, pause: float) -> None:
        self.log.say("warning", "line died", line=member.line.name, text=text, number=pause)

    def _leave(self, member: Member) -> None:
        """Have a member's process end when it is at rest. A command that runs goes on."""
        if member in self.leaves:
            os.close(self.leaves.pop(member))

    def _stop(self) -> None:
        """Start nothing any more, and ask all commands that run to stop."""
        self.crew.stop()
        self.read_at = calls.FOREVER
        for member in self.crew.members:
            self._leave(member)
        for process in self.crew.processes():
            processes.send(process, int(_signal.SIGTERM))

    # The files.

    def _read_again(self) -> None:
        if self.crew.is_stopping:
            return
        if self.task.watches:
            self.known = contents(self.task.files)
        try:
            crontab = lines.read(self.task.call, self.signals.descriptor, self._hear_stop)
        except lines.Interrupted:
            return  # it is among the unheard
        except lines.Faults as broken:
            for fault in broken.sentences:
                self.log.say("error", "crontab fault", text=fault)
            self.log.say("error", "crontab kept", text=counted(len(broken.sentences), "fault"))
            return
        except Failure as failure:
            self.log.say("error", "crontab kept", text=str(failure))
            return
        self._tell(crontab)
        new, leaving = self._take(crontab)
        for member in leaving:
            self._leave(member)
        stay = len(crontab.lines) - new
        self.log.say("wait", "crontab read", text=f"{new} new, {len(leaving)} removed, {stay} as before")

    # The output's process.

    def _start_output(self) -> None:
        channel, form = self.channel, self.task.form
        if channel is None or form is None:
            return
        try:
            self.writer = forked(lambda: self._be_output(channel, form))
        except OSError as error:
            self.writer_at = calls.now() + _AGAIN
            self.log.say("warning", "output died", text=scarce(str(error.strerror)))
        else:
            self.writer_at = calls.FOREVER

    def _be_output(self, channel: Channel, form: Format) -> None:
        os.setsid()
        calls.set_title(f"singleton-run: output of {' '.join(self.task.files)}")
        calls.keep_only([channel.receive.fileno()])
        calls.close_standard(0)
        output.run(channel.receive, form)

    def _output_ended(self) -> None:
        self.writer = 0
        self.writer_at = calls.now() + _AGAIN
        self.log.say("warning", "output died", text="it ended")

    def _end_output(self) -> None:
        """Let the output's process write what it has, for a while. It goes on alone for a slow reader."""
        if self.channel is not None:
            self.channel.receive.close()
            self.channel.send.close()
        if self.writer:
            processes.reap_one(self.writer, _FLUSH_MILLISECONDS)
