"""The lock in a PostgreSQL database: one row for each name, one statement for each operation.

The server's clock decides, and a sequence gives the fencing tokens. Those who wait queue up for an advisory
lock, and NOTIFY tells the first of them of a release. Behind a pooler in transaction mode, where no
notification ever arrives, they look every two seconds, and get their turn in no particular order.
"""

from __future__ import annotations

from singleton_run.api.toolbox import missing_package

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run_postgres.backend import PostgresBackend

__all__ = ["open_backend"]


def open_backend(url: str, environ: Mapping[str, str]) -> PostgresBackend:
    """The backend for `postgres` or `postgresql`, whose address is in PG* variables, or for a libpq URL.

    The query's parameters `singleton_run_schema` and `singleton_run_table` are ours, and all others libpq's.
    libpq reads the variables from the process itself, not from `environ`. Nobody is contacted. Raises Refused
    (78).
    """
    try:
        from singleton_run_postgres.address import Address
    except ImportError as error:
        raise missing_package("postgres", "psycopg", "postgres", error) from None
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
