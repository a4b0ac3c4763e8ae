"""The lock in a PostgreSQL database: one row for each name, one statement for each operation.

Time is the server's clock, the fencing token a sequence's. A waiter is told of a release by
LISTEN/NOTIFY; behind a pooler in transaction mode, where nothing would ever arrive, it looks every
two seconds. Waiters get their turn in no particular order.
"""

from __future__ import annotations

from singleton_run.api.toolbox import missing_package

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run_postgres.backend import PostgresBackend

__all__ = ["open_backend"]


def open_backend(url: str, environ: Mapping[str, str]) -> PostgresBackend:
    """The backend for `postgres`, `postgresql` (what libpq finds in PG* variables) or a libpq URL.

    The query's parameters `singleton_run_schema` and `singleton_run_table` are ours, every other is
    libpq's. libpq reads the variables from the process itself, not from `environ`. Raises Refused.
    """
    try:
        import psycopg  # noqa: F401 - only to see that it is there, and has its libpq
    except ImportError as error:
        raise missing_package("postgres", "psycopg", "postgres", error) from None
    from singleton_run_postgres.address import Address
    from singleton_run_postgres.backend import PostgresBackend

    address = Address(url)
    backend = PostgresBackend(address)
    if address.unchecked:
        text = (
            f"the certificate of postgres is not checked (sslmode={address.unchecked}), so anybody may be "
            "answering in its place: say sslmode=verify-full (or disable, to trust the network)"
        )
        backend.warning = "warning", text
    return backend
