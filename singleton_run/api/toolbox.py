"""What every backend needs of this machine and of the core."""

from __future__ import annotations

from singleton_run import __version__ as version
from singleton_run.errors import UNUSABLE, Refused
from singleton_run.lease_times import LEAST_TTL, request_limit
from singleton_run.names import digest, hashed
from singleton_run.system import pipes
from singleton_run.system.calls import changes_of, die_with, file_system, is_nfs, now, outlive_parent, wait
from singleton_run.system.fastjson import dumps, loads
from singleton_run.system.stderr import last_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Result = TypeVar("Result")

__all__ = [
    "LEAST_TTL",
    "changes_of",
    "die_with",
    "digest",
    "dumps",
    "file_system",
    "hashed",
    "is_nfs",
    "last_words",
    "loads",
    "missing_package",
    "now",
    "outlive_parent",
    "request",
    "request_limit",
    "version",
    "wait",
    "whole_seconds",
]


def whole_seconds(seconds: float) -> int:
    """`seconds` rounded up, for a server that counts in whole ones."""
    return int(-(-seconds // 1))


def missing_package(what: str, package: str, extra: str, error: Exception) -> Refused:
    """The error for `what` (a backend, a kubeconfig), which needs a Python package that can't be imported."""
    why = str(error).partition("\n")[0]
    return Refused(
        f"{what} needs the package {package} ({why}): pip install 'singleton-run[{extra}]'", UNUSABLE
    )


def request(
    work: Callable[[], Result], kind: str, key: Callable[[], str], answer: Callable[[Result], str]
) -> Result:
    """Do `work`, one request to the server: its result. With -vv the trace tells of it.

    It tells the request's kind, the key that it is about, how many milliseconds it took, and what came: the
    `answer` in a word or two, or the class of the error. Nothing secret may be in any of them. `key` and
    `answer` are called after `work`, and only for a trace.
    """
    if pipes.tracer is None:
        return work()
    return pipes.tracer.request(work, kind, key, answer)
