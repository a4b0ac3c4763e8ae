"""What the backend `postgres` takes from psycopg, over the libpq that is linked in: no more than that."""

import _libpq


class Error(Exception):
    """What libpq refuses or fails at."""


class ProgrammingError(Error):
    """The call itself is wrong."""


_libpq.set_error(Error)
