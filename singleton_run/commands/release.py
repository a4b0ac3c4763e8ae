"""`release NAME`: frees a lock that no process holds, and with --force has its holder give it back.

A lock is never taken from a command of ours that may still run: its holder is ordered to end it. So what this
says is true: "free" means that nothing runs under the lock.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from singleton_run import durations
from singleton_run.api import control, registry
from singleton_run.api.contract import Look
from singleton_run.api.toolbox import now, wait
from singleton_run.call.output import show
from singleton_run.call.settings import KILL_AFTER
from singleton_run.commands import steering
from singleton_run.commands.connection import LIMIT, checked_name, opened
from singleton_run.errors import HELD, UNUSABLE, Failure, Refused, Unavailable, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from singleton_run.api.contract import Backend, Held
    from singleton_run.api.control import Control
    from singleton_run.call.fast_parser import Value

_LOOK_EVERY = 0.25
_LEASE = 30.0
"""Seconds that a lease is taken to last where the server doesn't tell."""
_SLACK = 5.0


def run(given: Mapping[str, Value], environ: Mapping[str, str]) -> NoReturn:
    """Release the lock, say what was done, and end: with 75 if it stays held."""
    with opened(given, environ) as backend:
        name = checked_name(given)
        steering.check_steerable(backend)
        address = str(given.get("lock") or environ.get("SINGLETON_RUN_LOCK") or registry.DEFAULT)
        by_kernel = registry.is_kernel_held(address.partition("://")[0])
        show(released(backend, name, by_kernel=by_kernel, force=bool(given["force"]), yes=bool(given["yes"])))


def released(backend: Backend, name: str, *, by_kernel: bool, force: bool, yes: bool) -> str:
    """Release the lock; what was done, for the user. Raises Failure if it stays held."""
    for _ in range(steering.TRIES):
        seen = backend.look(name, LIMIT)
        who = seen.holder
        if seen.state == Look.FREE or who is None:
            return f"{name} is free: there is nothing to release{steering.pause_note(backend, name, seen)}\n"
        if seen.state != Look.HELD:
            if backend.free(name, seen, LIMIT):
                return f"released: {name}, {_was(seen, who)}.{_is_free(backend, name)}\n"
        elif by_kernel:
            raise Failure(HELD, _killing(name, who))
        elif not force:
            by = steering.holder(who)
            if not is_one_of_ours(who.holder):
                effect = "--force takes it away, and ends nothing there"
            elif _only_waits(seen, who, steering.time_of(backend)):
                effect = f"nothing runs there, it waits for the end of a pause; singleton-run resume {name}"
            else:
                effect = "--force has its command ended"
            raise Failure(HELD, f"lock {name!r} is held by {by}: {effect}")
        elif is_one_of_ours(who.holder):
            steering.ask(_question(name, seen, who, steering.time_of(backend)), yes=yes)
            return _ordered(backend, name, who)
        else:
            steering.ask(
                f"lock {name!r} is held by {steering.holder(who)}, which is not a singleton-run: "
                "taking it away ends nothing, and what runs there goes on without the lock",
                yes=yes,
            )
            if backend.free(name, seen, LIMIT):
                return (
                    f"released: {name} was taken away from {steering.holder(who)}.{_is_free(backend, name)}\n"
                )
    raise Unavailable(f"lock {name!r} changes all the time: try again")


def is_one_of_ours(holder: str) -> bool:
    """Whether a holder's name is of the form of ours: HOST:PID:RANDOM."""
    host, _, rest = holder.partition(":")
    process, _, part = rest.partition(":")
    return bool(host) and process.isdecimal() and len(part) == 8 and set(part) <= set("0123456789abcdef")


def _ordered(backend: Backend, name: str, who: Held) -> str:
    """Have the holder end its command and give the lock back, and wait for that."""
    left = _LEASE if who.until is None else max(0.0, who.until - now())
    who = _with_token(backend, name, who, now() + left + _SLACK)
    token = who.token
    if token is None and not _is_same(backend.look(name, LIMIT), who):
        return _given_back(backend, name, who, _SLACK)
    if token is None:
        raise Refused(
            f"lock {name!r}: the server doesn't tell its holder's token, so it can't be ordered", UNUSABLE
        )

    def with_order(seen: Look) -> Control | None:
        if not _is_same(seen, who):
            return None
        at, by = steering.time_of(backend), steering.ourselves()
        return control.ordered(seen.control, holder=who.holder, token=token, by=by, at=at)

    # It hears of the order by its next renewal, a third of its ttl away at most, and then has that to stop.
    patience = 1.5 * left + KILL_AFTER + _SLACK
    if _is_same(steering.change(backend, name, with_order), who):
        _tell(
            f"{who.holder} is asked to end its command; this takes {durations.text(round(patience))} at most"
        )
    return _given_back(backend, name, who, patience)


def _with_token(backend: Backend, name: str, who: Held, until: float) -> Held:
    """The holder with its token, which some servers don't tell before its first renewal.

    Without it if the holder loses the lock before: its machine may be lost.
    """
    while who.token is None and now() < until:
        wait(now() + _LOOK_EVERY, [])
        seen = backend.look(name, LIMIT)
        if seen.state != Look.HELD or seen.holder is None or seen.holder.holder != who.holder:
            break
        who = seen.holder
    return who


def _given_back(backend: Backend, name: str, who: Held, patience: float) -> str:
    """Wait until `who` doesn't hold the lock any more; what came of it. Raises Failure after `patience`."""
    until = now() + patience
    trouble = ""
    while now() < until:
        try:
            seen = backend.look(name, LIMIT)
        except Unavailable as failure:
            trouble = str(failure)
        else:
            trouble = ""
            if seen.state in (Look.KEPT, Look.EXPIRED) and seen.holder and seen.holder.holder == who.holder:
                backend.free(name, seen, LIMIT)
            elif not _is_same(seen, who):
                return f"released: {who.holder} holds {name} no more.{_is_free(backend, name)}\n"
        wait(now() + _LOOK_EVERY, [])
    if trouble:
        raise Unavailable(f"{who.holder} is to give {name} back, and nobody can tell if it has: {trouble}")
    raise Failure(
        HELD,
        f"{who.holder} has not given {name} back within {durations.text(round(patience))}, so it may still "
        "run (an older version, a long --kill-after): the order stands, and nothing was taken away",
    )


def _is_free(backend: Backend, name: str) -> str:
    """How a lock stands that was just given back, with a blank before it."""
    seen = backend.look(name, LIMIT)
    if seen.state == Look.HELD and seen.holder is not None:
        return f" {steering.holder(seen.holder)} holds it now"
    return f" It is free{steering.pause_note(backend, name, seen)}"


def _is_same(seen: Look, who: Held) -> bool:
    """Whether `who` still holds the lock, under the same token."""
    found = seen.holder
    return (
        seen.state == Look.HELD
        and found is not None
        and (found.holder, found.token) == (who.holder, who.token)
    )


def _was(seen: Look, who: Held) -> str:
    """Why no process has held a lock that was freed."""
    name = one_line(who.holder) or "its last holder"
    return f"which was kept after {name}" if seen.state == Look.KEPT else f"whose lease {name} has let end"


def _question(name: str, seen: Look, who: Held, at: float) -> str:
    """What an order to `who` does, `at` that time (Unix seconds)."""
    if _only_waits(seen, who, at):
        return f"lock {name!r} is held by {steering.holder(who)}: this ends its wait for the pause to end"
    command = one_line(str((seen.record or {}).get("command") or "")) if _runs(seen, who) else ""
    what = f"the command {command!r}" if command else "the command"
    return f"lock {name!r} is held by {steering.holder(who)}: this ends {what} there"


def _only_waits(seen: Look, who: Held, at: float) -> bool:
    """Whether `who` has got the lock under a pause, which is in force `at` that time, and started nothing."""
    pause = control.pause_of(seen.control, at)
    got_it_then = pause is not None and who.since is not None and who.since >= pause["at"]
    return got_it_then and not _runs(seen, who)


def _runs(seen: Look, who: Held) -> bool:
    """Whether the record says that a command of `who` runs."""
    record = seen.record or {}
    return record.get("token") == who.token and record.get("state") == "running"


def _killing(name: str, who: Held) -> str:
    """How to end a holder of a lock that the kernel holds."""
    if not is_one_of_ours(who.holder):
        nameless = "a process that doesn't tell its name: `lslocks` shows it, and kill ends it"
        return f"lock {name!r} is held by {nameless}"
    host, process, _ = who.holder.split(":")
    here = "" if host == os.uname().nodename else f" on {host}"
    since = steering.holder(who)
    return f"lock {name!r} is held by {since}, and the kernel frees it when that ends: kill {process}{here}"


def _tell(text: str) -> None:
    os.write(2, f"singleton-run: {one_line(text)}\n".encode(errors="backslashreplace"))
