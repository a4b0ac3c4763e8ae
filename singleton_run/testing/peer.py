"""A backend object in a process of its own, and how a test tells it what to do."""

# ruff: noqa: S101, TID253 - a tool of tests: the command never imports it

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from singleton_run.api.contract import Grant, Held
from singleton_run.errors import Lost, Refused, Unavailable
from singleton_run.system import calls
from singleton_run.testing import nursery
from singleton_run.testing.nursery import LIMIT, LONGEST, look_of, plain_look

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from singleton_run.api.contract import Look
    from singleton_run.errors import Failure
    from singleton_run.testing.site import Site

    Findings = list[tuple[str, str, str]]  # named here, for `list` is a method below

STEADY = 60.0
"""The lease, in seconds, of a lock that must not lapse while a case runs."""

SLACK = 5.0
"""The time that a loaded machine may need beyond a limit, in seconds. A call that hangs takes far longer."""

START = 60.0
"""The time that a loaded machine may need to start a process, in seconds. The backend doesn't matter here."""

_KINDS = {"Unavailable": Unavailable, "Lost": Lost}


class Stuck(AssertionError):
    """A call did not return in its time."""


class Peer:
    """A process with one backend object. It has the backend's methods, with the same arguments.

    The contract's `limit` is LIMIT here. Each call is checked: it returns within its limit, and its error is
    one line. The methods `start…` begin a call, and `result` returns its result. `began` and `ended` are when
    the last call began and ended, by the boot clock. `holder` is the peer's name as a holder.
    """

    def __init__(self, link: socket.socket, site: Site, number: int) -> None:
        self.link = link
        self.site = site
        self.holder = f"host{number}:{os.getpid()}:{os.urandom(4).hex()}"
        self.began = 0.0
        self.ended = 0.0
        self.due = 0.0
        self.first: Grant | Held | None = None
        self.process = 0

    def begin(self) -> Peer:
        """Wait until the process has started."""
        self.process = self._hear(START)
        return self

    def open(self, lock: str | None = None, environ: Mapping[str, str] | None = None) -> Peer:
        """Open the backend, at the site or elsewhere. No server is contacted."""
        where = self.site.lock if lock is None else lock
        around = self.site.environ if environ is None else environ
        self.start("open", self.site.opener, where, dict(around), until=calls.now() + LIMIT).result()
        return self

    def acquire(self, name: str, ttl: float = STEADY) -> Grant | Held:
        """Try once to acquire the lock."""
        return _result(self.start_call("acquire", name, self.holder, ttl).result())

    def takes(self, name: str, ttl: float = STEADY) -> Grant:
        """Try once to acquire the lock. It is free, so this must succeed."""
        got = self.acquire(name, ttl)
        assert isinstance(got, Grant), f"{name} is free, but acquire says that {got.holder!r} has it"
        return got

    def is_refused(self, name: str, ttl: float = STEADY) -> Held:
        """Try once to acquire the lock. Another has it, so this must fail."""
        got = self.acquire(name, ttl)
        assert isinstance(got, Held), f"{name} is held, but acquire granted it with token {got.token}"
        return got

    def gets(self, name: str, ttl: float = STEADY, patience: float | None = None) -> Grant:
        """Try and wait until the lock is acquired, as the keeper does."""
        self.start_get(name, ttl, patience)
        return self.got()

    def start_get(self, name: str, ttl: float = STEADY, patience: float | None = None) -> None:
        """Begin `gets`, and return after the first attempt; its result is in `first`."""
        seconds = self.site.patience if patience is None else patience
        until = calls.now() + seconds
        self.start("get", name, self.holder, ttl, LIMIT, until, until=until)
        self.first = _result(self._hear(LIMIT + SLACK))

    def start_turns(self, name: str, times: int, folder: str, until: float) -> None:
        """Begin `times` turns, in each of which it must be alone in `folder`. `result` says what went wrong.

        Returns after the first attempt; its result is in `first`. The peer opens the backend anew for each
        turn.
        """
        where = [self.site.opener, self.site.lock, dict(self.site.environ)]
        how = [name, self.holder, STEADY, LIMIT, until]
        self.start("turns", times, folder, where, how, until=until)
        self.first = _result(self._hear(LIMIT + SLACK))

    def got(self) -> Grant:
        """End `start_get`: the lock must have been acquired in time."""
        value = self.result()
        assert value is not None, "the lock was never had: a waiter was not woken, or acquire not granted"
        got = _result(value)
        assert isinstance(got, Grant)
        return got

    def renew(self, grant: Grant) -> Mapping[str, Any] | None:
        """Renew the lease for another `grant.ttl` seconds. The control, None without one."""
        control: Mapping[str, Any] | None = self.start_call("renew", grant).result()
        return control

    def start_renew_many(self, grant: Grant, record: Mapping[str, Any], times: int) -> None:
        """Begin to renew the lease and to write the record, with its number as a note, so many times."""
        until = calls.now() + 2 * LIMIT * times
        self.start("renew_many", grant.as_dict(), record, times, until=until)

    def write(self, grant: Grant, record: Mapping[str, Any]) -> None:
        """Put a record beside the lock."""
        self.start_call("write", grant, record).result()

    def release(self, grant: Grant, record: Mapping[str, Any], keep: float = 0.0) -> None:
        """Give the lock back. Nobody can acquire it for `keep` seconds."""
        until = calls.now() + LIMIT
        self.start("release", grant.as_dict(), record, LIMIT, keep, until=until).result()

    def leave(self) -> None:
        """Give back the place in the queue, and a grant if there is one."""
        self.start_call("leave").result()

    def read(self, name: str) -> tuple[Held | None, Mapping[str, Any] | None]:
        """Who holds it, and the record."""
        held, record = self.start_call("read", name).result()
        return held and Held(**held["held"]), record

    def list(self) -> list[str]:
        """Every name."""
        names: list[str] = self.start_call("list").result()
        return names

    def can_be_steered(self) -> bool:
        """Whether the backend has the calls `look`, `steer` and `free`."""
        can: bool = self.start("can_be_steered", until=calls.now() + LIMIT).result()
        return can

    def look(self, name: str) -> Look:
        """All that the server tells of the lock."""
        return look_of(self.start_call("look", name).result())

    def steer(self, name: str, version: str, control: Mapping[str, Any]) -> bool:
        """Replace the control if it still has that version. False if it hasn't."""
        done: bool = self.start_call("steer", name, version, control).result()
        return done

    def free(self, name: str, seen: Look) -> bool:
        """Free the lock if it still has the holder that was seen. False if it hasn't."""
        done: bool = self.start_call("free", name, plain_look(seen)).result()
        return done

    def examine(self, name: str) -> Findings | None:
        """What `doctor` finds: grade, text and advice of each. None from a backend without that call."""
        limit = self.site.patience
        found = self.start("examine", name, STEADY, LIMIT, until=calls.now() + limit).result()
        return found and [(grade, text, todo) for grade, text, todo in found]

    def done(self, name: str, key: str) -> Mapping[str, Any] | None:
        """The mark of a key, None if there is none."""
        mark: Mapping[str, Any] | None = self.start_call("done", name, key).result()
        return mark

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any]) -> None:
        """Mark a key as done."""
        self.start_call("mark", grant, key, mark).result()

    def mark_many(self, grant: Grant, keys: Sequence[str]) -> None:
        """Mark each key, with itself in the mark; `LIMIT` holds for each."""
        until = calls.now() + LIMIT * len(keys)
        self.start("mark_many", grant.as_dict(), [*keys], until=until).result()

    def forget(self, name: str, key: str) -> bool:
        """Remove a mark. True if there was one."""
        there: bool = self.start_call("forget", name, key).result()
        return there

    def offset(self) -> tuple[float, float] | None:
        """How far the server's clock is ahead, and how exact that is, in seconds."""
        told = self.start("offset", until=calls.now() + LIMIT).result()
        return None if told is None else (told[0], told[1])

    def close(self) -> None:
        """Drop every connection."""
        self.start("close", until=calls.now() + LIMIT).result()

    def wait(self, held: Held, until: float) -> None:
        """Wait, and return when the wait has ended."""
        self.start_wait(held, until)
        self.result()

    def start_wait(self, held: Held, until: float) -> None:
        """Begin to wait."""
        plain = {slot: getattr(held, slot) for slot in Held.__slots__}
        self.start("wait", plain, until, until=until)

    def hold(self, grant: Grant, until: float) -> None:
        """Hold, and return when the hold has ended."""
        self.start_hold(grant, until)
        self.result()

    def start_hold(self, grant: Grant, until: float) -> None:
        """Begin to hold."""
        self.start("hold", grant.as_dict(), until, until=until)

    def sockets(self) -> int:
        """How many sockets the process has beside the one to us."""
        count: int = self.start("sockets", until=calls.now() + LIMIT).result()
        return count

    def start_call(self, call: str, *arguments: object) -> Peer:
        """Begin a call whose last argument is the limit."""
        plain = [word.as_dict() if isinstance(word, Grant) else word for word in arguments]
        return self.start(call, *plain, LIMIT, until=calls.now() + LIMIT)

    def start(self, *call: object, until: float) -> Peer:
        """Begin a call that has to end by `until` (boot clock)."""
        self.due = until
        self.link.sendall(json.dumps(call).encode())
        return self

    def wake(self) -> None:
        """Wake the peer's `wait` or `hold`: its descriptor becomes readable."""
        self.link.sendall(b'["wake"]')

    def result(self, patience: float | None = None) -> Any:
        """The result of the call that was begun, or its error. Raises Stuck if it doesn't end in time."""
        left = max(0.0, self.due - calls.now()) + SLACK
        return self._hear(left if patience is None else patience)

    def crash(self) -> None:
        """SIGKILL; returns when nothing of the process is left."""
        process, self.process = self.process, 0
        if process:
            with suppress(ProcessLookupError):
                ended = os.pidfd_open(process)
                signal.pidfd_send_signal(ended, signal.SIGKILL)
                calls.wait(calls.now() + SLACK, [ended])
                os.close(ended)
        self.link.close()

    def _hear(self, patience: float) -> Any:
        if not calls.wait(calls.now() + patience, [self.link.fileno()]):
            self.crash()
            raise Stuck(f"a call has not returned after {patience:.1f} s")
        packet = self.link.recv(LONGEST)
        assert packet, "the process of a backend object has died"
        kind, *answer = json.loads(packet)
        assert kind != "bug", answer[0]
        if kind == "error":
            raise self._failure(*answer)
        if kind == "ok":
            self.began, self.ended = answer[1:]
        return answer[0]

    def _failure(self, kind: str, status: int, text: str, began: float, ended: float) -> Failure:
        self.began, self.ended = began, ended
        assert text, f"a {kind} says nothing to the user"
        return Refused(text, status) if kind == "Refused" else _KINDS[kind](text)


class Crew:
    """The peers of a case, and the names of its locks."""

    def __init__(self, site: Site, nursery: Nursery) -> None:
        self.site = site
        self._nursery = nursery
        self._peers: list[Peer] = []

    def peer(self) -> Peer:
        """A new process with a new backend object, opened at the site."""
        return self.closed_peer().open()

    def closed_peer(self) -> Peer:
        """A new process that has opened nothing yet."""
        peer = Peer(self._nursery.fork(), self.site, len(self._peers))
        self._peers.append(peer)
        return peer.begin()

    def name(self) -> str:
        """A name that no lock ever had."""
        return f"t{os.urandom(6).hex()}"

    def leave(self) -> None:
        """End every process."""
        for peer in self._peers:
            peer.crash()


class Nursery:
    """The process that forks the peers; see `nursery`."""

    def __init__(self, module: str) -> None:
        self._link, theirs = socket.socketpair()
        # By its path: -m would import this package, and with it pytest.
        command = [sys.executable, "-P", nursery.__file__, str(theirs.fileno()), module]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(command, env=environ, pass_fds=[theirs.fileno()])
        theirs.close()

    def fork(self) -> socket.socket:
        """The socket of a new process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(self._link, [b"."], [theirs.fileno()])
        theirs.close()
        return ours

    def close(self) -> None:
        """End it."""
        self._link.close()
        self._process.wait()


def _result(value: Any) -> Grant | Held:
    return Grant(**value["grant"]) if "grant" in value else Held(**value["held"])
