"""One connection to the server, on which every call ends in its time.

libpq's own calls know no time limit once connected, so its non-blocking ones are used, and the
waiting is ours. What did not end in time leaves the connection in an unknown state: it is dropped.
"""

from __future__ import annotations

import time

from psycopg import Error, pq

from singleton_run.api import toolbox
from singleton_run.api.deadline import READ, WRITE, Late, Patience, Woken
from singleton_run.errors import DENIED, Failure, Refused, Unavailable
from singleton_run_postgres.errors import READ_ONLY, ServerError, login_error, make_verbose, one_line
from singleton_run_postgres.statements import HELLO, LOOK_EVERY, kind_of, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.pq.abc import PGconn, PGresult

    from singleton_run_postgres.address import Address

    Value = str | int | float
    Row = list[str | None]

_BAD = pq.ConnStatus.BAD


class Session:
    """A connection that is made when it is needed, and again when it broke.

    `pooled`: between us and the server is a pooler, which gives each statement another session.
    `role` is who the server takes us for.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: PGconn | None = None
        self._failed: set[bytes] = set()
        self._clock = (0.0, 0.0, 0.0)
        self.pooled = False
        self.role = ""
        self._channel = ""
        self._is_known = False

    def connect(self, patience: Patience, *, to_look: bool = False) -> None:
        """Be connected. Raises Unavailable, Refused, Woken.

        `to_look`: that nothing will be changed, so the server's time and who it is need not be known.
        """
        if self._connection is not None and not self._is_alive(self._connection):
            self.drop()
        if self._connection is not None:
            if not (to_look or self._is_known):
                self._meet(self._connection, patience)
            return
        # Where nobody answered last time is tried last.
        routes = sorted(self._address.routes(patience), key=lambda route: route[1] in self._failed)
        failures: dict[str, Failure] = {}
        for number, (place, route) in enumerate(routes):
            try:
                self._open(route, patience.share(len(routes) - number), to_look=to_look)
            except (Unavailable, Refused) as error:
                if error.status == DENIED:
                    raise
                self._failed.add(route)
                # Of a server's addresses the one that answers counts.
                if place not in failures or isinstance(error, Refused):
                    failures[place] = error
            else:
                self._failed.discard(route)
                return
        raise _worst(list(failures.values()))

    def ask(self, statement: str, values: Sequence[Value], patience: Patience) -> list[Row]:
        """The rows of the statement's answer. Raises ServerError, Unavailable, Woken.

        The connection must have been made.
        """
        sent = toolbox.now()
        rows = self._told(statement, values, patience)
        if rows:
            self._clock = (float(rows[0][0] or 0), sent, toolbox.now())
        return rows

    def server_time(self, reading: float) -> float:
        """What the server's clock reads, at the least, when the boot clock has come to `reading`."""
        told, _, heard = self._clock
        return told + reading - heard

    def offset(self) -> tuple[float, float] | None:
        """How far the server's clock is ahead of the wall clock, and how exactly; None before an answer."""
        told, sent, heard = self._clock
        if not told:
            return None
        return told + toolbox.now() - (sent + heard) / 2 - time.time(), (heard - sent) / 2

    def listen(self, channel: str, patience: Patience) -> bool:
        """Be told of what is sent to `channel`; true if that begins now. A pooler would not tell."""
        if self.pooled or self._channel == channel:
            return False
        self._told(f"LISTEN {quoted(channel)}", [], patience)
        self._channel = channel
        return True

    def pause(self, patience: Patience) -> bool:
        """Wait until something is sent to the channel, or false: it is time to look by oneself.

        Raises Woken, and Unavailable when the connection breaks.
        """
        if self.pooled:
            if toolbox.wait(min(patience.until, toolbox.now() + LOOK_EVERY), [patience.wake]):
                raise Woken
            return False
        connection = self._connection
        if connection is None:
            raise Unavailable("postgres: the connection is closed")
        try:
            # What came along with an earlier answer is not in the socket any more.
            while not connection.notifies():
                patience.wait(connection.socket, READ)
                connection.consume_input()
            while connection.notifies():
                continue
        except Late:
            return False
        except Error as error:
            self.drop()
            raise Unavailable(f"postgres: {one_line(str(error))}") from None
        return True

    def drop(self) -> None:
        """Close the connection, without waiting for anything."""
        connection, self._connection = self._connection, None
        self._channel = ""
        self._is_known = False
        if connection is not None:
            connection.finish()

    @staticmethod
    def _is_alive(connection: PGconn) -> bool:
        """Whether the server has not closed it meanwhile, as far as one can see from here."""
        try:
            while True:
                Patience(0.0).wait(connection.socket, READ)
                connection.consume_input()
        except Late:
            return True
        except Error:
            return False

    def _open(self, route: bytes, patience: Patience, *, to_look: bool) -> None:
        connection = pq.PGconn.connect_start(route)
        try:
            make_verbose(connection)
            toolbox.request(
                lambda: self._log_in(connection, patience),
                "connect",
                lambda: _place(connection),
                lambda _: f"logged in as {connection.user.decode(errors='replace')}",
            )
        except ServerError as error:
            connection.finish()
            raise error.failure() from None
        except Late:
            place = _place(connection)
            connection.finish()
            raise Unavailable(f"postgres: no answer in time from {place}") from None
        except BaseException:
            connection.finish()
            raise
        connection.nonblocking = 1
        self._connection = connection
        self.role = connection.user.decode(errors="replace")
        if not to_look:
            self._meet(connection, patience)

    def _meet(self, connection: PGconn, patience: Patience) -> None:
        """Ask the server for its time and who we are, and whether a pooler is between us."""
        try:
            ((_, same, role, _),) = self.ask(HELLO, [connection.backend_pid], patience)
        except ServerError as error:
            self.drop()
            raise error.failure() from None
        self.pooled = same != "t"
        self.role = role or ""
        self._is_known = True

    @staticmethod
    def _log_in(connection: PGconn, patience: Patience) -> None:
        """Raises ServerError, Late, Woken."""
        if connection.status != _BAD:
            # libpq's manual: at first as if it had asked to write.
            patience.wait(connection.socket, WRITE)
        while connection.status != _BAD:
            state = connection.connect_poll()
            if state == pq.PollingStatus.OK:
                return
            if state == pq.PollingStatus.READING:
                patience.wait(connection.socket, READ)
            elif state == pq.PollingStatus.WRITING:
                patience.wait(connection.socket, WRITE)
        raise login_error(connection)

    def _told(self, statement: str, values: Sequence[Value], patience: Patience) -> list[Row]:
        """The rows of an answer. The trace is told of it, with the lock's name: the first text there is."""

        def key() -> str:
            return " ".join(
                [kind_of(statement), *[str(value) for value in values if isinstance(value, str)][:1]]
            )

        parameters = [str(value).encode() for value in values]
        return toolbox.request(
            lambda: self._run(statement, parameters, patience), "query", key, lambda rows: f"{len(rows)} rows"
        )

    def _run(self, statement: str, parameters: list[bytes], patience: Patience) -> list[Row]:
        connection = self._connection
        if connection is None:
            raise Unavailable("postgres: the connection is closed")
        try:
            connection.send_query_params(statement.encode(), parameters)
            _send(connection, patience)
            results = _receive(connection, patience)
        except Late:
            place = _place(connection)
            self.drop()
            raise Unavailable(f"postgres: no answer in time from {place}") from None
        except Error as error:
            self.drop()
            raise Unavailable(f"postgres: {one_line(str(error))}") from None
        except BaseException:
            self.drop()
            raise
        try:
            return _rows(results)
        except ServerError as error:
            if connection.status == _BAD or error.state in ("", READ_ONLY):
                self.drop()
            raise


def _worst(failures: list[Failure]) -> Failure:
    """The first that may pass: only if every server is of no use to us, it won't get better."""
    hopes = [failure for failure in failures if isinstance(failure, Unavailable)]
    return (hopes or failures or [Unavailable("postgres: there is no address")])[0]


def _place(connection: PGconn) -> str:
    host = (connection.hostaddr or connection.host).decode(errors="replace")
    return f"{host} port {connection.port.decode()}"


def _send(connection: PGconn, patience: Patience) -> None:
    """Raises Late, Woken, psycopg.Error."""
    while connection.flush():
        patience.wait(connection.socket, READ | WRITE)
        # The server may want to be read before it reads on.
        connection.consume_input()


def _receive(connection: PGconn, patience: Patience) -> list[PGresult]:
    """Every result of what was sent. Raises Late, Woken, psycopg.Error."""
    results: list[PGresult] = []
    while True:
        while connection.is_busy():
            patience.wait(connection.socket, READ)
            connection.consume_input()
        result = connection.get_result()
        if result is None:
            return results
        results.append(result)


def _rows(results: list[PGresult]) -> list[Row]:
    """The rows of the last result. Raises ServerError for the first that failed."""
    rows: list[Row] = []
    for result in results:
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            text = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
            raise ServerError(state, one_line(text))
        rows = [
            [_text(result.get_value(row, column)) for column in range(result.nfields)]
            for row in range(result.ntuples)
        ]
    return rows


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
