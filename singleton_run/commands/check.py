"""`check`: whether the lock of the command that asks is still its own, by the server's word.

A plain call comes here without click (see `__main__`), so nothing heavy is imported.
"""

from __future__ import annotations

from singleton_run import durations
from singleton_run.api import registry
from singleton_run.api.contract import Look
from singleton_run.api.toolbox import now
from singleton_run.errors import UNUSABLE, USAGE, Failure, Lost, Refused, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

    from singleton_run.api.contract import Held
    from singleton_run.call.fast_parser import Value

LIMIT = 5.0
"""Seconds that the server may take to answer."""
DEFAULT = 5.0
"""Seconds that must be left of a lease without --for; half of --ttl if that is less."""
_HIDDEN = ("***", "…")
"""What `lock_address.redact` puts in the place of a password."""


class Ours:
    """Who asks: the lock and the turn that a command was started under, as its variables name them."""

    __slots__ = ("holder", "lock", "name", "token")

    def __init__(self, lock: str, name: str, holder: str, token: int) -> None:
        self.lock = lock
        self.name = name
        self.holder = holder
        self.token = token


def read(words: Sequence[str]) -> Mapping[str, Value] | None:
    """The options of a plain call, after the word `check`; None where click has to read it."""
    given: dict[str, Value] = {}
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        text = value if equals else next(rest, None)
        if flag not in ("--for", "--lock") or text is None:
            return None
        given[flag[2:]] = text
    return given


def run(given: Mapping[str, Value], environ: Mapping[str, str]) -> NoReturn:
    """End with 0 if the lock is ours, else with one line and its status: see `ensure`."""
    ensure(given, environ)
    raise SystemExit(0)


def ensure(given: Mapping[str, Value], environ: Mapping[str, str]) -> None:
    """Return if the lock is ours, with as much of its lease left as --for asks for.

    Raises Lost (79) if it isn't, and Unavailable (69) if nobody can tell.
    """
    least = asked_for(str(given.get("for") or ""), environ)
    ours = asked_by(environ, str(given.get("lock") or ""))
    backend = registry.open_backend(ours.lock, environ)
    try:
        if not hasattr(backend, "look"):
            raise Unavailable("this lock backend can't tell whose a lock is: see its documentation")
        seen = backend.look(ours.name, LIMIT)
        judge(ours, seen, least, now(), leased=not registry.is_kernel_held(ours.lock.partition("://")[0]))
    finally:
        backend.close()


def asked_for(text: str, environ: Mapping[str, str]) -> float:
    """Seconds that must be left of the lease: `text`, the value of --for, or what fits --ttl if it is ''.

    Raises Failure (2) for a text that is no duration.
    """
    try:
        if text:
            return durations.seconds(text)
        return min(DEFAULT, float(environ.get("SINGLETON_TTL", "inf")) / 2)
    except ValueError as error:
        raise Failure(USAGE, f"{'--for' if text else 'SINGLETON_TTL'}: {error}") from None


def asked_by(environ: Mapping[str, str], lock: str) -> Ours:
    """Who asks, by the variables of the command; `lock` is the address that was given, '' without one.

    Raises Failure (2) outside of a command, and Refused (78) where the address is not whole.
    """
    name, holder, token = (environ.get(f"SINGLETON_{word}", "") for word in ("NAME", "HOLDER", "TOKEN"))
    if not (name and holder and token.isascii() and token.isdigit()):
        why = "check is for a command that singleton-run has started: SINGLETON_NAME, SINGLETON_HOLDER or "
        raise Failure(USAGE, f"{why}SINGLETON_TOKEN is missing here")
    told = environ.get("SINGLETON_LOCK", "")
    if any(mark in told for mark in _HIDDEN):
        told = ""
    lock = lock or told or environ.get("SINGLETON_RUN_LOCK", "")
    if not lock:
        why = "SINGLETON_LOCK has no password, so the lock can't be asked: "
        raise Refused(f"{why}give its whole address by --lock or SINGLETON_RUN_LOCK", UNUSABLE)
    return Ours(lock, name, holder, int(token))


def judge(ours: Ours, seen: Look, least: float, at: float, *, leased: bool) -> None:
    """Return if `seen` is a lock of ours with `least` seconds of its lease left `at` (boot clock).

    Raises Lost, or Unavailable if it can't be told. A lock that isn't `leased` has no end.
    """
    who = seen.holder
    if seen.state != Look.HELD or who is None:
        raise Lost(f"lock {ours.name!r} is not ours any more: it is {seen.state}")
    if who.token is None and not who.holder:
        raise Unavailable(f"lock {ours.name!r} is held, and the server doesn't tell by whom")
    if not _is_us(ours, who):
        by = f" by {who.holder}" if who.holder else f" under token {who.token}"
        raise Lost(f"lock {ours.name!r} is not ours any more: it is held{by}")
    if not leased:
        return
    if who.until is None:
        raise Unavailable(f"lock {ours.name!r} is ours, and the server doesn't tell when its lease ends")
    left = who.until - at
    if left < least:
        ends = f"ends in {durations.text(left)}" if left > 0 else "is over"
        raise Lost(f"the lease of lock {ours.name!r} {ends}, and --for asks for {durations.text(least)}")


def _is_us(ours: Ours, who: Held) -> bool:
    """Whether the lock was given to our turn. Name and token are ours alone: one of them will do."""
    return who.token in (None, ours.token) and who.holder in ("", ours.holder)
