"""libpq's connection and results, and its numbers by name."""

from _libpq import PGconn

__all__ = ["ConnStatus", "DiagnosticField", "ExecStatus", "PGconn", "PollingStatus"]


class ConnStatus:
    """ConnStatusType."""

    OK, BAD = range(2)


class PollingStatus:
    """PostgresPollingStatusType."""

    FAILED, READING, WRITING, OK = range(4)


class ExecStatus:
    """ExecStatusType."""

    EMPTY_QUERY, COMMAND_OK, TUPLES_OK = range(3)


class DiagnosticField:
    """PG_DIAG_*."""

    SQLSTATE, MESSAGE_PRIMARY = b"CM"
