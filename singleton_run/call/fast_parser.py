"""Reads an ordinary, valid call without click: click takes longer to import than the whole call takes.

Any other call (help, a subcommand, a mistake, a rare spelling) is left to `click_parser`. The two read each
call that this one understands in the same way.
"""

from __future__ import annotations

from singleton_run.call.options import COMPLETE, OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from singleton_run.call.options import Option

    Value = str | int | None

_FLAGS = {flag: option for option in OPTIONS for flag in option.flags if option.variable}
WITH_VALUE = ("value", "values")
_TRUTH = dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True)
_TRUTH.update(dict.fromkeys(("0", "false", "f", "no", "n", "off"), False))


class Values:
    """A call as it was written, before any check.

    `options` has each option that has a variable, by name: the text or None, a bool for a flag, an int for a
    count. `command` is the command and its arguments; it is never empty.
    """

    __slots__ = ("command", "options")

    def __init__(self, options: dict[str, Value], command: list[str]) -> None:
        self.options = options
        self.command = command

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Values) and (self.options, self.command) == (other.options, other.command)

    __hash__ = None  # type: ignore[assignment] # how Python marks what can change

    def __repr__(self) -> str:
        return f"Values({self.options!r}, {self.command!r})"


def read(argv: Sequence[str], environ: Mapping[str, str]) -> Values | None:
    """The call in `argv` (without the program's name), or None if click has to read it."""
    if environ.get(COMPLETE) or "--" not in argv:
        return None
    dashes = argv.index("--")
    command = list(argv[dashes + 1 :])
    given = given_in(argv[:dashes])
    if not command or given is None:
        return None
    try:
        return Values(fill(given, environ), command)
    except ValueError:
        return None


def fill(given: Mapping[str, Value], environ: Mapping[str, str]) -> dict[str, Value]:
    """The given options, and the values of the variables for the others.

    A given option also overrides the variables of its rivals: `-n` overrides SINGLETON_RUN_WAIT. A variable
    is ignored if its option has no effect without another one that is missing, such as SINGLETON_RUN_TZ
    without
    --cron: it may be set for many calls. An empty variable counts as not set. Raises ValueError with a
    sentence that names the variable.
    """
    options: dict[str, Value] = {}
    beaten = [option.name for option in OPTIONS for rival in option.rivals if rival in given]
    beaten += [rival for option in OPTIONS if option.name in given for rival in option.rivals]
    for option in OPTIONS:
        if not option.variables:
            continue
        variable = next((name for name in option.variables if environ.get(name)), "")
        if option.name in given:
            options[option.name] = given[option.name]
        elif variable and option.name not in beaten and not lacking(option, options):
            text = environ[variable]
            options[option.name] = text if option.kind in WITH_VALUE else _number(variable, option.kind, text)
        else:
            options[option.name] = {"flag": False, "count": 0}.get(option.kind)
    return options


def lacking(option: Option, options: Mapping[str, Value]) -> bool:
    """Whether the option has no effect, because all options that it needs are missing."""
    return bool(option.needs) and all(options[name] in (None, False) for name in option.needs)


def given_in(
    words: Sequence[str], flags: Mapping[str, Option] = _FLAGS, others: list[str] | None = None
) -> dict[str, Value] | None:
    """The options in `words`; None if there is anything else.

    With `others`, words that are no options are allowed, and put there.
    """
    given: dict[str, Value] = {}
    rest = iter(words)
    for word in rest:
        if others is not None and word[:1] != "-":
            others.append(word)
            continue
        flag, equals, value = word.partition("=") if word[:2] == "--" else (word, "", "")
        option = flags.get(flag)
        if option is not None and option.kind in WITH_VALUE:
            text = value if equals else next(rest, None)
            if text is None:
                return None
            again = option.kind == "values" and option.name in given
            given[option.name] = f"{given[option.name]}{option.joint}{text}" if again else text
        elif equals or not _switch(flag, given, flags):
            return None
    return given


def _switch(word: str, given: dict[str, Value], flags: Mapping[str, Option]) -> bool:
    """Read options without a value: `--quiet`, `-q`, `-vv`. False if the word is anything else."""
    if len(word) < 2 or word[0] != "-":
        return False
    for flag in [word] if word[1] == "-" else ["-" + letter for letter in word[1:]]:
        option = flags.get(flag)
        if option is None or option.kind in WITH_VALUE:
            return False
        given[option.name] = True if option.kind == "flag" else int(given.get(option.name) or 0) + 1
    return True


def _number(variable: str, kind: str, text: str) -> int:
    """The value of a flag's or a count's variable. Raises ValueError if the text has no such value."""
    if kind == "count":
        if text.isascii() and text.isdigit() and len(text) < 4:
            return int(text)
        raise ValueError(f"{variable} is {text!r}: set it to a number such as 1")
    truth = _TRUTH.get(text.strip().lower())
    if truth is None:
        raise ValueError(f"{variable} is {text!r}: set it to 1 or 0")
    return truth
