"""How a turn begins: makes its parts and wires them together."""

from __future__ import annotations

import posix as os

from singleton_run.api import registry
from singleton_run.api.lock_address import HELD
from singleton_run.call.settings import KILL_AFTER
from singleton_run.errors import UNUSABLE, Failure, scarce
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
from singleton_run.system.texts import environ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from singleton_run.api.contract import KernelLock
    from singleton_run.call.settings import Settings
    from singleton_run.front.lock_handle import LockHandle
    from singleton_run.guard.output import Output
    from singleton_run.schedule.slot_rules import Plan
    from singleton_run.supervisor.place import Place
    from singleton_run.system.calls import Signals

_DECIDES_IN = 30.0
"""How long after the end of the wait a keeper may take to decide about a slot, in seconds."""


def run(
    settings: Settings,
    path: str,
    signals: Signals,
    mask: set[int],
    memory: Mapping[str, Any] | None = None,
) -> int:
    """Make one turn for the command at `path`, or turn after turn if there is a schedule or --once.

    Returns the exit status, or minus the signal that has to end us. `signals` are blocked, and read from
    their descriptor; `mask` has the signals that were blocked before. `memory` is of a long rest that goes on
    (`rest`). Raises Failure before it contacts a server.
    """
    if settings.verbosity > 1:
        from singleton_run.report import trace

        trace.begin(settings)
    if settings.reports:
        from singleton_run.reporter import channel

        channel.begin(settings)
    if settings.scheduled or settings.once is not None:
        from singleton_run.front import slot_loop

        return slot_loop.run(settings, path, signals, mask, memory=memory)
    turn = front(settings, path, signals, mask, Log(settings, looked_at=True))
    turn.begin()
    status = turn.run()
    if pipes.reporter is not None:
        pipes.reporter.end()
    return status


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
    place: Place | None = None,
) -> Front:
    """Make the front of one turn, ready to run. Raises Failure before it contacts a server.

    `plan` makes the plan of the slots; it is called in the keeper, and None for a turn without a schedule.
    `attempt` is the number of this attempt, from 1, or 0 for a plain turn. `keeps_open` says that another
    turn may follow, whose command needs our descriptors 0 to 2. `since` is when --wait began (boot clock),
    by default now. `goes_on` says of an exit status whether another turn follows after it. `place` is what
    the process of a crontab's line has around its turns.
    """
    kernel_lock = registry.open_kernel_lock(settings.lock_address, environ)
    decides = plan is not None or settings.once is not None
    terminal = Terminal()
    task = _task(settings, path, mask, terminal, place, leased=kernel_lock is None)
    link = GuardLink(task.page, log, pipes.pipe() if task.leased or decides else (-1, -1))
    now = calls.now() if since is None else min(since, calls.now())
    job = _job(task, now)
    lock = _lock(job, task, link, kernel_lock, plan, decides=decides)
    link.is_open = task.leased  # the keeper forks the first guard
    children = Children(task.page, lock, link, log)
    effects = TurnEffects(task, lock, link, children, log, attempt, goes_on)
    slack = _DECIDES_IN if decides else None
    told = effects if pipes.tracer is None else pipes.tracer.effects(effects, leased=task.leased)
    around = _around(environ, settings.name)
    turn = Turn(
        settings, told, leased=task.leased, now=now, kill_grace=task.grace, slack=slack, around=around
    )
    calls.become_subreaper()
    processes.hold_listing()
    calls.set_title(f"singleton-run: front of {settings.name}")
    leave = -1 if place is None else place.leave
    return Front(turn, effects, signals, terminal, keeps_open=keeps_open, leave=leave)


def _around(environ: Mapping[str, str], name: str) -> list[str]:
    """The digests of the holders around us, and the token of the one around us that has a lock `name`."""
    token = environ.get("SINGLETON_TOKEN") if environ.get("SINGLETON_NAME") == name else None
    return [*environ.get(HELD, "").split(), *([token] if token else [])]


def _task(
    settings: Settings, path: str, mask: set[int], terminal: Terminal, place: Place | None, *, leased: bool
) -> Task:
    own, alone = not terminal.is_shared, settings.signal_command_only
    turn_id = os.urandom(8).hex()
    standard = () if place is None else place.open(turn_id)
    output = _output(settings, turn_id, standard) if settings.ping_log else None
    variables = {} if place is None else place.variables
    user = None if place is None else place.user
    command = Command(
        path,
        settings.command,
        mask,
        own_session=own,
        alone=alone,
        standard=standard if output is None else output.standard,
        user=user,
    )
    holder = f"{os.uname().nodename}:{os.getpid()}:{os.urandom(4).hex()}"
    grace = KILL_AFTER if settings.kill_after is None else settings.kill_after
    task = Task(settings, command, Page(), holder, turn_id, grace, leased=leased, variables=variables)
    task.output = output
    return task


def _output(settings: Settings, turn_id: str, standard: Sequence[int]) -> Output:
    """Have the command's output pass through us to `standard`, or to ours. Raises Failure."""
    from singleton_run.guard.output import Output

    try:
        output = Output(settings.name, turn_id, standard or (0, 1, 2))
    except OSError as error:
        raise Failure(UNUSABLE, scarce(str(error.strerror))) from None
    if pipes.reporter is not None:
        pipes.reporter.output_begun(output.process)
    return output


def _job(task: Task, now: float) -> Job:
    settings = task.settings
    return Job(
        settings.name,
        task.holder,
        settings.ttl,
        calls.FOREVER if settings.wait is None else now + settings.wait,
        command=settings.command[0],
        once=settings.once,
        lock_at_least_for=settings.lock_at_least_for,
        waits=settings.wait != 0,
        label_pod=settings.label_pod,
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
    """The handle of the kind that is asked for. Each is imported only where it is used."""
    if kernel_lock is None:
        from singleton_run.front.keeper_handle import KeeperHandle

        address = task.settings.lock_address
        return KeeperHandle(job, task, link, lambda: registry.open_backend(address, environ), plan)

    from singleton_run.front.kernel_lock_handle import KernelLockHandle

    kernel = KernelLockHandle(kernel_lock, job, task, link)
    if not decides:
        return kernel

    from singleton_run.front.keeper_handle import KeeperHandle
    from singleton_run.front.kernel_slot_handle import KernelSlotHandle

    keeper = KeeperHandle(job, task, link, lambda: kernel_lock, plan, kernel_lock.descriptors)
    return KernelSlotHandle(kernel, keeper, task, link)
