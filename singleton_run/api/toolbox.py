"""What a backend needs of this machine and of the core, in one place of the API."""

from __future__ import annotations

from singleton_run import __version__ as version
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
    "now",
    "outlive_parent",
    "request_limit",
    "version",
    "wait",
]
