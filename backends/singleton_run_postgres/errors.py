"""The server's errors by kind, which the SQLSTATE decides, never the text.

At a login libpq hides the SQLSTATE, unless it is set to be verbose before the answer comes.
"""

from __future__ import annotations

from singleton_run.errors import UNUSABLE, Failure, Refused, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run_postgres.libpq import PGconn

AGAIN = ("40001", "40P01")  # serialization failure, deadlock: the same statement will do
NO_TABLE = "42P01"
NO_SCHEMA = "3F000"
NO_OBJECT = "42704"
MAY_NOT = "42501"
EXISTS = ("42P07", "42710", "23505")  # another made the table at the same moment
READ_ONLY = "25006"
TOO_LONG = "57014"
LOCAL = "local"

# Classes of SQLSTATE that do not get better: login, privileges, names, missing objects.
_REFUSED = ("0A", "22", "23", "28", "3D", "3F", "42", "54")
_ADVICE = {
    "28": "check user and password (in the URL, PGUSER, PGPASSWORD or ~/.pgpass) and pg_hba.conf",
    "3D": "name a database that exists (in the URL or PGDATABASE)",
    "22003": "the lock's row has a token that can't grow: delete the row",
    "42703": "the table is no table of locks: choose another by ?singleton_run_table=NAME",
    READ_ONLY: "a standby can't lock, nor can a role that may only read (default_transaction_read_only): "
    "name the primary, or all servers, or set that off",
    LOCAL: "see sslmode, sslrootcert, sslcert and sslkey (in the URL or PGSSL*)",
    "53300": "the server has no connection left for us (max_connections, or a CONNECTION LIMIT)",
    "55P03": "another session has locked the row or the table",
    TOO_LONG: "another session has locked the row or the table, or the server is very slow",
}
# What libpq itself says of a connection that TLS, or a certificate's file, keeps from being made: of these
# there is no SQLSTATE. Its texts are English, for this process sets no LC_MESSAGES.
_UNTRUSTED = (
    "certificate verify failed",
    "does not match host name",
    "could not get server's host name from server certificate",
    "but SSL was required",
    "GSSAPI encryption required",
    "channel binding is required",
    "channel binding required",
    "authentication method requirement",
    "root certificate file",
    "certificate file",
    "private key file",
    "certificate present, but not private key",
    "unknown ca",
    "bad certificate",
    "certificate required",
    "certificate expired",
    "unsupported protocol",
    "alert protocol version",
)


class ServerError(Exception):
    """An error that the server answered: `state` is the SQLSTATE, '' without one; `text` is one line.

    The state `LOCAL` means that libpq, not the server, refuses to connect with these options.
    """

    def __init__(self, state: str, text: str) -> None:
        super().__init__(text)
        self.state = state
        self.text = text

    def failure(self) -> Failure:
        """The contract's error for it."""
        advice = _ADVICE.get(self.state) or _ADVICE.get(self.state[:2])
        line = f"postgres: {self.text}{f': {advice}' if advice else ''}"
        if self.state == LOCAL:
            return Refused(line, UNUSABLE)
        return Refused(line) if self.state[:2] in _REFUSED else Unavailable(line)


def one_line(message: bytes | str) -> str:
    """The first line of a message of libpq's or the server's; the others are hints."""
    text = message.decode(errors="replace") if isinstance(message, bytes) else message
    return text.strip().partition("\n")[0].rstrip(".")


def login_error(connection: PGconn) -> ServerError:
    """The error of a connection that could not be made. It must have been set to be verbose."""
    text = one_line(connection.error_message)
    if connection.needs_password:  # libpq's own complaint, without a SQLSTATE
        return ServerError("28P01", text)
    before, gap, rest = text.partition(":  ")
    state, colon, why = rest.partition(": ")
    if gap and colon and len(state) == 5 and state.isalnum():
        return ServerError(state, f"{before}: {why}")
    return ServerError(LOCAL if any(words in text for words in _UNTRUSTED) else "", text)
