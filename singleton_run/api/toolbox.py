"""What every backend needs of this machine and of the core."""

from __future__ import annotations

from singleton_run import __version__ as version
from singleton_run.errors import UNUSABLE, Refused
from singleton_run.lease_times import LEAST_TTL, request_limit
from singleton_run.names import digest
from singleton_run.system.calls import die_with, is_nfs, now, outlive_parent, wait
from singleton_run.system.fastjson import dumps, loads
from singleton_run.system.stderr import last_words

__all__ = [
    "LEAST_TTL",
    "die_with",
    "digest",
    "dumps",
    "is_nfs",
    "last_words",
    "loads",
    "missing_package",
    "now",
    "outlive_parent",
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
