"""How a turn begins: its parts are made and wired together, for one turn or for turn after turn."""

from __future__ import annotations

import os

from singleton_run.api import registry
from singleton_run.call.settings import KILL_AFTER
from singleton_run.front import lock_handles
from singleton_run.front.children import Children
from singleton_run.front.decisions import Turn
from singleton_run.front.guard_link import GuardLink
from singleton_run.front.process import Front
from singleton_run.front.terminal import Terminal
from singleton_run.front.turn_effects import TurnEffects
from singleton_run.guard.process import Task
from singleton_run.job import Job
from singleton_run.report.log import Log
from singleton_run.system import calls, pipes, processes
from singleton_run.system.processes import Command
from singleton_run.system.shared_page import Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from singleton_run.api.contract import KernelLock
    from singleton_run.call.settings import Settings
    from singleton_run.front.lock_handles import LockHandle
    from singleton_run.schedule.slot_rules import Plan
    from singleton_run.system.calls import Signals

_DECIDES_IN = 30.0
"""How long a keeper may take to decide about a slot beyond the end of the wait, in seconds."""


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
    return front(settings, path, signals, mask, Log(settings)).run()


def front(
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
) -> Front:
    """The front of one turn, ready to run. Raises Failure before anything is contacted.

    `plan` makes the plan of its slots, in the keeper; None for a turn that is of no schedule. `attempt`
    is how often the command was started before, and one. `keeps_open` says that there will be another
    turn, which needs our standard descriptors for its command. `since` is when --wait began (boot clock),
    now if not given. `goes_on` says whether it will be tried again after giving up with that status.
    """
    kernel_lock = registry.open_kernel_lock(settings.lock, os.environ)
    decides = plan is not None or settings.once is not None
    terminal = Terminal()
    task = _task(settings, path, mask, terminal, leased=kernel_lock is None)
    link = GuardLink(task.page, log, pipes.pipe() if task.leased or decides else (-1, -1))
    now = calls.now() if since is None else min(since, calls.now())
    job = _job(task, now)
    lock = _lock(job, task, link, kernel_lock, plan, decides=decides)
    link.is_open = task.leased  # the keeper forks the first guard
    children = Children(task.page, lock, log)
    effects = TurnEffects(task, lock, link, children, log, attempt, goes_on)
    slack = _DECIDES_IN if decides else None
    told = effects if pipes.tracer is None else pipes.tracer.effects(effects, leased=task.leased)
    turn = Turn(settings, told, leased=task.leased, now=now, kill_grace=task.grace, slack=slack)
    calls.become_subreaper()
    processes.hold_listing()
    calls.set_title(f"singleton-run: front of {settings.name}")
    return Front(turn, effects, signals, terminal, keeps_open=keeps_open)


def _task(settings: Settings, path: str, mask: set[int], terminal: Terminal, *, leased: bool) -> Task:
    own, alone = not terminal.is_shared, settings.signal_command_only
    command = Command(path, settings.command, mask, own_session=own, alone=alone)
    holder = f"{os.uname().nodename}:{os.getpid()}:{os.urandom(4).hex()}"
    grace = KILL_AFTER if settings.kill_after is None else settings.kill_after
    return Task(settings, command, Page(), holder, os.urandom(8).hex(), grace, leased=leased)


def _job(task: Task, now: float) -> Job:
    settings = task.settings
    return Job(
        settings.name,
        task.holder,
        settings.ttl,
        calls.FOREVER if settings.wait is None else now + settings.wait,
        once=settings.once,
        keep=settings.keep,
        waits=settings.wait != 0,
        leased=task.leased,
    )


def _lock(
    job: Job,
    task: Task,
    link: GuardLink,
    kernel_lock: KernelLock | None,
    plan: Callable[[], Plan] | None,
    *,
    decides: bool,
) -> LockHandle:
    if kernel_lock is None:
        address = task.settings.lock
        return lock_handles.KeeperHandle(
            job, task, link, lambda: registry.open_backend(address, os.environ), plan
        )
    kernel = lock_handles.KernelLockHandle(kernel_lock, job, task, link)
    if not decides:
        return kernel
    keeper = lock_handles.KeeperHandle(job, task, link, lambda: kernel_lock, plan, kernel_lock.descriptors)
    return lock_handles.KernelSlotHandle(kernel, keeper, task, link)
