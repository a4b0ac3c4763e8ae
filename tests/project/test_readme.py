"""What README and docs say is so: options, variables, statuses, links, and what their examples print."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from singleton_run import errors
from singleton_run.api.registry import BUILT_IN, KERNEL_HELD
from singleton_run.call.fast_parser import Values, read
from singleton_run.call.options import OPTIONS
from singleton_run.call.settings import check
from singleton_run.call.subcommands import SUBCOMMANDS
from singleton_run.guard.command_environment import for_command, of_slot
from singleton_run.reporter.hooks import variables
from tests.support import schemas
from tests.support.harness import LIMIT, PROGRAM, environment, until
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = {**KERNEL_HELD, **BUILT_IN}
README = ROOT / "README.md"
PAGES = [README, *sorted(ROOT.glob("docs/*.md"))]
# Their examples need no server; those of the other pages are for whoever has one.
RUNNABLE = [
    README,
    *(
        ROOT / "docs" / f"{page}.md"
        for page in ("design", "promises", "file", "cron", "containers", "operations", "stuck")
    ),
]
OF_SUBCOMMANDS = [option for subcommand in SUBCOMMANDS for option in subcommand.options]
FLAGS = {flag for option in (*OPTIONS, *OF_SUBCOMMANDS) for flag in option.flags}
VARIABLES = {option.variable for option in OPTIONS if option.variable}

TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n)*)^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=name)


def blocks(page: Path) -> list[tuple[dict[str, str], str, str]]:
    """The fenced blocks of a page: the comments right above (`<!-- word: rest -->`), language, text."""
    found = []
    for comments, language, text in BLOCK.findall(TEXTS[page]):
        notes = (note.partition(":") for note in re.findall(r"<!-- (.*) -->", comments))
        found.append(({word: rest.strip() for word, _, rest in notes}, language, text))
    return found


def table(title: str) -> list[list[str]]:
    """The rows of the first table below a heading of the README, as cells without their back-quotes."""
    section = TEXTS[README].partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[2:]]
    return [[cell.replace("\\|", "|").replace("`", "").strip() for cell in row] for row in rows]


def code(page: Path) -> list[str]:
    """The spans and lines of a page that are set as code."""
    without_blocks = BLOCK.sub("", TEXTS[page])
    lines = [line for _, _, text in blocks(page) for line in text.splitlines()]
    return [*re.findall(r"`([^`\n]+)`", without_blocks), *lines]


def command_variables() -> set[str]:
    """The variables that a command gets from us."""
    settings = check(
        Values(dict.fromkeys(option.name for option in OPTIONS if option.variable), ["true"]), {}
    )
    told = for_command([], settings, token=1, holder="h:1:a", turn_id="t")
    return {*(entry.partition(b"=")[0].decode() for entry in told), *of_slot([0.0, 1])}


def hook_variables() -> set[str]:
    """The variables that a command of --on gets."""
    return set(variables(dict.fromkeys(schemas.schema("event")["properties"])))


# What is listed.


def test_the_readme_lists_every_option_as_it_is() -> None:
    expected = [
        [", ".join(option.flags) + f" {option.metavar}".rstrip(), option.default or ""] for option in OPTIONS
    ]
    described = [
        [flags, "" if default == "from the command" else default] for flags, default, _ in table("Options")
    ]
    assert described == expected


def test_the_readme_lists_every_subcommand_and_its_arguments() -> None:
    words = [[one.name, *(argument.name.upper() for argument in one.arguments)] for one in SUBCOMMANDS]
    shown = [row[0].replace("[", "").replace("]", "").split() for row in table("Subcommands")]
    assert sorted(shown) == sorted(words)


def test_the_readme_lists_the_variables_of_a_command() -> None:
    assert {row[0] for row in table("Variables")} == command_variables()


def test_the_readme_lists_every_exit_status() -> None:
    known = {
        str(value)
        for word, value in vars(errors).items()
        if word.isupper() and word[0] != "_" and isinstance(value, int)
    }
    assert {row[0] for row in table("Exit status")} == {"the command's", *known}


def test_the_readme_lists_every_backend_there_is() -> None:
    named = {lock.partition("://")[0] for row in table("Locks") for lock in row[0].split(", ")}
    assert named <= set(BACKENDS)
    assert {BACKENDS[scheme] for scheme in named} == set(BACKENDS.values())


# What is mentioned.


def options_in(text: str) -> set[str]:
    """The options that a line of code gives to singleton-run, or mentions alone."""
    flags: set[str] = set()
    text = text.replace('", "', " ")  # the exec form of a Dockerfile
    for call in re.findall(r"(?:^|[ (|&;'\"])singleton-run(?= |$)((?: [^\s]+)*? --(?: |$)|.*)", text):
        before = re.split(r" --(?: |$)| \| ", call)[0]
        flags |= {word.partition("=")[0] for word in before.split() if re.match(r"--?[a-zA-Z]", word)}
    if re.match(r"--?[a-zA-Z]", text):
        flags.add(re.split(r"[ =|]", text)[0])
    return flags


# Options of etcd and etcdctl that a page speaks of.
ETCDS = {"--enable-grpc-gateway", "--prefix"}
# Of the Python interpreter.
PYTHONS = {"-I", "-S", "-IS"}
# flock's own, which its page sets beside ours.
FLOCKS = {
    *("-c", "-w", "-x", "-e", "-s", "-u", "-o", "-F", "-V", "--command", "--nonblock", "--nb"),
    *("--exclusive", "--shared", "--unlock", "--close", "--no-fork"),
}


def known_flag(flag: str) -> bool:
    return flag in FLAGS or (flag[1] != "-" and all(f"-{letter}" in FLAGS for letter in flag[1:]))


@each_page
def test_options_that_a_page_mentions_exist(page: Path) -> None:
    mentioned = {flag for text in code(page) for flag in options_in(text)}
    assert {flag for flag in mentioned - ETCDS - PYTHONS - FLOCKS if not known_flag(flag)} == set()


@each_page
def test_variables_that_a_page_mentions_exist(page: Path) -> None:
    mentioned = set(re.findall(r"\bSINGLETON_\w+", TEXTS[page]))
    assert mentioned - VARIABLES - command_variables() - hook_variables() - {"SINGLETON_RUN_"} == set()


def test_the_calls_for_crontabs_are_legal() -> None:
    checked = 0
    for _, language, text in blocks(ROOT / "docs" / "cron.md"):
        lines = text.splitlines() if language in ("crontab", "sh") else []
        given = dict(line.split("=", 1) for line in lines if re.match(r"SINGLETON_RUN_\w+=", line))
        for line in lines:
            if " -- " in line and "$" not in line:
                call = line[line.index("singleton-run ") :].replace("\\%", "%").partition(" || ")[0]
                values = read(shlex.split(call)[1:], given)
                assert values is not None, line
                check(values, {})
                checked += 1
    assert checked >= 8


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code forges make them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", TEXTS[page]), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_relative_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", TEXTS[page])):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_relative_to(ROOT), target
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


# What is shown.


class Stage:
    """A directory for a page's examples, with a singleton-run and locks of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "stage"
        self.locks = self.directory / "locks-of-the-stage"
        self.locks.mkdir(parents=True, mode=0o700)
        place = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
        program = directory / "bin" / "singleton-run"
        program.parent.mkdir()
        program.write_text(
            f'#!/bin/sh\nPYTHONPATH={shlex.quote(place)} exec {shlex.join(PROGRAM)} "$@"\n', encoding="utf-8"
        )
        program.chmod(0o755)
        self.environ = environment(
            SINGLETON_RUN_LOCK=f"file://{self.locks}",
            HOME=str(self.directory),
            PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            TMPDIR=str(directory),
        )
        del self.environ["PYTHONPATH"]

    def play(self, script: str) -> str:
        """What a shell script prints, on both streams."""
        done = subprocess.run(
            ["sh", "-c", script],
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            timeout=LIMIT,
            check=False,
            text=True,
        )
        return done.stdout

    def show(self, script: str, columns: str) -> str:
        """What a shell script prints at a terminal of so many columns, without its styles."""
        environ = {**self.environ, "COLUMNS": columns}
        with Terminal(
            ["sh", "-c", script], self.directory, environ=environ, columns=int(columns)
        ) as terminal:
            terminal.wait()
        lines = re.sub(r"\x1b\[[\d;]*m", "", terminal.shown).replace("\r\n", "\n").split("\n")
        return "\n".join(re.sub(r"(?<=\S) {2,}", "  ", line).rstrip(" ") for line in lines)

    @contextmanager
    def meanwhile(self, command: str) -> Iterator[None]:
        """Run a command that takes a lock, from when it has it; none if there is none."""
        if not command:
            yield
            return
        program = subprocess.Popen(
            ["sh", "-c", f"exec {command}"], cwd=self.directory, env=self.environ, start_new_session=True
        )
        try:
            until(self.is_taken, f"a lock to be held by {command}")
            yield
        finally:
            os.killpg(program.pid, signal.SIGTERM)
            program.wait(LIMIT)

    def is_taken(self) -> bool:
        """Whether a record says that its command runs, or there is a file `taken`."""
        records = (file.read_text(encoding="utf-8") for file in self.locks.glob("*.json"))
        return (self.directory / "taken").exists() or any('"state":"running"' in text for text in records)


# What differs from run to run, and what stands for it on both sides.
VARYING = (
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", "TIME"),
    (r"(?m)(^|(?<=\())\d{4}-\d\d-\d\d \d\d:\d\d:\d\d( [+-]\d{4}(?=\)))?", "LOCAL TIME"),
    (r"\b\d+[smhd] ago\b", "SOME ago"),
    (r"(?<=[ \t])\d+(\.\d+)?s?(?= +(running|succeeded|failed)|\t(running|succeeded|failed)\t)", "SECONDS"),
    (r"\b[\w.-]+:\d+:[0-9a-f]{8} on [\w.-]+", "HOLDER on HOST"),
    (r"\b[\w.-]+:\d+:[0-9a-f]{8}\b", "HOLDER"),
    (r"\b0000\d{16}\b", "TOKEN of twenty digits"),
    (r"\b\d{16}\b", "TOKEN"),
    (r"\b\d{10}\.\d+\b", "SECONDS"),
    (r"\b(wrapper|job|process|kill|kill -9) \d+\b", r"\1 PID"),
    (r"\bby [\w.-]+@[\w.-]+", "by USER@HOST"),
    (r"\b\d+ ms\b", "SOME ms"),
    (r"\bafter \d+s\b", "after SOME s"),
)


def leveled(text: str) -> str:
    """A text in which what varies is levelled."""
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text)
    return text


def matches(shown: str, printed: str) -> bool:
    """Whether what is shown, where … stands for anything, is what was printed."""
    parts = (re.escape(part) for part in leveled(shown).split("…"))
    return re.fullmatch(".*".join(parts), leveled(printed)) is not None


def steps(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, and what each is shown to print."""
    found = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        size = 1 + sum(1 for _ in re.finditer(r"\A(?:> .*\n)+", "".join(lines[1:])))
        found.append(("".join(lines[:size]).replace("\n> ", "\n"), "".join(lines[size:])))
    return found


EXAMPLES = [
    pytest.param(page, notes, text, id=f"{name(page)}-{number}")
    for page in RUNNABLE
    for number, (notes, language, text) in enumerate(blocks(page))
    if language == "console"
]


@pytest.mark.parametrize(("page", "notes", "text"), EXAMPLES)
def test_an_example_prints_what_is_shown(
    page: Path, notes: dict[str, str], text: str, tmp_path: Path
) -> None:
    stage = Stage(tmp_path)
    for others, _, content in blocks(page):
        if "file" in others:
            (stage.directory / others["file"]).write_text(content, encoding="utf-8")
    if "before" in notes:
        stage.play(notes["before"])
    script = "".join(f"{command}\nS=$?; printf '\\036'; (exit $S)\n" for command, _ in steps(text))
    with stage.meanwhile(notes.get("meanwhile", "")):
        shown = stage.show(script, notes["terminal"]) if "terminal" in notes else stage.play(script)
        printed = shown.split("\x1e")
    if "terminal" in notes:
        text = "\n".join(re.sub(r"(?<=\S) {2,}", "  ", line) for line in text.split("\n"))
    for (command, shown), actual in zip(steps(text), printed, strict=False):
        assert matches(shown, actual), f"$ {command}{actual}"
    assert len(printed) == len(steps(text)) + 1


def test_the_demo_ends_as_the_readme_shows(tmp_path: Path) -> None:
    (shown,) = (text for notes, _, text in blocks(README) if "demo" in notes)
    printed = Stage(tmp_path).play(f"sh {shlex.quote(str(ROOT / 'docs' / 'demo.sh'))}")
    # Two copies speak there: their lines may come in another order on a busy machine.
    assert set(leveled(shown).splitlines()) <= set(leveled(printed).splitlines()), printed
