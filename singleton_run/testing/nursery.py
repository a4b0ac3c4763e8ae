"""The process that forks the suite's peers, each of which has one backend object.

It is started as `python nursery.py SOCKET MODULE`. For each socket that it receives it forks a peer, which
serves that socket. MODULE is imported once, before the forks; the nursery itself never has a backend object.

A peer reads JSON arrays, `[call, arguments…]`, one in each packet. It answers each with a packet:
`["ok", result, began, ended]`, `["error", kind, status, text, began, ended]`, or `["bug", traceback]`.
The socket also wakes a peer that waits, because any packet makes it readable.
"""

# ruff: noqa: TID253 - a tool of tests: the command never imports it

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from singleton_run.api.contract import Grant, Held, Look
from singleton_run.errors import Failure, Unavailable
from singleton_run.system import calls

if TYPE_CHECKING:
    from collections.abc import Callable

    from singleton_run.api.contract import Backend

LONGEST = 1 << 18
LIMIT = 4.0
"""The limit of a single call, in seconds."""

_RETRY_EVERY = 0.05


def main(descriptor: int, module: str) -> None:
    """Fork a peer for each socket that `descriptor` receives, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(ImportError):  # a peer that opens the backend says it better
        importlib.import_module(module)
    requests = socket.socket(fileno=descriptor)
    while True:
        _, given, _, _ = socket.recv_fds(requests, 1, 1)
        if not given:
            return
        _reap()
        if os.fork() == 0:
            requests.close()
            _serve(socket.socket(fileno=given[0]))
            os._exit(0)
        os.close(given[0])


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _serve(link: socket.socket) -> None:
    """Be a peer until the other end is closed."""
    peer = _Peer(link)
    peer.answer("process", os.getpid())
    with suppress(ConnectionError):
        while packet := link.recv(LONGEST):
            call, *arguments = json.loads(packet)
            if call != "wake":
                peer.carry_out(getattr(peer, call), arguments)


class _Peer:
    """The backend object of one process. Its methods are the calls that a test can send."""

    backend: Backend

    def __init__(self, link: socket.socket) -> None:
        self.link = link

    def answer(self, *words: object) -> None:
        self.link.sendall(json.dumps(words).encode())

    def carry_out(self, call: Callable[..., object], arguments: list[Any]) -> None:
        began = calls.now()
        try:
            result = call(*arguments)
        except Failure as failure:
            kind = type(failure).__name__
            self.answer("error", kind, failure.status, str(failure), began, calls.now())
        except Exception:  # noqa: BLE001 - whatever a backend raises is shown in the test that made it
            self.answer("bug", traceback.format_exc())
        else:
            self.answer("ok", result, began, calls.now())

    def open(self, opener: str, lock: str, environ: dict[str, str]) -> None:
        os.environ.clear()
        os.environ.update(environ)
        module, _, function = opener.partition(":")
        self.backend = getattr(importlib.import_module(module), function)(lock, os.environ)

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> object:
        return _plain(self.backend.acquire(name, holder, ttl, limit))

    def wait(self, held: dict[str, Any], until: float) -> None:
        self.backend.wait(Held(**held), until, self.link.fileno())

    def leave(self, limit: float) -> None:
        self.backend.leave(limit)

    def renew(self, grant: dict[str, Any], limit: float) -> object:
        return self.backend.renew(Grant(**grant), limit)

    def renew_many(self, grant: dict[str, Any], record: dict[str, Any], times: int) -> None:
        for number in range(times):
            self.backend.renew(Grant(**grant), LIMIT)
            self.backend.write(Grant(**grant), {**record, "note": number}, LIMIT)

    def hold(self, grant: dict[str, Any], until: float) -> None:
        self.backend.hold(Grant(**grant), until, self.link.fileno())

    def write(self, grant: dict[str, Any], record: dict[str, Any], limit: float) -> None:
        self.backend.write(Grant(**grant), record, limit)

    def release(self, grant: dict[str, Any], record: dict[str, Any], limit: float, keep: float = 0.0) -> None:
        self.backend.release(Grant(**grant), record, limit, keep)

    def read(self, name: str, limit: float) -> object:
        held, record = self.backend.read(name, limit)
        return [held and _plain(held), record]

    def can_be_steered(self) -> bool:
        return all(hasattr(self.backend, call) for call in ("look", "steer", "free"))

    def look(self, name: str, limit: float) -> object:
        return plain_look(self.backend.look(name, limit))

    def steer(self, name: str, version: str, control: dict[str, Any], limit: float) -> bool:
        return self.backend.steer(name, version, control, limit)

    def free(self, name: str, seen: dict[str, Any], limit: float) -> bool:
        return self.backend.free(name, look_of(seen), limit)

    def examine(self, name: str, ttl: float, limit: float) -> object:
        if not hasattr(self.backend, "examine"):
            return None
        return [[one.grade, one.text, one.todo] for one in self.backend.examine(name, ttl, limit)]

    def done(self, name: str, key: str, limit: float) -> object:
        return self.backend.done(name, key, limit)

    def mark(self, grant: dict[str, Any], key: str, mark: dict[str, Any], limit: float) -> None:
        self.backend.mark(Grant(**grant), key, mark, limit)

    def mark_many(self, grant: dict[str, Any], keys: list[str]) -> None:
        for key in keys:
            self.backend.mark(Grant(**grant), key, {"key": key}, LIMIT)

    def forget(self, name: str, key: str, limit: float) -> bool:
        return self.backend.forget(name, key, limit)

    def offset(self) -> object:
        return self.backend.offset()

    def close(self) -> None:
        self.backend.close()

    def sockets(self) -> int:
        links = [_link(number) for number in os.listdir("/proc/self/fd")]
        return sum(link.startswith("socket:") for link in links) - 1

    def get(self, name: str, holder: str, ttl: float, limit: float, until: float) -> object:
        """Acquire the lock by `until`, else return None. The result of the first attempt is sent at once."""
        got = self._take(name, holder, ttl, limit, until, tell=True)
        return got and _plain(got)

    def _take(
        self, name: str, holder: str, ttl: float, limit: float, until: float, *, tell: bool
    ) -> Grant | None:
        while True:
            try:
                got = self.backend.acquire(name, holder, ttl, limit)
                if tell:
                    self.answer("tried", _plain(got))
                    tell = False
                if isinstance(got, Grant):
                    return got
                self.backend.wait(got, until, self.link.fileno())
            except Unavailable:
                calls.wait(min(until, calls.now() + _RETRY_EVERY), [])
            if calls.now() >= until:
                return None

    def turns(self, times: int, folder: str, where: list[Any], how: list[Any]) -> str:
        """Acquire and release the lock `times` times, each by a new backend object. What went wrong, or ''.

        `where` has the arguments of `open`, `how` those of `get`. The result of the first attempt is sent at
        once.
        """
        for number in range(times):
            self.open(*where)
            got = self._take(*how, tell=number == 0)
            if got is None:
                return "a turn never came"
            wrong = _be_alone(folder, got)
            self.backend.release(got, _record(got), LIMIT)
            self.backend.close()
            if wrong:
                return wrong
        return ""

    def list(self, limit: float) -> object:
        return self.backend.list(limit)


def plain_look(look: Look) -> dict[str, Any]:
    """A look as plain data, for `look_of` in another process."""
    plain = {slot: getattr(look, slot) for slot in Look.__slots__}
    waiting = None if look.waiting is None else [_plain_held(held) for held in look.waiting]
    return {**plain, "holder": look.holder and _plain_held(look.holder), "waiting": waiting}


def look_of(plain: dict[str, Any]) -> Look:
    """The look that `plain_look` made plain."""
    waiting = None if plain["waiting"] is None else [Held(**held) for held in plain["waiting"]]
    holder = plain["holder"] and Held(**plain["holder"])
    return Look(**{**plain, "holder": holder, "waiting": waiting})


def _link(descriptor: str) -> str:
    with suppress(FileNotFoundError):  # that of the listing itself
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return ""


def _plain(value: Grant | Held) -> dict[str, Any]:
    if isinstance(value, Grant):
        return {"grant": value.as_dict()}
    return {"held": _plain_held(value)}


def _plain_held(held: Held) -> dict[str, Any]:
    return {slot: getattr(held, slot) for slot in Held.__slots__}


def _record(grant: Grant) -> dict[str, Any]:
    from singleton_run.api.record import ended, started

    start = time.time()
    return ended(started(grant.record, grant.name, grant.holder, grant.token, start), "succeeded", 0, start)


def _be_alone(folder: str, grant: Grant) -> str:
    """Do what a command does that must not run twice at a time. What went wrong, or ''."""
    alone = os.path.join(folder, "alone")
    try:
        os.close(os.open(alone, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "two held the lock at the same time"
    with open(os.path.join(folder, "turns"), "a+", encoding="ascii") as turns:
        turns.seek(0)
        before = turns.read().split()
        turns.write(f"{grant.holder} {grant.token}\n")
        turns.flush()
        for _ in range(50):
            os.sched_yield()
    os.unlink(alone)
    left = (grant.record or {}).get("token")
    if before and left != int(before[-1]):
        return f"the record of the turn {before[-1]} was not there for the next, but that of {left}"
    return ""


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
