"""What `doctor` tells of one thing that it looked at. Only that command imports this."""

from __future__ import annotations


class Finding:
    """One thing that was looked at: its `grade` GOOD, WARNING or BAD, and a sentence about what was found.

    `todo` says what to do about it; it is empty for a good one, and where the sentence says it. BAD: a call
    would fail, or the lock wouldn't keep its promise. Neither text has a secret in it.
    """

    __slots__ = ("grade", "text", "todo")

    GOOD, WARNING, BAD = "ok", "warn", "BAD"

    def __init__(self, grade: str, text: str, todo: str = "") -> None:
        self.grade = grade
        self.text = text
        self.todo = todo


def good(text: str) -> Finding:
    """All is well with that."""
    return Finding(Finding.GOOD, text)


def warning(text: str, todo: str) -> Finding:
    """The lock works, but not as well as it could, or only as long as nothing else goes wrong."""
    return Finding(Finding.WARNING, text, todo)


def bad(text: str, todo: str) -> Finding:
    """A call would fail, or the lock wouldn't keep its promise."""
    return Finding(Finding.BAD, text, todo)
