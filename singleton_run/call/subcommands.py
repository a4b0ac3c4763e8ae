"""The subcommands, as one table of data: `click_parser` reads it, and so do the help and the completions.

A subcommand is a word before any `--`. A new one is an entry here and a module in `commands/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run.call.completion_scripts import SCRIPTS
from singleton_run.call.options import OPTIONS, Option

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from singleton_run.call.fast_parser import Value


class Argument:
    """One word of a subcommand. `choices` are all possible values; none: any text."""

    __slots__ = ("choices", "name", "optional")

    def __init__(self, name: str, *, optional: bool = False, choices: tuple[str, ...] = ()) -> None:
        self.name = name
        self.optional = optional
        self.choices = choices


class Subcommand:
    """One subcommand. The module of that name in `commands/` has its `run(given, environ)`.

    `given` of that call has each argument and option by name: a text, a bool for a flag, None if it isn't
    given. `aliases` are other words for the same. `examples` are calls, each with what it does.
    """

    __slots__ = ("aliases", "arguments", "examples", "help", "name", "options")

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002 - click has the same name for it
        *,
        arguments: tuple[Argument, ...] = (),
        options: tuple[Option, ...] = (),
        examples: tuple[tuple[str, str], ...] = (),
        aliases: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.help = help
        self.arguments = arguments
        self.options = options
        self.examples = examples
        self.aliases = aliases

    def run(self, given: Mapping[str, Value], environ: Mapping[str, str]) -> NoReturn:
        """Do it, and end with its exit status."""
        module_of(self.name).run(given, environ)
        raise SystemExit(0)


def module_of(command: str) -> Any:
    """The module of `commands/` that does what people ask for. Nothing imports one before it is asked for."""
    from importlib import import_module

    return import_module(f"singleton_run.commands.{command}")


_NAME = Argument("name")
_LOCK = next(option for option in OPTIONS if option.name == "lock")

SUBCOMMANDS = (
    Subcommand(
        "completion",
        "Print the completion script of a shell: bash, zsh or fish.",
        arguments=(Argument("shell", choices=tuple(SCRIPTS)),),
    ),
    Subcommand(
        "forget",
        "Forget that --once KEY has succeeded under the lock NAME: it will run again.",
        arguments=(_NAME, Argument("key")),
        options=(_LOCK,),
        examples=(("singleton-run forget schema v7 --lock postgres", ""),),
    ),
    Subcommand(
        "install",
        "Put one file that runs this singleton-run into a directory.",
        arguments=(Argument("directory"),),
    ),
    Subcommand("licenses", "Print the licences of singleton-run and of all its parts."),
)
