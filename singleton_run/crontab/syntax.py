"""The lines of crontab(5), as Debian's cron reads them: assignments, fields, the command and its input.

Three things are ours: six fields with the second first (or seven, as supercronic has them, if the year is
`*`), `@every DURATION`, and comments that begin with `singleton-run:`, which give the options of the line
below them.
"""

from __future__ import annotations

from singleton_run.schedule import cron_expression

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLANKS = " \t"
REBOOT = "@reboot"
EVERY = "@every"
_OURS = "singleton-run:"
_PUNCTUATION = "*,-/?"


class Line:
    """A line that starts a command.

    `schedule` is what --cron takes, or REBOOT, or EVERY with a duration. `user` is None without a column for
    it. `command` is the text for the shell, and `stdin` the command's input, None if there is none.
    """

    __slots__ = ("command", "schedule", "stdin", "user")

    def __init__(self, schedule: str, user: str | None, command: str, stdin: str | None) -> None:
        self.schedule = schedule
        self.user = user
        self.command = command
        self.stdin = stdin

    @property
    def words(self) -> list[str]:
        """All that the line says, apart from the blanks between its columns."""
        return [self.schedule, self.user or "", self.command, self.stdin or ""]


def options_in(comment: str) -> str | None:
    """The options in a comment of ours, `# singleton-run: OPTIONS`; None for any other comment."""
    text = comment.lstrip("#").lstrip(BLANKS)
    return text.removeprefix(_OURS) if text.startswith(_OURS) else None


def is_nearly_ours(comment: str) -> bool:
    """Whether a comment may be meant as one of ours: in other letters, or options without the colon.

    A sentence that begins with our name is none: `# singleton-run runs these`.
    """
    words = list(_words(comment.lstrip("#").replace(":", " : ", 1), 3))
    if not words or words[0].lower().replace("_", "-") != _OURS[:-1]:
        return False
    return len(words) > 1 and (words[1] == ":" or "=" in words[1])


def assignment(line: str) -> tuple[str, str] | None:
    """The name and the value of `NAME=value`, each with or without quotes; None for any other line.

    There may be blanks around the `=`. Nothing is expanded: `$HOME` stays as it is.
    """
    name, rest = _unquoted(line)
    if rest is None:
        end = next((place for place, letter in enumerate(line) if letter in BLANKS + "="), len(line))
        name, rest = line[:end], line[end:]
    rest = rest.lstrip(BLANKS)
    if not name or "=" in name or not rest.startswith("="):
        return None
    text = rest[1:].strip(BLANKS)
    value, after = _unquoted(text)
    if after is None:
        return None if text[:1] in ("'", '"') else (name, text)
    return None if after.strip(BLANKS) else (name, value)


def _unquoted(text: str) -> tuple[str, str | None]:
    """A word in quotes at the beginning, and what follows it; None follows if there is no such word."""
    quote = text[:1]
    if quote not in ("'", '"') or quote not in text[1:]:
        return "", None
    word, _, rest = text[1:].partition(quote)
    return word, rest


def line_of(text: str, *, user_column: bool) -> Line:
    """The line that starts a command. Raises ValueError, with one sentence, if it is none."""
    words = list(_words(text, 8))
    count = _fields(words)
    if len(words) < count:
        raise ValueError(
            f"{words[0]!r} begins no line of a crontab: NAME=value does, and so do five fields (minute, "
            "hour, day of the month, month, day of the week), six with the second first, or a word such as "
            "@daily"
        )
    schedule = " ".join(words[: min(count, 6)])
    rest = _after(text, count)
    user = None
    if user_column:
        user = next(_words(rest, 1), "")
        rest = _after(rest, 1)
    command, stdin = _input_apart(rest)
    if not command.strip(BLANKS):
        column = ", after the user" if user_column else ""
        raise ValueError(f"there is no command after the schedule {schedule!r}{column}")
    return Line(schedule, user, command, stdin)


def _fields(words: list[str]) -> int:
    """How many of the words are the schedule. Raises ValueError for a year."""
    if words[0] == EVERY:
        return 2
    if words[0][0] == "@":
        return 1
    if len(words) < 6 or not _is_field(words[5]):
        return 5
    if words[6:7] == ["*"]:
        return 7
    if len(words) > 6 and _is_field(words[6]):
        raise ValueError(
            f"this line has seven fields, the last a year, {words[6]!r}: leave it out. Six fields are "
            "second, minute, hour, day of the month, month and day of the week"
        )
    return 6


def _is_field(word: str) -> bool:
    """Whether a word can only be meant as the day of the week: `*`, `1-5`, `mon,wed`, `5#2`, and not `sh`."""
    if word[0] in "0123456789*?" and not word.strip("0123456789LWlw#" + _PUNCTUATION):
        return True
    try:
        cron_expression.canonical(f"0 0 * * {word}")
    except ValueError:
        return False
    return True


def _words(text: str, most: int) -> Iterator[str]:
    """The first words of a text, with blanks or tabs between them."""
    rest = text.strip(BLANKS)
    while rest and most:
        end = next((place for place, letter in enumerate(rest) if letter in BLANKS), len(rest))
        yield rest[:end]
        rest = rest[end:].lstrip(BLANKS)
        most -= 1


def _after(text: str, count: int) -> str:
    """What follows the first words, as it is written."""
    rest = text.lstrip(BLANKS)
    for word in _words(text, count):
        rest = rest[len(word) :].lstrip(BLANKS)
    return rest


def _input_apart(text: str) -> tuple[str, str | None]:
    """The command, and its input: what follows the first `%`, where each further `%` is a newline.

    A backslash makes a `%` an ordinary one. In the command, two backslashes are one, which is not in
    crontab(5), and is so in Debian's cron. The input ends with a newline.
    """
    command = ""
    rest = iter(text)
    for letter in rest:
        if letter == "%":
            return command, _input("".join(rest))
        command += letter
        if letter == "\\":
            escaped = next(rest, "")
            command = command[:-1] + escaped if escaped in ("%", "\\") else command + escaped
    return command, None


def _input(text: str) -> str | None:
    """The text as cron writes it to the command; None for an empty one."""
    written = ""
    escaped = False
    for letter in text:
        if escaped and letter != "%":
            written += "\\"
        after_backslash, escaped = escaped, letter == "\\"
        if not escaped:
            written += "\n" if letter == "%" and not after_backslash else letter
    written += "\\" if escaped else ""
    if not written:
        return None
    return written if written.endswith("\n") else written + "\n"
