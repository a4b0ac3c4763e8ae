"""The front's loop: wait until something happens, tell the turn, and exit with the turn's status."""

from __future__ import annotations

import posix as os
import select

from singleton_run.api.lock_address import HELD
from singleton_run.errors import UNUSABLE, Failure, scarce
from singleton_run.front.children import kill_all
from singleton_run.front.decisions import OVER, RUNNING, STARTING
from singleton_run.front.receivers import GuardReceiver, KeeperReceiver
from singleton_run.system import calls, libc, pipes, processes
from singleton_run.system.messages import GuardTells, KeeperTells, deliver
from singleton_run.system.texts import environ

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any

    from singleton_run.api.contract import Grant
    from singleton_run.front.decisions import Turn
    from singleton_run.front.terminal import Terminal
    from singleton_run.front.turn_effects import TurnEffects
    from singleton_run.system.calls import Signals
else:
    import _signal

_ABANDON_MILLISECONDS = 5000
_HELPERS_MILLISECONDS = 1000
"""How long a guard may take to kill the command, when an error ends the front."""


class Front:
    """The loop of one turn. `keeps_open` says that another turn may follow, which needs descriptors 0 to 2.

    `leave` is a descriptor at whose end-of-file we give up waiting for the lock, -1 without one; a command
    that runs goes on. It is also the `receivers.FrontActions` of the turn's messages.
    """

    def __init__(
        self,
        turn: Turn,
        effects: TurnEffects,
        signals: Signals,
        terminal: Terminal,
        *,
        keeps_open: bool,
        leave: int = -1,
    ) -> None:
        self.turn = turn
        self.effects = effects
        self.task = effects.task
        self.lock = effects.lock
        self.link = effects.link
        self.children = effects.children
        self.log = effects.log
        self.signals = signals
        self.terminal = terminal
        self.timer = calls.Timer()
        self.keeps_open = keeps_open
        self.leave = leave
        self.command = -1
        settings = self.task.settings
        verb = ", asked to end" if settings.leftovers == "kill" else ""
        self.guard_receiver = GuardReceiver(turn, self, self.task.command.path, verb)
        self.keeper_receiver = KeeperReceiver(turn, self)
        effects.turn = turn
        effects.guard_receiver = self.guard_receiver

    def begin(self) -> None:
        """Begin to acquire the lock. Raises Failure, and keeps nothing open, if a fork is refused."""
        if self.turn.leased and not self.task.settings.named:
            self.say_once("unnamed", 0, "warning")
        if pipes.reporter is not None:
            pipes.reporter.begin_turn(self.effects)
        try:
            self.turn.begin()
        except OSError as error:
            self.lock.close()
            self._close()
            raise Failure(UNUSABLE, scarce(str(error.strerror))) from None

    def run(self) -> int:
        """Make the turn, after `begin`. Its exit status, or minus the signal that has to end us (SIGINT)."""
        try:
            while self.turn.phase != OVER:
                self._step()
        except Exception:  # the machine refuses something that we need
            self._abandon()
            raise
        self.task.page.over = True
        self.lock.close()
        if self.task.output is not None:
            self.task.output.finish(was_started=self.task.page.start_begun)
        if pipes.reporter is not None:
            pipes.reporter.turn_over()
        if environ.get(HELD):
            self._see_helpers_end()
        if self.keeps_open:
            self._close()
        else:
            self.log.close(at_end=True)
        if self.turn.conflict:
            return self.task.settings.conflict_status
        ending = self.turn.ending
        return -ending.raised if ending.raised == _signal.SIGINT else ending.status

    def _see_helpers_end(self) -> None:
        """Wait for guard and keeper: the call around us would say that its command left them behind."""
        if self.link.is_open:
            self.link.forget()  # an idle guard ends when it reads the end of its orders
        for process in {self.task.page.guard, self.lock.process} - {0, os.getpid()}:
            processes.exited(process, _HELPERS_MILLISECONDS)

    def _abandon(self) -> None:
        """End the command before an error ends us.

        The guard kills it when it sees end-of-file. Without a guard the command is our child, or a keeper's,
        which kills it and gives the lock back.
        """
        if self.effects.own_guard is None and self.link.is_open:
            self.task.page.over = (
                True  # a guard that has nothing to end then doesn't wait for the keeper's end
            )
            self.link.forget()
            if self.task.page.guard:
                processes.exited(self.task.page.guard, _ABANDON_MILLISECONDS)
        if self.effects.own_guard is not None or not self.lock.process:
            kill_all()

    def _step(self) -> None:
        self._wait()
        # First hear what has happened, then enforce deadlines, by the clock as it was before. If we were
        # stopped until after a deadline, the command may have ended, or the lease been renewed, in time.
        now = calls.now()
        self._hear_guard()
        self._hear_command()
        self._hear_keeper()
        self.turn.look_at_lease(calls.now())
        self._hear_leave()
        self._hear_signals()
        self.turn.look(now)
        if self.effects.own_guard is not None:
            self.effects.own_guard.decisions.look(now)
        self.log.look()

    def _wait(self) -> None:
        own_guard = self.effects.own_guard
        due = min(self.turn.next_look(), self.log.due)
        self.timer.set(due if own_guard is None else min(due, own_guard.decisions.next_look(calls.now())))
        poll = select.poll()
        for descriptor in (
            self.signals.descriptor,
            self.timer.descriptor,
            self.lock.descriptor,
            self.link.descriptor,
            self.command,
            self.leave if self.turn.can_leave else -1,
        ):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        poll.poll()
        self.timer.clear()

    def _close(self) -> None:
        """Close what this turn has opened. Another turn follows."""
        self.link.close()
        for descriptor in (self.timer.descriptor, self.command):
            if descriptor >= 0:
                os.close(descriptor)

    # What happens: the guard, the command, the keeper, signals, children.

    def _hear_guard(self) -> None:
        for message in self.link.read():
            deliver(message, GuardTells, self.guard_receiver)
        if self.link.has_ended():
            self.link.forget()
            self.turn.guard_died(calls.now())

    def _hear_command(self) -> None:
        """See by ourselves that the command has ended, because the guard may hang."""
        if self.command >= 0 and processes.readable(self.command, 0):
            os.close(self.command)
            self.command = -1
            self.turn.command_ended(calls.now())

    def _hear_keeper(self) -> None:
        for message in self.lock.messages():
            deliver(message, KeeperTells, self.keeper_receiver)

    def _hear_leave(self) -> None:
        if self.leave >= 0 and self.turn.can_leave and processes.readable(self.leave, 0):
            self.turn.leave(calls.now())

    def _hear_signals(self) -> None:
        for number, code, sender in self.signals.read():
            if number == _signal.SIGCHLD:
                self._hear_children()
                if code > 0:
                    continue
            if self._is_ours(sender):  # SIGPIPE of our own, or a SIGCONT by which guard or keeper woke us
                continue
            runs = self.turn.phase in (STARTING, RUNNING) and not self.turn.ending.command_ended
            heard = runs and self.terminal.has_sent_it_to_all(number, code, sender)
            self.turn.signal(number, calls.now(), heard=heard)
            if number == _signal.SIGTSTP and not runs and self.terminal.can_stop():
                self._stop()

    def _stop(self) -> None:
        """Stop at the terminal while no command runs. Who waits lets others go first, as with flock(1)."""
        waits = self.turn.can_leave
        if waits and not self.lock.suspend():
            self.turn.wait.defer(int(_signal.SIGTSTP))  # the command begins, and is stopped
            return
        os.kill(os.getpid(), _signal.SIGSTOP)  # returns when we are continued
        if waits:
            self.lock.resume(self.turn)

    def _is_ours(self, process: int) -> bool:
        return process != 0 and process in (os.getpid(), self.link.process, self.lock.process)

    def _hear_children(self) -> None:
        self.children.reap()
        if self.effects.own_guard is not None:
            self.effects.own_guard.children()
        if self.children.keeper_ended:
            self.children.keeper_ended = False
            self._hear_guard()
            self._hear_keeper()
            self.lock.ended(self.turn)

    # The `FrontActions` of `receivers`.

    def say(self, level: str, event: str, **facts: object) -> None:
        """Tell the user, without waiting."""
        self.effects.say(level, event, **facts)

    def say_once(self, event: str, which: int, level: str, **facts: object) -> None:
        """Tell the user, unless the same event with the same number was told before."""
        if (event, which) not in self.log.said:
            self.log.said.add((event, which))
            self.say(level, event, **facts)

    def granted(self, grant: Grant) -> None:
        """The lock is ours: a keeper has it, or a guard that waited for it."""
        self.lock.granted(grant, self.turn)

    def revoked(self, by: str) -> None:
        """`by` takes the lock away from us."""
        self.turn.revoked(by, calls.now())

    def be_ready(self, unstarted: dict[str, Any] | None) -> None:
        """Have a guard ready. `unstarted` is the record to write if the command is not started."""
        self.lock.be_ready(unstarted)

    def command_started(self, process: int) -> float:
        """Watch the command, and close our copies of its descriptors. When it was started (boot clock)."""
        self.children.command = process
        try:
            self.command = libc.pidfd_open(process)
        except OSError:  # the command has ended already; the guard says so
            self.command = -1
        if self.task.output is not None:
            self.task.output.drop()
        if not self.keeps_open:
            self._let_go()
        return self.task.page.started_at

    def _let_go(self) -> None:
        """Close our copies of the command's descriptors: a reader would otherwise wait for us too."""
        calls.close_standard(0, 1)
        calls.drop_inherited()
        if not self.task.leased:  # a later keeper may have to open relative paths
            calls.leave_directory()
