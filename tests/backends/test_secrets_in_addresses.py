"""A password in an address is told to nobody: no message, no resolver, no list of processes.

Wherever it stands: as it should, misplaced, not escaped, in a form of another program. An address that
can be read in two ways is refused before anybody is contacted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from singleton_run.api import lock_address, registry
from singleton_run.api.deadline import Deadline
from singleton_run.api.http.proxy import choose
from singleton_run.call import click_parser, fast_parser
from singleton_run.call.settings import check
from singleton_run.errors import Failure
from singleton_run.report import trace
from singleton_run.system import pipes
from singleton_run.system.messages import KeeperTells
from singleton_run_k8s.login import parts as api_server
from singleton_run_postgres.backend import PostgresBackend
from tests.support.harness import TREE, environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from singleton_run.call.settings import Settings

SECRETS = st.integers(0, 0xFFFFFF).map("sEcReT{:06x}".format)
# What people put into passwords without escaping it, and what stands before or after by mistake.
AROUND = st.text(st.sampled_from("@/?#:&=%,;[] +'\\é0a"), max_size=5)
PLACES = [
    "{scheme}://user:{odd}@h.invalid/p",
    "{scheme}://user:{odd}@h.invalid,i.invalid:1/p?x=1",
    "{scheme}://user:{odd}@h.invalid:99999",
    "{scheme}://:{odd}@h.invalid",
    "{scheme}://user:{odd}@[::1",
    "{scheme}://user:p@h.invalid,user:{odd}@i.invalid",
    "{scheme}:///user:{odd}@h.invalid",
    "{scheme}:/user:{odd}@h.invalid",
    "{scheme}:user:{odd}@h.invalid",
    "{scheme}://h.invalid/p?user=u&password={odd}",
    "{scheme}://h.invalid/p?password={odd}&user=u",
    "{scheme}://h.invalid/p?p%61ssword={odd}&nonsense",
    "//user:{odd}@h.invalid/p",
    "user:{odd}@h.invalid/p",
    "host=h.invalid password={odd} user=u",
    "host=h.invalid password = '{odd}'",
    "{scheme}://host=h.invalid password={odd}",
]
SCHEMES = ["etcd", "postgres", "postgresql", "k8s-lease", "file", "nosuch"]
IN_VARIABLES = [
    ("etcd", "ETCDCTL_ENDPOINTS", "http://user:{odd}@127.0.0.1:1"),
    ("etcd", "ETCDCTL_ENDPOINTS", "user:{odd}@127.0.0.1:1,127.0.0.1:1"),
    ("etcd", "ETCDCTL_USER", "user:{odd}"),
    ("etcd", "ETCDCTL_PASSWORD", "{odd}"),
    ("postgres", "PGHOST", "user:{odd}@h.invalid"),
    ("postgres", "PGHOST", "postgres://user:{odd}@h.invalid/app"),
    ("postgres", "PGHOST", "//user:{odd}@h.invalid/app"),
    ("postgres", "PGHOST", "host=h.invalid password={odd}"),
    ("postgres", "PGHOSTADDR", "user:{odd}@h.invalid"),
    ("postgres", "PGDATABASE", "postgres://user:{odd}@h.invalid/app"),
    ("postgres", "PGDATABASE", "host=h.invalid password={odd}"),
    ("postgres", "PGPASSWORD", "{odd}"),
    ("k8s-lease", "POD_NAMESPACE", "user:{odd}@ns"),
]
QUICK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def odd(draw: st.DrawFn) -> tuple[str, str]:
    """A secret, and a password that it is in."""
    secret = draw(SECRETS)
    return secret, draw(AROUND) + secret + draw(AROUND)


class Told:
    """All that somebody could hear: `said` of refusals and warnings, in a trace, `asked` of the resolver."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        for name in [name for name in os.environ if name.startswith(("PG", "ETCDCTL_"))]:
            patch.delenv(name)
        patch.setattr("singleton_run.api.resolve.addresses", self._look_up)
        patch.setattr(pipes, "tracer", None)

    def _look_up(self, host: str, _port: int, _flags: int) -> list[object]:
        self.asked.append(host)
        raise OSError(-2, "no such name")

    def call(self, lock: str, environ: Mapping[str, str]) -> None:
        """What a call does with its address until somebody would be contacted."""
        self.said, self.asked = [], []
        self.said += [lock_address.redact(lock), lock_address.redact(f"--lock={lock}")]
        words = ["--lock", lock, "--", "true"]
        try:
            values = fast_parser.read(words, environ) or click_parser.parse(words, environ)
            settings_ = check(values, environ)
            self._trace(settings_)
            backend = registry.open_backend(settings_.lock_address, environ)
        except Failure as failure:
            self.said.append(str(failure))
            self._hear_trace()
            return
        self.said.append(str(getattr(backend, "warning", "")))
        try:
            if isinstance(backend, PostgresBackend):
                backend._address.routes(  # noqa: SLF001 - it asks the resolver, and nobody else
                    Deadline.after(5.0)
                )
            elif lock.startswith("etcd"):
                backend.read("n", 5.0)
        except Failure as failure:
            self.said.append(str(failure))
        finally:
            backend.close()
            self._hear_trace()

    def _trace(self, settings_: Settings) -> None:
        trace.begin(settings_)
        assert pipes.tracer is not None
        pipes.tracer.message("sent", KeeperTells.trouble(f"what a library says of {settings_.lock_address}"))

    def _hear_trace(self) -> None:
        tracer, pipes.tracer = pipes.tracer, None
        if tracer is not None:
            self.said.append(os.read(tracer.source, 1 << 16).decode())
            os.close(tracer.source)
            os.close(tracer.descriptor)

    def has(self, secret: str) -> list[str]:
        """Where it was told."""
        return [text for text in self.said + self.asked if secret in text]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Told:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Told(monkeypatch)


@QUICK
@example("etcd", "//user:{odd}@h.invalid/p", ("sEcReT000000", "sEcReT000000://"))
@given(scheme=st.sampled_from(SCHEMES), place=st.sampled_from(PLACES), password=odd())
def test_a_password_in_an_address_is_in_no_message_and_no_question(
    told: Told, scheme: str, place: str, password: tuple[str, str]
) -> None:
    lock = place.format(scheme=scheme, odd=password[1])
    if lock.startswith("file:///"):
        return  # a path, all of it
    told.call(lock, {"KUBECONFIG": "/dev/null"})
    assert told.has(password[0]) == []


@QUICK
@example(("postgres", "PGHOST", "//user:{odd}@h.invalid/app"), ("sEcReT000000", ",sEcReT000000,"))
@given(case=st.sampled_from(IN_VARIABLES), password=odd())
def test_a_password_in_a_variable_is_in_no_message_and_no_question(
    told: Told, case: tuple[str, str, str], password: tuple[str, str]
) -> None:
    lock, name, form = case
    value = form.format(odd=password[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        patch.setenv("KUBECONFIG", "/dev/null")
        patch.setenv("ETCDCTL_ENDPOINTS", os.environ.get("ETCDCTL_ENDPOINTS", "127.0.0.1:1"))
        told.call(lock, dict(os.environ))
    assert told.has(password[0]) == []


@pytest.mark.parametrize(
    "line", ["host=user:{}@h.invalid", "dbname=postgres://u:{}@h.invalid", "pasword={}", "password={}", "{}"]
)
def test_nor_one_in_a_service_file(
    told: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str
) -> None:
    file = tmp_path / "services"
    file.write_text(f"[mine]\nhost=h.invalid\n{line.format('sEcReT')}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    told.call("postgres:///?service=mine", {})
    assert told.has("sEcReT") == []
    assert len(told.said) > 2


@given(odd())
def test_nor_of_a_proxy_or_an_api_server(password: tuple[str, str]) -> None:
    secret, text = password
    said = []
    try:
        proxy = choose("h.invalid", 1, {"HTTPS_PROXY": f"http://user:{text}@proxy.invalid:1"})
        assert proxy is not None
        said += [proxy.host, str(proxy.port)]
    except Failure as failure:
        said.append(str(failure))
    for form in ("https://user:{}@h.invalid", "user:{}@h.invalid", "https://h.invalid:{}@x"):
        try:
            said += map(str, api_server(form.format(text))[:2])
        except Failure as failure:
            said.append(str(failure))
    assert [line for line in said if secret in line] == []


def test_what_is_looked_up_is_seen_here(told: Told) -> None:
    """Else the above could not fail."""
    for lock in ("postgres://user:word@h.invalid/p", "etcd://user:word@h.invalid/p"):
        told.call(lock, {})
        assert "h.invalid" in told.asked
        assert f'"lock":"{lock_address.redact(lock)}"' in told.said[-1]
    assert '"event":"request"' in told.said[-1]


@pytest.mark.parametrize("scheme", ["etcd", "etcd+grpc", "postgres", "k8s-lease"])
@pytest.mark.parametrize(
    "rest", ["u:a@b@h/p", "u:a/b@h", "u:a?b@h/p", "u:a@h,u:a@i/p", "h/a@b", "h?x=a@b", "/a:b@h"]
)
def test_what_can_be_read_in_two_ways_is_refused_with_the_way_to_write_it(scheme: str, rest: str) -> None:
    with pytest.raises(Failure, match="%40") as refused:
        registry.open_backend(f"{scheme}://{rest}", {"KUBECONFIG": "/dev/null"})
    assert refused.value.status == 78
    values = fast_parser.read(["--lock", f"{scheme}://{rest}", "--", "true"], {})
    assert values is not None
    with pytest.raises(Failure, match="%40") as unread:
        check(values, {})
    assert unread.value.status == 2
    assert f"{scheme}://…" in str(unread.value)


CANARY = "sEcReT7f"


def message_of(url: str, environ: Mapping[str, str]) -> str:
    """What is said of an address that is refused, as an option or by its backend; empty if neither does."""
    values = fast_parser.read(["--lock", url, "--", "true"], {})
    assert values is not None
    said = ""
    try:
        check(values, {})
    except Failure as failure:
        said += str(failure)
    try:
        registry.open_backend(url, environ)
    except Failure as failure:
        said += str(failure)
    return said


@pytest.mark.parametrize("scheme", ["etcd", "postgresql", "k8s-lease"])
@pytest.mark.parametrize(
    "rest",
    [
        "me:{secret}",
        "me:{secret}/jobs",
        "me:{secret}%40127.0.0.1:1/jobs",
        "me:{secret},127.0.0.1:1/jobs",
        "127.0.0.1:1,me:{secret}",
        "me:{secret};127.0.0.1",
        "h:1/p?pasword={secret}",
        "me:word@h:1/p#{secret}",
        "me:word@h:1/p?tls=true#{secret}",
    ],
)
def test_a_password_in_an_address_that_is_mistyped_is_in_no_message(scheme: str, rest: str) -> None:
    """The @ may be missing, or escaped, and the word that names a password may be another."""
    url = f"{scheme}://{rest.format(secret=CANARY)}"
    assert CANARY not in lock_address.redact(url)
    assert CANARY not in message_of(url, {"KUBECONFIG": "/dev/null"})


def test_nor_one_with_slashes_in_what_is_no_url() -> None:
    assert CANARY not in message_of(f"//me://{CANARY}@h.invalid/p", {})


@pytest.mark.parametrize("places", ["me:sEcReT7f", "me:sEcReT7f,h:1", "http://me:sEcReT7f"])
def test_nor_one_in_the_place_of_a_port_in_a_variable(places: str) -> None:
    said = message_of("etcd", {"ETCDCTL_ENDPOINTS": places})
    assert said
    assert CANARY not in said


# The real program.

ALONE = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc"]
CALLS = [
    {"SINGLETON_RUN_LOCK": "etcd://user:{odd}@etcd.invalid"},
    {"SINGLETON_RUN_LOCK": "etcd+grpc://user:{odd}@grpc.invalid"},
    {"SINGLETON_RUN_LOCK": "postgres://user:{odd}@postgres.invalid/app"},
    {"SINGLETON_RUN_LOCK": "postgres://user:a@{odd}@h.invalid/app"},
    {"SINGLETON_RUN_LOCK": "postgres://user:a/{odd}@h.invalid/app"},
    {"SINGLETON_RUN_LOCK": "postgres", "PGHOST": "user:{odd}@h.invalid"},
    {"SINGLETON_RUN_LOCK": "etcd", "ETCDCTL_ENDPOINTS": "http://user:{odd}@h.invalid"},
    {"SINGLETON_RUN_LOCK": "host=h.invalid password={odd}"},
    {"SINGLETON_RUN_LOCK": "//user:{odd}@h.invalid"},
    {"SINGLETON_RUN_LOCK": "file://user:{odd}@h.invalid/var/lock"},
    {"SINGLETON_RUN_LOCK": "k8s-lease://user:{odd}@ns"},
]


def test_real_calls_tell_it_neither_to_a_resolver_nor_to_ps(tmp_path: Path) -> None:
    try:
        subprocess.run([*ALONE, "true"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs namespaces of its own, as root has them: sudo make test")
    canary = "sEcReT7f"
    (tmp_path / "kubeconfig").write_text("{}")
    common = {"HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "kubeconfig")}
    forms = [{name: form.format(odd=canary) for name, form in call.items()} for call in CALLS]
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "tests.support.resolver"],
        input="\n".join(json.dumps(environment(**common, **form)) for form in forms),
        cwd=TREE,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    told = json.loads(done.stdout)
    assert {"etcd.invalid", "postgres.invalid", "grpc.invalid"} <= set(told["asked"])
    assert any("true" in line for line in told["shown"])
    assert told["said"].count("singleton-run: ") >= len(CALLS)
    assert canary not in done.stdout + done.stderr
