"""The errors that end singleton-run without the command's own exit status.

Each error is one line for the user (what, why, what to do next) with an exit status of its own. A backend
raises three of them, and its caller decides by the class, never by the text: `Unavailable` (try again),
`Refused` (will not get better) and `Lost`. A held lock is a result (`contract.Held`), not an error.
"""

from __future__ import annotations

import errno

USAGE = 2
NOT_HELD = 3
UNAVAILABLE = 69
HELD = 75
DENIED = 77
UNUSABLE = 78
LOST = 79
TIMED_OUT = 124
NOT_EXECUTABLE = 126
NOT_FOUND = 127

SCARCE = frozenset((errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.EMFILE))
"""What a call that starts a command fails with where it says nothing of the command."""

_LONGEST_LINE = 4000


def one_line(text: str) -> str:
    """`text` as one line of at most 4000 characters, without its middle if need be, and with escapes.

    Characters that can't be printed are escaped: a user, a file or a server may have written them, and they
    could rewrite a terminal's lines.
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
    """The server can't be reached, or can't answer now (69). The same call may succeed later."""

    def __init__(self, message: str) -> None:
        super().__init__(UNAVAILABLE, message)


class Refused(Failure):
    """The call fails, and would fail again.

    `status` is DENIED (77) where the server refuses us (permission, password), and UNUSABLE (78) where this
    machine can't (a bad address, a missing package, a directory that is not ours).
    """

    def __init__(self, message: str, status: int = DENIED) -> None:
        super().__init__(status, message)


class Lost(Failure):
    """The grant is no longer ours (79): another holds the lock, or somebody deleted it."""

    def __init__(self, message: str) -> None:
        super().__init__(LOST, message)


NO_MEMORY = "out of memory"
"""What `scarce` is told of a MemoryError, which has no text of its own."""


def scarce(what: str) -> str:
    """The sentence for what the kernel has not got for us: a process, a descriptor, memory."""
    return f"this machine refuses what a run takes ({what}): see `ulimit -a`, and the limits of the container"


def incomplete(error: ImportError) -> str:
    """The sentence for a module that can't be imported: of Python's own, of a package, or of ours."""
    what = f"the Python module {error.name} can't be imported here" if error.name else one_line(str(error))
    return f"{what}: install singleton-run anew, with the packages that it needs, in a Python that is whole"


def describe_bug(error: BaseException) -> str:
    """The kind and place of an unexpected error. Its text isn't told, because it may hold a secret."""
    place = error.__traceback__
    if place is None:
        return type(error).__name__
    while place.tb_next is not None:
        place = place.tb_next
    file = place.tb_frame.f_code.co_filename.rpartition("/")[2]
    return f"{type(error).__name__} in {file}, line {place.tb_lineno}"
