"""The effects of a turn's decisions on real processes, pipes and the lock."""

from __future__ import annotations

import time

from singleton_run.api import record
from singleton_run.front.decisions import STARTING
from singleton_run.system import calls, pipes, processes
from singleton_run.system.messages import GuardOrders, GuardTells, Proof, deliver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from singleton_run.api.contract import Grant
    from singleton_run.front.adopted_guard import AdoptedGuard
    from singleton_run.front.children import Children
    from singleton_run.front.decisions import Turn
    from singleton_run.front.guard_link import GuardLink
    from singleton_run.front.lock_handle import LockHandle
    from singleton_run.front.receivers import GuardReceiver
    from singleton_run.guard.process import Task
    from singleton_run.report.log import Log
    from singleton_run.system.messages import Message
    from singleton_run.system.shared_page import Page

_DEATH_MILLISECONDS = 1000
"""How long a killed keeper may take to end."""


class TurnEffects:
    """The `effects.Effects` of one turn. `Front` sets `turn` and `guard_receiver`.

    `attempt` is the number of this attempt, from 1, or 0 for a plain turn. `goes_on` says of an exit status
    whether another turn follows after it. `own_guard` has the guard's decisions once the front takes them.
    """

    turn: Turn
    guard_receiver: GuardReceiver

    def __init__(
        self,
        task: Task,
        lock: LockHandle,
        link: GuardLink,
        children: Children,
        log: Log,
        attempt: int,
        goes_on: Callable[[object], bool] | None,
    ) -> None:
        self.task = task
        self.page: Page = task.page
        self.lock = lock
        self.link = link
        self.children = children
        self.log = log
        self._attempt = attempt
        self._goes_on = goes_on
        self.own_guard: AdoptedGuard | None = None
        self._run_record: dict[str, Any] = {}

    def acquire(self, grant: Grant | None) -> None:
        """Begin to acquire the lock, or go on with `grant`. Raises OSError if a fork fails."""
        self.lock.acquire(grant, self.turn)

    def kill_keeper(self) -> None:
        """SIGKILL the keeper. It is waited for later."""
        self.lock.kill()

    def settle(self) -> None:
        """Give the lock back, and write the record of the run."""
        if pipes.reporter is not None:
            pipes.reporter.run_over()
        ending = self.turn.ending
        if self.task.settings.log_format == "json" and ending.outcome != "lost":
            seconds = calls.now() - self.page.started_at if self.page.started_at else None
            self.say("info", ending.outcome, status=ending.status, seconds=seconds)
        status = None if ending.outcome == "lost" else ending.status
        self.lock.settle(self.turn, record.ended(self._run_record, ending.outcome, status, self._end()))

    def _end(self) -> float:
        """When the run ended (Unix seconds): by the time that slots go by, if it is of a slot."""
        slot = record.slot_of_run(self._run_record) and self._run_record["slot"]
        if not slot or not self.page.started_at:
            return time.time()
        return float(slot["start"]) + calls.now() - self.page.started_at

    def _of_run(self, event: str) -> dict[str, object]:
        """What programs are told of a run beside what people are told."""
        grant = self.turn.grant
        if event not in ("acquired", "started", "succeeded", "failed", "interrupted") or grant is None:
            return {}
        told = {"token": grant.token, "holder": self.task.holder}
        if event == "acquired":
            return told
        slot, attempt = self.of_slot()
        return {**told, "run": self.task.turn_id, "slot": slot, "attempt": attempt}

    def running(self) -> None:
        """Have it written down that the command runs, where that was not done before the start."""
        self.lock.running(self._run_record)

    def leave(self) -> None:
        """Give up waiting."""
        self.lock.leave(self.turn)

    def withdraw(self) -> bool:
        """Take the right to start from a waiting guard. False if it has used the right already."""
        return self.lock.withdraw()

    def tell_guard(self, message: Message) -> None:
        """Send the guard an order and SIGCONT, or carry it out in its place. A dead guard gets nothing."""
        if self.own_guard is not None:
            deliver(message, GuardOrders, self.own_guard)
        elif message[0] == "start":
            self._order_start(message[1])
        elif self.link.is_open:
            self.link.send(message)

    def _order_start(self, token: int) -> None:
        if not self.link.is_open:
            self.lock.fork_guard()
        self.link.remember_children()
        self.link.send(GuardOrders.start(token, *self.of_slot()))
        if self.turn.grant is not None:
            self._write_start(self.turn.grant)

    def _write_start(self, grant: Grant) -> None:
        who = grant.name, grant.holder, grant.token
        self._run_record = record.begun(grant.record, *who, time.time(), self.task.settings.command[0])
        trouble = self.lock.write_start(self._run_record)
        if trouble:
            self.say("warning", "unsettled", text=trouble)

    def of_slot(self) -> tuple[float | None, int | None]:
        """Slot (Unix seconds) and attempt of the command, each None if it has none."""
        grant = self.turn.grant
        before = grant.record if grant is not None and self.task.settings.scheduled else None
        slot = (before or {}).get("slot")
        if slot:
            return slot["slot"], slot["attempt"]
        return None, self._attempt or None

    def new_guard(self) -> None:
        """Fork a guard in place of one that died before the start."""
        self.lock.replace_guard(self.turn)

    def guard_has_read_all(self) -> bool:
        """Whether the guard has read all orders."""
        return self.link.has_read_all()

    def kill_guard(self) -> None:
        """SIGKILL the guard. Its end is noticed later."""
        self.link.kill()

    def adopt(self) -> bool:
        """Take the place of a dead guard (see `children`). False if it had started nothing."""
        if self.children.nothing_was_started():
            self.page.start_begun = False
            return False
        from singleton_run.front.adopted_guard import AdoptedGuard

        self.children.is_guard = True
        self.own_guard = AdoptedGuard(self, self._say_as_guard)
        command = self.children.command_after_all()
        if command and self.turn.phase == STARTING:  # its guard has not told us
            self._say_as_guard(GuardTells.started(command))
        self.own_guard.decisions.adopt(command, calls.now())
        for order in self.link.unread():
            deliver(order, GuardOrders, self.own_guard)
        return True

    def _say_as_guard(self, message: Message) -> None:
        """Receive the message that a guard would send to us.

        "gone" also goes to the keeper by the proof pipe: we may be killed before we have told it.
        """
        proof = self.link.pipes.proof_write
        if message[0] == "gone" and proof >= 0:
            pipes.Writer(proof).send(Proof.gone())
        deliver(message, GuardTells, self.guard_receiver)

    def retire_helpers(self) -> bool:
        """End our helpers: the kernel is then asked for children, and only the command's may be left.

        Another keeper resumes afterwards. False if the keeper can't be ended.
        """
        self.lock.retire(self.turn)
        self.log.close()
        if pipes.reporter is not None:
            pipes.reporter.retire()
        return not self.lock.process or processes.exited(self.lock.process, _DEATH_MILLISECONDS)

    def lease(self) -> tuple[float, float]:
        """The lease's end and the keeper's last report, both by the boot clock."""
        return self.page.end, self.page.reported

    def start_begun(self) -> bool:
        """Whether a guard has begun to start the command."""
        return self.page.start_begun

    def pause(self) -> dict[str, Any] | None:
        """The pause in force, where it can be read from a lock of the kernel's."""
        return self.lock.pause()

    def say(self, level: str, event: str, **facts: object) -> None:
        """Tell the user, without waiting."""
        if event == "gave up" and self._goes_on is not None and self._goes_on(facts["status"]):
            level, event = "warning", "trouble"
        if self.task.settings.log_format == "json":
            facts.update(self._of_run(event))
        if event == "overlapped":  # the next turn would tell it again
            self.log.said.add((event, round(facts["number"])))  # type: ignore[call-overload]
        self.log.say(level, event, **facts)
