"""Lines of crontab(5): assignments, fields, the command and its input."""

from __future__ import annotations

import pytest

from singleton_run.crontab import syntax


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        ("SHELL=/bin/bash", ("SHELL", "/bin/bash")),
        ("PATH = /usr/bin:/bin", ("PATH", "/usr/bin:/bin")),
        ('MAILTO=""', ("MAILTO", "")),
        ("MAILTO=", ("MAILTO", "")),
        ("A='  kept  '", ("A", "  kept  ")),
        ('"B C"=x', ("B C", "x")),
        ("A=$HOME/bin # no comment", ("A", "$HOME/bin # no comment")),
        ("A=b=c", ("A", "b=c")),
        ("A=it's", ("A", "it's")),
        ("*/5 * * * * A=b run", None),
        ("@daily A=b run", None),
        ('A="b" c', None),
        ('A="b', None),
        ("=x", None),
        ("word", None),
    ],
)
def test_an_assignment(line: str, pair: tuple[str, str] | None) -> None:
    assert syntax.assignment(line) == pair


@pytest.mark.parametrize(
    ("text", "schedule", "command"),
    [
        ("* * * * * true", "* * * * *", "true"),
        ("*/5\t1-3\t*  *\tmon-fri  run  a  b", "*/5 1-3 * * mon-fri", "run  a  b"),
        ("0 */10 * * * * run", "0 */10 * * * *", "run"),
        ("*/5 * * * * * * run", "*/5 * * * * *", "run"),
        ("0 0 12 * * MON,FRI run", "0 0 12 * * MON,FRI", "run"),
        ("0 0 12 * * 8 run", "0 0 12 * * 8", "run"),
        ("0 0 12 * * /run", "0 0 12 * *", "/run"),
        ("0 0 12 * * 7z x a", "0 0 12 * *", "7z x a"),
        ("0 0 12 * * sunrise", "0 0 12 * *", "sunrise"),
        ("@daily run it", "@daily", "run it"),
        ("@every 90s run it", "@every 90s", "run it"),
    ],
)
def test_the_fields_and_the_command(text: str, schedule: str, command: str) -> None:
    line = syntax.line_of(text, user_column=False)
    assert (line.schedule, line.user, line.command, line.stdin) == (schedule, None, command, None)


def test_the_users_column() -> None:
    line = syntax.line_of("17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly", user_column=True)
    assert (line.schedule, line.user) == ("17 * * * *", "root")
    assert line.command == "cd / && run-parts --report /etc/cron.hourly"


@pytest.mark.parametrize(
    ("written", "command", "stdin"),
    [
        ("date +\\%F", "date +%F", None),
        ("cat%hello", "cat", "hello\n"),
        ("cat%one%two%", "cat", "one\ntwo\n"),
        ("cat%100\\% sure", "cat", "100% sure\n"),
        ("cat%", "cat", None),
        ("cat %a", "cat ", "a\n"),
        ("a \\x b", "a \\x b", None),
        ("a \\\\%b", "a \\", "b\n"),
        ("a \\\\\\%b \\\\n", "a \\%b \\n", None),
        ("a\\", "a\\", None),
        ("cat%a\\nb", "cat", "a\\nb\n"),
    ],
)
def test_a_percent_sign_begins_the_input(written: str, command: str, stdin: str | None) -> None:
    line = syntax.line_of(f"* * * * * {written}", user_column=False)
    assert (line.command, line.stdin) == (command, stdin)


@pytest.mark.parametrize(
    ("text", "user_column", "sentence"),
    [
        ("* * * *", False, "'*' begins no line of a crontab"),
        ("hello", False, "'hello' begins no line of a crontab"),
        ("* * * * *", False, "there is no command after the schedule '* * * * *'"),
        ("@daily", False, "there is no command after the schedule '@daily'"),
        ("@daily root", True, "there is no command after the schedule '@daily', after the user"),
        ("* * * * * %in", False, "there is no command after the schedule"),
        ("0 0 0 1 1 * 2026 run", False, "this line has seven fields"),
    ],
)
def test_what_is_no_line(text: str, user_column: bool, sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + sentence.replace("*", r"\*")):
        syntax.line_of(text, user_column=user_column)


def test_our_comments() -> None:
    assert syntax.options_in("# singleton-run: name=a") == " name=a"
    assert syntax.options_in("#singleton-run:name=a") == "name=a"
    assert syntax.options_in("# singleton-run runs this") is None
