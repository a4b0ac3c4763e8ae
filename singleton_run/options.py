"""The options, as one table of data.

Two readers go by it: the plain one (`reader`), which every ordinary call takes, and click (`cli`),
for people. A new option is one more entry here, and what it means is said in `settings`.
"""

from __future__ import annotations

COMPLETE = "_SINGLETON_RUN_COMPLETE"


class Option:
    """One option.

    `kind` is "flag", "count", "value" or "values" (may be repeated: joined by commas). `variable`
    is the environment variable that stands in for the option when it isn't given; an option without
    one only prints something and ends. `default` is the text for an option that is given nowhere.
    `choices` are the only values there are, `hints` some of them. `rival` names the option that it
    contradicts.
    """

    __slots__ = (
        "choices",
        "default",
        "flags",
        "group",
        "help",
        "hints",
        "kind",
        "metavar",
        "name",
        "rival",
        "variable",
    )

    def __init__(
        self,
        group: str,
        flags: str,
        help: str,  # noqa: A002 - what click calls it, and the table reads best with it
        *,
        kind: str = "value",
        metavar: str = "",
        default: str | None = None,
        choices: tuple[str, ...] = (),
        hints: tuple[str, ...] = (),
        rival: str = "",
        variable: bool = True,
    ) -> None:
        self.group = group
        self.flags = tuple(flags.split())
        self.help = help
        self.kind = kind
        self.metavar = metavar
        self.default = default
        self.choices = choices
        self.hints = hints
        self.rival = rival
        word = next(flag for flag in self.flags if flag.startswith("--"))[2:]
        self.name = word.replace("-", "_")
        self.variable = "SINGLETON_RUN_" + self.name.upper() if variable else ""


_LOCK = "The lock"
_WAITING = "Waiting for it"
_COMMAND = "The command"
_OUTPUT = "What is said"

OPTIONS = (
    Option(
        _LOCK,
        "--lock",
        "Where the lock is: a backend's name, or a URL of it. A file lock is one per user, machine and "
        "mount namespace.",
        metavar="BACKEND|URL",
        default="file",
    ),
    Option(
        _LOCK,
        "--name",
        "What is locked. Default: made from the command and its arguments, so that another argument is "
        "another lock.",
        metavar="NAME",
    ),
    Option(
        _LOCK,
        "--ttl",
        "How long the lock outlives a machine that is lost; at least 6s.",
        metavar="DURATION",
        default="30s",
    ),
    Option(
        _WAITING,
        "--wait",
        "How long to wait for the lock.",
        metavar="DURATION|forever",
        default="forever",
        hints=("forever",),
    ),
    Option(
        _WAITING, "-n --no-wait", "Don't wait: end at once if the lock is held.", kind="flag", rival="wait"
    ),
    Option(
        _WAITING,
        "-E --conflict-exit-code",
        "The exit status for a lock that is held, 0 to 255.",
        metavar="STATUS",
        default="75",
    ),
    Option(
        _COMMAND,
        "--timeout --lock-at-most-for",
        "Stop the command after this long; the exit status is then 124.",
        metavar="DURATION",
    ),
    Option(
        _COMMAND,
        "--kill-after",
        "Send SIGKILL this long after the stop signal. Default: 10s where one is needed.",
        metavar="DURATION",
    ),
    Option(
        _COMMAND,
        "--stop-signal",
        "The signal that asks the command to stop, by name or number.",
        metavar="SIGNAL",
        default="TERM",
        hints=("TERM", "INT", "QUIT", "HUP", "USR1", "USR2"),
    ),
    Option(
        _COMMAND,
        "--rewrite-signal",
        "Send another signal than the one that we were sent, as TERM:INT; to 0 sends none. May be repeated.",
        kind="values",
        metavar="FROM:TO",
    ),
    Option(
        _COMMAND,
        "--signal-command-only",
        "Send signals to the command alone, not to its process group.",
        kind="flag",
    ),
    Option(
        _COMMAND,
        "--leftovers",
        "What to do with processes that the command leaves behind: stop them, keep the lock until they "
        "end, or give the lock back all the same.",
        metavar="kill|wait|ignore",
        default="kill",
        choices=("kill", "wait", "ignore"),
    ),
    Option(
        _OUTPUT, "-v --verbose", "Say more: that the lock was got, and the command started.", kind="count"
    ),
    Option(
        _OUTPUT, "-q --quiet", "Say errors only, and not that the lock is held.", kind="flag", rival="verbose"
    ),
    Option(
        _OUTPUT,
        "--log-format",
        "How it is said, on stderr.",
        metavar="text|json",
        default="text",
        choices=("text", "json"),
    ),
    Option(_OUTPUT, "--version", "Print the version.", kind="flag", variable=False),
    Option(_OUTPUT, "-h --help", "Print this.", kind="flag", variable=False),
)
