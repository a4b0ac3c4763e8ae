"""What a real turn does: the effects of its decisions, carried out by processes, pipes and the lock."""

from __future__ import annotations

import time

from singleton_run.api import record
from singleton_run.system import calls, pipes, processes
from singleton_run.system.messages import GuardOrders, GuardTells, Proof, deliver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from singleton_run.front.adopted_guard import AdoptedGuard
    from singleton_run.front.children import Children
    from singleton_run.front.decisions import Turn
    from singleton_run.front.guard_link import GuardLink
    from singleton_run.front.hearing import GuardHeard
    from singleton_run.front.lock_handles import LockHandle
    from singleton_run.guard.process import Task
    from singleton_run.report.log import Log
    from singleton_run.system.messages import Message
    from singleton_run.system.shared_page import Page

_DEATH_MILLISECONDS = 1000
"""How long a killed keeper may take to be gone."""


class TurnEffects:
    """The `effects.Effects` of one turn; `turn` and `guard_heard_by` are set once they are made.

    `attempt` is how often the command was started before, and one. `goes_on` says whether it will be tried
    again after giving up with that status. `own_guard` is the guard's place once the front has taken it.
    """

    turn: Turn
    guard_heard_by: GuardHeard

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

    def keep(self, grant: Mapping[str, Any] | None) -> None:
        """Have the lock taken, or go on with `grant`."""
        self.lock.keep(grant, self.turn)

    def kill_keeper(self) -> None:
        """SIGKILL the keeper; it is waited for later."""
        self.lock.kill()

    def settle(self) -> None:
        """Have the lock given back, with the record of the run."""
        ending = self.turn.ending
        status = None if ending.outcome == "lost" else ending.status
        self.lock.settle(self.turn, record.ended(self._run_record, ending.outcome, status, time.time()))

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
        elif message[0] == "start":
            self._order_start(message[1])
        elif self.link.is_open:
            self.link.send(message)

    def _order_start(self, token: int) -> None:
        if not self.link.is_open:
            self.lock.fork_guard()
        self.children.start_ordered()
        self.link.send(GuardOrders.start(token, *self._of_slot()))
        grant = self.turn.grant or {}
        self._run_record = record.started(
            grant["record"], grant["name"], grant["holder"], grant["token"], time.time()
        )
        trouble = self.lock.begun(self._run_record)
        if trouble:
            self.say("warning", "unsettled", text=trouble)

    def _of_slot(self) -> tuple[float | None, int | None]:
        """What the command is told of its slot and attempt, as the guard hears it."""
        slot = (self.turn.grant or {}).get("record") or {}
        slot = slot.get("slot") if self.task.settings.scheduled else None
        if slot:
            return slot["slot"], slot["attempt"]
        return None, self._attempt or None

    def new_guard(self) -> None:
        """Have a guard in the place of one that died before the start."""
        self.lock.replace_guard(self.turn)

    def guard_heard(self) -> bool:
        """Whether the guard has read every order."""
        return self.link.has_read_all()

    def kill_guard(self) -> None:
        """SIGKILL the guard; that it is gone is seen later."""
        self.link.kill()

    def adopt(self) -> bool:
        """Be the guard from now on: what its death left behind are our children. False if that is nothing."""
        if self.children.nothing_was_started():
            self.page.started = False
            return False
        from singleton_run.front.adopted_guard import AdoptedGuard

        self.children.is_guard = True
        self.own_guard = AdoptedGuard(self, self._say_as_guard)
        self.own_guard.decisions.adopt(self.children.command_after_all(), calls.now())
        for order in self.link.unread():
            deliver(order, GuardOrders, self.own_guard)
        return True

    def _say_as_guard(self, message: Message) -> None:
        """What we say in the guard's place: the end also to the keeper, should we be killed next."""
        proof = self.link.pipes.proof_write
        if message[0] == "gone" and proof >= 0:
            pipes.Writer(proof).send(Proof.gone())
        deliver(message, GuardTells, self.guard_heard_by)

    def retire_helpers(self) -> bool:
        """End our own helpers, so that the kernel's word about children is about the command's.

        Another keeper resumes afterwards. False if one of them can't be ended.
        """
        self.lock.retire(self.turn)
        self.log.close()
        return not self.lock.process or processes.exited(self.lock.process, _DEATH_MILLISECONDS)

    def lease(self) -> tuple[float, float]:
        """The lease's end and the keeper's last report."""
        return self.page.end, self.page.reported

    def begun(self) -> bool:
        """Whether a guard has begun to start the command."""
        return self.page.started

    def say(self, level: str, event: str, **facts: object) -> None:
        """Tell the user, without waiting."""
        if event == "gave up" and self._goes_on is not None and self._goes_on(facts["status"]):
            level, event = "warning", "trouble"
        self.log.say(level, event, **facts)
