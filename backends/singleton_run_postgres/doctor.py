"""What `doctor` finds in PostgreSQL. All of it is read from the server's catalogs and settings.

The one thing that is sent is a notification, on a channel that nobody else listens to.
"""

from __future__ import annotations

import os

from singleton_run.api.deadline import Deadline
from singleton_run.api.finding import Finding, bad, good, warning
from singleton_run.api.toolbox import request_limit
from singleton_run.errors import UNUSABLE, Refused
from singleton_run_postgres.errors import ServerError
from singleton_run_postgres.statements import CONTROLS, LOOK_EVERY, MARKS, cut_off, for_administrator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from singleton_run_postgres.address import Address
    from singleton_run_postgres.client import Row, Session, Value

_SETUP = "`singleton-run doctor --setup` with the same --lock prints the SQL for an administrator"
_OLDEST = 120000
_TOLD_WITHIN = 2.0

_CLOCK = "extract(epoch FROM clock_timestamp())::numeric"
_SERVER = """/* doctor */
    SELECT {clock}, current_setting('server_version_num'), current_setting('server_version'),
           pg_is_in_recovery(), current_setting('transaction_read_only'), current_user, current_database(),
           current_setting('synchronous_commit'), current_setting('fsync'),
           (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()),
           current_setting('statement_timeout')"""
# $1 schema: whether it is there, may be used, and tables may be made in it.
_SCHEMA = """/* doctor */
    SELECT {clock}, n.oid IS NOT NULL, has_schema_privilege(n.oid, 'USAGE'),
           has_schema_privilege(n.oid, 'CREATE')
    FROM (SELECT) AS once LEFT JOIN pg_namespace AS n ON n.nspname = $1"""
# $1 schema $2 table: whether it is there, may be used for each kind of statement, its columns, whether rows
# are hidden from us, and whether there are policies that may show them.
_TABLE = """/* doctor */
    SELECT {clock}, c.oid IS NOT NULL, has_table_privilege(c.oid, 'SELECT'),
           has_table_privilege(c.oid, 'INSERT'), has_table_privilege(c.oid, 'UPDATE'),
           has_table_privilege(c.oid, 'DELETE'),
           (SELECT string_agg(attname, ' ') FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0),
           row_security_active(c.oid), EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid)
    FROM (SELECT) AS once
    LEFT JOIN pg_class AS c ON c.relname = $2
        AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)"""
# $1 schema $2 table: how many of the triggers are there and fire.
_TRIGGERS = """/* doctor */
    SELECT {clock}, count(t.oid) FROM (SELECT) AS once
    LEFT JOIN pg_trigger AS t ON t.tgname IN ('singleton_run_told_delete', 'singleton_run_told_update')
        AND t.tgenabled IN ('O', 'A') AND t.tgrelid = (SELECT oid FROM pg_class WHERE relname = $2
        AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1))"""
_NOTIFY = "/* doctor */ SELECT {clock}, pg_notify($1, '')"

_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")


class _Table:
    """What a table of ours is needed for: the end of its name, its columns, rights on it, and a use of them.

    `grade` says how bad it is if we may not. `if_there`: it doesn't matter where the table is missing.
    """

    def __init__(
        self,
        suffix: str,
        columns: str,
        rights: Sequence[str],
        use: str,
        grade: str,
        *,
        if_there: bool = False,
    ) -> None:
        self.suffix = suffix
        self.columns = frozenset(columns.split())
        self.rights = rights
        self.use = use
        self.grade = grade
        self.if_there = if_there


_LOCK = "name holder token generation since until released record"
_CONTROL = "name control version"
_STEERING = "pause, resume and release"
_TABLES = (
    _Table("", _LOCK, _RIGHTS[:3], "every run", Finding.BAD),
    _Table(CONTROLS, _CONTROL, _RIGHTS[:1], "every run", Finding.BAD, if_there=True),
    _Table(CONTROLS, _CONTROL, _RIGHTS[1:3], _STEERING, Finding.WARNING),
    _Table(MARKS, "name key mark at", _RIGHTS, "--once", Finding.WARNING),
)


def examine(session: Session, address: Address, ttl: float, limit: float) -> Iterator[Finding]:
    """See `contract.Backend`."""
    try:
        session.connect(Deadline.after(limit))
        row = _row(session, _SERVER, [], limit)
        yield _version(row)
        yield _role(row)
        yield _writable(row)
        if row[3] == "t":
            return
        yield from _tables(session, address, limit)
        yield _notifications(session, limit)
        yield _timeout(session, row, ttl)
        yield _durable(row)
        yield _encrypted(session, address, row)
    except ServerError as error:
        raise error.failure() from None


def setup(address: Address) -> str:
    """See `contract.Backend`: SQL for psql. Raises Refused where nobody says who we are."""
    if not address.user:
        raise Refused("postgres: which role? Name it in the address or in PGUSER", UNUSABLE)
    lines = for_administrator(address.schema, address.table, address.user)
    return "".join(f"{line};\n" for line in lines)


def _row(session: Session, statement: str, values: Sequence[Value], limit: float) -> Row:
    (row,) = session.ask(statement.format(clock=_CLOCK), values, Deadline.after(limit))
    return row


def _version(row: Row) -> Finding:
    number, name = row[1], row[2]
    if int(number or 0) < _OLDEST:
        return bad(f"PostgreSQL {name} is too old", "take version 12 or later")
    return good(f"PostgreSQL {name}")


def _role(row: Row) -> Finding:
    return good(f"we are the role {row[5]} in the database {row[6]}")


def _writable(row: Row) -> Finding:
    if row[3] == "t":
        return bad("the server is a standby, which can't lock", "name the primary, or all servers")
    if row[4] == "on":
        return bad(
            "our transactions can only read (default_transaction_read_only)",
            "set it off for our role or database, or take a server that can be written to",
        )
    return good("the server can be written to")


def _tables(session: Session, address: Address, limit: float) -> Iterator[Finding]:
    """Whether each table is there, or can be made, and whether we may do all that we shall do."""
    _, there, may_use, may_create = _row(session, _SCHEMA, [address.schema], limit)
    if there != "t":
        yield bad(f"there is no schema {address.schema}", "make it, or name another (singleton_run_schema)")
        return
    if may_use != "t":
        yield bad(f"our role may not use the schema {address.schema}", _SETUP)
        return
    for table in _TABLES:
        name = cut_off(f"{address.table}{table.suffix}")
        row = _row(session, _TABLE, [address.schema, name], limit)
        if row[1] == "t" or not table.if_there:
            found = _table(f"{address.schema}.{name}", table, row, may_create=may_create == "t")
            yield found
            if row[7] == "t" and table.use != _STEERING:  # of that table it is said before
                yield _hidden(f"{address.schema}.{name}", has_policies=row[8] == "t")
            if table is _TABLES[0] and row[1] == "t" and found.grade == Finding.GOOD:
                yield _triggers(
                    f"{address.schema}.{name}", _row(session, _TRIGGERS, [address.schema, name], limit)
                )


def _table(name: str, table: _Table, row: Row, *, may_create: bool) -> Finding:
    if row[1] != "t":
        if may_create:
            return good(f"the table {name} isn't there, and our role may make it")
        what = f"the table {name}, which is for {table.use}, isn't there, and our role may not make it"
        return Finding(table.grade, what, _SETUP)
    if not table.columns <= set((row[6] or "").split()):
        return bad(f"the table {name} is none of ours", "choose another name (singleton_run_table)")
    granted = {right for right, has in zip(_RIGHTS, row[2:6], strict=True) if has == "t"}
    lacking = [right for right in table.rights if right not in granted]
    if lacking:
        what = f"our role lacks {', '.join(lacking)} on {name}, which is for {table.use}"
        return Finding(table.grade, what, _SETUP)
    return good(f"our role may {', '.join(table.rights)} on {name}")


def _hidden(name: str, *, has_policies: bool) -> Finding:
    """What a policy hides looks as if it weren't there: a lock, a pause, a mark of --once."""
    what = f"row-level security of {name} holds for our role"
    if has_policies:
        return warning(what, "see to it that the policies let us read and change every row")
    return bad(f"{what} and hides every row", f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY, as its owner")


def _triggers(name: str, row: Row) -> Finding:
    if row[1] != "2":
        return warning(
            f"{name} lacks a trigger, so who deletes a lock by hand is noticed at the next renewal only",
            _SETUP,
        )
    return good(f"{name} has the triggers that tell of a lock that is deleted by hand")


def _notifications(session: Session, limit: float) -> Finding:
    if session.pooled:
        return warning(
            f"a pooler is in between, so no notification comes: who waits looks every {LOOK_EVERY:g} s",
            "connect to the server itself where a hand-over in milliseconds matters",
        )
    channel = f"singleton_run doctor {os.getpid()} {os.urandom(8).hex()}"
    session.listen(channel, Deadline.after(limit))
    _row(session, _NOTIFY, [channel], limit)
    if not session.pause(Deadline.after(_TOLD_WITHIN)):
        return warning("a notification didn't arrive", "look for a proxy in between: who waits needs them")
    return good("notifications arrive: who waits is told at once")


def _timeout(session: Session, row: Row, ttl: float) -> Finding:
    """A direct session has a limit of our own in place of the role's."""
    told = row[10] or "0"
    if not session.pooled or told == "0":
        return good("no statement_timeout of the role's ends our statements early")
    return warning(
        f"behind the pooler the role's statement_timeout holds ({told})",
        f"let it be more than {request_limit(ttl):g} s, in which we give a statement up ourselves",
    )


def _durable(row: Row) -> Finding:
    off = [name for name, state in (("synchronous_commit", row[7]), ("fsync", row[8])) if state == "off"]
    if off:
        return warning(
            f"after a crash the server may forget who has a lock ({', '.join(off)} off)",
            "switch it on, for our role at least (fsync: for the server)",
        )
    return good("what the server has said it remembers, also after a crash")


def _encrypted(session: Session, address: Address, row: Row) -> Finding:
    if address.is_here:
        return good("the server is on this machine, so TLS isn't needed")
    if session.pooled:
        return good("TLS is the pooler's business: sslmode says what we ask of it")
    if row[9] != "t":
        return warning("what we say to the server is not encrypted", "say sslmode=verify-full in the address")
    return good("TLS is spoken")
