"""Reads the command line by click: help, errors, completion, subcommands.

The words before the first `--` are ours. The words after it are the command's, and are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, ShellComplete

from singleton_run import __version__
from singleton_run.api.lock_address import redact
from singleton_run.call import from_flock
from singleton_run.call.fast_parser import WITH_VALUE, Values, fill
from singleton_run.call.help_texts import EXAMPLE, EXAMPLES, INTRODUCTION, STATUSES, VARIABLES, described
from singleton_run.call.options import COMPLETE, OPTIONS, Option, joint
from singleton_run.call.output import NAME, quoted, refuse, show
from singleton_run.call.subcommands import SUBCOMMANDS, Subcommand, module_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    from singleton_run.call.fast_parser import Value

_DASHES = "--"
_BREAKS = ":=@"


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Values:
    """The call in `argv` (without the program's name), as `fast_parser.read` returns it.

    Raises SystemExit if there is nothing to run: with 0 after it has printed help, the version or a
    completion, with USAGE after one line on stderr.
    """
    words = list(argv)
    if environ.get(COMPLETE):
        _complete(words, environ)
    dashes = words.index(_DASHES) if _DASHES in words else len(words)
    try:
        given = _options(words, dashes, environ)
    except click.ClickException as error:
        message = " ".join(error.format_message().split())
        option = error.option_name if isinstance(error, click.NoSuchOption) else ""
        hint = from_flock.hint(option) or f" (see {NAME} --help)"
        refuse(from_flock.rewritten(words) or f"{redact(message).rstrip('.')}{hint}")
    command = words[dashes + 1 :]
    if "plan" in given:
        module_of("plan").run(given, command, environ)
    if not command:
        refuse(f"there is no command: put it after --, as in {EXAMPLE}")
    try:
        return Values(fill(given, environ), command)
    except ValueError as error:
        refuse(str(error))


def _options(words: list[str], dashes: int, environ: Mapping[str, str]) -> dict[str, Value]:
    """The given options. Raises SystemExit if one of them, or a subcommand, asks for something else."""
    with _program().make_context(NAME, words[:dashes], obj=environ) as context:
        if context.params["help"]:
            show(context.get_help() + "\n")
        if context.params["version"]:
            show(f"{NAME} {__version__}\n")
        if context.args:
            _subcommand(context, words, dashes - len(context.args))
        given = {
            name: joint(name).join(of) if isinstance(of, tuple) else of for name, of in context.params.items()
        }
        return {name: value for name, value in given.items() if value or context.params[name] in ("", ("",))}


def _subcommand(context: click.Context, words: list[str], place: int) -> NoReturn:
    """Run the subcommand at `place`. If there is none, say where the `--` is missing."""
    program = context.command
    command = program.get_command(context, words[place]) if isinstance(program, click.Group) else None
    if command is None:
        said = from_flock.rewritten(words)
        if said:
            refuse(said)
        line = [NAME, *words[:place], _DASHES, *words[place:]]
        refuse(f"put -- before the command: {' '.join(quoted(redact(word)) for word in line)}")
    with command.make_context(words[place], words[place + 1 :], parent=context) as inner:
        command.invoke(inner)
    raise SystemExit(0)


class _Program(click.Group):
    """The options and subcommands, with a help page in groups."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options. The first other word, and all after it, stay in `ctx.args`."""
        return click.Command.parse_args(self, ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the whole help page."""
        formatter.write_usage(ctx.command_path, "[OPTIONS] -- COMMAND [ARGS...]")
        _paragraph(formatter, INTRODUCTION)
        for group in dict.fromkeys(option.group for option in OPTIONS):
            with formatter.section(group):
                formatter.write_dl([_columns(option) for option in OPTIONS if option.group == group])
        with formatter.section("Subcommands"):
            formatter.write_dl([(subcommand.name, subcommand.help) for subcommand in SUBCOMMANDS])
        with formatter.section("Examples"):
            _write_examples(formatter, EXAMPLES)
        with formatter.section("Exit status"):
            formatter.write_dl(STATUSES)
        _paragraph(formatter, VARIABLES)


def _paragraph(formatter: click.HelpFormatter, text: str) -> None:
    formatter.write_paragraph()
    formatter.write_text(text)


def _columns(option: Option) -> tuple[str, str]:
    """An option's two columns on the help page."""
    return f"{', '.join(option.flags)} {option.metavar}".rstrip(), described(option)


def _program() -> _Program:
    """The tables of options and subcommands as a click program."""
    program = _Program(
        NAME,
        params=[_option(option) for option in OPTIONS],
        invoke_without_command=True,
        no_args_is_help=False,
        add_help_option=False,
    )
    for subcommand in SUBCOMMANDS:
        program.add_command(_command(subcommand))
        for alias in subcommand.aliases:
            program.add_command(_command(subcommand, hidden=True), alias)
    return program


def _command(subcommand: Subcommand, *, hidden: bool = False) -> click.Command:
    """An entry of the table as a click command. Its --lock may stand before or after its name."""

    def callback(**given: Value) -> NoReturn:
        context = click.get_current_context()
        if "lock" in given and given["lock"] is None and context.parent is not None:
            given["lock"] = context.parent.params["lock"]
        subcommand.run(given, context.obj)

    arguments = [
        click.Argument(
            [argument.name],
            required=not argument.optional,
            nargs=-1 if argument.many else 1,
            type=click.Choice(argument.choices) if argument.choices else click.UNPROCESSED,
            shell_complete=_lock_names if argument.name == "name" else None,
        )
        for argument in subcommand.arguments
    ]
    return _Subcommand(
        subcommand,
        params=[*arguments, *(_option(option) for option in subcommand.options), _help_option()],
        callback=callback,
        hidden=hidden,
    )


class _Subcommand(click.Command):
    """A subcommand, whose help page has examples."""

    def __init__(self, subcommand: Subcommand, **how: Any) -> None:
        super().__init__(subcommand.name, help=subcommand.help, add_help_option=False, **how)
        self._examples = subcommand.examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        if self._examples:
            with formatter.section("Examples"):
                _write_examples(formatter, self._examples)


def _write_examples(formatter: click.HelpFormatter, examples: Sequence[tuple[str, str]]) -> None:
    for line, meaning in examples:
        formatter.write(f"  {line}{'   # ' if meaning else ''}{meaning}\n")


def _option(option: Option) -> click.Option:
    if option.kind in WITH_VALUE:
        return click.Option(
            [*option.flags, option.name],
            type=click.UNPROCESSED,
            multiple=option.kind == "values",
            metavar=option.metavar or None,
            help=described(option),
            shell_complete=_suggestions(option),
        )
    count = option.kind == "count"
    return click.Option([*option.flags, option.name], is_flag=not count, count=count, help=option.help)


def _help_option() -> click.Option:
    def callback(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            show(context.get_help() + "\n")

    return click.Option(["-h", "--help"], is_flag=True, is_eager=True, expose_value=False, callback=callback)


def _suggestions(
    option: Option,
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]:
    """A function that completes the option's value."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        known: Sequence[str] = option.choices or option.hints
        if option.name == "lock":
            from singleton_run.api import registry

            known = sorted(registry.usable())
        return [CompletionItem(value) for value in known if value.startswith(incomplete)]

    return complete


def _lock_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The names of the locks at the address that the words so far, or the variable, name."""
    above = context.parent.params if context.parent is not None else {}
    lock = context.params.get("lock") or above.get("lock")
    names = module_of("lock_names").known(lock, context.obj)
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _complete(words: list[str], environ: Mapping[str, str]) -> NoReturn:
    """Print the completions of the last of `words`: one on each line, with a tab and its help.

    bash completes only what follows the last colon, equals sign or at sign of a word.
    """
    *before, incomplete = _joined(words) or [""]
    last = words[-1] if words else ""
    typed = len(incomplete) - len(last if last.strip(_BREAKS) else "")
    prefix = incomplete.partition("=")[0] + "=" if incomplete[:2] == "--" and "=" in incomplete else ""
    completion = ShellComplete(_program(), {"obj": environ}, NAME, COMPLETE)
    items = completion.get_completions(before, incomplete)
    show("".join(f"{(prefix + item.value)[typed:]}\t{item.help or ''}\n" for item in items))


def _joined(words: list[str]) -> list[str]:
    """The words as they were typed: bash takes them apart at each break, as in `etcd`, `:`, `//host`."""
    joined: list[str] = []
    apart = False
    for word in words:
        is_break = bool(word) and not word.strip(_BREAKS)
        if joined and (is_break or apart):
            joined[-1] += word
        else:
            joined.append(word)
        apart = is_break
    return joined
