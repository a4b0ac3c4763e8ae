"""Cron expressions: reads and checks them without croniter, which takes 60 ms to import.

An expression has five fields (minute, hour, day of the month, month, day of the week), or six with the second
first, or is one of the @ names. `canonical` writes it in numbers, in one spelling for all expressions that
mean the same: croniter, which reads it later, can't misunderstand a name, a range or a field's place.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ELSEWHERE = {
    "#": "'#' (the n-th weekday of a month)",
    "L": "'L' (the last day)",
    "W": "'W' (the nearest weekday)",
    "H": "'H' (a time made from a name; --jitter spreads starts)",
    "R": "'R' (a random time; --jitter spreads starts)",
    "~": "'~' (a random time; --jitter spreads starts)",
}


class _Kind:
    """A kind of field: its name, its least and greatest value, and names for its values."""

    __slots__ = ("high", "low", "name", "names")

    def __init__(self, name: str, low: int, high: int, names: Sequence[str] = ()) -> None:
        self.name = name
        self.low = low
        self.high = high
        self.names = names

    @property
    def size(self) -> int:
        """How many values there are."""
        return self.high - self.low + 1

    def wrap(self, value: int) -> int:
        """The value, wrapped around at the end of the range: Sunday is 0, and 7 too."""
        return self.low + (value - self.low) % self.size


_SECOND = _Kind("second", 0, 59)
_MINUTE = _Kind("minute", 0, 59)
_HOUR = _Kind("hour", 0, 23)
_DATE = _Kind("day of the month", 1, 31)
_MONTH = _Kind("month", 1, 12, _MONTHS)
_DAY = _Kind("day of the week", 0, 6, _DAYS)
_KINDS = (_MINUTE, _HOUR, _DATE, _MONTH, _DAY)


class _Field:
    """The values of one field. `star` says that it began with `*`: some of cron's rules depend on that."""

    __slots__ = ("kind", "star", "values")

    def __init__(self, kind: _Kind, values: set[int], *, star: bool) -> None:
        self.kind = kind
        self.values = values
        self.star = star

    @property
    def full(self) -> bool:
        """Whether the field has every value of its kind."""
        return len(self.values) == self.kind.size

    def loosen(self) -> None:
        """Set `star` by the values alone, because it makes no difference whether the field began with `*`."""
        ordered = sorted(self.values)
        step = ordered[1] - ordered[0] if len(ordered) > 1 else 0
        self.star = bool(step) and ordered == list(_steps(self.kind, step))

    def __str__(self) -> str:
        if not self.star:
            return _listed(self.values)
        if self.full:
            return "*"
        # The search ends: the greatest step leaves only the least value.
        step = next(n for n in range(2, self.kind.high + 2) if self.values.issuperset(_steps(self.kind, n)))
        rest = self.values.difference(_steps(self.kind, step))
        return f"*/{step},{_listed(rest)}" if rest else f"*/{step}"


def canonical(expression: str) -> str:
    """The expression's one spelling: five fields in numbers, or six if it has seconds other than 0.

    Raises ValueError, with one sentence that names the field, if cron doesn't know the expression, if it
    never comes true (30 February), or if other programs read it in another way.
    """
    words = expression.split()
    if words:
        _refuse_elsewhere(words)
    if len(words) == 1 and words[0][0] == "@":
        words = _named(words[0]).split()
    if len(words) not in (5, 6):
        raise ValueError(
            f"{expression!r} has {len(words)} field{'' if len(words) == 1 else 's'}: five are minute, hour, "
            "day of the month, month and day of the week, and six have the second before them"
        )
    second = _read(words[0], _SECOND) if len(words) == 6 else _Field(_SECOND, {0}, star=False)
    fields = [_read(word, kind) for word, kind in zip(words[-5:], _KINDS, strict=True)]
    minute, hour, date, month, day = fields
    second.loosen()
    month.loosen()
    if minute.star or hour.star:
        _loosen_but_one(minute, hour)
    _settle_days(date, day)
    _check_date(date, month, day)
    if second.values != {0}:
        fields.insert(0, second)
    return " ".join(str(field) for field in fields)


def fixed(expression: str) -> bool:
    """Whether a canonical expression has fixed times: neither its minute nor its hour begins with `*`."""
    minute, hour = expression.split()[-5:-3]
    return "*" not in minute[0] + hour[0]


def _refuse_elsewhere(words: Sequence[str]) -> None:
    """Refuse words that other programs accept in the expression, and name our option instead."""
    name, equals, zone = words[0].partition("=")
    if equals and name.upper() in ("CRON_TZ", "TZ"):
        raise ValueError(f"{words[0]!r} is no part of the expression: say --tz {zone or 'ZONE'}")
    if words[0].lower() == "@every":
        interval = " ".join(words[1:]) or "DURATION"
        raise ValueError(f"'@every' is an option of its own: in place of --cron say --every {interval}")


def _named(word: str) -> str:
    if word.lower() == "@reboot":
        raise ValueError("@reboot is no time: run the command when the machine starts, without --cron")
    if word.lower() not in _NAMED:
        raise ValueError(f"{word!r} is none of {', '.join(_NAMED)}")
    return _NAMED[word.lower()]


def _loosen_but_one(minute: _Field, hour: _Field) -> None:
    """Keep a `*` in minute or hour: if one of them begins with `*`, both follow the clock."""
    before = [(field, field.star) for field in (minute, hour)]
    minute.loosen()
    hour.loosen()
    if not (minute.star or hour.star):
        for field, star in before:
            field.star = star


def _settle_days(date: _Field, day: _Field) -> None:
    """If one of the two fields has every day, the `*` of the other makes no difference."""
    if not (date.star or day.star) and (date.full or day.full):
        date.values = set(range(_DATE.low, _DATE.high + 1))
        day.values = set(range(_DAY.low, _DAY.high + 1))
    if date.full or day.full:
        date.loosen()
        day.loosen()


def _check_date(date: _Field, month: _Field, day: _Field) -> None:
    either = not (date.star or day.star)
    if not either and min(date.values) > max(_LENGTHS[number - 1] for number in month.values):
        raise ValueError(f"the day of the month {min(date.values)} never comes in month {month}")


def _read(text: str, kind: _Kind) -> _Field:
    """Read one field: items with commas between them, each `*`, a value or a range, with or without /STEP."""
    if text == "?" and kind in (_DATE, _DAY):
        text = "*"
    values: set[int] = set()
    wrong = ""
    for item in text.split(","):
        meant, complaint = _item(item, text, kind)
        values.update(meant)
        wrong = wrong or complaint
    field = _Field(kind, values, star=text[0] == "*")
    if wrong:
        _refuse(text, kind, f"{wrong}: write {field if field.star else _compact(values)}")
    return field


def _item(item: str, text: str, kind: _Kind) -> tuple[set[int], str]:
    """The values that an item means, and why it is refused although its meaning is clear, or ''."""
    base, slash, step = item.partition("/")
    start, dash, end = base.partition("-")
    wrong = ""
    if base == "*":
        first, last = kind.low, kind.high
    else:
        first = _value(start, text, kind)
        last = _value(end, text, kind) if dash else first
        if kind is _DAY and last == 0 < first:
            last = 7
        if last < first:
            wrong = "goes backwards"
            last += kind.size
        if slash and not dash:
            wrong = "has a step without a range"
            first = kind.wrap(first)
            last = kind.high
    every = _every(step, text, kind) if slash else 1
    # After a `*` people use such a step to say "and" with the other day field.
    if every > max(last - first, 1) and not (base == "*" and kind in (_DATE, _DAY)):
        _refuse(text, kind, f"has a step of {every}, which is longer than its range: it would be one value")
    return {kind.wrap(value) for value in range(first, last + 1, every)}, wrong


def _every(step: str, text: str, kind: _Kind) -> int:
    if not (step.isascii() and step.isdigit() and len(step) < 10 and int(step)):
        _refuse(text, kind, f"has the step {step!r}, which is not a number above 0")
    return int(step)


def _value(word: str, text: str, kind: _Kind) -> int:
    if word.lower() in kind.names:
        return kind.names.index(word.lower()) + kind.low
    if not (word.isascii() and word.isdigit() and len(word) < 4):
        _refuse_word(word, text, kind)
    greatest = 7 if kind is _DAY else kind.high
    if not kind.low <= int(word) <= greatest:
        _refuse(text, kind, f"has {word}, which is not from {kind.low} to {greatest}")
    return int(word)


def _refuse_word(word: str, text: str, kind: _Kind) -> NoReturn:
    rest = word.lower()
    rest = rest[3:] if rest[:3] in kind.names else rest.lstrip("0123456789")
    for letter, meaning in _ELSEWHERE.items():
        if rest[:1].upper() == letter and (len(rest) < 3 or not rest[1].isalpha()):
            _refuse(text, kind, f"has {meaning}, which cron doesn't know")
    names = f" or one of {', '.join(kind.names)}" if kind.names else ""
    _refuse(text, kind, f"has {word!r}, which is not a number{names}")


def _refuse(text: str, kind: _Kind, why: str) -> NoReturn:
    raise ValueError(f"the {kind.name} {text!r} {why}")


def _steps(kind: _Kind, step: int) -> range:
    return range(kind.low, kind.high + 1, step)


def _listed(values: set[int]) -> str:
    """The values with commas between them. Three or more in a row become a range."""
    return _joined(values, steps=False)


def _compact(values: set[int]) -> str:
    """As `_listed`. Three or more at the same distance become a range with a step."""
    return _joined(values, steps=True)


def _joined(values: set[int], *, steps: bool) -> str:
    items: list[str] = []
    ordered = sorted(values)
    while ordered:
        step = ordered[1] - ordered[0] if steps and len(ordered) > 1 else 1
        end = 1
        while end < len(ordered) and ordered[end] == ordered[end - 1] + step:
            end += 1
        if end < 3:
            end = 1
        item = f"{ordered[0]}-{ordered[end - 1]}" if end > 1 else str(ordered[0])
        items.append(f"{item}/{step}" if step > 1 and end > 1 else item)
        ordered = ordered[end:]
    return ",".join(items)
