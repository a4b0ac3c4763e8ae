"""Cron expressions: one spelling for all that mean the same, and a sentence for what is wrong."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleton_run.schedule import cron_expression
from tests.support import debian_cron


@pytest.mark.parametrize(
    ("line", "spelling"),
    [
        ("0 11 * * *", "0 11 * * *"),
        (" 00  11 *\t* * ", "0 11 * * *"),
        ("0 0 11 * * *", "0 11 * * *"),
        ("*/10 0 11 * * *", "*/10 0 11 * * *"),
        ("0,10,20,30,40,50 0 11 * * *", "*/10 0 11 * * *"),
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@Weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("0 0 * JAN,feb Mon-Fri", "0 0 * 1,2 1-5"),
        ("0 0 * 1-12 0-6", "0 0 * * *"),
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * fri-sun", "0 0 * * 0,5,6"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("0 0 ? * 1", "0 0 * * 1"),
        ("0 0 1 * ?", "0 0 1 * *"),
        ("0 0 1-10/3,3,2,1 * *", "0 0 1-4,7,10 * *"),
        ("0 0 30 2 1", "0 0 30 2 1"),
        ("0 0 31 2,3 *", "0 0 31 2,3 *"),
    ],
)
def test_one_spelling(line: str, spelling: str) -> None:
    assert cron_expression.canonical(line) == spelling
    assert cron_expression.canonical(spelling) == spelling


@pytest.mark.parametrize(
    ("line", "spelling", "is_fixed"),
    [
        ("0,30 2 * * *", "0,30 2 * * *", True),
        ("*/30 2 * * *", "*/30 2 * * *", False),
        ("0-59 2 * * *", "0-59 2 * * *", True),
        ("* 2 * * *", "* 2 * * *", False),
        ("0,30 * * * *", "*/30 * * * *", False),
        ("*/30 * * * *", "*/30 * * * *", False),
        ("0 0-23 * * *", "0 0-23 * * *", True),
        ("*/20,5 3 * * *", "*/20,5 3 * * *", False),
        ("*/9 30 2 * * *", "*/9 30 2 * * *", True),
    ],
)
def test_a_star_that_decides_about_changes_of_the_clocks_stays(
    line: str, spelling: str, is_fixed: bool
) -> None:
    assert cron_expression.canonical(line) == spelling
    assert cron_expression.canonical(spelling) == spelling
    assert cron_expression.fixed(spelling) == is_fixed


@pytest.mark.parametrize(
    ("line", "spelling"),
    [
        ("0 0 */2 * 1", "0 0 */2 * 1"),
        ("0 0 1-31/2 * 1", "0 0 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 * 1"),
        ("0 0 1-31/2 * *", "0 0 */2 * *"),
        ("0 0 1-31 * 1", "0 0 * * *"),
        ("0 0 1 * 0-7", "0 0 * * *"),
        ("0 8 */100,1-7 * 1", "0 8 */31,2-7 * 1"),
        ("0 8 */32,1-7 * mon", "0 8 */31,2-7 * 1"),
        ("0 8 */31 * 1", "0 8 */31 * 1"),
        ("0 8 1-7 * */7", "0 8 1-7 * */7"),
        ("0 8 1-7 * */1000", "0 8 1-7 * */7"),
        ("0 8 1-7 * */7,1", "0 8 1-7 * */7,1"),
        ("0 8 1-7 * */6", "0 8 1-7 * */6"),
        ("0 8 * * */7", "0 8 * * 0"),
        ("0 8 */100 * *", "0 8 1 * *"),
    ],
)
def test_a_star_that_decides_whether_one_day_is_enough_stays(line: str, spelling: str) -> None:
    assert cron_expression.canonical(line) == spelling
    assert cron_expression.canonical(spelling) == spelling


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "0 fields"),
        ("11", "1 field:"),
        ("0 11 * *", "4 fields"),
        ("0 0 11 * * * 2027", "7 fields"),
        ("60 * * * *", "the minute '60'"),
        ("0 24 * * *", "the hour '24' has 24, which is not from 0 to 23"),
        ("0 0 0 * *", "the day of the month '0'"),
        ("0 0 32 * *", "the day of the month"),
        ("0 0 * 13 *", "the month"),
        ("0 0 * * 8", "the day of the week '8' has 8, which is not from 0 to 7"),
        ("60 * * * * *", "the second '60'"),
        ("0 0 * foo *", "the month 'foo' has 'foo', which is not a number or one of jan, feb"),
        ("0 0 * * 1.5", "the day of the week"),
        ("0 0 * * ²", "the day of the week"),
        ("0 0 * * mon-", "the day of the week"),
        ("1,,2 * * * *", "the minute"),
        (", * * * *", "the minute"),
        ("*/0 * * * *", "the step '0'"),
        ("*/ * * * *", "the step ''"),
        ("*/x * * * *", "the step 'x'"),
        ("*/-5 * * * *", "the step '-5'"),
        ("-5 * * * *", "the minute"),
        ("*5 * * * *", "the minute"),
        ("*/60 * * * *", "a step of 60"),
        ("*/90 * * * *", "a step of 90"),
        ("0 */24 * * *", "the hour '*/24' has a step of 24"),
        ("10-20/30 * * * *", "a step of 30"),
        ("5/10 * * * *", "the minute '5/10' has a step without a range: write 5-55/10"),
        ("0,5/10 * * * *", "write 0,5-55/10"),
        ("0 22-2 * * *", "the hour '22-2' goes backwards: write 0-2,22,23"),
        ("0 22-4/2 * * *", "write 0-4/2,22"),
        ("0 8,22-4 * * *", "write 0-4,8,22,23"),
        ("0 0 * * 7-4", "write 0-4"),
        ("0 0 * * 7-4/2", "write 0-4/2"),
        ("0 0 * * 5/1", "write 5,6"),
        ("0 */6,22-2 * * *", "write */6,1,2,22,23"),
        ("0 0 * nov-feb *", "write 1,2,11,12"),
        ("5/60 * * * *", "a step of 60"),
        ("0 22-2,24 * * *", "has 24, which is not"),
        ("? * * * *", "the minute"),
        ("0 0 ?,1 * *", "the day of the month"),
        ("0 0 L * *", "the last day"),
        ("0 0 15W * *", "the nearest weekday"),
        ("0 0 LW * *", "the last day"),
        ("0 0 * * 5L", "the last day"),
        ("0 0 * * 5#2", "the n-th weekday"),
        ("0 0 * * MON#1", "the n-th weekday"),
        ("0 0 * * mon-Fri#2", "the n-th weekday"),
        ("0 0 * * 1,tue#-1", "the n-th weekday"),
        ("0 0 * * FRIL", "the last day"),
        ("0 0 L-3 * *", "the last day"),
        ("H * * * *", "--jitter"),
        ("R * * * *", "--jitter"),
        ("H(0-29)/10 * * * *", "'H' (a time made from a name"),
        ("0~59 * * * *", "'~' (a random time"),
        ("~ * * * *", "'~' (a random time"),
        ("0 0 * lima *", "'lima', which is not a number or one of jan"),
        ("@every 5s", "say --every 5s"),
        ("@Every 1h30m", "say --every 1h30m"),
        ("@every", "say --every DURATION"),
        ("CRON_TZ=Europe/Berlin 0 11 * * *", "say --tz Europe/Berlin"),
        ("TZ=UTC @daily", "say --tz UTC"),
        ("CRON_TZ=", "say --tz ZONE"),
        ("@reboot", "@reboot"),
        ("@every_minute", "@hourly, @daily"),
        ("@", "@hourly, @daily"),
        ("0 0 30 2 *", "30 never comes in month 2"),
        ("0 0 31 4,6,9,11 *", "31 never comes"),
        ("0 0 30 2 */2", "30 never comes"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_names_the_field(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        cron_expression.canonical(line)
    assert len(str(error.value).splitlines()) == 1


# The hints: what to write for a range that goes backwards, or a step after a single value.

KINDS = {0: (0, 59), 1: (0, 23), 2: (1, 31), 3: (1, 12), 4: (0, 6)}


@st.composite
def _meant(draw: st.DrawFn) -> tuple[int, str, set[int]]:
    """A field's place, a text for it, and the values that it means."""
    place = draw(st.sampled_from(list(KINDS)))
    low, high = KINDS[place]
    numbers = st.integers(low, 7 if place == 4 else high)
    texts: list[str] = []
    values: set[int] = set()
    for _ in range(draw(st.integers(1, 3))):
        first, last, step = draw(numbers), draw(numbers), draw(st.integers(1, 9))
        spans = {
            f"{first}": (first, first, 1),
            f"{first}-{last}": (first, last, 1),
            f"{first}-{last}/{step}": (first, last, step),
            f"{first}/{step}": (first, high, step),
            f"*/{step}": (low, high, step),
        }
        text = draw(st.sampled_from(list(spans)))
        texts.append(text)
        values.update(_walk(*spans[text], range(low, high + 1)))
    return place, ",".join(texts), values


def _walk(first: int, last: int, step: int, face: range) -> list[int]:
    """From the first to the last value as on the face of a clock; Sunday is 0 and 7."""
    if (first, last) == (0, 7):
        return list(face)[::step]
    start, end = ((value if value in face else 0) - face.start for value in (first, last))
    order = [*face[start:], *face[:start]]
    return order[: order.index(face[end]) + 1 : step]


def _in_place(place: int, text: str) -> str:
    fields = ["1", "1", "1", "1", "1"]
    fields[place] = text
    return " ".join(fields)


@given(_meant())
def test_a_field_or_the_hint_for_it_means_what_was_meant(meant: tuple[int, str, set[int]]) -> None:
    place, text, values = meant
    try:
        spelling = cron_expression.canonical(_in_place(place, text))
    except ValueError as error:
        _, _, hint = str(error).partition(": write ")
        if not hint:
            assert "a step of" in str(error)  # noqa: PT017 - that is the only one without a hint here
            return
        assert hint.startswith("*") == text.startswith("*")
        spelling = cron_expression.canonical(_in_place(place, hint))
    entry = debian_cron.Entry(spelling)
    fields = (entry.minutes, entry.hours, entry.dates, entry.months, entry.days)
    either = place in (2, 4) and not entry.both_days
    if either and len(values) == (31 if place == 2 else 7):
        assert spelling == "1 1 * 1 *"
        return
    assert {value % 7 for value in fields[place]} == values if place == 4 else fields[place] == values
