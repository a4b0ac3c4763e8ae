"""`crontab`: one parent, a process for each line; what is said, stopped, read again and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import harness
from tests.support.crontabs import Table, left_of, memory, reader_of_pipe, stop, switches
from tests.support.harness import (
    LIMIT,
    PROGRAM,
    Run,
    below,
    children_of,
    environment,
    gone,
    send,
    state,
    title,
    until,
)
from tests.support.ports import free_port
from tests.support.scrape import get, scrape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECOND = "* * * * * *"
NEVER = "0 0 29 2 *"
NEW = ["unshare", "--mount", "--pid", "--fork"]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    with Table(tmp_path) as table:
        yield table


def told(run: Run) -> str:
    """What a replica has said, but for slots that our stop cut short or that a busy machine missed."""
    cut_short = r"slot \S+ of '\S+' was interrupted: .*"
    missed = r"before this slot of '\S+' \d+ w(as|ere) missed"
    return re.sub(rf"singleton-run: ({cut_short}|{missed})\n", "", run.said)


def unique(slots: list[float]) -> None:
    """No slot twice."""
    assert len(slots) == len(set(slots)), slots


def test_each_line_runs_at_its_times_under_its_name(table: Table) -> None:
    table.write(table.noted("often", SECOND), "\n# a comment\n", table.noted("seldom", "*/2 * * * * *"))
    run = table.start()
    often = [start.slot for start in table.started("often", 4)]
    seldom = [start.slot for start in table.started("seldom", 2)]
    assert stop(run) == 0, run.said
    unique(often)
    unique(seldom)
    assert {slot % 2 for slot in seldom} == {0}
    assert told(run) == ""


def test_variables_shell_and_input_are_the_crontab_s(table: Table) -> None:
    table.write(
        "SHELL=/bin/sh\nGREETING='hello there'\nSINGLETON_RUN_LOCK=etcd\n",
        table.line(
            "one",
            SECOND,
            f'(echo "$GREETING|$SINGLETON_NAME|$SINGLETON_RUN_LOCK"; cat) > {table.directory}/out'
            ".tmp && mv out.tmp out%first%second \\% third",
        ),
    )
    run = table.start()
    out = table.directory / "out"
    until(out.exists, f"the command to have run; {run.said}")
    assert stop(run) == 0
    assert out.read_text() == f"hello there|{table.name('one')}|\nfirst\nsecond % third\n"


def test_each_run_has_the_whole_input(table: Table) -> None:
    table.write(table.line("one", SECOND, "sh -c 'read line; echo $line; exec cat'%first%second"))
    run = table.start("--output", "raw")
    until(lambda: run.out.count(b"second\n") >= 2, f"two runs; {run.said}")
    assert stop(run) == 0
    assert set(run.out.decode().split()) == {"first", "second"}


# Output.


def test_raw_output_comes_as_it_is(table: Table) -> None:
    table.write(table.line("one", SECOND, "printf 'a b'; printf c >&2"))
    run = table.start()
    until(lambda: b"a b" in run.out and "c" in run.said, "the output")
    assert stop(run) == 0
    assert run.out.replace(b"a b", b"") == b""
    assert told(run).replace("c", "") == ""


@pytest.mark.parametrize("form", ["prefix", "json"])
def test_lines_of_output_are_whole_and_have_their_job_and_run(table: Table, form: str) -> None:
    whole = "trap '' TERM; "  # at the end too
    slow = "for i in 1 2 3 4 5 6 7 8; do printf %s part; sleep 0.05; done; echo; printf 'no end'"
    long = f"head -c 30000 /dev/zero | tr '\\0' x; echo; echo $SINGLETON_ID >> {table.directory}/runs"
    table.write(
        table.line("slow", SECOND, whole + slow.replace("%", "\\%")),
        table.line("long", SECOND, whole + long),
        "A=1\n",
    )
    run = table.start("--output", form)
    until(lambda: run.out.count(b"no end") >= 3 and run.out.count(b"x" * 30000) >= 3, f"output; {run.said}")
    assert stop(run) == 0
    runs = (table.directory / "runs").read_text().split()
    for line in run.out.decode().splitlines():
        if form == "json":
            facts = json.loads(line)
            name, number, text = facts["name"], facts["run"], facts["message"]
            assert (facts["event"], facts["stream"]) == ("output", "stdout")
        else:
            name, number = line.partition("] ")[0][1:].split(" ")
            text = line.partition("] ")[2]
        if name == table.name("long"):
            assert text == "x" * 30000
            assert any(each.startswith(number) for each in runs), (number, runs)
        else:
            assert (name, text) in [(table.name("slow"), "part" * 8), (table.name("slow"), "no end")]


def test_what_a_command_says_on_stderr_goes_to_stderr(table: Table) -> None:
    table.write(table.line("one", SECOND, "echo good; echo bad >&2"))
    run = table.start("--output", "prefix")
    until(lambda: b"good" in run.out and "bad" in run.said, "the output")
    assert stop(run) == 0
    assert b"bad" not in run.out
    assert "good" not in run.said
    assert told(run).startswith(f"[{table.name('one')} ")


def test_at_a_terminal_the_output_has_a_prefix(table: Table) -> None:
    table.write(table.line("one", SECOND, "echo hello"))
    above, below_it = os.openpty()
    run = table.start(stdout=below_it)
    os.close(below_it)
    said = b""
    while b"hello\r\n" not in said:
        said += os.read(above, 4096)
    assert said.startswith(b"[" + table.name("one").encode() + b" ")
    assert stop(run) == 0
    os.close(above)


def test_a_reader_that_stands_still_stops_no_renewal_and_no_other_line(tmp_path: Path) -> None:
    """The command that writes waits, with its lock: over more than a whole ttl nobody else gets it."""
    read, write = os.pipe()
    with Table(tmp_path) as table:
        table.lock = harness.leased_at or f"leasefile://{table.directory}/locks"
        loud = table.noted("loud", SECOND, "head -c 300000 /dev/zero | tr '\\\\0' x")
        table.write(loud, table.noted("quiet", SECOND))
        runs = [table.start("--ttl", "6s", "--output", "prefix", stdout=write) for _ in range(2)]
        table.started("loud")
        before = len(table.starts("quiet"))
        table.started("quiet", before + 8)
        assert len(table.starts("loud")) == 1
        assert not gone(table.starts("loud")[0].process)
        os.close(write)
        with open(read, "rb") as reader:
            for run in runs:
                run.popen.terminate()
            reader.read()
        assert [run.wait() for run in runs] == [0, 0], table.said()


def test_when_the_output_s_process_is_killed_another_one_writes(table: Table) -> None:
    table.write(table.line("one", SECOND, "echo hello"))
    run = table.start("--output", "prefix")
    until(lambda: run.out.count(b"hello") >= 1, "output")
    writer = next(each for each in children_of(run.pid) if title(each).startswith("singleton-run: output of"))
    send(signal.SIGKILL, writer)
    run.hears("the process that writes the commands' output")
    lines = run.out.count(b"hello")
    until(lambda: run.out.count(b"hello") > lines + 1, f"more output; {run.said}")
    assert stop(run) == 0


# The end.


def test_sigterm_asks_the_commands_to_stop_and_waits_for_them(table: Table) -> None:
    trap = f"trap 'echo stopped >> {table.directory}/stopped; exit 3' TERM"
    one, two = (
        table.noted(word, SECOND, "while :; do sleep 0.05; done", first=trap) for word in ("one", "two")
    )
    table.write(one, two, table.noted("no", NEVER))
    run = table.start()
    commands = [start.process for word in ("one", "two") for start in table.started(word)]
    everyone = below(run.pid)
    assert stop(run) == 0, run.said
    assert left_of(commands) == []
    until(lambda: not left_of(everyone), "the guards to end, whose last word comes before")
    assert (table.directory / "stopped").read_text().count("stopped") == 2
    assert len(table.starts()) == 2


def test_a_command_that_does_not_stop_is_killed_after_kill_after(table: Table) -> None:
    table.write(table.noted("one", SECOND, "trap '' TERM; while :; do sleep 0.05; done"))
    run = table.start("--kill-after", "500ms")
    (start, *_) = table.started("one")
    assert stop(run) == 0, run.said
    assert gone(start.process)


def test_a_second_sigterm_is_passed_on_too(table: Table) -> None:
    heard = table.directory / "heard"
    trap = f"n=0; trap 'n=$((n+1)); echo >> {heard}' TERM"
    table.write(table.noted("one", SECOND, "while [ $n -lt 2 ]; do sleep 0.05; done", first=trap))
    run = table.start()
    table.started("one")
    send(signal.SIGTERM, run.pid)
    until(heard.exists, "the command to hear it")
    send(signal.SIGTERM, run.pid)
    assert run.wait() == 0
    table.ended("one")


def test_a_parent_that_is_killed_leaves_no_line_behind(table: Table) -> None:
    """Else a restarted crontab would have a twin that nobody knows of."""
    table.write(table.noted("one", SECOND, "sleep 60"), table.noted("no", NEVER))
    run = table.start("--output", "prefix")
    table.started("one")
    table.front(run, "no")
    everyone = below(run.pid)
    send(signal.SIGKILL, run.pid)
    until(lambda: not left_of(everyone), "all to end")


# Deaths of a line's processes.


def test_a_line_s_process_that_is_killed_is_started_again_and_this_is_said(table: Table) -> None:
    table.write(table.noted("one", SECOND), table.noted("two", SECOND))
    run = table.start()
    table.started("one")
    other = table.front(run, "two")
    for _ in range(2):
        front = table.front(run, "one")
        send(signal.SIGKILL, front)
        until(lambda: gone(front), "its end")  # noqa: B023 - called at once
        assert table.front(run, "one") != front
        table.started("one", len(table.starts("one")) + 2)
    run.hears(f"the process of line '{table.name('one')}': it ended by signal 9; it is started again in")
    assert table.front(run, "two") == other
    assert stop(run) == 0
    unique([start.slot for start in table.starts("one")])
    unique([start.slot for start in table.starts("two")])


@pytest.mark.parametrize("lock", ["nowhere", "file:///proc/nowhere"])
def test_where_no_line_can_run_we_end(table: Table, lock: str) -> None:
    table.lock = lock
    table.write(table.noted("one", SECOND), table.noted("two", SECOND))
    run = table.start()
    assert run.wait() == 78
    assert run.said.startswith("singleton-run: ")


# Reading again.


def test_sighup_reads_the_crontab_again(table: Table) -> None:
    stays, goes = table.noted("stays", NEVER), table.noted("goes", SECOND, "sleep 2")
    table.write(stays, goes)
    run = table.start()
    table.started("goes")
    same, leaves = table.front(run, "stays"), table.front(run, "goes")
    table.write("# another place\n", stays, table.noted("comes", SECOND))
    send(signal.SIGHUP, run.pid)
    run.hears("the crontab is read again: 1 new, 1 removed, 1 as before")
    table.started("comes")
    until(lambda: gone(leaves), "the removed line's process to leave")
    assert len(table.starts("goes", "end")) == len(table.starts("goes"))
    assert table.front(run, "stays") == same
    number = len(table.starts("goes"))
    table.started("comes", len(table.starts("comes")) + 2)
    assert len(table.starts("goes")) == number
    assert stop(run) == 0


def test_sigterm_ends_us_while_the_crontab_is_read_again(table: Table) -> None:
    """A file may be a pipe that nobody writes to."""
    table.write(table.noted("stays", NEVER))
    run = table.start()
    table.front(run, "stays")
    table.file.unlink()
    os.mkfifo(table.file)
    send(signal.SIGHUP, run.pid)
    until(lambda: reader_of_pipe(run.pid), "a reader to wait for a writer")
    assert stop(run) == 0


def test_a_line_that_is_changed_is_another_from_then_on(table: Table) -> None:
    table.write(table.noted("one", SECOND, "one=1"))
    run = table.start()
    table.started("one")
    before = table.front(run, "one")
    table.write("NEW=yes\n", table.noted("one", SECOND, f"echo $NEW > {table.directory}/new"))
    send(signal.SIGHUP, run.pid)
    until((table.directory / "new").exists, f"the new command; {run.said}")
    until(lambda: gone(before), "the old one's process to leave")
    assert stop(run) == 0
    unique([start.slot for start in table.starts("one")])


def test_a_broken_crontab_keeps_the_one_before_and_says_why(table: Table) -> None:
    line = table.noted("one", SECOND)
    table.write(line)
    run = table.start()
    table.started("one")
    front = table.front(run, "one")
    table.write(line, "61 * * * * true\n", "nonsense\n")
    send(signal.SIGHUP, run.pid)
    run.hears("the crontab of before stays, for the new one can't be taken: 2 faults")
    assert f"{table.file}:3: " in run.said
    assert f"{table.file}:4: " in run.said
    table.started("one", len(table.starts("one")) + 2)
    assert table.front(run, "one") == front
    table.file.unlink()
    send(signal.SIGHUP, run.pid)
    run.hears("can't be taken: 1 fault")
    assert stop(run) == 0


def test_watch_follows_the_links_of_a_mounted_configmap(table: Table) -> None:
    """As kubelet changes one: a new directory, and a link that is renamed over the old."""

    def publish(name: str, *lines: str) -> None:
        (mount / name).mkdir(parents=True)
        (mount / name / "crontab").write_text("".join(lines))
        (mount / "..data_tmp").symlink_to(name)
        (mount / "..data_tmp").rename(mount / "..data")

    mount = table.directory / "mount"
    publish("..2026_1", table.noted("first", SECOND))
    (mount / "crontab").symlink_to("..data/crontab")
    table.file = mount / "crontab"
    run = table.start("--watch")
    table.started("first")
    for name in ("second", "third"):
        publish(f"..2026_{name}", table.noted(name, SECOND))
        table.started(name)
    assert stop(run) == 0
    assert run.said.count("the crontab is read again: 1 new, 1 removed, 0 as before") == 2


def test_watch_sees_a_file_that_is_written_and_one_that_is_replaced(table: Table) -> None:
    table.write(table.noted("first", SECOND))
    run = table.start("--watch")
    table.started("first")
    table.write(table.noted("second", SECOND))
    table.started("second")
    (table.directory / "new").write_text(table.noted("third", SECOND))
    (table.directory / "new").rename(table.file)
    table.started("third")
    assert stop(run) == 0
    assert run.said.count("is read again") == 2, run.said  # and not for the evidence beside it


# Metrics.


def test_the_parent_tells_of_all_lines(table: Table) -> None:
    long = table.noted("long", SECOND, "sleep 600")
    table.write(long, table.noted("short", SECOND), table.noted("bad", SECOND, "exit 3"))
    address = f"127.0.0.1:{free_port()}"
    run = table.start("--metrics-addr", address)
    names = {word: table.name(word) for word in ("long", "short", "bad", "new")}
    table.started("long")
    until(lambda: scrape(address).count("runs_total", name=names["bad"], result="failed") >= 2, run.said)
    until(lambda: scrape(address).count("runs_total", name=names["short"], result="succeeded") >= 2, run.said)
    seen = scrape(address)
    assert seen.count("running", name=names["long"]) == seen.count("held", name=names["long"]) == 1
    assert seen.value("runs_total", name=names["bad"], result="succeeded") == 0
    assert get(address, "/healthz") == (200, "ok\n")
    until(lambda: get(address, "/readyz")[0] == 200, "all lines to have been at their locks")
    assert get(address, "/leader")[0] == 404
    send(signal.SIGKILL, table.front(run, "long"))
    until(lambda: scrape(address).count("runs_total", name=names["long"], result="crashed") == 1, run.said)
    table.write(long, table.noted("new", SECOND))
    send(signal.SIGHUP, run.pid)
    until(lambda: scrape(address).count("runs_total", name=names["new"], result="succeeded") >= 1, run.said)
    assert scrape(address).count("runs_total", name=names["short"], result="succeeded") >= 2
    assert stop(run) == 0


def test_a_reporter_of_the_parent_that_is_killed_is_replaced(table: Table) -> None:
    table.write(table.noted("one", SECOND))
    address = f"127.0.0.1:{free_port()}"
    run = table.start("--metrics-addr", address)
    scrape(address)
    send(signal.SIGKILL, run.one("reporter"))
    table.started("one", len(table.starts("one")) + 2)
    until(lambda: scrape(address).count("runs_total", result="succeeded") >= 1, run.said)
    everyone = [run.pid, *below(run.pid)]
    assert stop(run) == 0
    until(lambda: not left_of(everyone), "the reporter to end")


def test_a_line_has_hooks_of_its_own(table: Table) -> None:
    hook = f"'on=failed=echo $SINGLETON_NAME >> {table.directory}/hooked'"
    table.write(table.noted("bad", SECOND, "exit 3", hook), table.noted("other", SECOND, "exit 3"))
    run = table.start()
    table.started("other", 3)
    until((table.directory / "hooked").exists, f"the hook; {run.said}")
    assert stop(run) == 0
    assert set((table.directory / "hooked").read_text().split()) == {table.name("bad")}


def test_a_line_is_paused_and_shown_by_its_name(table: Table) -> None:
    def call(*words: str) -> str:
        argv = [*PROGRAM, *words, table.name("one"), "--lock", table.lock]
        return subprocess.run(
            argv, env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False
        ).stdout

    table.write(table.noted("one", SECOND), table.noted("two", SECOND))
    run = table.start()
    table.started("one")
    call("pause", "--yes")
    run.hears(f"of '{table.name('one')}' is skipped: the lock is paused")
    number = len(table.starts("one"))
    table.started("two", len(table.starts("two")) + 3)
    assert len(table.starts("one")) == number
    assert "paused" in call("status")
    assert "succeeded" in call("history", "-n", "50")
    call("resume", "--yes")
    table.started("one", number + 1)
    assert stop(run) == 0


# The rest.


def test_all_faults_are_listed_at_once_and_nothing_is_run(table: Table) -> None:
    table.write(table.noted("one", SECOND), "60 * * * * true\n", "x\n", table.noted("one", NEVER))
    run = table.start()
    assert run.wait() == 2
    places = [line.split(":")[1] for line in run.said.splitlines()]
    assert places == ["3", "4", "6"], run.said
    assert table.starts() == []


def test_a_name_that_is_made_is_said_once(table: Table) -> None:
    table.write(f"{NEVER} true\n")
    run = table.start()
    run.hears("has no name, so 'crontab")
    send(signal.SIGHUP, run.pid)
    run.hears("is read again")
    assert stop(run) == 0
    assert run.said.count("has no name") == 1


def test_reboot_lines_run_once_for_their_key(table: Table) -> None:
    table.write(table.noted("boot", "@reboot"), table.noted("one", SECOND))
    for _ in range(2):
        run = table.start("--reboot-once", "v1")
        table.started("one", len(table.starts("one")) + 2)
        table.ended("boot")
        assert stop(run) == 0
    assert len(table.starts("boot")) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a command as somebody else: sudo")
def test_a_command_runs_as_the_user_of_its_line(table: Table) -> None:
    out = table.directory / "out"
    out.mkdir()
    out.chmod(0o777)
    for parent in out.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o1:
            parent.chmod(0o711)
    command = 'cd out; echo "$(id -un) $(id -gn) $LOGNAME $HOME" > who.tmp; mv who.tmp who'
    table.write(table.line("one", SECOND + " nobody", command))
    run = table.start("--system")
    until((out / "who").exists, f"the command; {run.said}")
    assert stop(run) == 0
    home = subprocess.run(["getent", "passwd", "nobody"], check=True, capture_output=True, text=True)
    group = subprocess.run(["id", "-gn", "nobody"], check=True, capture_output=True, text=True)
    expected = f"nobody {group.stdout.strip()} nobody {home.stdout.split(':')[5]}\n"
    assert (out / "who").read_text() == expected


def test_the_parent_shows_its_files_and_loads_neither_click_nor_a_parser(table: Table) -> None:
    table.write(table.noted("one", NEVER))
    run = table.start()
    table.at_rest(run, 1)
    assert title(run.pid).startswith("singleton-run: crontab /")
    assert stop(run) == 0


def test_two_hundred_lines_are_small_and_sleep(table: Table) -> None:
    """At most 5 MB each, no connection, no helper, and nobody wakes up between the slots."""
    table.write(*(table.noted(f"line{number}", NEVER) for number in range(200)))
    run = table.start()
    fronts = table.at_rest(run, 200)
    assert max(memory(process) for process in [run.pid, *fronts]) <= 5 * 1024
    everyone = [run.pid, *fronts]
    until(lambda: {state(process) for process in everyone} == {"S"}, "the last of them to sleep")
    before = [switches(process) for process in everyone]
    other = Table(table.directory)
    with other:
        other.write(other.noted("one", SECOND))
        other.start()
        other.started("one", 4)
    assert [switches(process) for process in everyone] == before
    assert stop(run) == 0
    assert left_of(everyone) == []


@pytest.mark.skipif(
    subprocess.run([*NEW, "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0,
    reason="process namespaces need root and CAP_SYS_ADMIN: sudo, or docker run --privileged",
)
def test_as_process_1_it_reaps_orphans_and_ends_with_all_that_is_in_it(table: Table) -> None:
    orphans = "for i in 1 2 3; do setsid sh -c 'sleep 0.1' & done"
    table.write(
        table.noted("one", SECOND, orphans, "leftovers=ignore"), table.noted("long", SECOND, "exec sleep 60")
    )
    argv = [*NEW, "--kill-child", "--mount-proc", *table.argv("--output", "prefix")]
    run = Run(argv, table.directory)
    table.runs.append(run)
    table.started("one", 3)
    table.started("long")
    first = next(iter(below(run.pid)))
    assert title(first).startswith("singleton-run: crontab ")
    for word in ("one", "long"):  # what they leave behind comes to process 1
        send(signal.SIGKILL, table.front_below(first, word))
    table.started("one", len(table.starts("one")) + 2)
    table.started("long", 2)
    until(lambda: not [each for each in below_with_zombies(first) if state(each) == "Z"], "no zombie")
    everyone = below(run.pid)
    send(signal.SIGTERM, first)
    assert run.wait() == 0, run.said
    assert left_of(everyone) == []


def below_with_zombies(process: int) -> list[int]:
    """The children of a process, and of those children."""
    return [each for child in children_of(process) for each in (child, *children_of(child))]


def test_help_is_click_s_and_what_is_wrong_is_said(table: Table) -> None:
    call = [*PROGRAM, "crontab"]
    for words, status, text in (
        (["--help"], 0, "--reboot-once"),
        ([], 2, "file"),
        ([str(table.file), "--name", "x"], 2, "--name"),
        ([str(table.file), "--output", "loud"], 2, "--output: 'loud' is none of raw, prefix, json"),
    ):
        table.write(table.noted("one", NEVER))
        done = subprocess.run(
            [*call, *words], env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert done.returncode == status, done
        assert text in (done.stdout + done.stderr).replace("FILE", "file"), done
