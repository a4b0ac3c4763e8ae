"""PostgreSQL behind four proxies, or behind a pgbouncer behind them."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from tests.faults.contenders import CONTENDERS
from tests.faults.sites.site import Site, fill, small_disk, with_clock
from tests.servers import postgres
from tests.support.proxy import proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.sites.site import Record
    from tests.servers.postgres import Pgbouncer, Postgres

ROLE = sql.Identifier(postgres.ROLE)
# What the peer dislock wants to find; ours makes its own table.
DISLOCK_TABLE = "CREATE TABLE key_value (key text PRIMARY KEY, value text NOT NULL, expire_at timestamptz)"


class PostgresSite(Site):
    """One server. `disk` is where its data are, `clock` the file with the difference of its clock."""

    def __init__(
        self, name: str, server: Postgres, pooler: Pgbouncer | None, disk: Path, clock: Path
    ) -> None:
        super().__init__(name)
        self.server = server
        self.pooler = pooler
        self.disk = disk
        self.clock = clock
        self.filler: Path | None = None
        self.frozen: ExitStack | None = None
        self.changed = False

    def lock(self, contender: int, round_directory: Path) -> str:
        """By the contender's own proxy."""
        door = self.pooler or self.server
        return door.url.replace(f":{door.port}/", f":{self.proxies[contender].port}/")

    def environ(self, contender: int) -> dict[str, str]:
        """Nothing said of other servers."""
        return dict(postgres.client_environment())

    def crash(self) -> None:
        """The postmaster and all of its children at once."""
        self.server.kill()

    def crash_pooler(self) -> None:
        """SIGKILL to pgbouncer."""
        assert self.pooler is not None
        self.pooler.end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP to all of the server's processes."""
        self.frozen = ExitStack()
        self.frozen.enter_context(self.server.stopped())

    def fill_disk(self) -> None:
        """No room on its disk; written to until it notices, which ends it."""
        self.filler = fill(self.disk)
        try:
            for _ in range(400):
                self.server.run("SELECT pg_logical_emit_message(true, '', repeat('x', 1000000))")
        except psycopg.Error:
            return
        raise AssertionError("PostgreSQL takes whatever is written")

    def forbid_writes(self) -> None:
        """Every transaction is read-only from now on."""
        self._setting("ALTER SYSTEM SET default_transaction_read_only = on")

    def _setting(self, statement: str) -> None:
        self.changed = True
        self.server.run(sql.SQL(statement), database="postgres")
        self.server.run("SELECT pg_reload_conf()", database="postgres")

    def refuse_connections(self) -> None:
        """The role may not connect any more, and has no session."""
        self.changed = True
        self.server.run(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 0").format(ROLE))
        self.end_sessions()

    def change_password(self) -> None:
        """The contenders' password isn't right any more, and they have no session."""
        self.changed = True
        self.server.run(sql.SQL("ALTER ROLE {} PASSWORD 'second'").format(ROLE))
        self.end_sessions()

    def end_sessions(self) -> None:
        """An administrator ends every session of the role's, those of a pooler too."""
        ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
        self.server.run(ending, [postgres.ROLE])

    def step_clock(self, seconds: int) -> None:
        """The server's wall clock leaps, and stays there."""
        self.clock.write_text(f"{seconds:+d}\n")

    def heal(self) -> None:
        """Whatever was done is undone, but for the clock; it is started if it has ended."""
        if self.frozen is not None:
            self.frozen.close()
            self.frozen = None
        if self.filler is not None:
            self.filler.unlink(missing_ok=True)
            self.filler = None
            self.server.kill()
        if not self.server.runs():
            self.server.kill()
            self.server.start()
        if self.pooler is not None and not self.pooler.runs():
            self.pooler.end(signal.SIGKILL)
            self.pooler.start()
        if self.changed:
            self.changed = False
            undo = sql.SQL("ALTER ROLE {} CONNECTION LIMIT -1 PASSWORD {}").format(ROLE, postgres.PASSWORD)
            with self.server.connect("postgres") as connection:
                connection.execute("SET default_transaction_read_only = off")
                connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
                connection.execute(undo)
                connection.execute("SELECT pg_reload_conf()")

    def record(self, name: str, round_directory: Path) -> Record:
        """The row's column."""
        rows = self.server.run("SELECT record FROM singleton_run_lock WHERE name = %s", [name])
        return dict(json.loads(rows[0][0])) if rows and rows[0][0] else {}

    def delete(self, name: str, round_directory: Path) -> None:
        """Somebody deletes the row by hand, and tells those who wait."""
        self.server.delete_lock(name)

    def overwrite(self, name: str, round_directory: Path) -> None:
        """Somebody gives the row back by hand, and tells those who wait."""
        taking = "UPDATE singleton_run_lock SET holder = '', until = clock_timestamp() WHERE name = %s"
        self.server.run(taking, [name])
        self.server.run("SELECT pg_notify(%s, '')", [f"singleton_run:{name}"])


@contextmanager
def opened(name: str, world: str, folder: Path) -> Iterator[Site]:
    """The server as `world` says, with a pooler if that is the site's name."""
    with ExitStack() as stack:
        place = None
        if world == "small disk":
            place = stack.enter_context(small_disk(folder / "disk", 160))
            folder.chmod(0o755)
        clock = stack.enter_context(postgres.folder()) / "clock"
        environ = with_clock(clock) if world == "own clock" else {}
        server = stack.enter_context(postgres.running(place, environ))
        pooler = stack.enter_context(postgres.pooled(server)) if name == "pgbouncer" else None
        server.run(DISLOCK_TABLE)
        server.run(sql.SQL("GRANT ALL ON key_value TO {}").format(ROLE))
        site = PostgresSite(name, server, pooler, place or folder, clock)
        door = pooler or server
        site.proxies = [stack.enter_context(proxy(door.port)) for _ in range(CONTENDERS)]
        yield site
