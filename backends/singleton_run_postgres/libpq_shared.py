"""libpq as a shared library, called by ctypes.

It is the libpq of the package psycopg, or the system's. Importing psycopg itself takes 130 ms, nearly all of
it for types and cursors that are not needed here.
"""

from __future__ import annotations

import os
import sys
from ctypes import CDLL, CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_int, c_void_p, string_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_SYSTEM = "libpq.so.5"


class Option(Structure):
    """An option of a connection: PQconninfoOption."""

    keyword: bytes
    val: bytes | None
    _fields_ = (
        ("keyword", c_char_p),
        ("envvar", c_char_p),
        ("compiled", c_char_p),
        ("val", c_char_p),
        ("label", c_char_p),
        ("dispchar", c_char_p),
        ("dispsize", c_int),
    )


def _of_psycopg() -> Iterator[str]:
    """The libpq that the wheel of psycopg has, without an import of it."""
    for finder in sys.meta_path:
        spec = finder.find_spec("psycopg_binary", None)
        if spec is not None and spec.origin:
            folder = f"{os.path.dirname(os.path.dirname(spec.origin))}/psycopg_binary.libs"
            names = os.listdir(folder) if os.path.isdir(folder) else []
            yield from (f"{folder}/{name}" for name in names if name.startswith("libpq-"))
            return


def _loaded_by_psycopg() -> Iterator[str]:
    """The libpq that psycopg finds, wherever that is. Raises ImportError."""
    from psycopg import pq  # noqa: F401 - loads it

    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        yield from {line.split(maxsplit=5)[-1].rstrip("\n") for line in maps if "/libpq" in line}


def _library() -> CDLL:
    """Raises ImportError."""
    for places in (_of_psycopg, lambda: (_SYSTEM,), _loaded_by_psycopg):
        for place in places():
            try:
                return CDLL(place)
            except OSError:
                continue
    raise ImportError(f"there is no {_SYSTEM}")


_libpq = _library()
_error: type[Exception] = RuntimeError


def _function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(_libpq, name)
    function.restype, function.argtypes = result, arguments
    made: Callable[..., Any] = function
    return made


_connection = c_void_p
_result = c_void_p
_options = POINTER(Option)
_start = _function("PQconnectStart", _connection, c_char_p)
_finish = _function("PQfinish", None, _connection)
_poll = _function("PQconnectPoll", c_int, _connection)
_status = _function("PQstatus", c_int, _connection)
_socket = _function("PQsocket", c_int, _connection)
_error_message = _function("PQerrorMessage", c_char_p, _connection)
_user = _function("PQuser", c_char_p, _connection)
_host = _function("PQhost", c_char_p, _connection)
_hostaddr = _function("PQhostaddr", c_char_p, _connection)
_port = _function("PQport", c_char_p, _connection)
_backend_pid = _function("PQbackendPID", c_int, _connection)
_needs_password = _function("PQconnectionNeedsPassword", c_int, _connection)
_conninfo = _function("PQconninfo", _options, _connection)
_conninfo_parse = _function("PQconninfoParse", _options, c_char_p, c_void_p)
_conninfo_free = _function("PQconninfoFree", None, _options)
_set_nonblocking = _function("PQsetnonblocking", c_int, _connection, c_int)
_set_error_verbosity = _function("PQsetErrorVerbosity", c_int, _connection, c_int)
_processor = CFUNCTYPE(None, c_void_p, c_char_p)
_ignore = _processor(lambda *_: None)
_set_notice_processor = _function("PQsetNoticeProcessor", c_void_p, _connection, _processor, c_void_p)
_send_query_params = _function(
    "PQsendQueryParams", c_int, _connection, c_char_p, c_int, c_void_p, c_void_p, c_void_p, c_void_p, c_int
)
_flush = _function("PQflush", c_int, _connection)
_is_busy = _function("PQisBusy", c_int, _connection)
_consume_input = _function("PQconsumeInput", c_int, _connection)
_get_result = _function("PQgetResult", _result, _connection)
_notifies = _function("PQnotifies", c_void_p, _connection)
_free_memory = _function("PQfreemem", None, c_void_p)
_result_status = _function("PQresultStatus", c_int, _result)
_result_error_message = _function("PQresultErrorMessage", c_char_p, _result)
_result_error_field = _function("PQresultErrorField", c_char_p, _result, c_int)
_rows = _function("PQntuples", c_int, _result)
_columns = _function("PQnfields", c_int, _result)
_is_null = _function("PQgetisnull", c_int, _result, c_int, c_int)
_length = _function("PQgetlength", c_int, _result, c_int, c_int)
_value = _function("PQgetvalue", c_void_p, _result, c_int, c_int)
_clear = _function("PQclear", None, _result)


def set_error(error: type[Exception]) -> None:
    """Raise `error` from now on for what libpq refuses or fails at."""
    global _error  # noqa: PLW0603
    _error = error


def parse(conninfo: bytes) -> list[Option]:
    """The options that libpq knows, those that `conninfo` names with a value. Raises the error."""
    message = c_void_p()
    found = _conninfo_parse(conninfo, byref(message))
    if not found:
        text = string_at(message.value) if message.value else b"out of memory"
        _free_memory(message)
        raise _error(text.decode(errors="replace"))
    return _listed(found)


def _listed(found: Any) -> list[Option]:
    """Copies of the options, which are freed."""
    copies = []
    count = 0
    while found[count].keyword is not None:
        copies.append(Option(keyword=found[count].keyword, val=found[count].val))
        count += 1
    _conninfo_free(found)
    return copies


class PGresult:
    """What the server answered to one statement."""

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer
        self.status: int = _result_status(pointer)
        self.ntuples: int = _rows(pointer)
        self.nfields: int = _columns(pointer)

    def __del__(self) -> None:
        _clear(self._pointer)

    @property
    def error_message(self) -> bytes:
        """What libpq or the server says is wrong."""
        return _result_error_message(self._pointer) or b""

    def error_field(self, field: int) -> bytes | None:
        """A part of the server's error (PG_DIAG_*); None if it has none."""
        found: bytes | None = _result_error_field(self._pointer, field)
        return found

    def get_value(self, row: int, column: int) -> bytes | None:
        """A value as text; None for NULL."""
        if _is_null(self._pointer, row, column):
            return None
        return string_at(_value(self._pointer, row, column), _length(self._pointer, row, column))


class PGconn:
    """A connection. All that can wait for the server is done by libpq's calls that don't."""

    def __init__(self, pointer: int) -> None:
        self._pointer: int | None = pointer

    @classmethod
    def connect_start(cls, conninfo: bytes) -> PGconn:
        """Begin to connect; `status` and `connect_poll` tell how it goes. Notices are dropped."""
        pointer = _start(conninfo)
        if not pointer:
            raise MemoryError
        _set_notice_processor(pointer, _ignore, None)
        return cls(pointer)

    def finish(self) -> None:
        """Close the connection."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            _finish(pointer)

    __del__ = finish

    def _open(self) -> int:
        if self._pointer is None:
            raise _error("the connection is closed")
        return self._pointer

    def _checked(self, succeeded: object) -> None:
        if not succeeded:
            raise _error(self.error_message.decode(errors="replace"))

    @property
    def status(self) -> int:
        """ConnStatusType; what is closed is bad."""
        return int(_status(self._pointer))

    @property
    def socket(self) -> int:
        """The socket, to wait for."""
        found = int(_socket(self._open()))
        if found < 0:
            raise _error("the connection is lost")
        return found

    @property
    def error_message(self) -> bytes:
        """What went wrong last."""
        return _error_message(self._pointer) or b""

    @property
    def user(self) -> bytes:
        """Who logs in."""
        return _user(self._open()) or b""

    @property
    def host(self) -> bytes:
        """The server's name, or the directory of its socket."""
        return _host(self._open()) or b""

    @property
    def hostaddr(self) -> bytes:
        """The server's address."""
        return _hostaddr(self._open()) or b""

    @property
    def port(self) -> bytes:
        """The server's port."""
        return _port(self._open()) or b""

    @property
    def backend_pid(self) -> int:
        """The server's process, as it told at the beginning."""
        return int(_backend_pid(self._open()))

    @property
    def needs_password(self) -> bool:
        """Whether the server asked for a password and there is none."""
        return bool(_needs_password(self._open()))

    @property
    def info(self) -> list[Option]:
        """The options of this connection, from all sources."""
        return _listed(_conninfo(self._open()))

    def connect_poll(self) -> int:
        """Go on connecting: PostgresPollingStatusType says what to wait for."""
        return int(_poll(self._open()))

    def make_nonblocking(self) -> None:
        """Have no call wait to send."""
        self._checked(_set_nonblocking(self._open(), 1) == 0)

    def set_error_verbosity(self, verbosity: int) -> None:
        """Choose how much libpq's messages say (PGVerbosity)."""
        _set_error_verbosity(self._open(), verbosity)

    def send_query_params(self, statement: bytes, values: list[bytes]) -> None:
        """Begin to send a statement with its parameters, as texts."""
        array = (c_char_p * len(values))(*values)
        self._checked(_send_query_params(self._open(), statement, len(values), None, array, None, None, 0))

    def flush(self) -> int:
        """Send what there is; 1 if something is left."""
        left = int(_flush(self._open()))
        self._checked(left >= 0)
        return left

    def is_busy(self) -> bool:
        """Whether `get_result` would wait."""
        return bool(_is_busy(self._open()))

    def consume_input(self) -> None:
        """Read what has come."""
        self._checked(_consume_input(self._open()))

    def get_result(self) -> PGresult | None:
        """The next result; None if that was all."""
        pointer = _get_result(self._open())
        return PGresult(pointer) if pointer else None

    def notifies(self) -> bool:
        """Whether something was notified; that is taken away."""
        notification = _notifies(self._open())
        _free_memory(notification)
        return bool(notification)
