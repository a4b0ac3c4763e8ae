"""The options, as one table of data.

Two parsers use it: `fast_parser` for ordinary calls, and `click_parser` for help, errors and completion. A
new option is a new entry here; `settings` says what it means.
"""

from __future__ import annotations

from singleton_run.api.registry import DEFAULT

COMPLETE = "_SINGLETON_RUN_COMPLETE"
RESTED = "_SINGLETON_RUN_RESTED"
"""The variable with what a replica remembers over a long rest (`front.rest`)."""


class Option:
    """One option.

    `kind` is "flag", "count", "value" or "values" (may be repeated; the values are joined by `joint`).
    `variable` is the environment variable that counts when the option isn't given. An option without a
    variable only prints something and ends. `variables` has one for each long name. `default` is the value if
    neither option nor variable is given. `choices` are all possible values, `hints` are examples of values.
    `rivals` are the names of options that this one contradicts. `needs` are the names of earlier options: if
    none of them is given, this option has no effect, and its variable is ignored.
    """

    __slots__ = (
        "choices",
        "default",
        "flags",
        "group",
        "help",
        "hints",
        "joint",
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
        help: str,  # noqa: A002 - click has the same name for it
        *,
        kind: str = "value",
        metavar: str = "",
        default: str | None = None,
        choices: tuple[str, ...] = (),
        hints: tuple[str, ...] = (),
        rivals: str = "",
        needs: str = "",
        joint: str = ",",
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
        self.joint = joint
        words = [flag[2:].replace("-", "_") for flag in self.flags if flag.startswith("--")]
        self.name = words[0]
        self.variables = tuple("SINGLETON_RUN_" + word.upper() for word in words) if variable else ()
        self.variable = self.variables[0] if variable else ""


_LOCK = "The lock"
_WAITING = "Waiting for the lock"
_COMMAND = "The command"
_SCHEDULE = "The schedule"
_OUTPUT = "Messages"
_REPORTS = "Telling others"

OPTIONS = (
    Option(
        _LOCK,
        "--lock",
        "Where the lock is: a backend's name, or a URL that begins with it. The lock 'file' is one per user, "
        "machine and mount namespace.",
        metavar="BACKEND|URL",
        default=DEFAULT,
    ),
    Option(
        _LOCK,
        "--name",
        "What is locked. Default: made from the command and its arguments, so another argument is another "
        "lock.",
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
        _LOCK,
        "--label-pod",
        "With k8s-lease: set this label on our own pod while we hold the lock, so that a Service finds it.",
        metavar="KEY=VALUE",
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
        "Send SIGKILL this long after the command was asked to stop. Default: 10s after --timeout and for "
        "processes that the command left behind, never after a signal from you.",
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
        "Pass on another signal than the one that came, as in TERM:INT; HUP:0 passes on none. May be "
        "repeated.",
        kind="values",
        metavar="FROM:TO",
    ),
    Option(
        _COMMAND,
        "--signal-command-only",
        "Pass signals to the command alone, not to its process group.",
        kind="flag",
    ),
    Option(
        _COMMAND,
        "--leftovers",
        "What to do with processes that the command leaves behind: stop them, keep the lock until they "
        "end, or give the lock back while they run.",
        metavar="kill|wait|ignore",
        default="kill",
        choices=("kill", "wait", "ignore"),
    ),
    Option(
        _SCHEDULE,
        "--every",
        "Run once in each interval, on one of the machines: at once the first time, and then in steps of "
        "the interval from there; at least 1s.",
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
        "The time zone of --cron, as in Europe/Berlin. Default: TZ, or this machine's.",
        metavar="ZONE",
        needs="cron",
    ),
    Option(
        _SCHEDULE,
        "--jitter",
        "Start later than the time, by at most this long; every replica takes the same delay.",
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
        "--overlap",
        "What to do with a time that is due while the last run still goes on: run it when that ends (the "
        "newest, if there are several), pass it over, or stop that run for it. Forbid is skip.",
        metavar="queue|skip|replace",
        default="queue",
        choices=("queue", "skip", "replace"),
        needs="every cron",
    ),
    Option(
        _SCHEDULE,
        "--no-loop",
        "Run for the time that is due now, and end: for crontabs and CronJobs.",
        kind="flag",
        needs="every cron",
    ),
    Option(
        _SCHEDULE,
        "--once",
        "Run until the command has succeeded once for this key: later calls end with 0 and don't run it.",
        metavar="KEY",
    ),
    Option(
        _SCHEDULE,
        "--retries",
        "How often to run a failed command again, before the next time is due.",
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
        "Multiply the delay by this for each further retry; at least 1.",
        metavar="FACTOR",
        default="2",
        needs="retries",
    ),
    Option(
        _SCHEDULE,
        "--retry-interrupted",
        "Also run a command again that was asked to stop in the middle.",
        kind="flag",
        needs="retries",
    ),
    Option(
        _SCHEDULE,
        "--lock-at-least-for",
        "Keep the lock for this long after the start, even if the command and we end earlier.",
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
        "Also say when we get the lock and when the command starts. Twice: also each request, message and "
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
        "The format of what we say on stderr.",
        metavar="text|json",
        default="text",
        choices=("text", "json"),
    ),
    Option(
        _REPORTS,
        "--metrics-addr",
        "Serve /metrics for Prometheus, /healthz, /readyz and /leader at this address while we live.",
        metavar="[HOST]:PORT|unix:PATH",
    ),
    Option(
        _REPORTS,
        "--ready-when",
        "When /readyz says yes: once we know the lock's state, while we hold it, or while the command runs.",
        metavar="started|holding|running",
        default="started",
        choices=("started", "holding", "running"),
        needs="metrics_addr",
    ),
    Option(
        _REPORTS,
        "--metrics-file",
        "Write the metrics to this file, for the textfile collector of node_exporter.",
        metavar="PATH",
    ),
    Option(
        _REPORTS,
        "--on",
        "Run this command by sh when that happens, with the event in its environment and on its stdin: "
        "waiting, acquired, started, late, succeeded, failed, interrupted, lost, revoked, killed, released, "
        "skipped, paused, gave_up. May be repeated.",
        kind="values",
        joint="\n",
        metavar="EVENT=COMMAND",
    ),
    Option(
        _REPORTS,
        "--on-timeout",
        "How long a command of --on may run.",
        metavar="DURATION",
        default="30s",
        needs="on",
    ),
    Option(
        _REPORTS,
        "--notify",
        "Send each event to this address, as JSON by POST; it is tried again while we live.",
        metavar="URL",
    ),
    Option(
        _REPORTS,
        "--notify-secret",
        "Sign what --notify sends with this secret (HMAC-SHA256). Give it by its variable.",
        metavar="SECRET",
        needs="notify",
    ),
    Option(
        _REPORTS,
        "--ping",
        "Tell a monitor of jobs when a run starts and how it ends. A ping that fails changes nothing.",
        metavar="URL",
    ),
    Option(
        _REPORTS,
        "--ping-style",
        "Whose address --ping has: that of healthchecks.io or its like, Cronitor, Dead Man's Snitch, or a "
        "plain one that is asked for after a success.",
        metavar="healthchecks|cronitor|snitch|plain",
        default="healthchecks",
        choices=("healthchecks", "cronitor", "snitch", "plain"),
        needs="ping",
    ),
    Option(
        _REPORTS,
        "--ping-log",
        "Send the last 10 kB of the command's output with the ping at its end. The output passes through us.",
        kind="flag",
        needs="ping",
    ),
    Option(_OUTPUT, "--version", "Print the version.", kind="flag", variable=False),
    Option(_OUTPUT, "-h --help", "Print this help.", kind="flag", variable=False),
)


def joint(name: str) -> str:
    """What the values of a repeated option of a command are joined by."""
    return next(option.joint for option in OPTIONS if option.name == name)
