"""What a call comes to: settings, names, and what the command is told."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleton_run import names
from singleton_run.api import lock_address
from singleton_run.call import settings
from singleton_run.call.fast_parser import Values, read
from singleton_run.call.options import OPTIONS
from singleton_run.errors import UNUSABLE, USAGE, Failure
from singleton_run.guard import command_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

CALL = ["--name", "x", "--", "true"]
COMMANDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1)


def values(*options: str, command: tuple[str, ...] = ("true",)) -> Values:
    result = read([*options, "--", *command], {})
    assert result is not None
    return result


def checked(*options: str, environ: Mapping[str, str] | None = None) -> settings.Settings:
    return settings.check(values(*options), environ or {})


def refusal(*options: str, environ: Mapping[str, str] | None = None) -> Failure:
    with pytest.raises(Failure) as failure:
        checked(*options, environ=environ)
    assert len(str(failure.value).splitlines()) == 1
    return failure.value


def test_the_defaults() -> None:
    result = checked()
    assert {slot: getattr(result, slot) for slot in settings.Settings.__slots__} == {
        "lock_address": "file",
        "scheme": "file",
        "name": names.default_name(["true"]),
        "named": False,
        "ttl": 30.0,
        "label_pod": "",
        "wait": None,
        "conflict_status": 75,
        "timeout": None,
        "kill_after": None,
        "stop_signal": signal.SIGTERM,
        "rewrite": {},
        "signal_command_only": False,
        "leftovers": "kill",
        "scheduled": False,
        "every": None,
        "cron": None,
        "zone": None,
        "jitter": 0.0,
        "start_deadline": None,
        "loop": False,
        "once": None,
        "retries": 0,
        "retry_delay": 10.0,
        "retry_backoff": 2.0,
        "retry_interrupted": False,
        "lock_at_least_for": 0.0,
        "overlap": "queue",
        "verbosity": 0,
        "log_format": "text",
        "metrics_addr": None,
        "metrics_file": None,
        "ready_when": "started",
        "on": (),
        "on_timeout": 30.0,
        "notify": None,
        "notify_secret": None,
        "ping": None,
        "ping_style": "healthchecks",
        "ping_log": False,
        "reports": False,
        "command": ("true",),
    }


def test_everything_given() -> None:
    line = (
        "--lock etcd+grpc://a:1/p --name x:1 --ttl 1m --wait 5s -E 0 --timeout 1h --kill-after 0 "
        "--stop-signal INT --leftovers wait -vv --log-format json --rewrite-signal TERM:INT,1:0 "
        "--rewrite-signal USR1:USR2 --rewrite-signal TERM:QUIT --signal-command-only"
    )
    result = checked(*line.split())
    assert (result.lock_address, result.scheme, result.name, result.named) == (
        "etcd+grpc://a:1/p",
        "etcd+grpc",
        "x:1",
        True,
    )
    assert (result.ttl, result.wait, result.conflict_status) == (60.0, 5.0, 0)
    assert (result.timeout, result.kill_after, result.stop_signal) == (3600.0, 0.0, signal.SIGINT)
    assert (result.leftovers, result.verbosity, result.log_format) == ("wait", 2, "json")
    assert result.rewrite == {
        signal.SIGTERM: signal.SIGQUIT,
        signal.SIGHUP: 0,
        signal.SIGUSR1: signal.SIGUSR2,
    }
    assert result.signal_command_only


def test_everything_about_slots_given() -> None:
    line = "--every 1h --jitter 5m --start-deadline 10m --retries 3 --retry-interrupted"
    result = checked(*line.split())
    assert (result.every, result.jitter, result.start_deadline) == (3600.0, 300.0, 600.0)
    assert (result.retries, result.retry_delay, result.retry_backoff) == (3, 10.0, 2.0)
    assert (result.scheduled, result.loop, result.retry_interrupted) == (True, True, True)
    assert (result.cron, result.zone, result.once) == (None, None, None)
    line = "--cron @daily --tz Europe/Berlin --no-loop -n --retries 1 --retry-delay 1m --retry-backoff 1.5"
    result = checked(*line.split(), "--lock-at-least-for", "2m")
    assert (result.cron, result.zone, result.every) == ("0 0 * * *", "Europe/Berlin", None)
    assert (result.scheduled, result.loop, result.wait) == (True, False, 0.0)
    assert (result.retry_delay, result.retry_backoff, result.lock_at_least_for) == (60.0, 1.5, 120.0)
    result = checked("--once", "v1 ü/…", "--retries", "2", "--wait", "5m")
    assert (result.once, result.retries, result.scheduled, result.loop) == ("v1 ü/…", 2, False, False)


def test_the_zone_is_the_machine_s_unless_it_is_given() -> None:
    environ = {"TZ": "Asia/Kathmandu"}
    assert checked("--cron", "0 0 * * *", environ=environ).zone == "Asia/Kathmandu"
    assert checked("--cron", "0 0 * * *", "--tz", "Etc/UTC", environ=environ).zone == "UTC"
    assert refusal("--cron", "0 0 * * *", environ={"TZ": "CET-1"}).status == UNUSABLE
    assert refusal("--cron", "0 0 * * *", "--tz", "Europe/Atlantis").status == UNUSABLE
    assert checked(environ={"TZ": "CET-1"}).zone is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--every 1h --cron @daily", "contradict"),
        ("--every 1h --once x", "contradict"),
        ("--cron @daily --once x", "contradict"),
        ("--every 0.999", "--every: the interval must be at least 1s"),
        ("--every 0", "at least 1s"),
        ("--every=", "--every"),
        ("--every @daily", "--every"),
        ("--cron=", "0 fields"),
        ("--cron 61", "--cron"),
        ("--tz UTC", "--tz says nothing without --cron"),
        ("--every 1h --tz UTC", "--tz says nothing without --cron"),
        ("--jitter 1s", "--jitter says nothing without --every or --cron"),
        ("--once x --jitter 1s", "--jitter"),
        ("--start-deadline 1s", "--start-deadline"),
        ("--no-loop", "--no-loop"),
        ("--once x --no-loop", "--no-loop"),
        ("--retries 1", "--retries says nothing without --every or --cron or --once"),
        ("--every 1h --retry-delay 1s", "without --retries"),
        ("--every 1h --retry-backoff 2", "without --retries"),
        ("--every 1h --retry-interrupted", "without --retries"),
        ("--every 1h --jitter 1h", "--jitter must be less than the interval of --every, 1h"),
        ("--every 1h --lock-at-least-for 60m", "--lock-at-least-for must be less than the interval"),
        ("--every 1h --start-deadline 0", "--start-deadline must be more than 0"),
        ("--every 1h --wait 5m", "--start-deadline bounds the wait"),
        ("--every 1h --wait forever", "--no-loop"),
        ("--cron @daily -n", "--no-loop"),
        ("--every 1h --retries -1", "--retries"),
        ("--every 1h --retries 101", "--retries"),
        ("--every 1h --retries ²", "--retries"),
        ("--every 1h --retries 1 --retry-backoff 0.5", "--retry-backoff"),
        ("--every 1h --retries 1 --retry-backoff nan", "--retry-backoff"),
        ("--every 1h --retries 1 --retry-backoff 1e1", "--retry-backoff"),
        ("--every 1h --retries 1 --retry-backoff 100.1", "--retry-backoff"),
        ("--every 1h --retries 1 --retry-backoff .", "--retry-backoff"),
        ("--every 1h --retries 1 --retry-delay forever", "--retry-delay"),
        ("--once=", "--once: the key is empty"),
        ("--lock-at-least-for x", "--lock-at-least-for"),
    ],
)
def test_slots_that_make_no_sense_are_refused(line: str, said: str) -> None:
    failure = refusal(*line.split())
    assert failure.status == USAGE
    assert said in str(failure)


def test_a_key_is_any_text_that_is_not_too_long() -> None:
    assert checked("--once", "x" * 256).once == "x" * 256
    assert refusal("--once", "x" * 257).status == USAGE
    assert refusal("--once", "\udcff").status == USAGE


def test_a_cron_expression_says_which_field_is_wrong() -> None:
    failure = refusal("--cron", "0 25 * * *")
    assert failure.status == USAGE
    assert "--cron: the hour '25'" in str(failure)


@pytest.mark.parametrize("variable", ["SINGLETON_RUN_TIMEOUT", "SINGLETON_RUN_LOCK_AT_MOST_FOR"])
def test_every_long_name_has_its_variable(variable: str) -> None:
    call = read(["--", "true"], {variable: "5m"})
    assert call is not None
    assert settings.check(call, {}).timeout == 300.0
    assert variable not in for_command({variable: "5m"}, checked("--name", "x"))


def test_how_long_to_wait() -> None:
    assert checked("-n").wait == 0.0
    assert checked("--wait", "0").wait == 0.0
    assert checked("--wait", "forever").wait is None


def test_quiet_is_below_nothing() -> None:
    assert checked("-q").verbosity == -1


def test_settings_are_frozen() -> None:
    result = checked()
    with pytest.raises(AttributeError):
        result.ttl = 60.0
    with pytest.raises(AttributeError):
        result.more = 1
    with pytest.raises(AttributeError):
        del result.ttl
    assert result.ttl == 30.0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-n --wait 5s", "--wait"),
        ("-n --wait forever", "--no-wait"),
        ("-q -v", "--verbose"),
        ("--ttl 5.999", "ttl must be at least 6s"),
        ("--ttl 0", "ttl must be at least 6s"),
        ("--ttl nan", "--ttl"),
        ("--ttl forever", "--ttl"),
        ("--wait soon", "--wait"),
        ("--wait=", "--wait"),
        ("--timeout 0", "--timeout"),
        ("--timeout forever", "--timeout"),
        ("--kill-after -1", "--kill-after"),
        ("-E 256", "--conflict-exit-code"),
        ("-E -1", "--conflict-exit-code"),
        ("-E 7.5", "--conflict-exit-code"),
        ("-E ²", "--conflict-exit-code"),
        ("--stop-signal NONE", "--stop-signal"),
        ("--stop-signal 0", "--stop-signal"),
        ("--stop-signal 65", "--stop-signal"),
        ("--stop-signal _DFL", "--stop-signal"),
        ("--stop-signal TERM+1", "--stop-signal"),
        ("--stop-signal RTMIN+99", "--stop-signal"),
        ("--stop-signal RTMIN+²", "--stop-signal"),
        ("--stop-signal=", "--stop-signal"),
        ("--leftovers keep", "kill, wait, ignore"),
        ("--log-format xml", "text, json"),
        ("--every 1m --overlap never", "queue, skip, replace"),
        ("--every 1m --overlap Allow", "two runs at once are what a lock prevents"),
        ("--overlap skip", "--overlap says nothing without --every or --cron"),
        ("--lock=", "--lock"),
        ("--lock /var/lock/x", "file://"),
        ("--lock ://x", "--lock"),
        ("--lock file:/x", "--lock"),
        ("--lock a_b", "--lock"),
        ("--name=", "--name"),
        ("--name a/b", "'/'"),
    ],
)
def test_what_can_not_be_read_or_contradicts_itself_is_refused(line: str, said: str) -> None:
    failure = refusal(*line.split())
    assert failure.status == USAGE
    assert said in str(failure)


@pytest.mark.parametrize(
    ("word", "overlap"),
    [
        ("queue", "queue"),
        ("skip", "skip"),
        ("replace", "replace"),
        ("Forbid", "skip"),
        ("Replace", "replace"),
    ],
)
def test_an_overlap_has_the_names_of_a_cronjob_too(word: str, overlap: str) -> None:
    assert settings.check(values("--every", "1m", "--overlap", word), {}).overlap == overlap


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ("postgres://u:hunter2@h/app\n", "a newline"),
        ("etcd\n", "a newline"),
        ("etcd://h:2379\r\n", "a carriage return"),
        (" etcd", "a space at one end"),
        ("file:///srv/locks ", "a space"),
        ("file:///srv\t/locks", "a tab"),
        ("k8s-lease://jobs\x00", "the character '\\x00'"),
    ],
)
def test_what_is_not_seen_in_an_address_is_named(lock: str, said: str) -> None:
    failure = refusal("--lock", lock)
    assert (failure.status, said in str(failure), "hunter2" in str(failure)) == (USAGE, True, False)


def test_a_password_is_not_repeated_in_a_refusal() -> None:
    for lock in ("redis_x://me:hunter2@host", "redis:me:hunter2@host", "re dis://:hunter2@host/0"):
        assert "hunter2" not in str(refusal("--lock", lock))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", signal.SIGTERM),
        ("SIGTERM", signal.SIGTERM),
        ("sigint", signal.SIGINT),
        ("9", 9),
        ("64", 64),
        ("RTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
    ],
)
def test_signals_by_name_and_number(text: str, number: int) -> None:
    assert checked("--stop-signal", text).stop_signal == number


def test_in_a_pod_a_file_lock_must_be_asked_for() -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    failure = refusal("--name", "x", environ=pod)
    assert failure.status == UNUSABLE
    assert "--lock k8s-lease, etcd" in str(failure)
    assert "--lock file" in str(failure)
    assert checked("--lock", "file", environ=pod).lock_address == "file"
    from_variable = read(["--", "true"], {"SINGLETON_RUN_LOCK": "file"})
    assert from_variable is not None
    assert settings.check(from_variable, pod).lock_address == "file"


def for_command(environ: Mapping[str, str], result: settings.Settings) -> dict[str, str]:
    entries = command_environment.changed([], environ)
    told = command_environment.for_command(entries, result, token=7, holder="host/1", turn_id="t1")
    return dict(os.fsdecode(entry).split("=", 1) for entry in told)


def test_the_command_is_told_of_its_turn_and_nothing_of_our_options() -> None:
    before = {option.variable: "1" for option in OPTIONS if option.variable}
    kept = {"PATH": "/bin", "SINGLETON_RUN_SERVICE_HOST": "10.0.0.1", "RAW": "\udcff"}
    stale = {
        "SINGLETON_SLOT": "old",
        "SINGLETON_ATTEMPT": "2",
        "SINGLETON_NAME": "outer",
        "SINGLETON_TOKEN": "1",
    }
    environ = {**before, **kept, **stale}
    result = for_command(environ, checked("--name", "x"))
    held = result.pop("SINGLETON_HELD")
    assert result == {
        **kept,
        "SINGLETON_LOCK": "file",
        "SINGLETON_NAME": "x",
        "SINGLETON_TOKEN": "7",
        "SINGLETON_HOLDER": "host/1",
        "SINGLETON_TTL": "30",
        "SINGLETON_ID": "t1",
    }
    assert len(held.split()) == 2
    assert environ == {**before, **kept, **stale}


def test_nested_under_the_same_lock_and_name_is_refused_however_deep() -> None:
    outer = for_command({}, checked("--name", "a"))
    inner = for_command(outer, checked("--name", "b", environ=outer))
    for name in "ab":
        failure = refusal("--name", name, environ=inner)
        assert failure.status == UNUSABLE
        assert "--name" in str(failure)
    assert checked("--name", "c", environ=inner).name == "c"
    assert checked("--name", "a", "--lock", "file:///elsewhere", environ=inner).name == "a"


def test_nested_with_another_password_is_still_the_same_lock() -> None:
    outer = for_command({}, checked("--name", "a", "--lock", "redis://me:one@host/0?timeout=1&password=x"))
    for lock in ("redis://host/0?timeout=1", "redis://you:two@host/0?password=y&timeout=1"):
        assert lock_address.nested(outer, lock, "a")
    for lock in ("redis://host/1?timeout=1", "redis://other/0?timeout=1", "redis://host/0?timeout=2"):
        assert not lock_address.nested(outer, lock, "a")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("file", "file"),
        ("file:///var/lock/a@b:c@d", "file:///var/lock/a@b:c@d"),
        ("etcd://a:2379,b:2379/prefix", "etcd://a:2379,b:2379/prefix"),
        ("postgresql://me@db/app", "postgresql://me@db/app"),
        ("postgresql://me:pw@db:5432/app?sslmode=require", "postgresql://me:***@db:5432/app?sslmode=require"),
        ("redis://:pw@[::1]:6379/0", "redis://:***@[::1]:6379/0"),
        ("redis://:@host", "redis://:***@host"),
        ("postgresql://db/app?user=me&password=pw&x=1", "postgresql://db/app?user=me&password=***"),
        ("redis://h?x=1&Password=pw", "redis://h?x=1&Password=***"),
        ("etcd://h:2379?sslpassword=pw", "etcd://h:2379?sslpassword=***"),
        ("redis://me:p@w:d@host", "redis://…"),
        ("redis://me:p/w@host/0", "redis://…"),
        ("redis://me:p?w@host/0", "redis://…"),
        ("redis://me:12?3@host/0", "redis://…"),
        ("postgresql://db:5432/app?application_name=a@b", "postgresql://…"),
        ("redis://me:p@?w@host/0", "redis://…"),
        ("postgresql://db/app?p%61ssword=pw", "postgresql://db/app?=***"),
        ("postgresql://host=h password=pw", "postgresql://…"),
        ("host=h password = pw", "host=h password=***"),
        ("//me:pw@host", "***"),
        ("scp f me@host:d", "scp f me@host:d"),
        ("postgresql://me:p#w@host/0", "postgresql://me:***@host/0"),
        ("unknown://me:p#w@host/0", "unknown://***:***@host/0"),
        ("--lock=redis://:pw@host", "--lock=redis://…"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert lock_address.redact(url) == shown


SAFE = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1)


@given(SAFE, st.text(st.characters(codec="ascii", exclude_categories=["Cc", "Nd"]), min_size=3), SAFE)
def test_no_password_is_shown_whatever_is_in_it(user: str, password: str, host: str) -> None:
    shown = lock_address.redact(f"postgresql://{user}:{password}@{host}/0")
    unread = not set(password).isdisjoint("@/?")
    assert shown == ("postgresql://…" if unread else f"postgresql://{user}:***@{host}/0")


@given(COMMANDS)
def test_a_default_name_is_legal_and_always_the_same(command: list[str]) -> None:
    name = names.default_name(command)
    names.check_name(name)
    assert name == names.default_name(list(command))
    assert len(name.rsplit("-", 1)[1]) * 5 >= 50


@given(COMMANDS, COMMANDS)
def test_two_commands_have_two_names(one: list[str], other: list[str]) -> None:
    assert (names.default_name(one) == names.default_name(other)) == (one == other)


def test_no_two_lists_of_arguments_run_into_each_other() -> None:
    lists = [
        ["a", "b c"],
        ["a b", "c"],
        ["a", "b", "c"],
        ["a b c"],
        ["a", "b", "", "c"],
        ["a", "1:b"],
        ["a", "b\udcff"],
    ]
    assert len({names.default_name(["x", *words]) for words in lists}) == len(lists)


def test_a_default_name_begins_with_the_program_s() -> None:
    assert names.default_name(["/usr/local/bin/Back_Up.sh", "-a"]).startswith("back-up.sh-")
    assert names.default_name(["./.hidden"]).startswith("hidden-")
    assert names.default_name(["..."]).startswith("command-")


@pytest.mark.parametrize("name", ["a", "A.b_c-d:e@f+g", "0", "_x", "@", "x" * 200, "a..b"])
def test_legal_names(name: str) -> None:
    names.check_name(name)
    assert checked("--name", name).name == name


@pytest.mark.parametrize(
    "name",
    ["", "x" * 201, "a/b", "/", ".", "..", ".a", "-a", "a b", "a\n", "a\0", "ä", "\udcff", "a*", "a%2f", "²"],
)
def test_illegal_names_are_refused_and_never_cut(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        names.check_name(name)
    assert refusal("--name", name).status == USAGE


def test_bytes_that_are_no_text_have_a_name_too() -> None:
    raw = os.fsdecode(b"/bin/\xff\xfe")
    names.check_name(names.default_name([raw, raw]))


def test_every_digit_of_a_default_name_s_hash_varies() -> None:
    hashes = [names.default_name(["job", str(number)]).removeprefix("job-") for number in range(200)]
    assert {len(digits) for digits in hashes} == {16}
    for column in zip(*hashes, strict=True):
        assert len(set(column)) > 20


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("etcd", "etcd"),
        ("file:///srv/a%20b", "file:///srv/a%20b"),
        ("postgres://u:secret@h/d?sslmode=disable", "postgres://u:***@h/d?sslmode=disable"),
        ("postgres://h/d?password=secret", "postgres://h/d?password=***"),
    ],
)
def test_the_command_is_told_the_lock_s_address_without_a_password(address: str, told: str) -> None:
    assert for_command({}, checked("--lock", address))["SINGLETON_LOCK"] == told
