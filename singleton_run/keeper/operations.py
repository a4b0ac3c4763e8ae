"""The keeper's vocabulary: the operations that its decisions ask for, their results, and what it is told.

The decisions are generators. Each `yield` hands an Operation to the one who carries it out (the keeper's
process, a simulation in the tests) and gets its Result back.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Any

    from singleton_run.api.contract import Grant, Held
    from singleton_run.errors import Failure

    Record = Mapping[str, Any]
    # A grant, and the end of its lease by the boot clock.
    Leased = tuple[Grant, float]
    Steps = Generator["Operation", "Result", None]
    StepsToResult = Generator["Operation", "Result", "Result"]
    StepsToLastResult = Generator["Operation", "Result", "Result | None"]
    StepsToGrant = Generator["Operation", "Result", "Leased | None"]
    StepsToOutcome = Generator["Operation", "Result", "Leased | Held | Failure | None"]


class Operation:
    """One operation: its name, and its arguments in this order.

    | name | arguments | does | | --- | --- | --- | | acquire | limit | asks for the lock: a Grant or a Held |
    | wait | held, until | waits until the lock may be free | | leave | limit | takes back the place in the
    queue | | renew | grant, limit | renews the lease: the control, None
    without one | | hold | grant, until | waits as the lock's holder | |
    prepare | grant | makes the record of the run that begins | |
    release | grant, record, limit | gives the lock back; for a record also the state of the run that it is of
    | | sleep | until | waits | | report | end | writes the lease's end into the shared page | | tell |
    message | tells the front | | wake | – | sends SIGCONT to front and guard | | enforce | – | kills the
    command, because nobody else does | | clock | – | the time of slots, and how far our clock is behind it |
    | read | limit | the lock's holder and its record | | write | grant, record, limit | writes the record | |
    done | key, limit | the mark of a key | | mark | grant, key, record, limit | marks a key as done | |
    label | on, limit | sets the label on our pod, or takes it away |
    """

    __slots__ = ("arguments", "name")

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name = name
        self.arguments = arguments


class Result:
    """How an operation went: the boot clock when it `began` and ended (`now`), its `value` or its `error`."""

    __slots__ = ("began", "error", "now", "value")

    def __init__(self, began: float, now: float, value: object = None, error: Failure | None = None) -> None:
        self.began = began
        self.now = now
        self.value = value
        self.error = error


class Orders:
    """What the keeper was told, by the front or by a death. It is brought up to date after every operation.

    `leaving`: give up waiting. `running_record`: the command runs, and this record of the run is to be
    written; None once it is. `record`: the command is gone, and this is the record of its run. `no_front`:
    the front is dead. `unguarded`: the guard is dead too, and nothing proves that the command is gone;
    `nothing_runs`: something does. `never_started`: the guard died before it started the command.
    `not_understood`: the name of a message that this version doesn't know.

    An operation that waits (wait, hold, sleep) returns at once when an order comes, or has come.
    """

    __slots__ = (
        "leaving",
        "never_started",
        "no_front",
        "not_understood",
        "nothing_runs",
        "record",
        "running_record",
        "unguarded",
    )

    def __init__(self) -> None:
        self.leaving = False
        self.record: Record | None = None
        self.running_record: Record | None = None
        self.not_understood = ""
        self.no_front = False
        self.unguarded = False
        self.nothing_runs = False
        self.never_started = False

    def leave(self) -> None:
        """Give up waiting."""
        self.leaving = True

    def running(self, record: Record) -> None:
        """The command runs: write this record of the run, unless it ends at once."""
        self.running_record = record

    def settle(self, record: Record) -> None:
        """The command is gone: give the lock back, with this record of the run."""
        self.record = record

    def unknown(self, name: str) -> None:
        """An order that this version doesn't know."""
        self.not_understood = name

    def over(self) -> bool:
        """Whether nobody wants the lock any more, and the command is proved gone or was never started."""
        return self.leaving or self.record is not None or (self.no_front and self.nothing_runs)

    def orphaned(self) -> bool:
        """Whether front and guard are both dead and nothing is proved."""
        return self.no_front and self.unguarded
