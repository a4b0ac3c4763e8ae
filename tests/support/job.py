"""The command that the process tests run: it leaves evidence of what ran when.

    python -I -S job.py EVIDENCE [leave] [ignore] [until FILE] [status N]

Every process of it appends lines "turn pid born what boot-clock" to one file, which orders them:
`start`, `slot=SLOT=ATTEMPT=wall-clock` if it is of one, then `beat` every few milliseconds as long as it
runs, and `end`. A line `alive:PID:STATE` says that a process of an earlier turn was still there at the
start. `leave` leaves behind a process in a session of its own, without environment and without a parent,
and one that ignores SIGTERM; `ignore` ignores SIGTERM itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time

BEAT = 0.01
LONGEST = 600.0


def born(process: int) -> tuple[str, str] | None:
    """When a process was started (a word that tells reused ids apart) and its state, if it is there."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[19].decode(), fields[0].decode()


class Witness:
    """Writes the lines of one process."""

    def __init__(self, path: str, turn: str) -> None:
        self.path = path
        self.turn = turn
        self.file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self.own = f"{os.getpid()} {(born(os.getpid()) or ('0', ''))[0]}"

    def note(self, *words: str) -> None:
        """Append a line for each word: all of them, or none if we are killed meanwhile."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.write(self.file, "".join(f"{self.turn} {self.own} {what} {now!r}\n" for what in words).encode())

    def lines(self) -> list[list[str]]:
        """What all processes have noted up to now."""
        with open(self.path) as file:
            return [line.split() for line in file if line.endswith("\n")]

    def look_for_survivors(self) -> None:
        """Note which processes of earlier turns are still there."""
        for process, start in {(line[1], line[2]) for line in self.lines() if line[0] != self.turn}:
            found = born(int(process))
            if found is not None and found[0] == start:
                self.note(f"alive:{process}:{found[1]}")

    def beat(self, until: str) -> None:
        """Note every few milliseconds that we run, until that file exists."""
        end = time.monotonic() + LONGEST
        while time.monotonic() < end and not (until and os.path.exists(until)):
            self.note("beat")
            time.sleep(BEAT)


def leave(path: str, turn: str) -> None:
    """Start a process that hides as well as it can, and one that doesn't listen."""
    again = [sys.executable, "-I", "-S", __file__, path]
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve(sys.executable, [*again, "as", turn], {})
        os._exit(0)
    os.wait()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.execv(sys.executable, [*again, "as", turn])


def main(path: str, words: list[str]) -> int:
    """Do what the words say; the exit status."""
    if words[:1] == ["as"]:
        Witness(path, words[1]).beat("")
        return 0
    witness = Witness(path, os.environ.get("SINGLETON_TOKEN", "none"))
    of_slot = []
    if "SINGLETON_SLOT" in os.environ:
        slot, attempt = os.environ["SINGLETON_SLOT"], os.environ["SINGLETON_ATTEMPT"]
        of_slot = [f"slot={slot}={attempt}={time.time()!r}"]
    witness.note("start", *of_slot)
    witness.look_for_survivors()
    if "ignore" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "leave" in words:
        leave(path, witness.turn)
        while len({line[1] for line in witness.lines() if line[0] == witness.turn}) < 3:
            time.sleep(BEAT)
    witness.note("ready")
    if "until" in words:
        witness.beat(words[words.index("until") + 1])
    witness.note("end")
    return int(words[words.index("status") + 1]) if "status" in words else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
