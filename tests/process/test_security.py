"""What docs/security.md says is protected, attacked."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from singleton_run.api.http.proxy import choose
from singleton_run.api.url import host_and_port
from singleton_run.errors import Failure
from singleton_run.names import check_name, default_name
from singleton_run_etcd.address import Address as EtcdAddress
from singleton_run_etcd.keys import Keys
from singleton_run_postgres import open_backend as open_postgres
from singleton_run_postgres.statements import quoted
from tests.servers import etcd, postgres
from tests.support.harness import PROGRAM, TREE, Lab, Run, below, environment, title, until
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
CANARY = "canary-7Qx"

# Names stay where they belong.

NAMES = st.one_of(
    st.text(max_size=30),
    st.text(st.sampled_from("./\\%2eE\0\n-_~a:@+ éА"), max_size=12),
    st.sampled_from(
        ["..", ".", "../x", "a/../b", "%2e%2e", "a/b", "a\\..\\b", "~root", "", "-x", "\uff41", "\u017f"]
    ),
)


@settings(max_examples=400)
@given(NAMES)
def test_a_legal_name_is_one_plain_word_everywhere(name: str) -> None:
    try:
        check_name(name)
    except ValueError:
        return
    path = os.path.normpath(f"/locks/{name}.lock")
    assert (os.path.dirname(path), os.path.basename(path)) == ("/locks", f"{name}.lock")
    assert name.isascii()
    assert name.isprintable()
    assert set(name).isdisjoint("/\\%'\"; \t")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1))
def test_so_is_the_name_that_is_made_of_a_command(command: list[str]) -> None:
    check_name(default_name(command))


LEGAL = st.text(st.sampled_from("aA0.-_:@+é"), min_size=1, max_size=6).filter(
    lambda name: name.isascii() and name[0] not in ".-"
)
PREFIXES = st.text(st.sampled_from("aA0.%2Fe/é-"), max_size=8)


@given(PREFIXES, LEGAL, LEGAL)
def test_two_names_have_nothing_in_common_below_a_prefix(prefix: str, one: str, other: str) -> None:
    """Not even by case, and no name reaches the keys in which the records are."""
    try:
        address = EtcdAddress(f"etcd://h/{prefix}", {})
    except Failure:
        return
    keys = Keys(address.prefix)
    queues = [keys.queue(name) for name in (one, other)]
    records = [keys.record(name) for name in (one, other)]
    for key in queues:
        assert key.startswith(address.prefix)
        assert key.removeprefix(address.prefix).count("/") == 1
        assert not key.startswith("singleton-run/")
    assert (queues[0] == queues[1]) == (one == other) == (records[0] == records[1])
    assert one == other or not queues[0].startswith(queues[1])


def test_names_that_differ_in_case_or_ending_are_two_locks_of_two_files(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        run = lab.start(command=lab.long_job())
        lab.ready()
        for name in (lab.name.upper(), f"{lab.name}.lock", f"{lab.name}.json", "_..", "a:..:b"):
            lab.name = name
            assert lab.start("-n", command=["true"]).wait() == 0
        lab.finish()
        assert run.wait() == 0
    assert {path.parent for path in lab.directory.rglob("*.lock")} == {lab.locks}


# Nothing is injected.


@given(st.text())
def test_an_identifier_of_sql_ends_where_it_ends(text: str) -> None:
    inner = quoted(text)[1:-1]
    assert inner.replace('""', "") == text.replace('"', "")
    assert inner.count('"') == 2 * text.count('"')


@pytest.mark.parametrize("break_", ["\r\n", "\n", "%0d%0a", "\r", "\0"])
def test_a_line_of_http_can_not_be_broken(break_: str) -> None:
    for text in (f"h{break_}X-Evil: 1", f"[::1{break_}]", f"h:1{break_}", f"h{break_}:1"):
        if "%" not in text:
            with pytest.raises(ValueError, match="port"):
                host_and_port(text, 1)
            with pytest.raises(Failure):
                choose("etcd.example", 1, {"HTTPS_PROXY": f"http://{text}"})
    proxy = choose("etcd.example", 1, {"HTTPS_PROXY": f"http://user{break_}:word{break_}@h:1"})
    assert proxy is not None
    assert proxy.authorization.isprintable()
    EtcdAddress(f"etcd://user{break_}X:pass{break_}X@h/{break_}", {})  # these travel as JSON and base64


@pytest.mark.servers
def test_a_table_with_quotes_in_its_name_is_only_that(tmp_path: Path, database: postgres.Postgres) -> None:
    evil = "x%22%3B%20DROP%20TABLE%20victim%3B%20--"
    database.run("CREATE TABLE victim ()")
    with Lab(tmp_path) as lab:
        lab.lock = f"{database.url}?singleton_run_table={evil}"
        run = lab.start(command=["true"])
        assert (run.wait(), run.said) == (0, "")
    assert database.run("SELECT count(*) FROM victim") == [(0,)]
    assert database.run('SELECT count(*) FROM "x""; DROP TABLE victim; --"') == [(1,)]


# The directory of file locks belongs to one user.


@pytest.fixture
def square() -> Iterator[Path]:
    """A folder like /tmp, where everybody may make what is his own."""
    if os.geteuid():
        pytest.skip("needs root, to be two users: sudo make test ARGS=tests/process/test_security.py")
    path = Path(tempfile.mkdtemp(prefix="singleton-run-"))
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path)


def attack(code: str, *words: Path) -> int:
    """Run Python as another user, who has no right of ours; the exit status."""
    script = f"import os, sys; a = sys.argv[1:]; {code}"
    command = [sys.executable, "-I", "-S", "-c", script, *map(str, words)]
    command = ["/usr/bin/env", "python3", *command[1:]] if not _may_execute(sys.executable) else command
    done = subprocess.run(
        command, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", check=False, capture_output=True
    )
    return done.returncode


def _may_execute(program: str) -> bool:
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in Path(program).resolve().parents)


def call_in(directory: Path) -> tuple[int, str]:
    """Run a command under a lock in that directory: its status, and what was said."""
    call = [
        *PROGRAM,
        "--lock",
        f"file://{directory}",
        "--name",
        "x",
        "--",
        "true",
    ]
    done = subprocess.run(
        call, env=environment(), cwd=TREE, check=False, capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stderr


def refused_in(directory: Path, word: str) -> None:
    status, said = call_in(directory)
    assert (status, said.count("\n")) == (78, 1), said
    assert word in said


def test_a_directory_of_our_own_in_a_sticky_one_is_ours(square: Path) -> None:
    assert call_in(square / "mine") == (0, "")
    assert attack("os.rename(a[0], a[1])", square / "mine", square / "taken") == 1
    assert attack("os.open(a[0], os.O_RDWR)", square / "mine" / "x.lock") == 1
    assert attack("os.link(a[0], a[1])", square / "mine" / "x.lock", square / "link") == 1
    assert call_in(square / "mine") == (0, "")


def test_another_s_directory_is_refused(square: Path) -> None:
    assert attack("os.mkdir(a[0], 0o755)", square / "locks") == 0
    refused_in(square / "locks", "another user")
    refused_in(square, "written by others")


def test_another_s_link_is_not_followed(square: Path) -> None:
    target = square / "target"
    target.mkdir(mode=0o700)
    assert attack("os.symlink(a[0], a[1])", target, square / "locks") == 0
    refused_in(square / "locks", "another user")
    refused_in(square / "locks" / "deeper", "another user")
    refused_in(square / "locks" / ".." / "locks" / "deeper", "another user")
    assert list(target.iterdir()) == []


def test_a_directory_that_another_could_exchange_is_refused(square: Path) -> None:
    assert attack("os.mkdir(a[0], 0o777)", square / "his") == 0
    (square / "his" / "ours").mkdir(mode=0o700)
    refused_in(square / "his" / "ours", "exchanged")
    refused_in(square / "his" / "new" / "ours", "exchanged")
    assert not (square / "his" / "new").exists()
    loose = square / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    refused_in(loose / "ours", "exchanged")
    loose.chmod(0o1777)
    assert call_in(loose / "ours") == (0, "")
    loose.chmod(0o775)
    os.chown(loose, 0, NOBODY)
    refused_in(loose / "ours", "exchanged")


def test_what_others_can_write_is_not_made_under_any_umask(square: Path) -> None:
    before = os.umask(0)
    try:
        assert call_in(square / "a" / "b" / "c") == (0, "")
        assert call_in(square / "a" / "b" / "c") == (0, "")
    finally:
        os.umask(before)
    for path in square.rglob("*"):
        assert not path.stat().st_mode & 0o022, path


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "device", "socket", "directory", "another's"])
def test_a_lock_file_that_is_none_is_refused_and_left_alone(square: Path, kind: str) -> None:
    locks = square / "locks"
    locks.mkdir(mode=0o700)
    lock, victim = locks / "x.lock", square / "victim"
    victim.write_text("precious")
    if kind == "link":
        lock.symlink_to(victim)
    elif kind == "hard link":
        lock.hardlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(lock)
    elif kind == "device":
        os.mknod(lock, 0o020600, os.makedev(1, 3))
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(lock))
    elif kind == "directory":
        lock.mkdir()
    else:
        lock.write_text("")
        os.chown(lock, NOBODY, NOBODY)
    before = lock.lstat()
    refused_in(locks, "x.lock")
    assert os.path.samestat(before, lock.lstat())
    assert victim.read_text() == "precious"


# Passwords are nowhere.


@pytest.fixture(scope="module")
def database() -> Iterator[postgres.Postgres]:
    with postgres.running() as server:
        server.run(f"CREATE ROLE canary LOGIN PASSWORD '{CANARY}' IN ROLE app")
        server.run("GRANT CREATE, USAGE ON SCHEMA public TO canary")
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd.Etcd]:
    with etcd.running(tmp_path_factory.mktemp("etcd")) as server:
        server.ctl("user", "add", f"canary:{CANARY}")
        server.enable_users("rootword")
        server.ctl("user", "grant-role", "canary", "root")
        yield server


def place_of(request: pytest.FixtureRequest, scheme: str) -> str:
    """Where the server of a scheme is, as in a URL."""
    if scheme == "postgresql":
        return f"127.0.0.1:{request.getfixturevalue('database').port}/app"
    return str(request.getfixturevalue("cluster").address)


def environ_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.servers
@pytest.mark.parametrize("scheme", ["etcd", "etcd+grpc", "postgresql"])
@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_password_is_in_no_list_of_processes_no_log_and_not_with_the_command(
    request: pytest.FixtureRequest, tmp_path: Path, scheme: str, way: str
) -> None:
    url = f"{scheme}://canary:{CANARY}@{place_of(request, scheme)}"
    with Lab(tmp_path) as lab:
        options = ["-vv", "--log-format", "json"]
        if way == "option":
            lab.lock = url
            run = lab.start(*options, command=lab.long_job())
        else:
            words = [
                *PROGRAM,
                "--name",
                lab.name,
                *options,
                "--",
                *lab.long_job(),
            ]
            run = Run(words, lab.directory, environ=environment(SINGLETON_RUN_LOCK=url))
            lab.runs.append(run)
        lab.ready()
        processes = [run.pid, *below(run.pid)]
        assert any(title(process).startswith("singleton-run: keeper of") for process in processes)
        assert [title(process) for process in processes if CANARY in title(process)] == []
        commands = lab.tree()
        assert all(environ_of(process) for process in commands if title(process))
        assert [process for process in commands if CANARY.encode() in environ_of(process)] == []
        lab.finish()
        assert run.wait() == 0, run.said
        assert '"event":"started"' in run.said
        assert '"event":"request"' in run.said
        assert CANARY not in run.said


@pytest.mark.servers
@pytest.mark.parametrize("scheme", ["etcd", "etcd+grpc", "postgresql"])
def test_a_password_in_a_variable_of_the_server_s_own_is_in_no_trace(
    request: pytest.FixtureRequest, tmp_path: Path, scheme: str
) -> None:
    logins = {"ETCDCTL_USER": "canary", "ETCDCTL_PASSWORD": CANARY, "PGUSER": "canary", "PGPASSWORD": CANARY}
    with Lab(tmp_path) as lab:
        lab.lock = f"{scheme}://{place_of(request, scheme)}"
        run = lab.start("-vv", command=lab.job(), environ=environment(**logins))
        assert run.wait() == 0, run.said
        assert "keeper request" in run.said
        assert CANARY not in run.said


@pytest.mark.servers
@pytest.mark.parametrize("scheme", ["etcd", "etcd+grpc", "postgresql"])
def test_a_password_is_in_no_error(request: pytest.FixtureRequest, tmp_path: Path, scheme: str) -> None:
    place = place_of(request, scheme)
    nobody = free_port()
    wrong = {
        f"{scheme}://canary:{CANARY}wrong@{place}": 77,
        f"{scheme}://canary:{CANARY}@127.0.0.1:{nobody}": 69,
        f"{scheme}://canary:{CANARY}@nowhere.invalid": 69,
        f"{scheme}://canary:{CANARY}@{place}?nonsense=1&password={CANARY}": 78,
        f"{scheme}://canary:{CANARY}@127.0.0.1:99999": 78,
        f"{scheme}://canary:{CANARY}%zz@{place}": 78,
        f"{scheme}://canary:{CANARY}@[::1": 78,
        f"{scheme} ://canary:{CANARY}@{place}": 2,
        f"none://canary:{CANARY}@{place}": 78,
    }
    with Lab(tmp_path) as lab:
        for number, (lock, status) in enumerate(wrong.items()):
            lab.lock = lock
            form = ("text", "json")[number % 2]
            run = lab.start("-vv", "--log-format", form, "--wait", "0", command=["true"])
            assert run.wait() == status, run.said
            assert run.said
            assert CANARY not in run.said
        lock = f"{scheme}://canary:{CANARY}@{place}"
        for words in (
            ["--lock", lock, "true"],
            ["--lock", lock, "--nonsense", "--"],
            [f"--lok={lock}", "--", "x"],
        ):
            done = subprocess.run(
                [*PROGRAM, *words],
                env=environment(),
                check=False,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 2
            assert CANARY not in done.stderr + done.stdout


# Who answers is checked.


class TlsPeer:
    """A server that speaks TLS with a certificate, after libpq's request for it or at once.

    `heard` is what came through; it never answers.
    """

    def __init__(self, signed: trustme.LeafCert) -> None:
        self.heard: list[bytes] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.set_alpn_protocols(["h2", "http/1.1"])
        signed.configure_cert(self._context)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listening.accept()[0]
            except OSError:
                return
            connection.settimeout(5)
            try:
                if connection.recv(8, socket.MSG_PEEK)[:1] == b"\0":
                    connection.recv(8)
                    connection.sendall(b"S")
                with self._context.wrap_socket(connection, server_side=True) as secure:
                    if heard := secure.recv(65536):
                        self.heard.append(heard)
            except OSError:
                connection.close()

    def close(self) -> None:
        """Serve nobody any more."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def certificate(authority: trustme.CA, fault: str) -> trustme.LeafCert:
    """The certificate of a server at localhost, with something wrong about it."""
    if fault == "expired":
        past = dt.datetime.now(dt.UTC) - dt.timedelta(days=30)
        return authority.issue_cert("localhost", not_before=past, not_after=past + dt.timedelta(days=1))
    if fault == "of another host":
        return authority.issue_cert("another.example")
    if fault == "of another authority":
        return trustme.CA().issue_cert("localhost")
    return authority.issue_cert("localhost")


def lock_at(scheme: str, port: int, authority: Path) -> str:
    """A lock there, which trusts one authority and is what its scheme takes for the default otherwise."""
    login = f"{scheme}://canary:{CANARY}@localhost:{port}"
    if scheme == "postgresql":
        return f"{login}/app?sslmode=verify-full&sslrootcert={authority}"
    return f"{login}/?cacert={authority}"


@pytest.mark.parametrize("scheme", ["etcd", "etcd+grpc", "postgresql"])
@pytest.mark.parametrize("fault", ["expired", "of another host", "of another authority", ""])
def test_a_server_with_a_wrong_certificate_hears_nothing(
    tmp_path: Path, authority: trustme.CA, scheme: str, fault: str
) -> None:
    """And one with the right certificate does."""
    peer = TlsPeer(certificate(authority, fault))
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(authority.cert_pem.bytes())
    try:
        with Lab(tmp_path) as lab:
            lab.lock = lock_at(scheme, peer.port, trusted)
            run = lab.start("-n", command=["true"])
            if fault:
                assert run.wait() == 78, run.said
                assert CANARY not in run.said
                assert peer.heard == []
            else:
                until(lambda: peer.heard, "something to come through")
    finally:
        peer.close()


def test_the_default_of_https_is_to_check(tmp_path: Path, authority: trustme.CA) -> None:
    """Against the system's authorities, of which ours is none."""
    peer = TlsPeer(certificate(authority, ""))
    try:
        with Lab(tmp_path) as lab:
            for scheme in ("etcd", "etcd+grpc"):
                lab.lock = f"{scheme}://canary:{CANARY}@localhost:{peer.port}/?tls=true"
                run = lab.start("-n", command=["true"])
                assert run.wait() == 78, run.said
                assert peer.heard == []
    finally:
        peer.close()


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgres://db.example/app", "prefer"),
        ("postgres://db.example/app?sslmode=require", "require"),
        ("postgres://localhost,db.example/app?sslmode=allow", "allow"),
        ("postgres://db.example/app?sslmode=verify-full", ""),
        ("postgres://db.example/app?sslmode=verify-ca", ""),
        ("postgres://db.example/app?sslmode=require&sslrootcert=/dev/null", ""),
        ("postgres://db.example/app?sslmode=disable", ""),
        ("postgres://127.0.0.1/app", ""),
        ("postgres://localhost/app?sslmode=require", ""),
        ("postgres:///app", ""),
        ("postgres:///app?host=db.example&hostaddr=127.0.0.1", ""),
    ],
)
def test_a_certificate_of_postgres_that_nobody_checks_is_said_loudly(
    monkeypatch: pytest.MonkeyPatch, url: str, mode: str
) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nowhere")
    warning = open_postgres(url, {}).warning
    assert (f"not checked (sslmode={mode})" in warning[1]) if mode and warning else warning is None
