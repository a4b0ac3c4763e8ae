"""Makes the man page, docs/singleton-run.1, of the tables of options and subcommands; `make man` calls it."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from singleton_run import __version__
from singleton_run.call import help_texts
from singleton_run.call.options import OPTIONS
from singleton_run.call.subcommands import SUBCOMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from singleton_run.call.options import Option
    from singleton_run.call.subcommands import Subcommand

_DATE = "2026-11-28"
"""When what this page says beside the tables was last changed."""
_NAME = "run a command while no other runs under the same lock, on one machine or many"
_FILES = (
    ("/var/lib/singleton-run", "The locks of root, with --lock file and no directory."),
    ("~/.local/state/singleton-run", "Those of any other user."),
)
_SUBCOMMANDS = (
    "A subcommand is a word before any --. --lock or its variable names the lock's place, as for a command. "
    "What changes something says what it did. What ends a command asks at a terminal, and needs --yes where "
    "there is none."
)
_STATUSES = (
    "For a subcommand: 0 if it did what it says; 1 where there was nothing to do it to, or a question was "
    "answered with no; 2, 69, 75, 77 and 78 as above; 79 of check: the lock is not ours any more."
)
_SEE_ALSO = ("flock(1)", "flock(2)", "crontab(5)")


def page() -> str:
    """The man page, in the macros of man(7)."""
    return "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    yield '.\\" Made by `make man` of the tables of options and subcommands: change these.'
    yield f'.TH SINGLETON-RUN 1 "{_DATE}" "singleton-run {__version__}" "User Commands"'
    yield from (".SH NAME", rf"singleton\-run \- {_text(_NAME)}")
    yield ".SH SYNOPSIS"
    yield r"\fBsingleton\-run\fR [\fIOPTIONS\fR] \-\- \fICOMMAND\fR [\fIARGS\fR...]"
    yield from (".br", r"\fBsingleton\-run\fR \fISUBCOMMAND\fR [\fIOPTIONS\fR] [\fIARGS\fR...]")
    yield from (".SH DESCRIPTION", _text(help_texts.INTRODUCTION))
    yield ".SH OPTIONS"
    for group in dict.fromkeys(option.group for option in OPTIONS):
        yield f".SS {_text(group)}"
        for option in OPTIONS:
            if option.group == group:
                yield from _option(option)
    yield from (".SH SUBCOMMANDS", _text(_SUBCOMMANDS))
    for subcommand in SUBCOMMANDS:
        yield from _subcommand(subcommand)
    yield from (".SH ENVIRONMENT", _text(help_texts.VARIABLES), ".PP", "The command sees:")
    yield from _list(help_texts.TOLD)
    yield ".SH EXIT STATUS"
    yield from (*_list(help_texts.STATUSES), ".PP", _text(_STATUSES))
    yield from (".SH FILES", *_list(_FILES))
    yield ".SH EXAMPLES"
    for number, (line, meaning) in enumerate(help_texts.EXAMPLES):
        yield from list(_example(line, meaning))[0 if number else 1 :]
    yield from (".SH SEE ALSO", _text(", ".join(_SEE_ALSO)))


def _option(option: Option) -> Iterator[str]:
    flags = ", ".join(_bold(flag) for flag in option.flags)
    yield from (".TP", f"{flags} {_italic(option.metavar)}".rstrip(), _text(help_texts.described(option)))


def _subcommand(subcommand: Subcommand) -> Iterator[str]:
    words = [argument.name.upper() for argument in subcommand.arguments]
    shown = [
        f"[{_italic(word)}]" if argument.optional else _italic(word)
        for argument, word in zip(subcommand.arguments, words, strict=True)
    ]
    yield f'.SS "{" ".join([_bold(subcommand.name), *shown])}"'
    yield _text(subcommand.help)
    if subcommand.aliases:
        yield _text(f"The same: {', '.join(subcommand.aliases)}.")
    for option in subcommand.options:
        if option.name != "lock":
            yield from _option(option)
    for line, meaning in subcommand.examples:
        yield from _example(line, meaning)


def _example(line: str, meaning: str) -> Iterator[str]:
    comment = f"   # {meaning}" if meaning else ""
    yield from (".PP", ".nf", ".RS 4", _escaped(line + comment), ".RE", ".fi")


def _list(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for word, meaning in rows:
        yield from (".TP", _bold(word), _text(meaning))


def _bold(word: str) -> str:
    return rf"\fB{_escaped(word)}\fR"


def _italic(word: str) -> str:
    return rf"\fI{_escaped(word)}\fR" if word else ""


def _text(text: str) -> str:
    """A paragraph, with the options in it in bold."""
    return re.sub(r"(?<!\S)((?:\\-){1,2}[A-Za-z](?:\\-|\w)*)", r"\\fB\1\\fR", _escaped(text))


def _escaped(text: str) -> str:
    """`text` as it is: no hyphen becomes a dash, no line begins a macro."""
    plain = text.replace("\\", r"\e").replace("-", r"\-").replace("…", "...").replace("'", r"\(aq")
    return rf"\&{plain}" if plain.startswith(".") else plain


if __name__ == "__main__":
    sys.stdout.write(page())
