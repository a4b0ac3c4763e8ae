"""Connection strings, taken apart and put together by libpq's rules."""

import _libpq

from psycopg import Error, ProgrammingError


def conninfo_to_dict(conninfo: str) -> dict[str, str]:
    """The options that a URL or a string of KEY=VALUE names. Raises ProgrammingError."""
    try:
        options = _libpq.parse(conninfo.encode())
    except Error as error:
        raise ProgrammingError(str(error)) from None
    return {option.keyword.decode(): option.val.decode() for option in options if option.val is not None}


def make_conninfo(_: str, **options: str) -> str:
    """The string that names these options. Raises ProgrammingError if libpq knows one of them not."""
    text = " ".join(f"{key}={_quoted(value)}" for key, value in options.items())
    conninfo_to_dict(text)
    return text


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
