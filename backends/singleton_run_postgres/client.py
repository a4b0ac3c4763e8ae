"""One connection to the server, on which every call ends by its deadline.

libpq's blocking calls have no time limit once connected, so we use its non-blocking ones and do the waiting.
A call that didn't end in time leaves the connection in an unknown state: the connection is dropped.
"""

from __future__ import annotations

from singleton_run.api import toolbox
from singleton_run.api.deadline import READ, WRITE, Deadline, Interrupted, Timeout
from singleton_run.api.servers import ServerClock, in_turn, no_answer
from singleton_run.api.url import authority
from singleton_run.errors import DENIED, Failure, Refused, Unavailable
from singleton_run_postgres.errors import READ_ONLY, TOO_LONG, ServerError, login_error, one_line
from singleton_run_postgres.libpq import (
    BAD,
    MESSAGE_PRIMARY,
    OK,
    READING,
    SQLSTATE,
    SUCCESSES,
    VERBOSE,
    WRITING,
    Error,
    PGconn,
)
from singleton_run_postgres.statements import HELLO, LOOK_EVERY, PATIENCE, QUEUE, kind_of, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from singleton_run_postgres.address import Address
    from singleton_run_postgres.libpq_shared import PGresult

    Value = str | int | float
    Row = list[str | None]

_MARGIN = 1.0


class Session:
    """A connection that is made when it is needed, and again after it broke.

    `pooled`: a pooler is between us and the server, and gives each statement another session. `role` is the
    user that the server knows us as. `clock` is the server's. `queued`: this connection has been in a
    queue; `is_first`: it is the first there.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: PGconn | None = None
        self._failed: set[bytes] = set()
        self.clock = ServerClock()
        self.pooled = False
        self.role = ""
        self.queued = self.is_first = False
        self._channel = ""
        self._is_known = False

    def connect(self, deadline: Deadline, *, to_look: bool = False) -> None:
        """Connect, unless that is done. Raises Unavailable, Refused, Interrupted.

        With `to_look` nothing will be changed, so the server isn't asked for its time, the role and the
        pooler.
        """
        if self._connection is not None and not self._is_alive(self._connection):
            self.drop()
        if self._connection is not None:
            if not (to_look or self._is_known):
                self._meet(self._connection, deadline)
            return
        # Routes that failed the last time come last.
        routes = sorted(self._address.routes(deadline), key=lambda route: route[1] in self._failed)
        failures: dict[str, Failure] = {}
        for (place, route), share in in_turn(routes, deadline):
            try:
                self._open(route, share, to_look=to_look)
            except (Unavailable, Refused) as error:
                if error.status == DENIED:
                    raise
                self._failed.add(route)
                # Of the addresses of one server, the one that answers counts.
                if place not in failures or isinstance(error, Refused):
                    failures[place] = error
            else:
                self._failed.discard(route)
                return
        raise _worst(list(failures.values()))

    def ask(self, statement: str, values: Sequence[Value], deadline: Deadline) -> list[Row]:
        """The rows of the statement's answer. Raises ServerError, Unavailable, Interrupted.

        The connection must have been made.
        """
        sent = toolbox.now()
        rows = self._told(statement, values, deadline)
        if rows:
            self.clock.read(float(rows[0][0] or 0), sent, toolbox.now())
        return rows

    def listen(self, channel: str, deadline: Deadline) -> bool:
        """Listen to `channel`; true if that begins now. Behind a pooler nothing would ever arrive."""
        if self.pooled or self._channel == channel:
            return False
        self._told(f"LISTEN {quoted(channel)}", [], deadline)
        self._channel = channel
        return True

    def listens(self, channel: str) -> bool:
        """Whether notifications on `channel` reach us, or never will, because a pooler is between."""
        return self.pooled or self._channel == channel

    def queue(self, queue: str, deadline: Deadline) -> None:
        """Wait until we are the first in that queue, or until the deadline; not behind a pooler.

        Raises Interrupted, Unavailable, ServerError.
        """
        milliseconds = max(1, round((deadline.until - toolbox.now()) * 1000))
        self._told(PATIENCE, [milliseconds], deadline.within(_MARGIN))
        self.queued = True
        # The server ends the wait. Our own limit is for a server that doesn't answer.
        late = Deadline(deadline.until + _MARGIN, deadline.wake)
        try:
            self._told(QUEUE, [queue], late)
        except ServerError as error:
            if error.state != TOO_LONG:
                raise
        else:
            self.is_first = True

    def leave_queue(self) -> None:
        """Note that the server has let us out of the queue."""
        self.queued = self.is_first = False

    def pause(self, deadline: Deadline) -> bool:
        """Wait for a notification; false at the deadline, and behind a pooler after two seconds.

        Raises Interrupted, and Unavailable when the connection breaks.
        """
        if self.pooled:
            if toolbox.wait(deadline.within(LOOK_EVERY).until, [deadline.wake]):
                raise Interrupted
            return False
        connection = self._connection
        if connection is None:
            raise Unavailable("postgres: the connection is closed")
        try:
            # A notification that came with an earlier answer is not in the socket any more.
            while not connection.notifies():
                deadline.wait(connection.socket, READ)
                connection.consume_input()
            while connection.notifies():
                continue
        except Timeout:
            return False
        except Error as error:
            self.drop()
            raise Unavailable(f"postgres: {one_line(str(error))}") from None
        return True

    def drop(self) -> None:
        """Close the connection, without waiting for anything."""
        connection, self._connection = self._connection, None
        self._channel = ""
        self.queued = self.is_first = False
        self._is_known = False
        if connection is not None:
            connection.finish()

    @staticmethod
    def _is_alive(connection: PGconn) -> bool:
        """Whether the connection is open, as far as this end can see."""
        try:
            while True:
                Deadline(0.0).wait(connection.socket, READ)
                connection.consume_input()
        except Timeout:
            return True
        except Error:
            return False

    def _open(self, route: bytes, deadline: Deadline, *, to_look: bool) -> None:
        connection = PGconn.connect_start(route)
        try:
            connection.set_error_verbosity(VERBOSE)
            toolbox.request(
                lambda: self._log_in(connection, deadline),
                "connect",
                lambda: _place(connection),
                lambda _: f"logged in as {connection.user.decode(errors='replace')}",
            )
        except ServerError as error:
            connection.finish()
            raise error.failure() from None
        except Timeout as timeout:
            place = _place(connection)
            connection.finish()
            raise no_answer("postgres", {place: timeout}) from None
        except BaseException:
            connection.finish()
            raise
        connection.make_nonblocking()
        self._connection = connection
        self.role = connection.user.decode(errors="replace")
        if not to_look:
            self._meet(connection, deadline)

    def _meet(self, connection: PGconn, deadline: Deadline) -> None:
        """Ask the server for its time and our role, and find out whether a pooler is between us."""
        try:
            ((_, same, role, _),) = self.ask(HELLO, [connection.backend_pid], deadline)
        except ServerError as error:
            self.drop()
            raise error.failure() from None
        self.pooled = same != "t"
        self.role = role or ""
        self._is_known = True

    @staticmethod
    def _log_in(connection: PGconn, deadline: Deadline) -> None:
        """Raises ServerError, Timeout, Interrupted."""
        if connection.status != BAD:
            # libpq's manual: at first as if it had asked to write.
            deadline.wait(connection.socket, WRITE)
        while connection.status != BAD:
            state = connection.connect_poll()
            if state == OK:
                return
            if state == READING:
                deadline.wait(connection.socket, READ)
            elif state == WRITING:
                deadline.wait(connection.socket, WRITE)
        raise login_error(connection)

    def _told(self, statement: str, values: Sequence[Value], deadline: Deadline) -> list[Row]:
        """The rows of an answer. The trace tells of it, with the lock's name, the first text in `values`."""

        def key() -> str:
            texts = [value for value in values if isinstance(value, str)]
            return " ".join([kind_of(statement), *texts[:1]])

        parameters = [str(value).encode() for value in values]
        return toolbox.request(
            lambda: self._run(statement, parameters, deadline), "query", key, lambda rows: f"{len(rows)} rows"
        )

    def _run(self, statement: str, parameters: list[bytes], deadline: Deadline) -> list[Row]:
        connection = self._connection
        if connection is None:
            raise Unavailable("postgres: the connection is closed")
        try:
            connection.send_query_params(statement.encode(), parameters)
            _send(connection, deadline)
            results = _receive(connection, deadline)
        except Timeout as timeout:
            place = _place(connection)
            self.drop()
            raise no_answer("postgres", {place: timeout}) from None
        except Error as error:
            self.drop()
            raise Unavailable(f"postgres: {one_line(str(error))}") from None
        except BaseException:
            self.drop()
            raise
        try:
            return _rows(results)
        except ServerError as error:
            if connection.status == BAD or error.state in ("", READ_ONLY):
                self.drop()
            raise


def _worst(failures: list[Failure]) -> Failure:
    """The first failure that may pass. Only if there is none will trying again not help."""
    hopes = [failure for failure in failures if isinstance(failure, Unavailable)]
    return (hopes or failures or [Unavailable("postgres: there is no address")])[0]


def _place(connection: PGconn) -> str:
    host = (connection.hostaddr or connection.host).decode(errors="replace")
    port = connection.port.decode()
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else authority(host, port)


def _send(connection: PGconn, deadline: Deadline) -> None:
    """Raises Timeout, Interrupted, libpq.Error."""
    while connection.flush():
        deadline.wait(connection.socket, READ | WRITE)
        # The server may want to be read before it reads on.
        connection.consume_input()


def _receive(connection: PGconn, deadline: Deadline) -> list[PGresult]:
    """Every result of the query that was sent. Raises Timeout, Interrupted, libpq.Error."""
    results: list[PGresult] = []
    while True:
        while connection.is_busy():
            deadline.wait(connection.socket, READ)
            connection.consume_input()
        result = connection.get_result()
        if result is None:
            return results
        results.append(result)


def _rows(results: list[PGresult]) -> list[Row]:
    """The rows of the last result. Raises ServerError for the first that failed."""
    rows: list[Row] = []
    for result in results:
        if result.status not in SUCCESSES:
            state = (result.error_field(SQLSTATE) or b"").decode()
            text = result.error_field(MESSAGE_PRIMARY) or result.error_message
            raise ServerError(state, one_line(text))
        rows = [
            [_text(result.get_value(row, column)) for column in range(result.nfields)]
            for row in range(result.ntuples)
        ]
    return rows


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
