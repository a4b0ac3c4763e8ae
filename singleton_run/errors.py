"""The errors that end singleton-run without the command's own exit status.

Each error is one line for the user (what, why, what to do next) and has an exit status. A backend raises
three of them: `Unavailable` (trying again may help), `Refused` (trying again doesn't help) and `Lost`. The
caller decides by the class, never by the text. That a lock is held is a result (`contract.Held`) and no
error.
"""

from __future__ import annotations

USAGE = 2
UNAVAILABLE = 69
HELD = 75
DENIED = 77
UNUSABLE = 78
LOST = 79
TIMED_OUT = 124
NOT_EXECUTABLE = 126
NOT_FOUND = 127

_LONGEST_LINE = 4000


def one_line(text: str) -> str:
    """`text` as one line of at most 4000 characters, with unprintable characters escaped.

    Our sentences quote users, files and servers, whose control characters could change what a terminal shows.
    The middle of a longer text is left out.
    """
    text = _cut(text)
    if text.isprintable():
        return text
    return _cut("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text))


def _cut(text: str) -> str:
    half = _LONGEST_LINE // 2 - 2
    return text if len(text) <= _LONGEST_LINE else f"{text[:half]} … {text[-half:]}"


class Failure(Exception):
    """An error that ends singleton-run with `status`. `str(error)` is the line that the user sees."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(one_line(message))
        self.status = status


class Unavailable(Failure):
    """The server can't be reached or can't answer now: the same call may succeed later."""

    def __init__(self, message: str) -> None:
        super().__init__(UNAVAILABLE, message)


class Refused(Failure):
    """The call fails, and trying again doesn't help.

    `status` is DENIED if the server refuses us (permission, password). It is UNUSABLE if this machine can't
    do it (a bad address, a missing package, a directory that is not ours).
    """

    def __init__(self, message: str, status: int = DENIED) -> None:
        super().__init__(status, message)


class Lost(Failure):
    """The grant is no longer ours: another holds the lock, or it was deleted."""

    def __init__(self, message: str) -> None:
        super().__init__(LOST, message)


def describe_bug(error: BaseException) -> str:
    """The class and place of an unexpected error. Its text is left out: it may have a secret in it."""
    place = error.__traceback__
    if place is None:
        return type(error).__name__
    while place.tb_next is not None:
        place = place.tb_next
    file = place.tb_frame.f_code.co_filename.rpartition("/")[2]
    return f"{type(error).__name__} in {file}, line {place.tb_lineno}"
