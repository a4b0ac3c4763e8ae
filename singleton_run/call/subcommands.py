"""The subcommands, as one table of data: `click_parser` reads it, and so do the help and the completions.

A subcommand is a word before any `--`. A new one is an entry here and a module in `commands/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleton_run.call import crontab_call
from singleton_run.call.completion_scripts import SCRIPTS
from singleton_run.call.options import OPTIONS, Option

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from singleton_run.call.fast_parser import Value


class Argument:
    """One word of a subcommand, or `many`. `choices` are all possible values; none: any text."""

    __slots__ = ("choices", "many", "name", "optional")

    def __init__(
        self, name: str, *, optional: bool = False, choices: tuple[str, ...] = (), many: bool = False
    ) -> None:
        self.name = name
        self.optional = optional
        self.choices = choices
        self.many = many


class Subcommand:
    """One subcommand. The module of that name in `commands/` has its `run(given, environ)`.

    `given` of that call has each argument and option by name: a text, a bool for a flag, None if it isn't
    given, a tuple of texts where there may be many. `aliases` are other words for the same. `examples` are
    calls, each with what it does.
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
_LOCK, _TTL, _KILL_AFTER = (
    next(option for option in OPTIONS if option.name == name) for name in ("lock", "ttl", "kill_after")
)
_JSON = Option(
    "",
    "--json",
    "Print JSON: docs/schema/ in the source has a schema for it, and fields are only ever added.",
    kind="flag",
    variable=False,
)
_YES = Option("", "-y --yes", "Don't ask.", kind="flag", variable=False)

SUBCOMMANDS = (
    Subcommand(
        "check",
        "Ask the server whether the lock of the command that asks is still its own: 0 if it is, 79 if not, "
        "69 if nobody can tell.",
        options=(
            Option(
                "",
                "--for",
                "How much of the lease must be left: less than two thirds of --ttl. "
                "Default: 5s, or half of --ttl if that is less.",
                metavar="DURATION",
                variable=False,
            ),
            _LOCK,
        ),
        examples=(
            ("singleton-run check && ./dangerous-step.sh", "in a script that singleton-run runs"),
            ("singleton-run check --for 15s", ""),
        ),
    ),
    Subcommand(
        "completion",
        "Print the completion script of a shell: bash, zsh or fish.",
        arguments=(Argument("shell", choices=tuple(SCRIPTS)),),
    ),
    Subcommand(
        "crontab",
        "Run the lines of crontabs, each under a lock of its own: once in the cluster, however many replicas "
        "run the same crontab. The other options count for each line that doesn't say otherwise.",
        arguments=(Argument("files", many=True),),
        options=crontab_call.OPTIONS,
        examples=(
            ("singleton-run crontab /etc/crontab --lock etcd", "in an image"),
            ("singleton-run crontab /etc/cron.d --system --lock postgres --watch", ""),
        ),
    ),
    Subcommand(
        "doctor",
        "Look at all that a lock needs on this machine and its server, change nothing, and say what to mend.",
        arguments=(Argument("name", optional=True),),
        options=(
            _LOCK,
            _TTL,
            _KILL_AFTER,
            Option(
                "",
                "--setup",
                "Print only what an administrator runs on the server, to be piped into its own tool.",
                kind="flag",
                variable=False,
            ),
        ),
        examples=(
            ("singleton-run doctor backup --lock etcd", ""),
            ("singleton-run doctor --setup --lock postgres | psql", "as an administrator"),
        ),
    ),
    Subcommand(
        "forget",
        "Forget that --once KEY has succeeded under the lock NAME: it will run again.",
        arguments=(_NAME, Argument("key")),
        options=(_LOCK,),
        examples=(("singleton-run forget schema v7 --lock postgres", ""),),
    ),
    Subcommand(
        "history",
        "Print the runs under the lock NAME that its record keeps, the latest first.",
        arguments=(_NAME,),
        options=(
            _LOCK,
            Option("", "-n --lines", "How many runs.", metavar="N", default="20", variable=False),
            _JSON,
        ),
        examples=(
            ("singleton-run history report --lock etcd", ""),
            ("singleton-run history report -n 1 --json", "the last run"),
        ),
    ),
    Subcommand(
        "install",
        "Put one file that runs this singleton-run into a directory.",
        arguments=(Argument("directory"),),
    ),
    Subcommand("licenses", "Print the licences of singleton-run and of all its parts."),
    Subcommand(
        "list",
        "Print all names that have a lock or a record at --lock: state, holder, last run, next slot.",
        options=(
            _LOCK,
            Option(
                "",
                "--stale",
                "Only those of a schedule whose last slot was missed, or did not succeed.",
                kind="flag",
                variable=False,
            ),
            _JSON,
        ),
        examples=(
            ("singleton-run list --lock postgres", ""),
            ("singleton-run list --lock etcd --stale", "the morning's look"),
        ),
    ),
    Subcommand(
        "pause",
        "Let nobody start a command under the lock NAME until somebody resumes: who waits waits on, slots "
        "are skipped, and a command that runs goes on.",
        arguments=(_NAME,),
        options=(
            Option(
                "",
                "--until",
                "When the pause ends: a time as 2026-12-01T08:00:00Z, or by this machine's clock as "
                "'2026-12-01 08:00' or 08:00, the next one. Default: when somebody resumes.",
                metavar="TIME",
                variable=False,
            ),
            Option("", "--for", "How long the pause lasts.", metavar="DURATION", variable=False),
            Option("", "--reason", "Why: whoever waits is told.", metavar="TEXT", variable=False),
            _YES,
            _LOCK,
        ),
        examples=(
            ("singleton-run pause report --for 1h --reason 'migration of the database'", ""),
            ("singleton-run pause report --until 08:00 --lock etcd", ""),
        ),
        aliases=("suspend",),
    ),
    Subcommand(
        "release",
        "Free the lock NAME where no process holds it: where it is kept by --lock-at-least-for, or its lease "
        "is over. A lock that is held stays held (75).",
        arguments=(_NAME,),
        options=(
            Option(
                "",
                "--force",
                "If it is held, have its holder end its command (79) and give it back, and wait for that.",
                kind="flag",
                variable=False,
            ),
            _YES,
            _LOCK,
        ),
        examples=(
            ("singleton-run release report --lock etcd", "after --lock-at-least-for"),
            ("singleton-run release report --lock etcd --force", "ends its command"),
        ),
    ),
    Subcommand(
        "resume",
        "End a pause of the lock NAME.",
        arguments=(_NAME,),
        options=(_YES, _LOCK),
        examples=(("singleton-run resume report --lock etcd", ""),),
    ),
    Subcommand(
        "status",
        "Print who holds the lock NAME, since when, how its last runs went, and what comes next. Without "
        "NAME: that of SINGLETON_RUN_NAME. The exit status is 0 if it is held, 3 if it is free, kept, "
        "expired or paused.",
        arguments=(Argument("name", optional=True),),
        options=(
            _LOCK,
            Option(
                "",
                "--watch",
                "Go on until Ctrl-C: at a terminal redraw in place, elsewhere print a line at each change.",
                kind="flag",
                variable=False,
            ),
            _JSON,
        ),
        examples=(
            ("singleton-run status report --lock etcd", ""),
            ("singleton-run status report --watch", "who holds it, as it changes"),
            ("singleton-run status report --json | jq -r .holder", ""),
        ),
    ),
)
