"""The command that the contenders run: three processes that are hard to overlook and hard to kill.

    sh -c WRAPPER sh PYTHON command.py LOG ADDRESS SECONDS FINISH [leave]

They append lines "turn pid born what boot-clock" to LOG: `start:RUN:TOKEN:ATTEMPT:SLOT` (or KEY; both
empty in a plain turn), then `beat` every few milliseconds, and `end`, or `fail`: every other slot's first
attempt fails. One is the command itself; one has a session of its own, no environment and
no parent; one ignores SIGTERM. All hold a lock of the kernel's on a file and a listening port,
which are free only when the last of them is gone. `taken:lock` and `taken:port` in the log say that
they weren't: then another command's process was still there.

The lock is tried by a shell, a millisecond after the command was started: an interpreter would take
ten, in which an overlap could end unseen.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time

WRAPPER = """
exec 9>>"$3.held"
if flock --nonblock 9; then held=free; else held=taken; fi
exec "$1" -I -S "$2" "$held" "$3" "$4" "$5" "$6" "$7"
"""
PORT = 21221
BEAT = 0.02
LONGEST = 150.0


def argv(log: str, address: str, seconds: float, finish: str, *, leave: bool) -> list[str]:
    """The command's arguments. It ends after `seconds`, or earlier when the file `finish` is there.

    With `leave` it leaves its other two processes behind when it ends by itself, else it ends them.
    """
    words = [sys.executable, __file__, log, address, str(seconds), finish, "leave" if leave else "tidy"]
    return ["sh", "-c", WRAPPER, "sh", *words]


def born(process: int) -> str:
    """When a process was started, as a word that tells reused process ids apart; empty if it is gone."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return ""


class Witness:
    """Writes the lines of one process."""

    def __init__(self, log: str, turn: str) -> None:
        self.log = log
        self.turn = turn
        self.file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self.own = f"{os.getpid()} {born(os.getpid())}"

    def note(self, what: str) -> None:
        """Append one line."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.write(self.file, f"{self.turn} {self.own} {what} {now:.6f}\n".encode())

    def beat(self, seconds: float, finish: str) -> None:
        """Note again and again that we run, until that file exists or the log doesn't any more."""
        end = time.monotonic() + min(seconds, LONGEST)
        while time.monotonic() < end and os.path.exists(self.log) and not (finish and os.path.exists(finish)):
            self.note("beat")
            time.sleep(BEAT)


def _listen(witness: Witness, address: str) -> None:
    sock = socket.socket()
    try:
        sock.bind((address, PORT))
        sock.listen(1)
    except OSError:
        witness.note("taken:port")
        return
    os.set_inheritable(sock.detach(), True)


def _hide(log: str, turn: str) -> int:
    """Start a process in a session of its own, without environment and parent; its process id."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        hidden = os.fork()
        if hidden:
            os.write(write, str(hidden).encode())
            os._exit(0)
        os.execve(sys.executable, [sys.executable, "-I", "-S", __file__, "as", log, turn], {})
    os.close(write)  # or the read would wait for ever, where the child could not fork
    os.wait()
    hidden = int(os.read(read, 20))
    os.close(read)
    return hidden


def _defy(log: str, turn: str) -> int:
    """Start a process that ignores SIGTERM; its process id."""
    process = os.fork()
    if process == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Witness(log, turn).beat(LONGEST, "")
        os._exit(0)
    return process


def _end(process: int) -> None:
    """SIGKILL a process, and wait until it is gone, whoever its parent is."""
    try:
        descriptor = os.pidfd_open(process)
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return
    select.select([descriptor], [], [])
    os.close(descriptor)


def _fails(slot: str, attempt: str) -> bool:
    """Whether this attempt at a slot, whose time ends with SS and Z, is one that fails."""
    return slot.endswith("Z") and attempt == "1" and int(slot[-3:-1]) // 2 % 2 == 0


def main(words: list[str]) -> int:
    """Be the command, or its hidden process; the exit status."""
    if words[0] == "as":
        Witness(words[1], words[2]).beat(LONGEST, "")
        return 0
    held, log, address, seconds, finish, manner = words
    witness = Witness(log, os.urandom(6).hex())
    run, token = os.environ.get("FAULTS_RUN", "-"), os.environ.get("SINGLETON_TOKEN", "0")
    slot, attempt = os.environ.get("SINGLETON_SLOT", ""), os.environ.get("SINGLETON_ATTEMPT", "")
    witness.note(f"start:{run}:{token}:{attempt}:{slot or os.environ.get('FAULTS_KEY', '')}")
    if held == "taken":
        witness.note("taken:lock")
    _listen(witness, address)
    others = [_hide(log, witness.turn), _defy(log, witness.turn)]
    witness.note("ready")
    witness.beat(float(seconds), finish)
    if manner == "tidy":
        for other in others:
            _end(other)
    fails = _fails(slot, attempt)
    witness.note("fail" if fails else "end")
    return int(fails)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
