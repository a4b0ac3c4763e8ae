"""Rubbish in options, variables and URLs: one line, status 2 or 78, and no server hears of it.

Most is done in this process, by the functions that a call goes through. A NUL can't be given to a
real process, for exec(2) takes none; in a URL it can be written as %00.
"""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from singleton_run.api import registry
from singleton_run.call import click_parser, fast_parser
from singleton_run.call.executable import find
from singleton_run.call.options import OPTIONS
from singleton_run.call.settings import Settings, check
from singleton_run.durations import seconds
from singleton_run.errors import NOT_FOUND, UNUSABLE, USAGE, Failure
from tests.support.harness import LIMIT, PROGRAM, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from singleton_run.call.options import Option

SETTABLE = [option for option in OPTIONS if option.variable]
VALUED = [option for option in SETTABLE if option.kind in fast_parser.WITH_VALUE]
MILLION = 1 << 20

# What argv and environ can have in them: every character, and bytes that are no text.
LETTERS = st.one_of(st.characters(codec="utf-8"), st.integers(0xDC80, 0xDCFF).map(chr))
WORDS = st.one_of(
    st.text(LETTERS, max_size=20),
    st.text(st.sampled_from("0123456789.-+eE_%:/@?&=#[],;'\"\\ \t\r\n\0\x1b²٣hmsdPT"), max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["1e9", "9" * 5000, "0x10", "1_0", "٣s", "²", "-0", "+5", "1h1h", "PT", "nan", "inf"]),
)
LONG = st.text(LETTERS, min_size=1, max_size=3).map(lambda text: text * (MILLION // len(text)))
RUBBISH = st.one_of(WORDS, LONG)
VALID = ["file", "30s", "1", "TERM", "TERM:INT", "kill", "json", "backup", "forever"]
NOISY = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@st.composite
def damaged(draw: st.DrawFn, texts: Sequence[str]) -> str:
    """One of the texts with something put in, taken out or doubled, or nothing done to it."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, len(text)))
        text = text[:start] + draw(st.one_of(RUBBISH, st.just(text[start:end] * 2))) + text[end:]
    return text


class Outcome:
    """What a call came to before anything is contacted: settings, or a status and what was said."""

    def __init__(self, call: Settings | None, status: int, said: str) -> None:
        self.call = call
        self.status = status
        self.said = said

    def is_well_said(self) -> bool:
        """One printable line that isn't endless, and a status that stands for a mistake."""
        is_line = self.said.isprintable() and 0 < len(self.said) < 5000
        return self.status in (USAGE, UNUSABLE) and is_line


def outcome(argv: Sequence[str], environ: Mapping[str, str], stderr: Path) -> Outcome:
    """Read and check a call as the program does."""
    saved = os.dup(2)
    with stderr.open("w+b") as file:
        os.dup2(file.fileno(), 2)
        try:
            values = fast_parser.read(argv, environ) or click_parser.parse(argv, environ)
            return Outcome(check(values, environ), 0, "")
        except Failure as failure:
            return Outcome(None, failure.status, str(failure))
        except SystemExit as end:
            said = stderr.read_bytes().decode()
            return Outcome(None, int(end.code or 0), said.removesuffix("\n"))
        finally:
            os.dup2(saved, 2)
            os.close(saved)


@pytest.fixture(scope="module")
def stderr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("said") / "stderr"


@pytest.fixture(scope="module")
def server() -> Iterator[socket.socket]:
    """A server that nobody may come to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def assert_nobody_came(server: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        server.accept()


@NOISY
@given(st.sampled_from(VALUED), st.one_of(RUBBISH, damaged(VALID)), st.booleans())
def test_an_option_s_value_is_understood_or_refused(
    stderr: Path, option: Option, value: str, joined: bool
) -> None:
    flag = option.flags[-1]
    words = [f"{flag}={value}"] if joined else [flag, value]
    result = outcome([*words, "--", "true"], {}, stderr)
    assert result.call or result.is_well_said(), result.said


@NOISY
@given(st.sampled_from(SETTABLE), st.one_of(RUBBISH, damaged([*VALID, "yes", "0"])))
def test_a_variable_is_understood_or_refused(stderr: Path, option: Option, value: str) -> None:
    result = outcome(["--", "true"], {option.variable: value}, stderr)
    assert result.call or result.is_well_said(), result.said


@NOISY
@given(st.lists(st.one_of(WORDS, damaged(["--name", "-vv", "-n", "completion", "bash", "--"])), max_size=4))
def test_words_that_are_no_options_are_refused(stderr: Path, words: list[str]) -> None:
    result = outcome([*(word for word in words if word != "--"), "-x", "--", "true"], {}, stderr)
    assert result.call or result.is_well_said(), result.said


@NOISY
@given(RUBBISH)
def test_a_duration_is_a_number_of_seconds_or_a_sentence(text: str) -> None:
    try:
        found = seconds(text)
    except ValueError as error:
        found = float(not str(error))
    else:
        assert 0 <= found < 1e10


@NOISY
@given(RUBBISH, RUBBISH)
def test_a_command_that_is_none_is_not_found(command: str, path: str) -> None:
    # A million entries, with a command of a million characters in each of them, would take hours.
    command, path = command.replace("\0", ""), path.replace("\0", "")[:100]
    with pytest.raises(Failure) as failure:
        find(f"/nowhere/{command.replace('..', '')}", {})
    assert failure.value.status in (NOT_FOUND, 126)
    with pytest.raises(Failure) as failure:
        find(command.replace("/", "") + "-nowhere", {"PATH": path})
    assert failure.value.status in (NOT_FOUND, 126)


ETCD_URLS = [
    "etcd://127.0.0.1:{port}/jobs?tls=false",
    "etcd://user:word@127.0.0.1:{port},[::1]:{port}/jobs",
    "etcd://127.0.0.1:{port}/jobs?insecure-skip-tls-verify=false",
    "etcd://127.0.0.1:{port}/jobs?cacert=/nowhere&cert=/nowhere&key=/nowhere&server-name=x",
]
POSTGRES_URLS = [
    "postgres://user:word@127.0.0.1:{port}/app?sslmode=prefer&connect_timeout=3",
    "postgresql://127.0.0.1:{port},127.0.0.1:{port}/?singleton_run_schema=s&singleton_run_table=t",
    "postgres:///app?host=127.0.0.1&port={port}&hostaddr=127.0.0.1&options=-c%20a%3Db",
]
REDIS_URLS = [
    "redis://user:word@127.0.0.1:{port}/1?username=user&password=word",
    "rediss://127.0.0.1:{port}?ssl_cert_reqs=none&ssl_ca_certs=/nowhere&ssl_server_name=x",
    "unix://:word@/run/redis/socket?db=2",
    "redis+sentinel://user:word@127.0.0.1:{port},[::1]:{port}/name?sentinel_password=word&db=1",
    "redis+cluster://user:word@127.0.0.1:{port},[::1]:{port}?replicas=1",
    "rediss+sentinel://127.0.0.1:{port}/name?sentinel_username=u&ssl_server_name=x&ssl_cert_reqs=none",
    "rediss+cluster://127.0.0.1:{port},[::1]:{port}?ssl_certfile=/nowhere&ssl_keyfile=/nowhere",
    "rediss+quorum://127.0.0.1:{port},[::1]:{port},localhost:{port}/1?ssl_ca_certs=/nowhere",
]


def opened(lock: str, environ: Mapping[str, str]) -> Failure | None:
    """Open a backend and close it, or what it was refused with."""
    try:
        registry.open_backend(lock, environ).close()
    except Failure as failure:
        refusal = failure
    else:
        return None
    assert refusal.status == UNUSABLE
    assert Outcome(None, refusal.status, str(refusal)).is_well_said()
    return refusal


@NOISY
@given(data=st.data())
def test_a_url_is_understood_or_refused_and_nobody_is_contacted(
    server: socket.socket, data: st.DataObject
) -> None:
    port = server.getsockname()[1]
    lock = data.draw(damaged([url.format(port=port) for url in [*ETCD_URLS, *POSTGRES_URLS, *REDIS_URLS]]))
    # Not by gRPC, which can be loaded once in a process: its addresses are read by the same class.
    if not lock.startswith(("file", "etcd+grpc")):
        opened(lock, {})
    assert_nobody_came(server)


@NOISY
@given(RUBBISH)
def test_a_directory_is_understood_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    place = tmp_path_factory.mktemp("locks")
    opened(f"file://{place}/{text.replace('..', '')}", {})


ETCD_VARIABLES = [
    "ETCDCTL_ENDPOINTS",
    "ETCDCTL_USER",
    "ETCDCTL_PASSWORD",
    "ETCDCTL_CACERT",
    "ETCDCTL_CERT",
    "ETCDCTL_KEY",
    "ETCDCTL_INSECURE_SKIP_TLS_VERIFY",
    "ETCDCTL_DISCOVERY_SRV",
    "HTTPS_PROXY",
    "NO_PROXY",
]
PLACES = ["127.0.0.1:{port}", "https://127.0.0.1:{port},[::1]:{port}", "root:word", "true", "/dev/null", "*"]


@NOISY
@given(st.sampled_from(ETCD_VARIABLES), st.data())
def test_a_variable_of_etcdctl_is_understood_or_refused(
    server: socket.socket, variable: str, data: st.DataObject
) -> None:
    port = server.getsockname()[1]
    value = data.draw(st.one_of(RUBBISH, damaged([place.format(port=port) for place in PLACES])))
    environ = {"ETCDCTL_ENDPOINTS": f"https://127.0.0.1:{port}", "HTTPS_PROXY": f"127.0.0.1:{port}"}
    opened("etcd", {**environ, variable: value})
    assert_nobody_came(server)


POSTGRES_VARIABLES = [
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGCONNECT_TIMEOUT",
    "PGTARGETSESSIONATTRS",
    "PGOPTIONS",
    "PGCLIENTENCODING",
]


@NOISY
@given(st.sampled_from(POSTGRES_VARIABLES), st.data())
def test_a_variable_of_libpq_is_understood_or_refused(
    server: socket.socket, variable: str, data: st.DataObject
) -> None:
    port = server.getsockname()[1]
    texts = ["127.0.0.1", "127.0.0.1,::1", str(port), f"{port},{port}", "require", "read-write", "UTF8"]
    value = data.draw(st.one_of(RUBBISH, damaged(texts)).filter(lambda text: "\0" not in text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGHOST", "127.0.0.1")
        patch.setenv("PGPORT", str(port))
        patch.setenv(variable, value)
        opened("postgres", os.environ)
    assert_nobody_came(server)


@NOISY
@given(st.sampled_from(["REDIS_URL", "REDISCLI_AUTH"]), st.data())
def test_a_variable_of_redis_is_understood_or_refused(
    server: socket.socket, variable: str, data: st.DataObject
) -> None:
    port = server.getsockname()[1]
    value = data.draw(st.one_of(RUBBISH, damaged([url.format(port=port) for url in REDIS_URLS])))
    opened("redis", {"REDIS_URL": f"redis://127.0.0.1:{port}", variable: value})
    assert_nobody_came(server)


# The real program.

BYTE = "\udcff"
WRONG_OPTIONS = [
    *(["--ttl", text] for text in ("", "x", "5s", "-1", "1e3", "\u0663s", "9" * 100_000, "nan", "inf", BYTE)),
    *(["--wait", text] for text in ("", "never", "-1", "1 h")),
    *(["--timeout", text] for text in ("0", "PT", "1m1h", "1_0", "200000d")),
    *(["--kill-after", text] for text in ("", "soon", "1h1h")),
    *(["--name", text] for text in ("", "..", "../x", "a/b", "a b", "x" * 201, "\u00e9", "a\nb", BYTE, "-x")),
    *(["-E", text] for text in ("", "256", "-1", "1.5", "\u00b2", "x", "9" * 5000)),
    *(["--stop-signal", text] for text in ("", "0", "65", "NOPE", "SIG", "RTMIN+99", "TERM\n", "_DFL")),
    *(["--rewrite-signal", text] for text in ("TERM", "TERM:", ":TERM", "TERM:99", "0:TERM", "a:b:c")),
    *(["--leftovers", text] for text in ("", "KILL", "kill ", "none")),
    *(["--log-format", text] for text in ("", "xml", "JSON\r")),
    *(["--lock", text] for text in ("", "/locks", "file:x", ":", "://", "nosuch", "a b://", "x" * 100_000)),
    *([word] for word in ("--nonsense", "-Z", "--ttl", "--no-wait=1", "-", "\x1b[2J", BYTE, "x" * 100_000)),
    ["-n", "--wait", "5"],
    ["-q", "-v"],
]
ETCD_PLACES = (
    "{place}:x {place}0 [::1 {place}, {place}/%zz {place}/%ff {place}?tls=maybe {place}?x=1 "
    "{place}?cacert=/nowhere {place}?cacert=%00 {place}?key=/dev/null a@{place} a:%ff@{place} "
    "{place}/singleton-run ftp://{place} a|b\r\nX:1"
)
POSTGRES_PLACES = (
    "{place}0/app {place}/app?x=1 {place}/app?sslmode=1 {place}/%zz {place}/%00 [::1/app u:%zz@{place}/app "
    "{place},a:x/app {place}/app?port=1,2,3 {place}/app?singleton_run_x=1 {place}/app?service=nowhere"
)
REDIS_PLACES = (
    "{place}:x {place}0 [::1 {place}/first {place}/%zz {place}?db=-1 {place}?x=1 a@{place}@b a:%ff@{place} "
    "{place}?ssl_cert_reqs=none"
)
FILE_PLACES = "relative /nowhere/%zz /dev/null /dev/null/x /%00 /tmp"
WRONG_PLACES = [
    *(f"{scheme}://{place}" for scheme in ("etcd", "etcd+grpc") for place in ETCD_PLACES.split(" ")),
    *(f"postgres://{place}" for place in POSTGRES_PLACES.split(" ")),
    *(f"redis://{place}" for place in REDIS_PLACES.split(" ")),
    *(f"redis+cluster://{place}" for place in ("", "{place}/1", "{place}:x", "{place}?db=1", ",")),
    *(f"redis+sentinel://{place}" for place in ("{place}", "{place}/", "{place}:x/s", "{place}/%ff", ",/s")),
    *(
        f"{scheme}://{{place}}?ssl_ca_certs="
        for scheme in ("redis+cluster", "redis+quorum", "redis+sentinel")
    ),
    *(f"rediss+cluster://{{place}}?{word}" for word in ("ssl_ca_certs=/dev/null", "ssl_keyfile=/x", "ssl=1")),
    *(f"unix://{place}" for place in ("", "/", "host/path", "/%00", f"/{'x' * 107}", "/path?db=x")),
    *(f"file://{place}" for place in FILE_PLACES.split(" ")),
    *(f"{scheme}://{BYTE}{{place}}" for scheme in ("etcd", "etcd+grpc", "postgres", "redis")),
    f"postgres://{{place}}/app?singleton_run_table={'x' * 64}",
    f"file:///{'x' * 300}",
]
# Without one of these an option's variable isn't looked at.
BESIDE = {
    "cron": {"SINGLETON_RUN_CRON": "@hourly"},
    "retries": {"SINGLETON_RUN_CRON": "@hourly", "SINGLETON_RUN_RETRIES": "1"},
    "metrics_addr": {"SINGLETON_RUN_METRICS_ADDR": "127.0.0.1:0"},
    "on": {"SINGLETON_RUN_ON": "started=true"},
    "ping": {"SINGLETON_RUN_PING": "http://127.0.0.1:9/"},
}
# Every text is a file's name, or a secret.
ANY_TEXT = ["metrics_file", "notify_secret"]


def beside(option: Option) -> dict[str, str]:
    """What must be there for an option's variable to be looked at."""
    return next((BESIDE[name] for name in option.needs if name in BESIDE), {})


HTTPS = {"SINGLETON_RUN_LOCK": "etcd", "ETCDCTL_ENDPOINTS": "https://e.example"}
WRONG_VARIABLES: list[dict[str, str]] = [
    *(
        {option.variable: text, **beside(option)}
        for option in SETTABLE
        for text in (f"\x1b[2J\n{BYTE}", "x" * 100_000)
        if option.name not in ANY_TEXT
    ),
    *(
        {"SINGLETON_RUN_METRICS_FILE": path}
        for path in ("x" * 100_000, "/proc/x.prom", "/", "/proc/nowhere/x")
    ),
    *(
        {"SINGLETON_RUN_LOCK": "etcd", "ETCDCTL_ENDPOINTS": text}
        for text in ("{place}:1", "ftp://{place}", BYTE)
    ),
    *({**HTTPS, "HTTPS_PROXY": text} for text in ("socks5://{place}", "u:%zz@{place}", "{place}\u00b2")),
    {**HTTPS, "ETCDCTL_USER": "root"},
    {**HTTPS, "ETCDCTL_CACERT": "/nowhere"},
    {**HTTPS, "ETCDCTL_KEY": "/dev/null"},
    {**HTTPS, "ETCDCTL_INSECURE_SKIP_TLS_VERIFY": "perhaps"},
    {"SINGLETON_RUN_LOCK": "etcd", "ETCDCTL_DISCOVERY_SRV": "e.example"},
    *({"SINGLETON_RUN_LOCK": "postgres", "PGPORT": text} for text in ("x", "99999", "1,2,3")),
    {"SINGLETON_RUN_LOCK": "postgres", "PGHOST": BYTE},
    {"SINGLETON_RUN_LOCK": "postgres", "PGSSLMODE": "x"},
    {"SINGLETON_RUN_LOCK": "postgres", "PGSERVICE": "nowhere"},
    {"SINGLETON_RUN_LOCK": "postgres", "PGTARGETSESSIONATTRS": "best"},
]


def assert_all_refused(calls: Sequence[tuple[list[str], dict[str, str]]], server: socket.socket) -> None:
    """Every call, a few at a time: status 2 or 78, one line that can be printed, nothing run."""
    for start in range(0, len(calls), 4):
        some = calls[start : start + 4]
        processes = [
            subprocess.Popen(
                [*PROGRAM, *words, "--", "echo", "ran"],
                # Without a name there would be a word about that too.
                env=environment(**{"SINGLETON_RUN_NAME": "n", **variables}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for words, variables in some
        ]
        for process, call in zip(processes, some, strict=True):
            out, said = process.communicate(timeout=LIMIT)
            line, shown = said.decode(), str(call)[:300]
            assert process.returncode in (USAGE, UNUSABLE), (shown, line)
            assert out == b"", shown
            assert (line.count("\n"), line[-1:]) == (1, "\n"), (shown, line)
            assert line[:-1].isprintable(), (shown, line)
            assert len(line) < 5000, shown
    assert_nobody_came(server)


def test_wrong_options_end_in_one_line(server: socket.socket) -> None:
    assert_all_refused([(words, {}) for words in WRONG_OPTIONS], server)


def test_wrong_places_end_in_one_line(server: socket.socket) -> None:
    place = f"127.0.0.1:{server.getsockname()[1]}"
    assert_all_refused([(["--lock", lock.replace("{place}", place)], {}) for lock in WRONG_PLACES], server)


def test_wrong_variables_end_in_one_line(server: socket.socket) -> None:
    place = f"127.0.0.1:{server.getsockname()[1]}"
    calls = [
        {name: text.replace("{place}", place) for name, text in each.items()} for each in WRONG_VARIABLES
    ]
    assert_all_refused([([], variables) for variables in calls], server)
