"""The contract's calls, one statement each."""

from __future__ import annotations

from singleton_run.api import control as controls
from singleton_run.api import toolbox
from singleton_run.api.contract import Grant, Held, Look
from singleton_run.api.deadline import Deadline, Interrupted
from singleton_run.api.keys import plain
from singleton_run.api.record import parsed, parsed_mark
from singleton_run.api.toolbox import digest
from singleton_run.errors import Failure, Lost, Refused, Unavailable
from singleton_run_postgres.client import Session
from singleton_run_postgres.errors import (
    AGAIN,
    EXISTS,
    MAY_NOT,
    NO_OBJECT,
    NO_SCHEMA,
    NO_TABLE,
    ServerError,
)
from singleton_run_postgres.statements import (
    CHANNEL,
    LONGEST_CHANNEL,
    Statements,
    controls_name,
    create,
    create_all,
    create_controls,
    create_marks,
    for_administrator,
    marks_name,
    table_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from singleton_run.api.finding import Finding
    from singleton_run_postgres.address import Address
    from singleton_run_postgres.client import Row, Value

    Rows = list[Row]  # named here, for `list` is a method below
    Values = list[Value]
    Names = list[str]

_LOCKS, _MARKS, _CONTROLS = 1, 2, 3
# The statements that do without the table of the controls where it is missing.
_TELL_CONTROL = ("acquire", "renew", "look", "list")
# Those of them that tell, without it, that the table has come. Whoever only looks tries anew each time.
_MISS_CONTROLS = ("acquire", "renew")

_TOO_SLOW = "postgres: the server was too slow"
_LOOK_LIMIT = 5.0
# How long after a lease's end those look who aren't the first to wait.
_BEHIND = 2.0
_LONGEST_QUEUE = 60.0
_LONGEST_PAUSE = 5.0
_MOMENT = 0.005
_LONGEST_KEY = 1000
# A command that ends sooner is spared the LISTEN.
_LISTEN_AFTER = 0.05


class PostgresBackend:
    """Locks in one table of one database. See `contract.Backend`."""

    def __init__(self, address: Address) -> None:
        self.warning: tuple[str, str] | None = None
        self._address = address
        place = (address.schema, address.table)
        self._tables = (table_name(*place), marks_name(*place), controls_name(*place))
        self._with_controls = Statements(*self._tables)
        self._without_controls = Statements(*self._tables, without_controls=True)
        self._statements = self._with_controls
        self._session = Session(address)
        self._mine: tuple[str, str] | None = None
        # The holder, token and control that the server told a holder last.
        self._told: tuple[str | None, ...] = ()
        self._statements_to_run = ""

    def acquire(self, name: str, holder: str, ttl: float, limit: float) -> Grant | Held:
        """Take the lock if it is free, has expired, or is `holder`'s already."""
        deadline = Deadline.after(limit)
        holder = _plain(holder)
        self._mine = (name, holder)
        while True:
            values: Values = [name, holder, ttl, str(self._session.queued).lower()]
            ((_, token, record, other, since, left, current, control, missed, hidden, _),) = self._ask(
                "acquire", values, deadline, change=True, make=_LOCKS
            )
            if hidden == "t":
                raise _hidden(self._tables[2])
            if missed == "t":
                self._statements = self._with_controls
            if token is not None:
                self._session.leave_queue()
                self._told = (holder, token, control)
                return Grant(name, holder, int(token), ttl, {}, record, control=_loaded_control(control))
            if other is not None:
                self._mine = None
                return _held(name, other, since, left, current, control)
            if missed == "t":
                continue
            # Another session is taking it at this moment: we shall see it soon.
            deadline.check("postgres: another session has locked the row, or the server is too slow")
            toolbox.wait(min(toolbox.now() + _MOMENT, deadline.until), [])

    def wait(self, held: Held, until: float, wake: int) -> None:
        """Wait for a notification or the end of the lease; behind a pooler look every two seconds.

        Only the first of those who wait listens. The others wait for that place, and look by themselves some
        time after the end of the lease: the first may hang.
        """
        look_at = toolbox.now() if held.until is None else held.until
        try:
            self._wait(held.handle["name"], look_at, until, wake)
        except Interrupted:
            return
        except Unavailable:
            if toolbox.now() < until:
                raise
        except ServerError as error:
            raise self._failure(error) from None

    def leave(self, limit: float) -> None:
        """Give back a grant that `acquire` may have got; there is no queue."""
        if self._mine is None:
            return
        deadline = Deadline.after(limit)
        name, holder = self._mine
        values: Values = [name, holder, _channel(name)]
        rows = self._ask("leave", values, deadline, change=True)
        for _, changed, there, token, _, released in rows:
            if changed == "0" and there == holder and token != released:
                raise Unavailable(_TOO_SLOW)
        self._mine = None

    def renew(self, grant: Grant, limit: float) -> Mapping[str, Any] | None:
        """Move the lease's end, if the row has our token and holder and no later generation."""
        control, readable = self._change("renew", grant, [grant.ttl], limit)
        if readable == "t":
            self._statements = self._with_controls
            control, _ = self._change("renew", grant, [grant.ttl], limit)
        self._told = (grant.holder, str(grant.token), control)
        return _loaded_control(control)

    def hold(self, grant: Grant, until: float, wake: int) -> None:
        """Wait for a notification; behind a pooler just wait. Connect again where the connection breaks."""
        session, channel = self._session, _channel(grant.name)
        if not session.listens(channel) and toolbox.wait(min(until, toolbox.now() + _LISTEN_AFTER), [wake]):
            return
        limit = toolbox.request_limit(grant.ttl)
        if session.pooled or toolbox.now() + limit > until:
            toolbox.wait(until, [wake])
            return
        deadline, pause = Deadline(until, wake), 0.1
        while not deadline.passed():
            try:
                soon = deadline.within(limit)
                session.connect(soon)
                # Notifications from before the LISTEN are missed: look once after it.
                began = session.listen(channel, soon)
                if (began and self._has_changed(grant, soon)) or session.pause(deadline):
                    return
            except Interrupted:
                return
            except (Failure, ServerError):
                if toolbox.wait(deadline.within(pause).until, [wake]):
                    return
                pause = min(2 * pause, _LONGEST_PAUSE)

    def write(self, grant: Grant, record: Mapping[str, Any], limit: float) -> None:
        """Put the record into the row."""
        self._change("write", grant, [toolbox.dumps(record)], limit)

    def release(self, grant: Grant, record: Mapping[str, Any], limit: float, keep: float = 0.0) -> None:
        """Free the row, at once or in `keep` seconds, put the record into it, and notify the waiters."""
        values: Values = [toolbox.dumps(record), _channel(grant.name), max(0.0, keep)]
        self._change("release", grant, values, limit, once=True)
        self._mine = None

    def read(self, name: str, limit: float) -> tuple[Held | None, Mapping[str, Any] | None]:
        """The present holder of `name`, if there is one, and its record."""
        seen = self._look(name, Deadline.after(limit))
        return (seen.holder if seen.state in (Look.HELD, Look.KEPT) else None), seen.record

    def look(self, name: str, limit: float) -> Look:
        """The rows of `name`, judged by the server's clock. It doesn't know who waits."""
        return self._look(name, Deadline.after(limit))

    def steer(self, name: str, version: str, control: Mapping[str, Any], limit: float) -> bool:
        """Put the control into its row if that has this version, or into a new one, and notify the holder."""
        deadline = Deadline.after(limit)
        values: Values = [name, toolbox.dumps(control), _channel(name)]
        kind = "steer_first"
        if version:
            kind = "steer"
            values.append(version)
        while True:
            ((_, changed, before),) = self._ask(kind, values, deadline, change=True, make=_CONTROLS)
            if changed != "0":
                return True
            if (before or "") != version:
                return False
            # It came too late, or another session is changing the row, as the next try will show.
            deadline.check(_TOO_SLOW)

    def free(self, name: str, seen: Look, limit: float) -> bool:
        """Take the holder's name out of the row, if holder and token are still these."""
        holder, deadline = seen.holder, Deadline.after(limit)
        if holder is None or not holder.holder or holder.token is None:
            return False
        values: Values = [name, holder.holder, holder.token, _channel(name)]
        while True:
            rows = self._ask("free", values, deadline, change=True)
            if rows and rows[0][1] != "0":
                return True
            there, token = rows[0][2:4] if rows else (None, None)
            if not (there or "").startswith(holder.holder) or token != str(holder.token):
                return False
            # It came too late, or another session is changing the row, as the next try will show.
            deadline.check(_TOO_SLOW)

    def list(self, limit: float) -> Names:
        """The names that are held or have a record or a control, sorted."""
        rows = self._ask("list", [], Deadline.after(limit))
        return sorted(row[1] for row in rows if row[1] is not None)

    def done(self, name: str, key: str, limit: float) -> Mapping[str, Any] | None:
        """The mark in the key's row, None without one. Raises Refused (78) for one that can't be read.

        Makes the tables where they are missing, because a mark will follow.
        """
        deadline = Deadline.after(limit)
        ((_, mark, hidden),) = self._ask("done", [name, _key(key)], deadline, make=_MARKS)
        if hidden == "t":
            raise _hidden(self._tables[1])
        return None if mark is None else _loaded_mark(mark, name, key)

    def mark(self, grant: Grant, key: str, mark: Mapping[str, Any], limit: float) -> None:
        """Put the mark into a row of its own, if the lock's row is ours."""
        values: Values = [_key(key), toolbox.dumps(mark)]
        self._change("mark", grant, values, limit, make=_MARKS)

    def forget(self, name: str, key: str, limit: float) -> bool:
        """Delete the key's row; false if there was none."""
        deadline = Deadline.after(limit)
        while True:
            rows = self._ask("forget", [name, _key(key)], deadline, change=True)
            if not rows or rows[0][2] is None:
                return False
            if rows[0][1] != "0":
                return True
            # The request came too late, or another session has just deleted the row, as the next try will
            # show.
            deadline.check(_TOO_SLOW)

    def examine(self, name: str, ttl: float, limit: float) -> Iterator[Finding]:
        """Version, role, tables and privileges, pooler, notifications, time limits, durability, TLS."""
        from singleton_run_postgres import doctor

        yield from doctor.examine(self._session, self._address, ttl, limit)

    def setup(self, name: str, limit: float) -> str:
        """The SQL for an administrator. Nobody is contacted: the role is the one that the address names."""
        from singleton_run_postgres import doctor

        return doctor.setup(self._address)

    def offset(self) -> tuple[float, float] | None:
        """By the server's clock, which every answer tells."""
        return self._session.clock.offset()

    def close(self) -> None:
        """Drop the connection."""
        self._session.drop()

    def _look(self, name: str, deadline: Deadline) -> Look:
        rows = self._ask("look", [name], deadline)
        if not rows:
            return Look(Look.FREE, None, None)
        ((_, holder, since, left, token, released, record, control, version),) = rows
        state = _state(holder, left, is_given_back=released == token)
        return Look(
            state,
            None if state == Look.FREE else _held(name, holder or "", since, left, token, control),
            _loaded(record),
            control=_loaded_control(control),
            version=version or "",
        )

    def _has_changed(self, grant: Grant, deadline: Deadline) -> bool:
        """Whether holder, token or control are others than the server told last."""
        rows = self._ask("look", [grant.name], deadline)
        return [(row[1], row[4], row[7]) for row in rows] != [self._told]

    def _wait(self, name: str, look_at: float, until: float, wake: int) -> None:
        """Return when the lock may be free, or at `until`. Raises Interrupted, Unavailable, ServerError."""
        session = self._session
        deadline = Deadline(until, wake)
        while not deadline.passed():
            soon = deadline.within(_LOOK_LIMIT)
            session.connect(soon)
            if not (session.is_first or session.pooled):
                look_late = max(look_at, toolbox.now()) + _BEHIND
                session.queue(f"{self._tables[0]} {name}", deadline.earlier(look_late).within(_LONGEST_QUEUE))
            if session.is_first or session.pooled:
                # Notifications from before the LISTEN are missed: look once more after it.
                began = session.listen(_channel(name), deadline.within(_LOOK_LIMIT))
                if not began and session.pause(deadline.earlier(look_at)):
                    return
            if not deadline.passed():
                seen = self._look(name, deadline.within(_LOOK_LIMIT))
                if (
                    seen.state not in (Look.HELD, Look.KEPT)
                    or seen.holder is None
                    or seen.holder.until is None
                ):
                    return
                look_at = seen.holder.until

    def _change(
        self,
        kind: str,
        grant: Grant,
        values: Values,
        limit: float,
        *,
        once: bool = False,
        make: int = 0,
    ) -> Row:
        """Change the row if it is still the grant's. Raises Lost if it is not, Unavailable if too late.

        Returns what the answer has beside the row as it was. With `once` a grant that was given back before
        is no error. `make` is as in `_ask`.
        """
        deadline = Deadline.after(limit)
        mine: Values = [grant.name, grant.token, grant.holder, grant.generation]
        while True:
            rows = self._ask(kind, [*mine, *values], deadline, change=True, make=make)
            if not rows:
                raise Lost("the table of locks is gone")
            ((_, changed, holder, token, generation, released, *more),) = rows
            if changed != "0" or (once and released == str(grant.token)):
                return more
            if (token, holder) != (str(grant.token), grant.holder):
                raise Lost("its row was deleted" if token is None else f"{holder or 'nobody'} holds it")
            if released == token:
                raise Lost("it was given back, to be kept for a time")
            if int(generation or 0) > grant.generation:
                raise Lost("another keeper of this turn has taken over")
            # The request came too late by the server's clock, as we knew it. It may have leapt; we know it
            # anew.
            deadline.check(_TOO_SLOW)

    def _ask(
        self,
        kind: str,
        values: Values,
        deadline: Deadline,
        *,
        change: bool = False,
        make: int = 0,
    ) -> Rows:
        """The rows of the answer to a statement of that kind, none where the table is missing.

        `make` (_LOCKS, _MARKS or _CONTROLS) makes a missing table. With `change` the statement changes
        something, and its first value is the server's time from which on it must change nothing.
        """
        statements = self._statements
        while True:
            try:
                self._session.connect(deadline, to_look=not (change or make))
                not_after: Values = [self._session.clock.at(deadline.until)] if change else []
                statement: str = getattr(statements, kind)
                return self._session.ask(statement, [*not_after, *values], deadline)
            except ServerError as error:
                if error.state in AGAIN and toolbox.now() < deadline.until:
                    continue
                if statements is self._with_controls and _may_do_without(kind, error.state):
                    statements = self._without_controls
                    if kind in _MISS_CONTROLS:
                        self._statements = statements
                    continue
                if error.state not in (NO_TABLE, NO_SCHEMA):
                    raise self._failure(error) from None
                if not make:
                    return []
            self._make_tables(make, deadline)
            statements = self._statements

    def _make_tables(self, make: int, deadline: Deadline) -> None:
        """Make the missing tables.

        With the locks' table the others are made too: at the end of a run it is too late to be refused. And
        without the locks' table nobody would see a control.
        """
        locks, marks, controls = self._tables
        if make == _MARKS:
            self._make_table(create_marks(marks), deadline)
            return
        if not self._make_all(deadline):
            # Without triggers a holder finds out by its next renewal that its row was deleted by hand.
            for statement in (create(locks), create_marks(marks), create_controls(controls)):
                self._make_table(statement, deadline)
        self._statements = self._with_controls

    def _make_all(self, deadline: Deadline) -> bool:
        """Make tables and triggers at once; false if our role may not, or the server has no PL/pgSQL."""
        try:
            self._session.ask(create_all(self._address.schema, self._address.table), [], deadline)
        except ServerError as error:
            if error.state in (MAY_NOT, NO_OBJECT):
                return False
            if error.state not in EXISTS:
                raise self._failure(error) from None
        return True

    def _make_table(self, statement: str, deadline: Deadline) -> None:
        try:
            self._session.ask(statement, [], deadline)
        except ServerError as error:
            if error.state not in EXISTS:
                raise self._failure(error) from None

    def _failure(self, error: ServerError) -> Exception:
        if error.state not in (MAY_NOT, NO_SCHEMA):
            return error.failure()
        # They have a time in them: made anew for each attempt, the same trouble would be told each time.
        if not self._statements_to_run:
            lines = for_administrator(self._address.schema, self._address.table, self._session.role)
            self._statements_to_run = "; ".join(lines)
        return Refused(f"postgres: {error.text}: have an administrator run: {self._statements_to_run}")


def _hidden(table: str) -> Refused:
    return Refused(
        f"postgres: row-level security hides the rows of {table} from us: have its owner run: "
        f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"
    )


def _channel(name: str) -> str:
    """The channel that tells of a release (see docs/postgres.md). Two locks may share one: it only wakes."""
    return f"{CHANNEL}{name}"[:LONGEST_CHANNEL]


def _plain(holder: str) -> str:
    """`holder` in ASCII, for databases of every encoding."""
    return holder.encode("ascii", "backslashreplace").decode()


def _loaded(record: str | None) -> Mapping[str, Any] | None:
    return None if record is None else parsed(record)


def _key(key: str) -> str:
    """The key as its row has it: in ASCII, and short enough for an index."""
    text = plain(key)
    return text if len(text) <= _LONGEST_KEY else f"{text[:_LONGEST_KEY]}#{digest([text])}"


def _loaded_mark(text: str, name: str, key: str) -> Mapping[str, Any]:
    return parsed_mark(text, f"postgres: the row with name = {name!r} and key = {_key(key)!r}")


def _may_do_without(kind: str, state: str) -> bool:
    """Whether the error may be about the controls' table, and the statement has a form without it.

    Who may not read that table gets no lock; who has one keeps it.
    """
    return (state == NO_TABLE and kind in _TELL_CONTROL) or (state == MAY_NOT and kind == "renew")


def _loaded_control(text: str | None) -> Mapping[str, Any] | None:
    return None if text is None else controls.parsed(text)


def _state(holder: str | None, left: str | None, *, is_given_back: bool) -> str:
    """The state of a lock whose row names `holder` for `left` seconds."""
    if not holder:
        return Look.FREE
    if float(left or 0) > 0:
        return Look.KEPT if is_given_back else Look.HELD
    return Look.FREE if is_given_back else Look.EXPIRED


def _held(
    name: str, holder: str, since: str | None, left: str | None, token: str | None, control: str | None
) -> Held:
    return Held(
        holder=holder,
        since=None if since is None else float(since),
        until=None if left is None else toolbox.now() + float(left),
        handle={"name": name},
        token=None if token is None else int(token),
        control=_loaded_control(control),
    )
