"""The command line as click reads it: help, errors, completion, subcommands.

What is before the first `--` is ours, what is after it is the command's and is not looked at.
"""

from __future__ import annotations

import shlex
import signal
from contextlib import suppress
from os import fsencode
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, ShellComplete

from singleton_run import __version__
from singleton_run.api.lock_address import redact
from singleton_run.call.fast_parser import WITH_VALUE, Values, fill
from singleton_run.call.options import COMPLETE, OPTIONS, Option
from singleton_run.errors import USAGE, Failure, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from singleton_run.call.fast_parser import Value

NAME = "singleton-run"
_DASHES = "--"
_FORGET_LIMIT = 10.0
_EXAMPLE = f"{NAME} --name backup -- ./backup.sh"

_INTRODUCTION = (
    "Run COMMAND when nobody else runs it under the same lock: one at a time, on one machine or many. The "
    "lock is given back when the command and every process that it started have ended."
)
_EXAMPLES = (
    (_EXAMPLE, "one per user and machine"),
    (f"{NAME} --name backup -n -- ./backup.sh", "give up if another runs"),
    (f"{NAME} --name report --wait 10m --timeout 1h -- make report", ""),
    (f"{NAME} --lock file:///srv/locks --name deploy -- ./deploy.sh", ""),
    (f"{NAME} --lock etcd --name digest --cron '0 11 * * *' -- ./digest.sh", ""),
    (f"{NAME} --lock postgres --name schema --once v7 -- ./migrate.sh", ""),
)
_STATUSES = (
    ("the command's", "It ran; 128+N if signal N ended it."),
    ("2", "The call can't be read, or contradicts itself."),
    ("69", "The server can't be reached."),
    ("75", "The lock is held (-E sets another)."),
    ("77, 78", "The server refuses us; this machine can't."),
    ("79", "The lock was lost, and the command stopped for it."),
    ("124", "The command was stopped by --timeout."),
    ("126, 127", "The command can't be executed; isn't found."),
)
_VARIABLES = (
    "Every option has a variable, SINGLETON_RUN_WAIT for --wait, that counts when the option isn't given. "
    "Durations: 90, 90s, 1m30s, 1.5h, 2d, 500ms, PT5M."
)

_BASH = """\
# Completion of singleton-run for bash, made by: singleton-run completion bash

_singleton_run() {
    local i line
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == -- ]]; then
            _singleton_run_command $((i + 1))
            return
        fi
    done
    while IFS= read -r line; do
        COMPREPLY+=("${line%%$'\\t'*}")
    done < <(_SINGLETON_RUN_COMPLETE=1 "$1" "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}

# What follows the -- completes as it would by itself, if bash-completion is there to do it.
_singleton_run_command() {
    local line
    if declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset "$1"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    else
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do
            COMPREPLY+=("$line")
        done < <(
            ((COMP_CWORD > $1)) || _singleton_run_programs "${COMP_WORDS[COMP_CWORD]}"
            compgen -f -- "${COMP_WORDS[COMP_CWORD]}"
        )
    fi
}

# The programs on PATH that begin with $1: no functions, aliases or words of the shell's own.
_singleton_run_programs() {
    local directory file
    local -a directories
    [[ $1 != */* ]] || return 0
    IFS=: read -ra directories <<<"$PATH"
    for directory in "${directories[@]}"; do
        for file in "$directory/$1"*; do
            [[ -f $file && -x $file ]] && printf '%s\\n' "${file##*/}"
        done
    done | sort -u
}

complete -F _singleton_run singleton-run
"""

_ZSH = """\
#compdef singleton-run
# Completion of singleton-run for zsh, made by: singleton-run completion zsh

_singleton-run() {
    local -i dashes=${words[(ie)--]}
    local -a lines
    if (( dashes < CURRENT )); then
        # What follows the -- completes as it would by itself.
        shift $dashes words
        (( CURRENT -= dashes ))
        _normal -p singleton-run
        return
    fi
    lines=(${(f)"$(_SINGLETON_RUN_COMPLETE=1 ${words[1]} "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    lines=("${(@)lines//:/\\\\:}")
    lines=("${(@)lines/$'\\t'/:}")
    _describe singleton-run lines
}

if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
    _singleton-run "$@"
else
    compdef _singleton-run singleton-run
fi
"""

_FISH = """\
# Completion of singleton-run for fish, made by: singleton-run completion fish

function __singleton_run_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    if set -l dashes (contains -i -- -- $words)
        # What follows the -- completes as it would by itself.
        set -e words[1..$dashes]
        complete -C (string join -- ' ' (string escape -- $words) $current)
    else
        _SINGLETON_RUN_COMPLETE=1 $words $current 2>/dev/null
    end
end

complete -c singleton-run -f -a '(__singleton_run_complete)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Values:
    """The call in `argv` (without the program's name), as `reader.read` gives it.

    Raises SystemExit when there is nothing to run: with status 0 after printing help, the version or
    a completion, with USAGE after one line on stderr.
    """
    words = list(argv)
    if environ.get(COMPLETE):
        _complete(words)
    dashes = words.index(_DASHES) if _DASHES in words else len(words)
    try:
        given = _options(words, dashes, environ)
    except click.ClickException as error:
        message = " ".join(error.format_message().split())
        _refuse(f"{redact(message).rstrip('.')} (see {NAME} --help)")
    command = words[dashes + 1 :]
    if "plan" in given:
        _plan(given, command, environ)
    if not command:
        _refuse(f"there is no command: put it after --, as in {_EXAMPLE}")
    try:
        return Values(fill(given, environ), command)
    except ValueError as error:
        _refuse(str(error))


def _options(words: list[str], dashes: int, environ: Mapping[str, str]) -> dict[str, Value]:
    """The options that were given; ends here if they, or a subcommand, ask for something else."""
    with _program().make_context(NAME, words[:dashes], obj=environ) as context:
        if context.params["help"]:
            _print(context.get_help() + "\n")
        if context.params["version"]:
            _print(f"{NAME} {__version__}\n")
        if context.args:
            _subcommand(context, words, dashes - len(context.args))
        given = {name: ",".join(of) if isinstance(of, tuple) else of for name, of in context.params.items()}
        return {name: value for name, value in given.items() if value or context.params[name] in ("", ("",))}


def _subcommand(context: click.Context, words: list[str], place: int) -> NoReturn:
    """Run the subcommand at `place`, or say where the `--` of a command is missing."""
    program = context.command
    command = program.get_command(context, words[place]) if isinstance(program, click.Group) else None
    if command is None:
        line = [NAME, *words[:place], _DASHES, *words[place:]]
        _refuse(f"put -- before the command: {' '.join(_quoted(redact(word)) for word in line)}")
    with command.make_context(words[place], words[place + 1 :], parent=context) as inner:
        command.invoke(inner)
    raise SystemExit(0)


class _Program(click.Group):
    """The options and subcommands, with a help page in groups."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; the words from the first other one on are left together in `ctx.args`."""
        return click.Command.parse_args(self, ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the whole help page."""
        formatter.write_usage(ctx.command_path, "[OPTIONS] -- COMMAND [ARGS...]")
        _paragraph(formatter, _INTRODUCTION)
        for group in dict.fromkeys(option.group for option in OPTIONS):
            with formatter.section(group):
                formatter.write_dl([_described(option) for option in OPTIONS if option.group == group])
        with formatter.section("Subcommands"):
            formatter.write_dl(
                [(command.name or "", command.help or "") for command in self.commands.values()]
            )
        with formatter.section("Examples"):
            for line, meaning in _EXAMPLES:
                formatter.write(f"  {line}{'   # ' if meaning else ''}{meaning}\n")
        with formatter.section("Exit status"):
            formatter.write_dl(_STATUSES)
        _paragraph(formatter, _VARIABLES)
        _paragraph(formatter, _for_postgres())


def _for_postgres() -> str:
    from singleton_run_postgres import statements

    statement = statements.for_administrator("public", "singleton_run_lock", "ROLE")
    return f"Postgres: the table is made on first use by whoever may. Else an administrator says: {statement}"


def _paragraph(formatter: click.HelpFormatter, text: str) -> None:
    formatter.write_paragraph()
    formatter.write_text(text)


def _described(option: Option) -> tuple[str, str]:
    """An option's two columns on the help page."""
    flags = ", ".join(option.flags)
    default = f" Default: {option.default}." if option.default else ""
    return f"{flags} {option.metavar}".rstrip(), option.help + default


def _program() -> _Program:
    """The table of options, as click wants it."""
    shell = click.Argument(["shell"], type=click.Choice(tuple(_SCRIPTS)))
    completion = click.Command(
        "completion",
        params=[shell, _help_option()],
        callback=_print_script,
        help="Print the completion script of a shell: bash, zsh or fish.",
        add_help_option=False,
    )
    forget = click.Command(
        "forget",
        params=[
            click.Argument(["name"]),
            click.Argument(["key"]),
            *(_option(option) for option in OPTIONS if option.name == "lock"),
            _help_option(),
        ],
        callback=_forget,
        help="Forget that --once KEY has succeeded under the lock NAME: it will run again.",
        add_help_option=False,
    )
    return _Program(
        NAME,
        params=[_option(option) for option in OPTIONS],
        commands=[completion, forget],
        invoke_without_command=True,
        no_args_is_help=False,
        add_help_option=False,
    )


def _option(option: Option) -> click.Option:
    if option.kind in WITH_VALUE:
        return click.Option(
            [*option.flags, option.name],
            type=click.UNPROCESSED,
            multiple=option.kind == "values",
            help=option.help,
            shell_complete=_suggestions(option),
        )
    count = option.kind == "count"
    return click.Option([*option.flags, option.name], is_flag=not count, count=count, help=option.help)


def _help_option() -> click.Option:
    def callback(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            _print(context.get_help() + "\n")

    return click.Option(["-h", "--help"], is_flag=True, is_eager=True, expose_value=False, callback=callback)


def _print_script(shell: str) -> NoReturn:
    _print(_SCRIPTS[shell])


def _plan(given: dict[str, Value], command: list[str], environ: Mapping[str, str]) -> NoReturn:
    """Print the next slots, and end."""
    from singleton_run.call import preview, settings

    try:
        number = preview.count(str(given["plan"]))
        values = Values(fill(given, environ), command or [""])
        if not command and values.options["every"] and not values.options["name"]:
            _refuse("--plan with --every needs --name or the command: the grid is in the record of that lock")
        checked = settings.check(values, _outside(environ))
        _let_interrupt()
        preview.show(checked, number, environ)
    except Failure as failure:
        _refuse(str(failure), failure.status)
    except ValueError as error:
        _refuse(str(error))
    except OSError:
        raise SystemExit(1) from None
    raise SystemExit(0)


def _forget(name: str, key: str, lock: str | None) -> NoReturn:
    """Forget a key of --once, and say whether there was one."""
    context = click.get_current_context()
    if lock is None and context.parent is not None:
        lock = context.parent.params["lock"]
    try:
        forgotten = _forgotten(name, key, lock, _outside(context.obj))
    except Failure as failure:
        _refuse(str(failure), failure.status)
    except ValueError as error:
        _refuse(str(error))
    if not forgotten:
        _refuse(f"nothing to forget: {_quoted(key)} has not succeeded under {name}", 1)
    _print(f"forgotten: {_quoted(key)} under {name}. It runs again with --once {_quoted(key)}\n")


def _forgotten(name: str, key: str, lock: str | None, environ: Mapping[str, str]) -> bool:
    """Forget the key; whether there was one. Raises Failure, and ValueError for a wrong name or key."""
    from singleton_run import names
    from singleton_run.api import registry
    from singleton_run.call import settings

    names.check_name(name)
    settings.check_key(key)
    given: dict[str, Value] = {} if lock is None else {"lock": lock}
    variables = {word: text for word, text in environ.items() if word == "SINGLETON_RUN_LOCK"}
    checked = settings.check(Values(fill(given, variables), [""]), environ)
    _let_interrupt()
    backend = registry.open_backend(checked.lock, environ)
    try:
        return backend.forget(name, key, _FORGET_LIMIT)
    finally:
        backend.close()


def _let_interrupt() -> None:
    """From here on Ctrl-C just ends us: nothing is held, and a server may be slow."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _outside(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the word of a lock around us: what only asks waits for no one."""
    return {word: value for word, value in environ.items() if word != "SINGLETON_HELD"}


def _suggestions(
    option: Option,
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]:
    """A function that completes the option's value."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        known: Sequence[str] = option.choices or option.hints
        if option.name == "lock":
            from singleton_run.api.registry import BUILTINS

            known = sorted(BUILTINS)
        return [CompletionItem(value) for value in known if value.startswith(incomplete)]

    return complete


def _complete(words: list[str]) -> NoReturn:
    """Print what may stand in place of the last of `words`, one a line, each with a tab and its help."""
    *before, incomplete = words or [""]
    prefix = ""
    if len(before) > 1 and before[-1] == "=":  # bash makes three words of --lock=fi
        before.pop()
    elif incomplete.startswith("--") and "=" in incomplete:
        prefix = incomplete.partition("=")[0] + "="
    items = ShellComplete(_program(), {}, NAME, COMPLETE).get_completions(before, incomplete)
    _print("".join(f"{prefix}{item.value}\t{item.help or ''}\n" for item in items))


def _quoted(word: str) -> str:
    """A word as a shell reads it, on one line whatever is in it."""
    if word.isprintable():
        return shlex.quote(word)
    plain = (
        chr(byte) if 31 < byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in fsencode(word)
    )
    return f"$'{''.join(plain)}'"


def _print(text: str) -> NoReturn:
    """Print to stdout and end: status 0, or 1 if it can't be written (`--help | head -1`)."""
    try:
        _write(1, text)
    except OSError:
        raise SystemExit(1) from None
    raise SystemExit(0)


def _refuse(message: str, status: int = USAGE) -> NoReturn:
    """Say in one line what is wrong, and end."""
    with suppress(OSError):
        _write(2, f"{NAME}: {one_line(message)}\n")
    raise SystemExit(status)


def _write(descriptor: int, text: str) -> None:
    """Write it all or raise OSError, leaving nothing in a buffer that is written at exit."""
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as stream:
        stream.write(text)
