"""Cron expressions: one spelling for all that mean the same, and a sentence for what is wrong."""

from __future__ import annotations

import re

import pytest

from singleton_run.schedule import cron_expression


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
        ("5/10 * * * *", "write 5-59/10"),
        ("0 22-2 * * *", "write 22-23,0-2"),
        ("0 0 * nov-feb *", "write nov-12,1-feb"),
        ("? * * * *", "the minute"),
        ("0 0 ?,1 * *", "the day of the month"),
        ("0 0 L * *", "the last day"),
        ("0 0 15W * *", "the nearest weekday"),
        ("0 0 LW * *", "the last day"),
        ("0 0 * * 5L", "the last day"),
        ("0 0 * * 5#2", "the n-th weekday"),
        ("H * * * *", "--jitter"),
        ("R * * * *", "--jitter"),
        ("H(0-29)/10 * * * *", "the minute"),
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
