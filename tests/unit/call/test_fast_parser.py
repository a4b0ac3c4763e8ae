"""The plain reader and click read every call alike, and an ordinary one needs no click."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleton_run.call import click_parser
from singleton_run.call.fast_parser import WITH_VALUE, Values, read
from singleton_run.call.options import COMPLETE, OPTIONS, Option

TREE = Path(__file__).parents[3]
SETTABLE = [option for option in OPTIONS if option.variable]
VALUED = [option for option in SETTABLE if option.kind in WITH_VALUE]
FLAGS = [flag for option in OPTIONS for flag in option.flags]
NOTHING: dict[str, str | int | None] = {
    option.name: {"flag": False, "count": 0}.get(option.kind) for option in SETTABLE
}

BANNED = [
    "typing",
    "re",
    "enum",
    "dataclasses",
    "collections",
    "json",
    "signal",
    "socket",
    "subprocess",
    "argparse",
    "click",
    "inspect",
    "contextlib",
    "functools",
    "datetime",
    "zoneinfo",
    "croniter",
    "hashlib",
]


values = st.one_of(
    st.sampled_from(
        ["", "5", "30s", "forever", "file", "a=b", "-x", "-v", "--lock", "=", "a b", "\udcff", "x\ny"]
    ),
    st.text(max_size=8),
).filter(lambda value: value != "--")
words = st.one_of(
    st.sampled_from(
        [*FLAGS, *FLAGS, "--", "-", "", "-nq", "-vv", "-vvq", "-E5", "-nE", "--lo", "--no", "x", "completion"]
    ),
    st.builds("{}={}".format, st.sampled_from(FLAGS), values),
    st.builds("{}{}".format, st.sampled_from(FLAGS), values),
    values,
)
environs = st.dictionaries(
    st.sampled_from(
        [*(option.variable for option in SETTABLE), "SINGLETON_RUN_", "SINGLETON_RUN_SERVICE_HOST", "PATH"]
    ),
    st.one_of(
        st.sampled_from(["1", "0", "true", "No", "ON", "off", "t", " y ", "2", "maybe", "", "-1", "²"]),
        values,
    ),
)


@st.composite
def spellings(draw: st.DrawFn) -> tuple[list[str], dict[str, str | int | None]]:
    """An ordinary call's options in any legal spelling, and what they come to."""
    argv: list[str] = []
    expected = dict(NOTHING)
    for option in draw(st.lists(st.sampled_from(SETTABLE), max_size=6)):
        flag = draw(st.sampled_from(option.flags))
        if option.kind in WITH_VALUE:
            value = draw(values)
            joined = flag.startswith("--") and draw(st.booleans())
            argv += [f"{flag}={value}"] if joined else [flag, value]
            before = expected[option.name] if option.kind == "values" else None
            expected[option.name] = value if before is None else f"{before}{option.joint}{value}"
        else:
            argv.append(flag)
            expected[option.name] = True if option.kind == "flag" else int(expected[option.name] or 0) + 1
    return argv, expected


@given(spellings(), st.lists(st.one_of(words, values), min_size=1))
def test_an_ordinary_call_needs_no_click_and_click_agrees(
    spelling: tuple[list[str], dict[str, str | int | None]], command: list[str]
) -> None:
    options, expected = spelling
    call = [*options, "--", *command]
    assert read(call, {}) == Values(expected, command)
    assert click_parser.parse(call, {}) == Values(expected, command)


@settings(max_examples=400)
@given(st.lists(words, max_size=6), st.lists(words, max_size=3), environs)
def test_what_the_reader_understands_click_reads_the_same(
    head: list[str], command: list[str], environ: dict[str, str]
) -> None:
    call = [*head, "--", *command]
    plain = read(call, environ)
    if plain is not None:
        assert click_parser.parse(call, environ) == plain


@given(st.lists(words.filter(lambda word: word != "--"), max_size=4), environs)
def test_without_dashes_there_is_never_anything_to_run(head: list[str], environ: dict[str, str]) -> None:
    assert read(head, environ) is None
    with pytest.raises(SystemExit):
        click_parser.parse(head, environ)


@pytest.mark.parametrize("option", SETTABLE, ids=lambda option: option.name)
def test_every_option_has_a_variable_under_it(option: Option) -> None:
    texts: dict[str, tuple[str, str | int | None]] = {
        "value": ("from-variable", "from-variable"),
        "values": ("from-variable", "from-variable"),
        "flag": ("yes", True),
        "count": ("3", 3),
    }
    text, meaning = texts[option.kind]
    call, given = needed(option)
    for parse in (read, click_parser.parse):
        for variable in option.variables:
            assert parse(call, {variable: text}) == Values({**given, option.name: meaning}, ["true"])
            assert parse(call, {variable: ""}) == Values(given, ["true"])


def needed(option: Option) -> tuple[list[str], dict[str, str | int | None]]:
    """A call in which the option says something, and what it comes to without the option."""
    argv: list[str] = []
    given = dict(NOTHING)
    for name in option.needs[:1]:
        argv += ["--" + name.replace("_", "-"), "given"]
        given[name] = "given"
    return [*argv, "--", "true"], given


def test_what_an_option_needs_is_read_before_it() -> None:
    names = [option.name for option in OPTIONS]
    for option in OPTIONS:
        assert all(names.index(name) < names.index(option.name) for name in option.needs)


@pytest.mark.parametrize(
    "option", [option for option in SETTABLE if option.needs], ids=lambda option: option.name
)
def test_a_variable_that_would_say_nothing_is_ignored(option: Option) -> None:
    for parse in (read, click_parser.parse):
        assert parse(["--", "true"], {option.variable: "1"}) == Values(NOTHING, ["true"])


@pytest.mark.parametrize("option", VALUED, ids=lambda option: option.name)
def test_what_is_given_beats_the_variable(option: Option) -> None:
    environ = {option.variable: "from-variable"}
    for parse in (read, click_parser.parse):
        result = parse([option.flags[0], "given", "--", "true"], environ)
        assert result == Values({**NOTHING, option.name: "given"}, ["true"])


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        (["-n"], {"SINGLETON_RUN_WAIT": "5m"}, {"no_wait": True}),
        (["--wait", "5m"], {"SINGLETON_RUN_NO_WAIT": "1"}, {"wait": "5m"}),
        (["-v"], {"SINGLETON_RUN_QUIET": "1"}, {"verbose": 1}),
        (["-q"], {"SINGLETON_RUN_VERBOSE": "2"}, {"quiet": True}),
        ([], {"SINGLETON_RUN_WAIT": "5m", "SINGLETON_RUN_NO_WAIT": "1"}, {"wait": "5m", "no_wait": True}),
        ([], {"SINGLETON_RUN_NO_WAIT": "Off", "SINGLETON_RUN_PORT": "tcp://10.0.0.1:80"}, {}),
    ],
)
def test_an_option_beats_the_variable_of_its_contradiction(
    argv: list[str], environ: dict[str, str], expected: dict[str, str | int | None]
) -> None:
    for parse in (read, click_parser.parse):
        assert parse([*argv, "--", "true"], environ) == Values({**NOTHING, **expected}, ["true"])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--",
        "true",
        "--help -- true",
        "-h -- true",
        "--version -- true",
        "completion bash",
        "completion -- true",
        "--lo file -- true",
        "--nonsense -- true",
        "--no-wait=1 -- true",
        "--name -- true",
        "- -- true",
        "-nx -- true",
        "-nE -- true",
        "--name x true",
    ],
)
def test_what_is_not_plain_is_left_to_click(line: str) -> None:
    assert read(line.split(), {}) is None


def test_a_completion_and_a_variable_that_can_not_be_read_are_left_to_click() -> None:
    assert read(["--", "true"], {COMPLETE: "1"}) is None
    assert read(["--", "true"], {"SINGLETON_RUN_QUIET": "maybe"}) is None
    assert read(["--", "true"], {"SINGLETON_RUN_VERBOSE": "-1"}) is None


def test_the_command_s_own_dashes_and_options_stay() -> None:
    command = ["git", "log", "--", "-n", "--help", "--name", "x"]
    for parse in (read, click_parser.parse):
        assert parse(["--name", "a", "--", *command], {}) == Values({**NOTHING, "name": "a"}, command)


def test_clusters_of_letters_are_read() -> None:
    for parse in (read, click_parser.parse):
        assert parse(["-nvv", "--", "true"], {}) == Values(
            {**NOTHING, "no_wait": True, "verbose": 2}, ["true"]
        )


@pytest.mark.process
@pytest.mark.parametrize(
    "schedule", ["", "--every 1h", "--cron 30,45,0_2_*_*_* --tz Europe/Berlin", "--once x"]
)
def test_nothing_slow_is_imported_on_the_way_to_the_command(schedule: str) -> None:
    words = ["--name", "x", "--stop-signal", "INT", *(word.replace("_", " ") for word in schedule.split())]
    code = f"""if True:
        import sys
        before = set(sys.modules)
        from singleton_run.call import executable, fast_parser, settings
        from singleton_run.guard import command_environment
        values = fast_parser.read([*{words!r}, "--timeout", "1m30s", "--", "true"], {{}})
        checked = settings.check(values, {{}})
        executable.find("true", {{}})
        command_environment.for_command([], checked, token=1, holder="h", turn_id="t")
        print(*(set(sys.modules) - before).intersection({BANNED!r}))
    """
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=TREE, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
