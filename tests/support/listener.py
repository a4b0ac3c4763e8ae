"""The command that the signal tests run: it takes down every signal that it gets, and what it was given.

    python -I -S listener.py FILE [child] [stop]

It blocks every signal and fetches one after the other; for each, a line "command NUMBER" is
appended to FILE, "child NUMBER" by the process that it forks if that is asked for. The first
lines, "command ready" and "child ready", say that nothing will be missed. SIGRTMAX ends each of them.
With `stop` it first sends its group SIGTSTP, as an editor does that is told to.
"""

from __future__ import annotations

import os
import signal
import sys


def listen(file: int, who: str, *, stop: bool) -> None:
    """Note every signal until SIGRTMAX comes."""
    every = signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, every)
    os.write(file, f"{who} ready {os.getpid()}\n".encode())
    if stop:
        os.kill(0, signal.SIGTSTP)
    number = 0
    while number != signal.SIGRTMAX:
        number = signal.sigwait(every)
        os.write(file, f"{who} {int(number)}\n".encode())


def main(path: str, words: list[str]) -> None:
    """Listen, in one process or two."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    child = "child" in words and os.fork() == 0
    listen(file, "child" if child else "command", stop="stop" in words)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
