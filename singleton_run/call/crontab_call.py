"""The call of `crontab`: its options, a part of the table of subcommands, and the reader of a plain call."""

from __future__ import annotations

from singleton_run.call.fast_parser import given_in
from singleton_run.call.options import OPTIONS as OF_A_COMMAND
from singleton_run.call.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from singleton_run.call.fast_parser import Value

OUTPUTS = ("raw", "prefix", "json")
NOT_OF_LINES = (
    *("name", "wait", "no_wait", "conflict_exit_code", "every", "cron", "no_loop", "once", "plan"),
)
"""The options of a command that its line of the crontab stands for, or that mean nothing there."""
OF_THE_PARENT = ("metrics_addr", "metrics_file", "ready_when")
"""The options that the parent has for all lines."""
OWN = (
    Option(
        "",
        "--output",
        "How the commands' output is written: as it comes, each line behind its job's name and run, or each "
        "line as an object. Default: prefix at a terminal, else raw.",
        metavar="raw|prefix|json",
        choices=OUTPUTS,
        variable=False,
    ),
    Option(
        "",
        "--check",
        "Only say what is in the crontab, or list all that is wrong with it.",
        kind="flag",
        variable=False,
    ),
    next(option for option in OF_A_COMMAND if option.name == "plan"),
    Option(
        "",
        "--system",
        "A user stands before each command, as in /etc/crontab and /etc/cron.d.",
        kind="flag",
        variable=False,
    ),
    Option(
        "",
        "--reboot-once",
        "Run the lines with @reboot until each has succeeded once for this key, on one of the replicas.",
        metavar="KEY",
        variable=False,
    ),
    Option(
        "",
        "--watch",
        "Read the crontab again when it changes, as after SIGHUP.",
        kind="flag",
        variable=False,
    ),
)
OPTIONS = (
    *OWN,
    *(option for option in OF_A_COMMAND if option.variable and option.name not in NOT_OF_LINES),
)
VARIABLES = frozenset(
    variable for option in OF_A_COMMAND if option.name in OF_THE_PARENT for variable in option.variables
)
"""The variables of `OF_THE_PARENT`, which no line sees."""
_FLAGS = {flag: option for option in OPTIONS for flag in option.flags}


def read(words: Sequence[str]) -> dict[str, Value | tuple[str, ...]] | None:
    """The options of a plain call, after the word `crontab`, and its files as `files`.

    None where click has to read it.
    """
    files: list[str] = []
    given = given_in(words, _FLAGS, files)
    return {**given, "files": tuple(files)} if given is not None and files and all(files) else None
