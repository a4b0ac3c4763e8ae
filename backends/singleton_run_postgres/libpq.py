"""libpq: the calls that the backend makes, by the names that psycopg.pq has for them.

In the executable that needs no Python libpq is linked in, with a module in C (packaging/standalone/native).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run_postgres.libpq_shared import PGconn, parse, set_error
else:
    try:
        from _libpq import PGconn, parse, set_error
    except ImportError:
        from singleton_run_postgres.libpq_shared import PGconn, parse, set_error

__all__ = ["BAD", "OK", "READING", "SUCCESSES", "WRITING", "Error", "PGconn", "conninfo_of", "options_of"]

BAD = 1  # a connection's `status`, of ConnStatusType
READING, WRITING, OK = 1, 2, 3  # of `connect_poll`: PostgresPollingStatusType
SUCCESSES = (1, 2)  # a result's `status`: PGRES_COMMAND_OK, PGRES_TUPLES_OK
VERBOSE = 2  # PGVerbosity
SQLSTATE, MESSAGE_PRIMARY = b"CM"  # PG_DIAG_*, of `error_field`


class Error(Exception):
    """What libpq refuses or fails at."""


set_error(Error)


def options_of(text: str) -> dict[str, str]:
    """The options that a URL or a string of KEY=VALUE names. Raises Error."""
    return {
        option.keyword.decode(): option.val.decode()
        for option in parse(text.encode())
        if option.val is not None
    }


def conninfo_of(options: dict[str, str]) -> bytes:
    """The string that names these options to libpq."""
    return " ".join(f"{key}={_quoted(value)}" for key, value in options.items()).encode()


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
