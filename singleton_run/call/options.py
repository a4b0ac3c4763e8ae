"""The options, as one table of data.

Two readers go by it: the plain one (`reader`), which every ordinary call takes, and click (`cli`),
for people. A new option is one more entry here, and what it means is said in `settings`.
"""

from __future__ import annotations

from singleton_run.api.registry import DEFAULT

COMPLETE = "_SINGLETON_RUN_COMPLETE"


class Option:
    """One option.

    `kind` is "flag", "count", "value" or "values" (may be repeated: joined by commas). `variable`
    is the environment variable that stands in for the option when it isn't given; an option without
    one only prints something and ends. `variables` has one for each of its long names. `default` is
    the text for an option that is given nowhere. `choices` are the only values there are, `hints`
    some of them. `rivals` are the names of options that it contradicts, `needs` of those, earlier in
    the table, without any of which it says nothing: then its variable is ignored.
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
        "needs",
        "rivals",
        "variable",
        "variables",
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
        rivals: str = "",
        needs: str = "",
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
        self.rivals = tuple(rivals.split())
        self.needs = tuple(needs.split())
        words = [flag[2:].replace("-", "_") for flag in self.flags if flag.startswith("--")]
        self.name = words[0]
        self.variables = tuple("SINGLETON_RUN_" + word.upper() for word in words) if variable else ()
        self.variable = self.variables[0] if variable else ""


_LOCK = "The lock"
_WAITING = "Waiting for it"
_COMMAND = "The command"
_SCHEDULE = "The schedule"
_OUTPUT = "What is said"

OPTIONS = (
    Option(
        _LOCK,
        "--lock",
        "Where the lock is: a backend's name, or a URL of it. A file lock is one per user, machine and "
        "mount namespace.",
        metavar="BACKEND|URL",
        default=DEFAULT,
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
        _WAITING, "-n --no-wait", "Don't wait: end at once if the lock is held.", kind="flag", rivals="wait"
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
        "Stop the command after this long; the exit status is then 124. (flock's --timeout is --wait here.)",
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
        _SCHEDULE,
        "--every",
        "Run once an interval, whoever asks: at once the first time, then by the grid that this began.",
        metavar="DURATION",
        rivals="cron once",
    ),
    Option(
        _SCHEDULE,
        "--cron",
        "Run once at each of these times: five fields, six with the second first, or @hourly, @daily, "
        "@weekly, @monthly, @yearly.",
        metavar="EXPRESSION",
        hints=("@hourly", "@daily", "@weekly", "@monthly", "@yearly"),
        rivals="once",
    ),
    Option(
        _SCHEDULE,
        "--tz",
        "The time zone of --cron, as Europe/Berlin. Default: TZ, or this machine's.",
        metavar="ZONE",
        needs="cron",
    ),
    Option(
        _SCHEDULE,
        "--jitter",
        "Start up to this long after the time, the same for everyone.",
        metavar="DURATION",
        default="0s",
        needs="every cron",
    ),
    Option(
        _SCHEDULE,
        "--start-deadline",
        "Skip a time that couldn't be started within this long. Default: until the next one.",
        metavar="DURATION",
        needs="every cron",
    ),
    Option(
        _SCHEDULE,
        "--no-loop",
        "Take part in the time that is due now, and end.",
        kind="flag",
        needs="every cron",
    ),
    Option(
        _SCHEDULE,
        "--once",
        "Run until it has succeeded once for this key: whoever comes later ends with 0 and doesn't run it.",
        metavar="KEY",
    ),
    Option(
        _SCHEDULE,
        "--retries",
        "How often to try again what failed, before the next time is due.",
        metavar="N",
        default="0",
        needs="every cron once",
    ),
    Option(
        _SCHEDULE,
        "--retry-delay",
        "How long to wait before the first retry.",
        metavar="DURATION",
        default="10s",
        needs="retries",
    ),
    Option(
        _SCHEDULE,
        "--retry-backoff",
        "By what to multiply that for each further one; at least 1.",
        metavar="FACTOR",
        default="2",
        needs="retries",
    ),
    Option(
        _SCHEDULE,
        "--retry-interrupted",
        "Try again too what was asked to stop in the middle.",
        kind="flag",
        needs="retries",
    ),
    Option(
        _SCHEDULE,
        "--lock-at-least-for",
        "Keep the lock this long after the start, even if the command ends earlier and we with it.",
        metavar="DURATION",
        default="0s",
    ),
    Option(
        _SCHEDULE,
        "--plan",
        "Print the next N times, and run nothing.",
        metavar="N",
        variable=False,
    ),
    Option(
        _OUTPUT,
        "-v --verbose",
        "Say more: that the lock was got, and the command started. Twice: also each request, message and "
        "decision, for a bug report.",
        kind="count",
    ),
    Option(
        _OUTPUT,
        "-q --quiet",
        "Say errors only, and not that the lock is held.",
        kind="flag",
        rivals="verbose",
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
