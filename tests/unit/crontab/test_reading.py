"""Crontabs become jobs, or a list of all that is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from singleton_run.crontab.reading import Call, Faults, read
from singleton_run.errors import Failure

if TYPE_CHECKING:
    from singleton_run.crontab.job import CrontabJob


def jobs(text: str, **how: object) -> list[CrontabJob]:
    return read([("etc/crontab", text)], Call({"lock": "etcd"}, {}, **how))  # type: ignore[arg-type]


def faults(text: str, **how: object) -> list[str]:
    with pytest.raises(Faults) as found:
        jobs(text, **how)
    return found.value.sentences


def test_comments_blank_lines_and_a_last_line_without_newline() -> None:
    first, second = jobs("# a\n\n  # b\n\t\n*/5 * * * * one\n\t@hourly two")
    assert (first.command, first.place) == ("one", "etc/crontab:5")
    assert (second.command, second.place) == ("two", "etc/crontab:6")
    assert first.settings.cron == "*/5 * * * *"
    assert first.settings.command == ("/bin/sh", "-c", "one")
    assert first.settings.lock_address == "etcd"
    assert first.settings.loop
    assert second.schedule == "@hourly"


def test_an_assignment_counts_from_there_on() -> None:
    first, second, third = jobs("@daily a\nA=1\nSHELL=/bin/bash\n@daily b\nA='2 '\n@daily c\n")
    assert (first.environment, first.shell) == ({}, "/bin/sh")
    assert second.environment == {"A": "1", "SHELL": "/bin/bash"}
    assert third.environment == {"A": "2 ", "SHELL": "/bin/bash"}
    assert third.settings.command == ("/bin/bash", "-c", "c")


def test_zones_count_from_there_on() -> None:
    text = """
        @daily a
        TZ=Europe/Berlin
        @daily b
        CRON_TZ=Asia/Tokyo
        @daily c
        # singleton-run: tz=America/New_York
        @daily d
        CRON_TZ=
        @daily e
    """
    found = read([("f", text)], Call({"lock": "file", "tz": "UTC"}, {}))
    zones = ["UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York", "Europe/Berlin"]
    assert [job.settings.zone for job in found] == zones
    assert [job.environment.get("TZ") for job in found] == [None, *["Europe/Berlin"] * 4]
    assert all("CRON_TZ" not in job.environment for job in found)


def test_options_of_a_line() -> None:
    text = (
        "# singleton-run: name=digest timeout=10m retries=2\n"
        "# singleton-run: lock-at-most-for=5m stop-signal=INT retry-interrupted\n"
        "0 6 * * * digest\n"
        "0 7 * * * other\n"
    )
    first, second = jobs(text)
    assert (first.name, first.named) == ("digest", True)
    assert (first.settings.timeout, first.settings.retries, first.settings.stop_signal) == (300.0, 2, 2)
    assert first.settings.retry_interrupted
    assert (second.settings.timeout, second.settings.retries, second.named) == (None, 0, False)


def test_a_name_is_made_of_the_file_and_the_line() -> None:
    (one,) = jobs("0 6 * * * digest a")
    (same,) = read([("elsewhere/crontab", "\n0  6 * *\t* digest a\n")], Call({"lock": "file"}, {}))
    (other,) = jobs("0 7 * * * digest a")
    (another,) = read([("etc/jobs", "0 6 * * * digest a")], Call({"lock": "etcd"}, {}))
    assert one.name.startswith("crontab-")
    assert one.name == same.name
    assert len({one.name, other.name, another.name}) == 3


def test_a_job_is_known_again_by_its_key() -> None:
    (one,) = jobs("A=1\n0 6 * * * digest a")
    (moved,) = jobs("# more\nA=1\n\n0 6 * * * digest a")
    (otherwise,) = jobs("A=2\n0 6 * * * digest a")
    (slower,) = jobs("A=1\n# singleton-run: timeout=1h\n0 6 * * * digest a")
    assert one.key == moved.key
    assert len({one.key, otherwise.key, slower.key}) == 3


def test_every_and_reboot() -> None:
    every, reboot = jobs("@every 90s a\n@reboot b", reboot_once="v1")
    assert (every.settings.every, every.settings.loop) == (90.0, True)
    assert (reboot.settings.once, reboot.settings.scheduled) == ("v1", False)
    (fault,) = faults("\n@reboot b")
    assert fault.startswith("etc/crontab:2: @reboot would run again on each replica: with --reboot-once KEY")


def test_users() -> None:
    def refuses(user: str) -> str:
        return "" if user == "root" else f"no {user}"

    (job,) = jobs("@daily root a b", user_column=True, refuses_user=refuses)
    assert (job.user, job.command) == ("root", "a b")
    assert faults("@daily web a b", user_column=True, refuses_user=refuses) == ["etc/crontab:1: no web"]


def test_variables_of_the_call_and_of_the_file() -> None:
    environ = {"SINGLETON_RUN_NAME": "x", "SINGLETON_RUN_ONCE": "k", "SINGLETON_RUN_RETRIES": "1"}
    text = "SINGLETON_RUN_TIMEOUT=5m\nSINGLETON_RUN_NO_LOOP=1\n@daily a\n@daily b"
    first, second = read([("f", text)], Call({"lock": "file"}, environ))
    assert first.name != second.name
    assert (first.settings.retries, first.settings.timeout, first.settings.loop) == (1, 300.0, True)


FAULTS = """\
1: the minute '61' has 61, which is not from 0 to 59
2: the minute '5-1' goes backwards: write 0,1,5-59
3: 'nonsense' begins no line of a crontab: NAME=value does, and so do five fields (minute, hour, \
day of the month, month, day of the week), six with the second first, or a word such as @daily
4: there is no command after the schedule '* * * * *'
5: CRON_TZ is 'Mars/Base', which is no time zone that is known here: Europe/Berlin is one
6: TZ is 'CET-1CEST', which is no time zone that is known here: Europe/Berlin is one, or give the \
zone of the schedule by CRON_TZ
7: 'nam' is no option for a line: is name meant?
10: --name: the lock name '.x' begins with '.': begin it with a letter or digit
11: timeout needs a value: write timeout=DURATION
12: once can't be given to a line: its schedule stands before the command
13: no-wait can't be given to a line: lines wait for nothing but their times, again and again
14: a quote is never closed in the options for the line below
15: quiet is 'maybe': write quiet or leave it out
17: --timeout/--lock-at-most-for: '
18: --every: '
19: no line follows these options: they are for the line below them
""".splitlines()


def test_all_faults_are_told_at_once() -> None:
    text = (
        "61 * * * * a\n"
        "5-1 * * * * a\n"
        "nonsense\n"
        "* * * * *\n"
        "CRON_TZ=Mars/Base\n"
        "TZ=CET-1CEST\n"
        "# singleton-run: nam=x\n"
        "@daily a\n"
        "# singleton-run: name=.x\n"
        "@daily b\n"
        "# singleton-run: name=c timeout\n"
        "# singleton-run: once=k\n"
        "# singleton-run: no-wait\n"
        "# singleton-run: name='x\n"
        "# singleton-run: quiet=maybe\n"
        "# singleton-run: timeout=soon\n"
        "@daily c\n"
        "@every never d\n"
        "# singleton-run: name=last\n"
    )
    found = [fault.removeprefix("etc/crontab:") for fault in faults(text)]
    assert [fault.partition("soon'")[0].partition("never'")[0] for fault in found] == FAULTS


@pytest.mark.parametrize("option", ["metrics-addr=:9", "metrics-file=/run/m", "ready-when=leader"])
def test_what_is_the_parent_s_is_refused_on_a_line(option: str) -> None:
    (fault,) = faults(f"# singleton-run: {option}\n@daily x")
    flag = option.partition("=")[0]
    said = f"{flag} can't be given to a line: write --{flag} into the call, where it is for all lines"
    assert fault == f"etc/crontab:1: {said}"


@pytest.mark.parametrize(
    "comment",
    ["singleton-run name=x", "Singleton-Run: name=x", "singleton-run : name=x", "singleton_run: name=x"],
)
def test_a_comment_that_is_nearly_one_of_ours_is_a_fault(comment: str) -> None:
    (fault,) = faults(f"#{comment}\n@daily x")
    assert fault.startswith(
        "etc/crontab:1: this comment is not read as options: write '# singleton-run: name="
    )


@pytest.mark.parametrize(
    "comment", ["singleton-run", "singleton-run runs these", "the name=x", "singleton-runs a=b"]
)
def test_any_other_comment_is_a_comment(comment: str) -> None:
    assert len(jobs(f"# {comment}\n@daily x")) == 1


def test_two_lines_with_one_name() -> None:
    named = "# singleton-run: name=a\n@daily x\n# singleton-run: name=a\n@hourly y"
    assert faults(named) == ["etc/crontab:4: etc/crontab:2 has the name a too: give each line its own"]
    (fault,) = faults("@daily x\n\n@daily x")
    assert fault.startswith("etc/crontab:3: this line is the same as etc/crontab:1: take one out, or give")


def test_windows_line_ends_are_refused_once() -> None:
    first, second = faults("@daily x\r\n@daily y\r\n61 * * * * z\r\n")
    assert first.startswith("etc/crontab:1: the lines end with carriage return and newline, as on Windows")
    assert first.endswith("sed -i 's/\\r$//' etc/crontab")
    assert second.startswith("etc/crontab:3: the minute '61'")


def test_a_fault_of_the_call_is_none_of_the_file() -> None:
    with pytest.raises(Failure, match="ttl must be at least 6s"):
        read([("f", "61 * * * * x")], Call({"lock": "file", "ttl": "1s"}, {}))
