"""status, list and history on real servers: what they tell of a run, and of its end or death."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run.commands import facts
from singleton_run.errors import DENIED, NOT_HELD, UNAVAILABLE, UNUSABLE, USAGE
from tests.servers.kubeaccess import WATCHING
from tests.support import schemas
from tests.support.harness import LIMIT, LONG, PROGRAM, Lab, Run, environment, kill_tree, until
from tests.support.proxy import DOWN, UP, proxy
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.etcd import Etcd
    from tests.servers.kubeaccess import Namespace, Pod

HOLDER = r"[\w.-]+:\d+:[0-9a-f]{8}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z"
KINDS = ("file", "etcd", "postgres", "k8s-lease", "redis")
SLOT = ("--every", "1h", "--no-loop")


class Asked(Lab):
    """A lab whose lock is asked about. `environ` is the environment of every call."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.environ = environment(COLUMNS="")
        self.kind = "file"

    def call(self, *words: str) -> list[str]:
        """A subcommand at this lab's lock."""
        return [*PROGRAM, "--lock", self.lock, *words]

    def ask(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """What a subcommand prints in a pipe."""
        return subprocess.run(
            self.call(*words),
            env={**self.environ, **variables},
            capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip

    def told(self, command: str, *words: str) -> dict[str, Any]:
        """The object that a subcommand prints, which is as its schema says."""
        done = self.ask(command, *words, "--json")
        assert done.stderr == ""
        value: dict[str, Any] = json.loads(done.stdout)
        schemas.check(command, value)
        assert done.returncode == (0 if command != "status" or value["state"] == "held" else NOT_HELD)
        return value

    def ends(self, *options: str, command: list[str]) -> Run:
        """Run a command under the lock to its end."""
        run = self.start(*options, command=command, environ=self.environ)
        run.wait()
        return run

    def holds(self, *options: str) -> Run:
        """A run whose command goes on until `finish`; it holds the lock when this returns."""
        before = self.evidence.count("ready")
        run = self.start(*options, command=self.long_job(), environ=self.environ)
        self.ready(before + 1)
        return run

    def is_slot(self, state: str) -> Any:
        """Wait until the record says that of the last slot, and what `status` tells then."""

        def look() -> Any:
            value = self.told("status", self.name)
            return value if value["schedule"] and value["schedule"]["state"] == state else None

        return until(look, f"a slot that is {state}")


@pytest.fixture(scope="module")
def pod(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    account = namespace.account("status", verbs=[*WATCHING, "list"])
    return account.pod(tmp_path_factory.mktemp("pod"))


def put_at(lab: Asked, kind: str, request: pytest.FixtureRequest) -> None:
    lab.kind = kind
    if kind == "etcd":
        lab.lock = f"etcd://{request.getfixturevalue('etcd_server').address}/{lab.name}"
    elif kind == "postgres":
        lab.lock = request.getfixturevalue("postgres_server").url
    elif kind == "redis":
        lab.lock = request.getfixturevalue("redis_server").url
    elif kind == "k8s-lease":
        pod = request.getfixturevalue("pod")
        namespace = request.getfixturevalue("namespace").name
        lab.lock = f"k8s-lease://{namespace}?service-account={pod.folder}"
        lab.environ = environment(COLUMNS="", **pod.environ)


@pytest.fixture(params=KINDS)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Asked]:
    with Asked(tmp_path) as lab:
        put_at(lab, request.param, request)
        yield lab


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Asked]:
    """A lab on this machine."""
    with Asked(tmp_path) as lab:
        yield lab


@pytest.fixture
def on_etcd(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Asked]:
    with Asked(tmp_path) as lab:
        put_at(lab, "etcd", request)
        yield lab


# What is told, on each backend.


def test_a_name_that_was_never_used_is_free(lab: Asked) -> None:
    told = lab.told("status", lab.name)
    words = ("state", "holder", "pid", "since", "until", "token", "command", "schedule", "last")
    assert [told[word] for word in words] == ["free", *[None] * 8]
    assert lab.told("history", lab.name)["runs"] == []
    assert lab.ask("history", lab.name).stdout == ""
    assert lab.name not in lab.ask("list").stdout


def test_a_holder_is_told_while_its_command_runs_and_its_run_afterwards(lab: Asked) -> None:
    run = lab.holds(*SLOT)
    told = lab.told("status", lab.name)
    assert (told["name"], told["state"], told["pid"]) == (lab.name, "held", run.pid)
    assert told["host"] == os.uname().nodename
    assert re.fullmatch(HOLDER, told["holder"])
    (turn,) = lab.evidence.turns()
    assert told["token"] == turn
    assert re.fullmatch(r"python[\d.]*", told["command"])
    assert (told["slot"], told["attempt"]) == (told["schedule"]["slot"], 1)
    assert (told["schedule"]["text"], told["schedule"]["state"]) == ("every 1h", "running")
    assert (told["until"] is None) == (lab.kind == "file")
    assert [each["state"] for each in told["runs"]] == ["running"]
    assert told["since"] is not None
    assert told["last"] is None
    lab.finish()
    assert run.wait() == 0, run.said
    told = lab.told("status", lab.name)
    assert (told["state"], told["holder"]) == ("free", None)
    assert (told["last"]["state"], told["last"]["status"], told["last"]["token"]) == ("succeeded", 0, turn)
    assert told["schedule"]["state"] == "succeeded"
    assert told["schedule"]["next"] > told["at"]
    (listed,) = [each for each in lab.told("list")["locks"] if each["name"] == lab.name]
    assert (listed["state"], listed["last"], listed["stale"]) == ("free", told["last"], False)


def test_history_has_the_latest_runs_first(lab: Asked) -> None:
    for status in range(3):
        lab.ends(command=["sh", "-c", f"exit {status}"])
    told = lab.told("history", lab.name)["runs"]
    assert [(run["state"], run["status"]) for run in told] == [("failed", 2), ("failed", 1), ("succeeded", 0)]
    assert [run["token"] for run in told] == sorted((run["token"] for run in told), reverse=True)
    assert lab.told("history", lab.name, "-n", "1")["runs"] == told[:1]
    lines = [line.split("\t") for line in lab.ask("history", "--lines", "2", lab.name).stdout.splitlines()]
    assert [line[2:4] for line in lines] == [["failed", "2"], ["failed", "1"]]
    assert all(re.fullmatch(TIME, line[0]) and re.fullmatch(HOLDER, line[6]) for line in lines)
    assert {len(line) for line in lines} == {8}


def test_a_lock_that_is_kept_is_held_by_nobody(lab: Asked) -> None:
    lab.ends("--lock-at-least-for", LONG, command=["true"])
    told = lab.told("status", lab.name)
    assert told["state"] == "kept"
    assert told["until"] > told["at"]


def test_the_morning_s_look_shows_what_failed_and_nothing_else(lab: Asked) -> None:
    own = lab.name
    for suffix, options, command in [
        ("well", SLOT, "true"),
        ("failed", SLOT, "exit 3"),
        ("plain", (), "exit 3"),
    ]:
        lab.name = f"{own}-{suffix}"
        lab.ends(*options, command=["sh", "-c", command])
    lab.name = own
    stale = [each for each in lab.told("list", "--stale")["locks"] if each["name"].startswith(own)]
    assert [(each["name"], each["last"]["status"]) for each in stale] == [(f"{own}-failed", 3)]
    lines = [line.split("\t") for line in lab.ask("list").stdout.splitlines()]
    assert {f"{own}-{suffix}" for suffix in ("well", "failed", "plain")} <= {line[0] for line in lines}
    assert {len(line) for line in lines} == {8}


def test_a_run_whose_machine_is_lost_has_crashed(lab: Asked) -> None:
    run = lab.holds(*SLOT, "--ttl", "6s")
    kill_tree(run.pid)
    told = lab.is_slot("crashed")
    assert told["state"] in ("free", "expired")
    assert told["last"]["state"] == "crashed"
    assert lab.name in [each["name"] for each in lab.told("list", "--stale")["locks"]]


def test_a_run_without_a_slot_is_told_of_while_it_runs(lab: Asked) -> None:
    lab.holds()

    def look() -> Any:
        value = lab.told("status", lab.name)
        return value if value["command"] else None

    told = until(look, "the record of a run that goes on")
    assert (told["token"], told["slot"]) == (lab.evidence.turns()[0], None)
    assert told["runs"][0]["state"] == "running"


# What only some backends know.


def test_a_pause_is_told_of_and_what_runs_goes_on(lab: Asked) -> None:
    first = lab.holds()
    until(lambda: lab.told("status", lab.name)["command"], "the record, which alone names a file's holder")
    assert lab.ask("pause", lab.name, "--reason", "[red]moving\x1b[2J", "--yes").returncode == 0
    told = lab.told("status", lab.name)
    assert (told["state"], told["pause"]["until"]) == ("held", None)
    assert told["pause"]["by"].endswith(f"@{os.uname().nodename}")
    assert datetime.fromisoformat(told["pause"]["at"]) <= datetime.fromisoformat(told["at"])
    assert facts.NO_CONTROL not in told["notes"]
    lab.finish()
    assert first.wait() == 0
    told = lab.told("status", lab.name)
    assert (told["state"], told["last"]["state"]) == ("paused", "succeeded")
    (line,) = [line for line in lab.ask("status", lab.name).stdout.splitlines() if line.startswith("pause\t")]
    assert re.fullmatch(r"pause\tpaused by \S+ until somebody resumes it: \[red\]moving\\x1b\[2J", line)
    (listed,) = [each for each in lab.told("list")["locks"] if each["name"] == lab.name]
    assert (listed["state"], listed["pause"]) == ("paused", told["pause"])
    held_back = lab.start(command=["true"], environ=lab.environ)
    held_back.hears("is paused")
    told = lab.told("status", lab.name)
    assert (told["state"], told["pid"]) == ("paused", None if lab.kind == "file" else held_back.pid)
    assert lab.ask("resume", lab.name, "--yes").returncode == 0
    assert held_back.wait() == 0
    told = lab.told("status", lab.name)
    assert (told["state"], told["pause"]) == ("free", None)


def test_a_pause_alone_makes_a_name_that_is_listed(lab: Asked) -> None:
    assert lab.ask("pause", lab.name, "--for", "1h").returncode == 0
    told = lab.told("status", lab.name)
    assert (told["state"], told["last"]) == ("paused", None)
    assert told["pause"]["until"] > told["at"]
    assert lab.name in lab.ask("list").stdout


@pytest.mark.parametrize("lab", ["etcd", "redis"], indirect=True)
def test_who_waits_is_told_in_order(lab: Asked) -> None:
    lab.holds()
    waiters = []
    for _ in range(2):
        waiters.append(lab.start(command=["true"], environ=lab.environ))
        waiters[-1].hears("waiting for lock")
    told = lab.told("status", lab.name)
    assert [each["pid"] for each in told["waiting"]] == [run.pid for run in waiters]
    assert facts.NO_QUEUE not in told["notes"]
    lines = lab.ask("status", lab.name).stdout.splitlines()
    assert [line for line in lines if line.startswith("waiting\t")] == [
        f"waiting\t{each['holder']}" for each in told["waiting"]
    ]


# The call.


def test_status_takes_its_name_from_the_variable_or_asks_for_it(here: Asked) -> None:
    here.ends(command=["true"])
    done = here.ask("status", SINGLETON_RUN_NAME=here.name)
    assert (done.returncode, done.stdout.splitlines()[0]) == (NOT_HELD, f"name\t{here.name}")
    done = here.ask("status")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "singleton-run list" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "a/b"], "'/'"),
        (["status", ""], "empty"),
        (["history", "a", "-n", "0"], "from 1 to 1000"),
        (["history", "a", "-n", "x"], "from 1 to 1000"),
        (["history"], "NAME"),
        (["list", "a"], "unexpected extra argument"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(here: Asked, words: list[str], said: str) -> None:
    done = here.ask(*words)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_no_file_is_no_lock(tmp_path: Path) -> None:
    place = tmp_path / "locks"
    place.mkdir(mode=0o700)
    (place / "odd.lock").mkdir()
    (place / "one.lock").touch()
    done = subprocess.run(
        [*PROGRAM, "list", "--lock", f"file://{place}"],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == ["one"]


@pytest.mark.parametrize("words", [["status", "a"], ["list"], ["history", "a"]])
def test_a_server_that_is_away_is_one_line(words: list[str], here: Asked) -> None:
    for lock, status in [
        ("etcd://127.0.0.1:1", UNAVAILABLE),
        ("nothing://x", UNUSABLE),
        ("postgresql://a:secret@127.0.0.1:1/x", UNAVAILABLE),
    ]:
        here.lock = lock
        done = here.ask(*words)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "secret" not in done.stderr


def test_who_may_not_read_is_told_so(here: Asked, namespace: Namespace, tmp_path: Path) -> None:
    stranger = namespace.account("stranger", verbs=[]).pod(tmp_path / "stranger")
    here.lock = f"k8s-lease://{namespace.name}?service-account={stranger.folder}"
    here.environ = environment(**stranger.environ)
    for words in (["status", "a"], ["list"], ["history", "a"]):
        done = here.ask(*words)
        assert (done.returncode, done.stdout) == (DENIED, ""), done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", ["list", "history NAME", "status NAME", "status NAME --json"])
def test_a_pipe_that_nobody_reads_ends_it_quietly(here: Asked, words: str) -> None:
    for _ in range(3):
        here.ends(command=["true"])
    argv = here.call(*words.replace("NAME", here.name).split())
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -1 | head -0; echo "${PIPESTATUS[0]}"', "bash", *argv],
        env=here.environ, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout in ("0\n", "1\n", f"{NOT_HELD}\n")


# At a terminal.


def shown(lab: Asked, *words: str, columns: int, **variables: str) -> str:
    with Terminal(
        lab.call(*words), lab.directory, environ={**lab.environ, **variables}, columns=columns
    ) as at:
        at.wait()
        return at.shown


def without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", text)


@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_gets_tables_that_fit(here: Asked, columns: int) -> None:
    here.holds(*SLOT)
    for words in (["status", here.name], ["list"], ["history", here.name]):
        text = shown(here, *words, columns=columns, TZ="Europe/Berlin")
        assert "\x1b[" in text
        lines = without_styles(text).splitlines()
        assert max(map(len, lines)) <= columns
        assert re.search(HOLDER, re.sub(r"\s", "", "".join(lines)))
        assert re.search(r"\d+s ago", " ".join(lines)) or words == ["list"]
        assert not re.search(TIME, "".join(lines))
        assert words == ["list"] or re.search(r"\d\d:\d\d:\d\d( |\n|$)", "\n".join(lines))
        assert "running" in text or words == ["list"]


@pytest.mark.parametrize("columns", [80, 40])
def test_no_color_has_no_color(here: Asked, columns: int) -> None:
    here.ends(*SLOT, command=["false"])
    for words in (["status", here.name], ["list"], ["history", here.name]):
        coloured = re.compile(r"\x1b\[(?:\d+;)*(3[0-8]|4[0-8]|9\d|10\d)(?:;|m)")
        assert coloured.search(shown(here, *words, columns=columns))
        assert not coloured.search(shown(here, *words, columns=columns, NO_COLOR="1"))
        assert "\x1b" not in shown(here, *words, columns=columns, TERM="dumb")


def test_a_terminal_gets_json_if_it_asks_for_it(here: Asked) -> None:
    schemas.check("status", json.loads(shown(here, "status", here.name, "--json", columns=40)))


# --watch.


class Watch:
    """A `status --watch` whose lines are read as they come."""

    def __init__(self, lab: Asked, *words: str) -> None:
        self.run = Run(lab.call("status", lab.name, "--watch", *words), lab.directory, environ=lab.environ)
        lab.runs.append(self.run)

    def lines(self) -> list[str]:
        return self.run.out.decode().splitlines()

    def sees(self, pattern: str) -> re.Match[str]:
        """Wait for a line after which all lines up to now have not come yet."""
        found = until(
            lambda: next(filter(None, (re.search(pattern, line) for line in self.lines())), None),
            f"{pattern} in {self.lines()}; {self.run.said}",
        )
        assert found is not None
        return found


def test_a_watch_tells_of_each_holder_though_one_is_killed(lab: Asked) -> None:
    first = lab.holds("--ttl", "6s")
    watch = Watch(lab)
    holder = watch.sees(rf"^{TIME}\theld\t({HOLDER})\t")[1]
    assert f":{first.pid}:" in holder
    second = lab.start("--ttl", "6s", command=lab.long_job(), environ=lab.environ)
    os.kill(first.pid, signal.SIGKILL)
    lab.ready(2)
    watch.sees(rf"\theld\t[\w.-]+:{second.pid}:")
    lab.finish()
    assert second.wait() == 0
    watch.sees(r"\tfree\t-\t")
    watch.run.popen.send_signal(signal.SIGTERM)
    assert watch.run.wait() == -signal.SIGTERM
    assert watch.run.said == ""
    assert len(watch.lines()) < 12


def test_a_watch_in_json_is_an_object_a_line(here: Asked) -> None:
    watch = Watch(here, "--json")
    watch.sees(r'"state": "free"')
    here.holds()
    watch.sees(r'"state": "held"')
    for line in watch.lines():
        schemas.check("status", json.loads(line))


def test_a_watch_outlives_an_outage(on_etcd: Asked, etcd_server: Etcd) -> None:
    on_etcd.holds()
    with proxy(etcd_server.port) as between:
        on_etcd.lock = on_etcd.lock.replace(etcd_server.address, between.address)
        plain, objects = Watch(on_etcd), Watch(on_etcd, "--json")
        plain.sees(r"\theld\t")
        objects.sees('"state": "held"')
        between.cut()
        plain.sees(r"\tunavailable(\t-){6}\t\S+")
        objects.sees('"state": "unavailable"')
        between.mend()
        until(lambda: "\theld\t" in plain.lines()[-1], "the watch to go on")
        until(lambda: '"state": "held"' in objects.lines()[-1], "the watch to go on")
        between.deafen(UP, DOWN)
        until(lambda: "\tunavailable\t" in plain.lines()[-1], "the watch to see that nobody answers")
        for line in objects.lines():
            schemas.check("status", json.loads(line))


def test_a_watch_ends_when_nobody_reads_it(here: Asked) -> None:
    argv = here.call("status", here.name, "--watch")
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -1; echo "${PIPESTATUS[0]}"', "bash", *argv],
        env=here.environ, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert re.fullmatch(rf"{TIME}\tfree\t.*\n1\n", done.stdout)


@pytest.mark.parametrize(
    ("redirection", "why"),
    [(">&-", "is closed"), (">/dev/full", "can't be written (No space left on device)")],
)
def test_a_watch_that_can_not_be_written_says_why(here: Asked, redirection: str, why: str) -> None:
    argv = ["sh", "-c", f'exec "$@" {redirection}', "sh", *here.call("status", here.name, "--watch")]
    done = subprocess.run(argv, env=here.environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"singleton-run: standard output {why}\n")


@pytest.mark.parametrize("columns", [80, 40])
def test_a_watch_at_a_terminal_is_redrawn_in_place_and_ends_by_ctrl_c(here: Asked, columns: int) -> None:
    first = here.holds()
    argv = here.call("status", here.name, "--watch")
    with Terminal(argv, here.directory, environ=here.environ, columns=columns) as at:
        at.shows(f":{first.pid}:")
        second = here.start(command=here.long_job(), environ=here.environ)
        os.kill(first.pid, signal.SIGKILL)
        at.shows(f":{second.pid}:")
        assert "\x1b[1A" in at.shown
        assert "█" in at.shown
        lines = re.split(r"\r\n|(?:\x1b\[\?25[lh]|\x1b\[2K|\x1b\[1A|\r)+", without_styles(at.shown))
        assert max(map(len, lines)) <= columns
        at.type("\x03")
        assert at.wait() == -signal.SIGINT
        assert at.shown.count("\x1b[?25l") == at.shown.count("\x1b[?25h") == 1
        assert "Traceback" not in at.shown


# What anybody may write.


def test_a_record_that_is_damaged_is_said_to_be(here: Asked) -> None:
    here.ends(*SLOT, command=["true"])
    (here.locks / f"{here.name}.json").write_text("\x1b[2J{")
    told = here.told("status", here.name)
    assert (told["runs"], told["schedule"]) == ([], None)
    assert facts.NO_RECORD in told["notes"]
    assert here.told("history", here.name)["notes"] == [facts.NO_RECORD]
    done = here.ask("history", here.name)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"singleton-run: {here.name}: {facts.NO_RECORD}\n"


def test_what_a_stranger_wrote_is_no_order_to_the_terminal(on_etcd: Asked, etcd_server: Etcd) -> None:
    lease = etcd_server.ctl("lease", "grant", "100").split()[1]
    value = json.dumps({"holder": "[red]\x1b[2J\tme\n:boom:", "since": 1})
    etcd_server.ctl("put", f"{on_etcd.name}/{on_etcd.name}/{lease}", value, "--lease", lease)
    done = on_etcd.ask("status", on_etcd.name)
    assert done.returncode == 0, done.stderr
    assert "holder\t[red]\\x1b[2J\\tme\\n:boom:\n" in done.stdout
    for columns in (80, 40):
        text = without_styles(shown(on_etcd, "status", on_etcd.name, columns=columns))
        assert text.replace("\r\n", "").isprintable()
        assert "[red]\\x1b[2J\\tme\\n:boom:" in text.replace("\r\n", "").replace("  ", "")
