"""A command that says when it starts, waits to be told, and says as its last act that it ends.

In C if there is a compiler: the stamps are then microseconds from the events. Else in sh with date(1),
which adds milliseconds, the same to all wrappers.
"""

from __future__ import annotations

import os
import select
import subprocess
from typing import TYPE_CHECKING

from bench import commands, measure

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = r"""
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static void stamp(int out, char what) {
    struct timespec now;
    char line[64];
    clock_gettime(CLOCK_BOOTTIME, &now);
    long long ns = now.tv_sec * 1000000000LL + now.tv_nsec;
    int length = snprintf(line, sizeof line, "%c %lld %d\n", what, ns, getpid());
    if (write(out, line, length) != length) _exit(1);
}

int main(int argc, char **argv) {
    char byte;
    if (argc != 3) return 2;
    int out = open(argv[1], O_WRONLY);
    stamp(out, 'S');
    if (read(open(argv[2], O_RDONLY), &byte, 1) != 1) return 1;
    stamp(out, 'E');
    return 0;
}
"""
SCRIPT = 'date +"S %s%N $$" > "$1"; read -r _ < "$2"; date +"E %s%N $$" > "$1"'


class Baton:
    """The command, and the two named pipes in `folder` by which it is told and tells.

    `argv` is what to run; any number of copies may wait for their turn, one at a time may run.
    `exact` says whether it is the one in C.
    """

    def __init__(self, folder: Path) -> None:
        compiler = commands.program("cc")
        self.exact = compiler is not None
        helper = ["/bin/sh", "-c", SCRIPT, "baton"]
        if compiler:
            helper = [str(folder / "baton")]
            source = folder / "baton.c"
            source.write_text(SOURCE)
            subprocess.run([compiler, "-O2", "-o", *helper, str(source)], check=True)
        pipes = [str(folder / name) for name in ("told", "go")]
        for pipe in pipes:
            os.mkfifo(pipe)
        # For reading and writing, so that nobody's open() waits for the other side.
        self._told, self._go = (os.open(pipe, os.O_RDWR | os.O_CLOEXEC) for pipe in pipes)
        self._lines: list[bytes] = []
        self.argv = [*helper, *pipes]

    def started(self) -> tuple[int, int]:
        """Wait for the next start: (time in ns, pid of the command). Raises Broken after PATIENCE."""
        return self._next(b"S")

    def finish(self) -> int:
        """Let the copy that runs end; the time in ns at which it did."""
        os.write(self._go, b"\n")
        return self._next(b"E")[0]

    def _next(self, kind: bytes) -> tuple[int, int]:
        while not self._lines:
            if not select.select([self._told], [], [], measure.PATIENCE)[0]:
                raise measure.Broken(f"no command said {kind.decode()!r} in {measure.PATIENCE:.0f} s")
            self._lines = os.read(self._told, 65536).splitlines()
        what, stamp, pid = self._lines.pop(0).split()
        if what != kind:
            raise measure.Broken("two commands ran at once")
        return int(stamp), int(pid)
