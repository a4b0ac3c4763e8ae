"""The lock in Postgres, beside dislock's, which has no waiting: what finds its lock held ends."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from bench import commands, handover, measure, servers, startup
from bench.baton import Baton
from bench.handover import Queue, Times

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.postgres import Postgres

ROUNDS = 20
SECONDS = 30
# Until what has just been started does nothing but hold or wait; dislock polls, so it is never at rest.
SETTLED = 3
DISLOCK_TABLE = (
    "CREATE TABLE key_value (key text PRIMARY KEY, value text NOT NULL, expire_at timestamptz NOT NULL)"
)


def report(folder: Path) -> None:
    """Print the tables."""
    with servers.postgres() as server:
        _prepare(server)
        _startup(server)
        _handover(folder, server)
    with servers.postgres(log_statement="all", log_line_prefix="by=%a ") as server:
        _prepare(server)
        _statements(folder, server)


def _prepare(server: Postgres) -> None:
    """Make dislock's table; ours makes itself."""
    server.run(DISLOCK_TABLE)
    server.run("GRANT ALL ON key_value TO app")


def _startup(server: Postgres) -> None:
    python = commands.PYTHON
    candidates = {
        startup.PYTHON: [python, "-c", "pass"],
        "python -c 'import psycopg'": [python, "-c", "import psycopg"],
        "dislock lease": commands.dislock(server.url, "b", startup.TRUE),
        "singleton-run": commands.behind(server.url, "b", startup.TRUE),
        commands.STANDALONE.name: commands.standalone(server.url, "b", startup.TRUE),
    }
    title = f"Postgres: start to end of `true`, {ROUNDS} rounds"
    bases = {"x python": lambda _: startup.PYTHON, "x dislock": lambda _: "dislock lease"}
    startup.table(title, ROUNDS, candidates, bases)


def _handover(folder: Path, server: Postgres) -> None:
    makers = commands.makers(server.url)
    rows = []
    note = ""
    for waiters in (2, 20):
        times = Times(makers, folder, waiters)
        note = times.note
        rows += [times.row(name, f"{name}, {waiters} waiting", "")[:3] for name in makers]
    rows.append(["dislock", "-", "-"])
    title = (
        f"Postgres: hand-over, {handover.ROUNDS} rounds (target: p50 <= 10 ms{note}; dislock doesn't wait)"
    )
    measure.table(title, ["", "p50 ms", "p99 ms"], rows)


class _Log:
    """The server's log of statements, with the name of the program that said each."""

    def __init__(self, server: Postgres) -> None:
        self._path = server.data.with_suffix(".log")

    def counts(self) -> dict[str, int]:
        """Statements so far by the program's name."""
        found = re.findall(r"(?m)^by=(\S*) LOG: +(?:statement|execute )", self._path.read_text())
        return {name: found.count(name) for name in set(found)}

    def span(self) -> dict[str, float]:
        """Statements a minute by the program's name."""
        before = self.counts()
        time.sleep(SECONDS)
        after = self.counts()
        return {name: (count - before.get(name, 0)) * 60 / SECONDS for name, count in after.items()}


def _statements(folder: Path, server: Postgres) -> None:
    """A waiter's are what there are more with it than without."""
    names = {"dislock": "[unknown]", "singleton-run": "singleton-run"}
    makers = {"dislock": commands.dislock, "singleton-run": commands.behind}
    queues: dict[str, Queue] = {}
    log = _Log(server)
    try:
        for name, make in makers.items():
            own = folder / name
            own.mkdir()
            baton = Baton(own)
            if argv := make(server.url, name, *baton.argv):
                queues[name] = Queue(argv, baton, 0)
        time.sleep(SETTLED)
        alone = log.span()
        if ours := queues.get("singleton-run"):
            ours.add()
        time.sleep(SETTLED)
        together = log.span()
    finally:
        for queue in queues.values():
            queue.close()
    rows = []
    for name, program in names.items():
        cell = f"{alone.get(program, 0):.0f}" if name in queues else commands.advice(name)
        rows.append([f"{name}, holder", cell])
    program = names["singleton-run"]
    more = together.get(program, 0) - alone.get(program, 0)
    rows.append(["singleton-run, waiter", f"{more:.0f}" if "singleton-run" in queues else "-"])
    title = f"Postgres: statements in {SECONDS} s as the server's log counts them, ttl 30 s, dislock's 60 s"
    measure.table(title, ["", "statements/min"], rows)
