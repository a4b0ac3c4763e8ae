"""The front: what the user started. It carries out what `turn.Turn` decides, and exits with its status."""

from __future__ import annotations

import os
import select
import time

from singleton_run.api import record
from singleton_run.call.settings import KILL_AFTER
from singleton_run.front import lock_handles
from singleton_run.front.decisions import OVER, RUNNING, STARTING, Turn
from singleton_run.front.hearing import GuardHeard, KeeperHeard
from singleton_run.guard.process import Task
from singleton_run.job import Job
from singleton_run.report.log import Log
from singleton_run.system import calls, libc, pipes, processes
from singleton_run.system.messages import GuardOrders, GuardTells, KeeperTells, Proof, deliver
from singleton_run.system.processes import Command
from singleton_run.system.shared_page import Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Mapping
    from typing import Any

    from singleton_run.api.contract import Backend
    from singleton_run.call.settings import Settings
    from singleton_run.front.adopted_guard import AdoptedGuard
    from singleton_run.schedule.slot_rules import Plan
    from singleton_run.system.calls import Signals
    from singleton_run.system.messages import Message

    Lock = lock_handles.FlockLock | lock_handles.KeeperLock | lock_handles.SlotLock
else:
    import _signal

KILL = 9
DECIDES_IN = 30.0
DEATH_MILLISECONDS = 1000
"""How long after the end of its pipes a killed guard may take to be gone."""
ABANDON_MILLISECONDS = 5000
"""How long a guard may take to kill the command, when a fault ends the front."""


def run(settings: Settings, path: str, signals: Signals, mask: set[int]) -> int:
    """Make one turn for the command at `path`; the exit status, or minus the signal to die of.

    Turn after turn, if there is a schedule. `signals` are blocked and read from their descriptor; `mask`
    is what was blocked before. Raises Failure before anything is contacted.
    """
    if settings.verbosity > 1:
        from singleton_run.report import trace

        trace.begin(settings)
    if settings.scheduled or settings.once is not None:
        from singleton_run.front import slot_loop

        return slot_loop.run(settings, path, signals, mask)
    return Front(settings, path, signals, mask, Log(settings)).run()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Front:
    """The `turn.Hands` of a real turn, and its loop.

    `plan` makes the plan of its slots, in the keeper; None for a turn that is of no schedule. `attempt`
    is how often the command was started before, and one. `keeps_open` says that there will be another
    turn, which needs our standard descriptors for its command. `since` is when --wait began (boot clock),
    now if not given. `goes_on` says whether it will be tried again after giving up with that status.
    """

    def __init__(
        self,
        settings: Settings,
        path: str,
        signals: Signals,
        mask: set[int],
        log: Log,
        plan: Callable[[], Plan] | None = None,
        *,
        attempt: int = 0,
        keeps_open: bool = False,
        since: float | None = None,
        goes_on: Callable[[object], bool] | None = None,
    ) -> None:
        self.settings = settings
        self.goes_on = goes_on
        self.signals = signals
        self.timer = calls.Timer()
        self.log = log
        self.attempt = attempt
        self.keeps_open = keeps_open
        self.page = Page()
        self.shares_terminal = _has_terminal()
        host = os.uname().nodename
        holder = f"{host}:{os.getpid()}:{os.urandom(4).hex()}"
        grace = KILL_AFTER if settings.kill_after is None else settings.kill_after
        own, alone = not self.shares_terminal, settings.signal_command_only
        command = Command(path, settings.command, mask, own_session=own, alone=alone)
        leased = settings.scheme != "file"
        self.task = Task(settings, command, self.page, holder, os.urandom(8).hex(), grace, leased=leased)
        now = calls.now() if since is None else min(since, calls.now())
        decides = plan is not None or settings.once is not None
        slack = DECIDES_IN if decides else None
        hands = self if pipes.tracer is None else pipes.tracer.hands(self)
        self.turn = Turn(settings, hands, leased=leased, now=now, kill_grace=grace, slack=slack)
        job = Job(
            settings.name,
            holder,
            settings.ttl,
            self.turn.wait_until,
            once=settings.once,
            keep=settings.keep,
            waits=self.turn.waits,
            leased=leased,
        )
        self.ends = lock_handles.GuardEnds(pipes.pipe() if leased or decides else (-1, -1), self.log)
        self.lock = self._lock(job, plan, decides=decides)
        self.guarded = leased
        self.own_guard: AdoptedGuard | None = None
        self.command_id = 0
        self.ordered = 0
        self.unread: list[tuple[object, ...]] = []
        self.strangers: set[int] = set()
        verb = ", asked to end" if settings.leftovers == "kill" else ""
        self.guard_heard_by = GuardHeard(self.turn, self, path, verb)
        self.keeper_heard_by = KeeperHeard(self.turn, self)
        self.reaped: list[tuple[int, int]] = []
        self.keeper_ended = False
        self.command = -1
        self.run_record: dict[str, Any] = {}
        calls.become_subreaper()
        processes.hold_listing()
        calls.set_title(f"singleton-run: front of {settings.name}")

    def _lock(self, job: Job, plan: Callable[[], Plan] | None, *, decides: bool) -> Lock:
        def open_backend() -> Backend:
            from singleton_run.api import registry

            return registry.open_backend(self.settings.lock, os.environ)

        if job.leased:
            return lock_handles.KeeperLock(job, self.task, self.ends, self.fork_guard, open_backend, plan)
        flock = lock_handles.FlockLock(self.settings.lock, job, self.page, os.environ, self.fork_guard)
        if not decides:
            return flock
        keeper = lock_handles.KeeperLock(
            job, self.task, self.ends, self.fork_guard, lambda: flock.backend, plan, flock.backend.descriptors
        )
        return lock_handles.SlotLock(flock, keeper)

    # The hands of the turn.

    def keep(self, grant: dict[str, Any] | None) -> None:
        """Have the lock taken, or go on with `grant`."""
        self.lock.keep(grant, self.turn)

    def kill_keeper(self) -> None:
        """SIGKILL the keeper; it is waited for later."""
        self.lock.kill()

    def settle(self) -> None:
        """Have the lock given back, with the record of the run."""
        status = None if self.turn.outcome == "lost" else self.turn.status
        self.lock.settle(self.turn, record.ended(self.run_record, self.turn.outcome, status, time.time()))

    def leave(self) -> None:
        """Have the place in the queue given back."""
        self.lock.leave(self.turn)

    def withdraw(self) -> bool:
        """Take from a guard that waits the right to start; False if it has used it already."""
        return self.lock.withdraw()

    def tell_guard(self, message: Message) -> None:
        """Give the guard an order and SIGCONT, or take its part; to one that has died, nothing."""
        if self.own_guard is not None:
            deliver(message, GuardOrders, self.own_guard)
            return
        if not self.guarded and message[0] != "start":
            return
        if not self.guarded:
            self.fork_guard()
        starts = message[0] == "start"
        if starts:
            message = GuardOrders.start(message[1], *self._of_slot())
            self.strangers = set(processes.children())
        self.unread = [*self.unread[len(self.unread) - self.ordered + self.page.heard :], message]
        self.ordered += 1
        self.ends.orders.send(message)
        if self.page.guard:
            processes.send(self.page.guard, int(_signal.SIGCONT))
        if starts:
            self._write_down_start()

    def new_guard(self) -> None:
        """Have a guard in the place of one that died before the start."""
        self.lock.replace_guard(self.turn)

    def guard_heard(self) -> bool:
        """Whether the guard has read every order."""
        return not self.guarded or self.page.heard >= self.ordered

    def fork_guard(self) -> None:
        """Fork a guard, as a child of ours."""
        self.ordered = self.page.heard = 0
        self.unread = []
        self.ends.close_unused()
        self.ends = lock_handles.GuardEnds((self.ends.proof_read, self.ends.proof_write), self.log)
        if isinstance(self.lock, lock_handles.KeeperLock):
            self.lock.ends = self.ends
        lock_handles.forked(lambda: self.lock.guard(self.ends, self.task))
        self.ends.close_guards()
        self.guarded = True

    def kill_guard(self) -> None:
        """SIGKILL the guard; that it is gone is seen later."""
        if self.page.guard:
            processes.send(self.page.guard, KILL)

    def adopt(self) -> bool:
        """Be the guard from now on: what its death left behind are our children. False if that is nothing."""
        if not self.command_id and not self.page.command and self._started_nothing():
            self.page.started = False
            return False
        from singleton_run.front.adopted_guard import AdoptedGuard

        self.own_guard = AdoptedGuard(self, self._say_as_guard)
        self.own_guard.decisions.adopt(self.page.command or self._ended_command(), calls.now())
        for order in self.unread[len(self.unread) - self.ordered + self.page.heard :]:
            deliver(order, GuardOrders, self.own_guard)
        return True

    def _ended_command(self) -> int:
        """The command's id if it has ended as a child of ours, before we took the guard's place."""
        self.reap()
        return self.command_id if any(process == self.command_id for process, _ in self.reaped) else 0

    def _started_nothing(self) -> bool:
        """Whether a guard that has told no start started nothing; else the command is found, if it can be.

        Its one child is ours once it is dead, as a process or as the status of one that has ended. While
        it isn't, nothing is known.
        """
        if not processes.exited(self.page.guard, DEATH_MILLISECONDS):
            return False
        self.reap()
        ended = {process for process, _ in self.reaped}
        own = {self.page.guard, self.lock.process, self.log.process}
        self.command_id = min((ended | set(processes.children())) - own - self.strangers, default=0)
        if self.command_id not in ended:
            self.page.command = self.command_id
        return not self.command_id

    def lease(self) -> tuple[float, float]:
        """The lease's end and the keeper's last report."""
        return self.page.end, self.page.reported

    def begun(self) -> bool:
        """Whether a guard has begun to start the command."""
        return self.page.started

    def say(self, level: str, event: str, **facts: object) -> None:
        """Tell the user, without waiting."""
        if event == "gave up" and self.goes_on is not None and self.goes_on(facts["status"]):
            level, event = "warning", "trouble"
        self.log.say(level, event, **facts)

    # The loop.

    def run(self) -> int:
        """Make the turn; its exit status, or minus the signal to die of."""
        if self.turn.leased and not self.settings.named:
            self.say_once("unnamed", 0, "warning")
        self.turn.begin()
        try:
            while self.turn.phase != OVER:
                self._step()
        except Exception:  # something can't be had that we can't do without
            self._abandon()
            raise
        self.page.over = True
        self.lock.close()
        if self.keeps_open:
            self._close()
        else:
            self.log.close(at_end=True)
        if self.turn.conflict:
            return self.settings.conflict_status
        return -self.turn.raised if self.turn.raised == _signal.SIGINT else self.turn.status

    def _abandon(self) -> None:
        """End the command before we end: by its guard, which sees that we leave; else it is our child.

        With a keeper the command falls to that, which also gives the lock back.
        """
        if self.own_guard is None and self.guarded:
            self._forget_guard()
            if self.page.guard:
                processes.exited(self.page.guard, ABANDON_MILLISECONDS)
        if self.own_guard is not None or not self.lock.process:
            _kill_children()

    def _step(self) -> None:
        self._wait()
        # First what has happened, then the clock, as it was before: we may be stopped over a deadline.
        now = calls.now()
        self._hear_guard()
        self._hear_command()
        self._hear_lock()
        self.turn.look_at_lease(calls.now())
        self._hear_signals()
        self.turn.look(now)
        if self.own_guard is not None:
            self.own_guard.decisions.look(now)

    def _close(self) -> None:
        """Between two turns: nothing of the last one stays open."""
        if self.guarded:
            self.ends.close_fronts()
        self.ends.close_unused()
        own = (self.timer.descriptor, self.command, self.ends.proof_read, self.ends.proof_write)
        for descriptor in own:
            if descriptor >= 0:
                os.close(descriptor)

    def _wait(self) -> None:
        own = self.own_guard
        due = self.turn.next_look()
        self.timer.set(due if own is None else min(due, own.decisions.next_look(calls.now())))
        poll = select.poll()
        for descriptor in (
            self.signals.descriptor,
            self.timer.descriptor,
            self.lock.descriptor,
            self.command,
        ):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        if self.guarded:
            poll.register(self.ends.says.descriptor, select.POLLIN)
        poll.poll()
        self.timer.clear()

    def _of_slot(self) -> tuple[float | None, int | None]:
        """What the command is told of its slot and attempt, as the guard hears it."""
        slot = (self.turn.grant or {}).get("record") or {}
        slot = slot.get("slot") if self.settings.scheduled else None
        if slot:
            return slot["slot"], slot["attempt"]
        return None, self.attempt or None

    def _forget_guard(self) -> None:
        self.guarded = False
        self.ends.close_fronts()

    def _write_down_start(self) -> None:
        grant = self.turn.grant or {}
        self.run_record = record.begun(
            grant["record"], grant["name"], grant["holder"], grant["token"], time.time()
        )
        trouble = self.lock.begun(self.run_record)
        if trouble:
            self.say("warning", "unsettled", text=trouble)

    def _hear_guard(self) -> None:
        if not self.guarded:
            return
        for message in self.ends.says.read():
            deliver(message, GuardTells, self.guard_heard_by)
        if self.ends.says.closed:
            self._forget_guard()
            self.turn.guard_died(calls.now())

    # The ears of `hearing`.

    def clock(self) -> float:
        """The boot clock's reading now."""
        return calls.now()

    def locked(self, grant: Mapping[str, Any]) -> None:
        """A guard that waited has the lock."""
        if isinstance(self.lock, lock_handles.FlockLock):
            self.lock.locked(grant, self.turn)

    def command_started(self, process: int) -> float:
        """Watch the command, and let go of what is its own; when it was started."""
        self.command_id = process
        self._watch_command(process)
        self._let_go()
        return self.page.began

    def be_ready(self) -> None:
        """Fork a guard: it takes some milliseconds, which the slot's time is ahead."""
        if not self.guarded:
            self.fork_guard()

    def say_once(self, event: str, which: int, level: str, **facts: object) -> None:
        """Tell the user, unless this event was said with that number before."""
        if (event, which) not in self.log.said:
            self.log.said.add((event, which))
            self.say(level, event, **facts)

    def _watch_command(self, process: int) -> None:
        try:
            self.command = libc.pidfd_open(process)
        except OSError:  # it has ended already, and the guard has said so or will
            self.command = -1

    def _hear_command(self) -> None:
        """See for ourselves that the command has ended, in case that the guard hangs."""
        if self.command >= 0 and processes.readable(self.command, 0):
            os.close(self.command)
            self.command = -1
            self.turn.command_ended(calls.now())

    def _say_as_guard(self, message: Message) -> None:
        """What we say in the guard's place: the end also to the keeper, should we be killed next."""
        if message[0] == "gone" and self.ends.proof_write >= 0:
            pipes.Writer(self.ends.proof_write).send(Proof.gone())
        deliver(message, GuardTells, self.guard_heard_by)

    def _let_go(self) -> None:
        """The command has its descriptors: keep none of them, or its readers would wait for us."""
        if self.keeps_open:
            return
        calls.close_standard(0, 1)
        calls.drop_inherited()
        if not self.task.leased:  # another keeper would open what a path from here names
            calls.leave_directory()

    def _hear_lock(self) -> None:
        for message in self.lock.messages():
            deliver(message, KeeperTells, self.keeper_heard_by)

    def _hear_signals(self) -> None:
        for number, code, sender in self.signals.read():
            if number == _signal.SIGCHLD:
                self._hear_children()
                if code > 0:
                    continue
            if self._is_ours(sender):  # a pipe that nobody reads, or another's help to go on
                continue
            runs = self.turn.phase in (STARTING, RUNNING) and not self.turn.ended
            heard = (
                runs
                and self.shares_terminal
                and (
                    code == calls.FROM_KERNEL
                    or (number == _signal.SIGTSTP and self._is_the_command_s(sender))
                )
            )
            self.turn.signal(number, calls.now(), heard=heard)
            if number == _signal.SIGTSTP and not runs:
                self._stop()

    def _stop(self) -> None:
        """Stop as any process does at a terminal. While the command runs, it is the one that decides."""
        from singleton_run.guard.job_control import shell_of

        if self.shares_terminal and shell_of(os.getpid()):
            os.kill(os.getpid(), _signal.SIGSTOP)

    def _is_the_command_s(self, process: int) -> bool:
        """Whether it is below us and in our group: it stops that, like an editor, and so itself.

        Passed on, the signal might come after the shell has continued them, and stop it again.
        """
        try:
            is_here = process != 0 and os.getpgid(process) == os.getpgrp()
        except ProcessLookupError:
            return False
        while is_here and process not in (0, os.getpid()):
            process = processes.parent(process)
        return is_here and process != 0

    def _is_ours(self, process: int) -> bool:
        guard = self.page.guard if self.guarded else 0
        return process != 0 and process in (os.getpid(), guard, self.lock.process)

    def _hear_children(self) -> None:
        self.reap()
        if self.own_guard is not None:
            self.own_guard.children()
        if self.keeper_ended:
            self.keeper_ended = False
            self._hear_guard()
            self._hear_lock()
            self.lock.ended(self.turn)

    def reap(self) -> bool:
        """Wait for every child that has ended; true if none is left, by the kernel's word."""
        command = self.command_id or self.page.command
        ended, none_left = processes.reap_turn(self.page)
        for process, status in ended:
            if process == self.lock.process:
                self.keeper_ended = True
                self.lock.process = 0
            elif process == self.log.process:
                self.log.gone()
            elif process == command or self.own_guard is not None or (not command and self._is_new(process)):
                self.reaped.append((process, status))
        return none_left

    def _is_new(self, process: int) -> bool:
        """Whether a child has come since the start was begun: the command, if its guard is dead."""
        return self.page.started and process != self.page.guard and process not in self.strangers

    def retire(self) -> bool:
        """End our own helpers, so that the kernel's word about children is about the command's.

        Another keeper resumes afterwards. False if one of them can't be ended.
        """
        if self.lock.leased:
            self.turn.keeper_retired()
            self.lock.kill()
        self.log.close()
        return not self.lock.process or processes.exited(self.lock.process, 1000)


def _kill_children() -> None:
    """SIGKILL all that is below us, for there is no guard that would do it after us."""
    while not processes.reap()[1]:
        for process in processes.children():
            processes.send(process, KILL)
        select.poll().poll(10)
