"""What the help page and the man page say beside the tables of options and subcommands."""

from __future__ import annotations

from singleton_run.call.output import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.call.options import Option

EXAMPLE = f"{NAME} --name backup -- ./backup.sh"

INTRODUCTION = (
    "Run COMMAND while no other command runs under the same lock: one at a time, on one machine or many. The "
    "lock is given back when the command and every process that it started have ended."
)
EXAMPLES = (
    (EXAMPLE, "one per user and machine"),
    (f"{NAME} --name backup -n -- ./backup.sh", "give up if another runs"),
    (f"{NAME} --name report --wait 10m --timeout 1h -- make report", ""),
    (f"{NAME} --lock file:///srv/locks --name deploy -- ./deploy.sh", ""),
    (f"{NAME} --lock etcd --name digest --cron '0 11 * * *' -- ./digest.sh", ""),
    (f"{NAME} --lock postgres --name schema --once v7 -- ./migrate.sh", ""),
)
STATUSES = (
    ("the command's", "The command ran; 128+N if signal N ended it."),
    ("2", "The call can't be read, or contradicts itself."),
    ("3", "status: nobody holds the lock."),
    ("69", "The server can't be reached."),
    ("75", "The lock is held (-E sets another)."),
    ("77, 78", "The server refuses us; it can't work on this machine."),
    ("79", "The lock was lost or taken away, so the command was stopped."),
    ("124", "The command was stopped by --timeout."),
    ("126, 127", "The command can't be executed; isn't found."),
)
VARIABLES = (
    "Every option but --plan, --version and --help has a variable, such as SINGLETON_RUN_WAIT for --wait, "
    "that counts when the option isn't given. "
    "Durations: 90, 90s, 1m30s, 1.5h, 2d, 500ms, PT5M."
)
TOLD = (
    ("SINGLETON_NAME", "The lock's name."),
    (
        "SINGLETON_LOCK",
        "The lock's address, with *** instead of a password: `singleton-run check` finds the lock by it.",
    ),
    ("SINGLETON_TOKEN", "The fencing token: a number that grows with each holder of the lock."),
    ("SINGLETON_HOLDER", "This holder, under the name that others see: host, process id, a random part."),
    ("SINGLETON_TTL", "--ttl in seconds, which counts for a lock with a lease."),
    ("SINGLETON_ID", "A random id of this run."),
    ("SINGLETON_SLOT", "With --every or --cron: the time of the schedule that this run is for."),
    (
        "SINGLETON_ATTEMPT",
        "With --every, --cron or --once: the number of this attempt, from 1.",
    ),
    (
        "SINGLETON_HELD",
        "Hashes of the locks that are held around the command: a call that would wait for itself is refused.",
    ),
)
"""The variables that a command sees, and what they say."""


def described(option: Option) -> str:
    """What an option does, and its default."""
    return option.help + (f" Default: {option.default}." if option.default else "")
