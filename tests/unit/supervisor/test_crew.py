"""Which lines' processes are started, and when."""

from __future__ import annotations

import pytest

from singleton_run.call.fast_parser import Values, fill
from singleton_run.call.settings import check
from singleton_run.errors import DENIED, UNAVAILABLE, UNUSABLE
from singleton_run.lease_times import FOREVER
from singleton_run.supervisor.crew import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MOST_STARTING,
    STARTS_WITHIN,
    STEADY,
    Crew,
    Line,
    Member,
)


def line(name: str, command: str = "true", **options: str) -> Line:
    """A line of a crontab."""
    given = {"name": name, **({"cron": "@daily"} if "once" not in options else {}), **options}
    settings = check(Values(fill(given, {}), ["/bin/sh", "-c", command]), {})
    return Line(settings, "/bin/sh", "crontab:1", (name, command, *options.values()))


def started(crew: Crew, now: float = 0.0) -> list[Member]:
    """Start what is due; the members."""
    due = crew.due(now)
    for number, member in enumerate(due, len(crew.processes()) + 100):
        crew.started(member, number, now)
    return due


def crew_of(*names: str) -> Crew:
    """A crew whose lines all run."""
    crew = Crew()
    crew.take([line(name) for name in names])
    for member in started(crew):
        crew.rests(member, worked=True)
    return crew


def test_all_lines_are_started_and_some_at_a_time() -> None:
    crew = Crew()
    crew.take([line(f"line{number}") for number in range(MOST_STARTING + 3)])
    first = started(crew)
    assert len(first) == MOST_STARTING
    assert crew.due(0.0) == []
    assert crew.next_look(0.0) == STARTS_WITHIN
    crew.rests(first[0], worked=True)
    assert len(started(crew)) == 1
    assert len(started(crew, STARTS_WITHIN)) == 2
    assert crew.next_look(STARTS_WITHIN) == FOREVER


def test_the_pauses_before_a_dead_line_is_started_again_grow_and_end() -> None:
    crew = crew_of("one")
    now, pauses = 0.0, []
    for _ in range(14):
        (member,) = crew.members
        pause = crew.ended(member, -9, now)
        assert pause is not None
        pauses.append(pause)
        assert crew.due(now + pause - 0.01) == []
        assert crew.next_look(now) == now + pause
        now += pause
        started(crew, now)
    assert pauses[:4] == [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4, FIRST_PAUSE * 8]
    assert pauses[-1] == LONGEST_PAUSE
    assert crew.ended(crew.members[0], 0, now + STEADY) == FIRST_PAUSE


def test_the_others_do_not_wait_for_a_dead_one() -> None:
    crew = crew_of("one", "two")
    crew.ended(crew.members[0], -9, 10.0)
    assert crew.members[1].process
    assert [member.line.name for member in crew.due(10.0 + FIRST_PAUSE)] == ["one"]


def test_new_lines_come_removed_ones_leave_and_the_same_stay() -> None:
    crew = crew_of("stays", "goes", "changes")
    stays = crew.members[0]
    new, leaving = crew.take([line("changes", "false"), line("stays"), line("comes")])
    assert (new, [member.line.name for member in leaving]) == (2, ["goes", "changes"])
    assert stays in crew.members
    assert not stays.is_leaving
    assert sorted(member.line.name for member in crew.due(0.0)) == ["changes", "comes"]
    assert crew.take([line("changes", "false"), line("stays"), line("comes")]) == (0, [])
    for member in leaving:
        assert crew.ended(member, 0, 1.0) is None
    assert sorted(member.line.name for member in crew.members) == ["changes", "comes", "stays"]


def test_a_line_that_comes_back_is_new_while_the_old_one_leaves() -> None:
    crew = crew_of("one")
    (old,) = crew.members
    crew.take([line("other")])
    assert crew.take([line("one")])[0] == 1
    assert old.is_leaving
    assert [member.line.name for member in crew.due(0.0)] == ["one"]


def test_a_removed_line_without_a_process_is_forgotten() -> None:
    crew = crew_of("one")
    crew.ended(crew.members[0], -9, 0.0)
    crew.take([line("two")])
    assert [member.line.name for member in crew.members] == ["two"]


@pytest.mark.parametrize(
    ("status", "again"), [(0, False), (1, False), (UNAVAILABLE, True), (DENIED, True), (-9, True)]
)
def test_what_runs_once_is_done_when_its_command_was_run(status: int, *, again: bool) -> None:
    crew = Crew()
    crew.take([line("boot", once="v1")])
    (member,) = started(crew)
    crew.rests(member, worked=True)
    assert (crew.ended(member, status, 1.0) is not None) == again
    assert bool(crew.due(1e9)) == again


def test_after_stop_nothing_is_started() -> None:
    crew = crew_of("one", "two")
    crew.stop()
    assert crew.ended(crew.members[0], -9, 0.0) is None
    assert crew.due(1e9) == []
    assert crew.next_look(1e9) == FOREVER
    assert len(crew.processes()) == 1


def test_it_is_hopeless_if_all_lines_are_refused_and_none_has_ever_worked() -> None:
    crew = Crew()
    crew.take([line("one"), line("two")])
    one, two = started(crew)
    crew.ended(one, UNUSABLE, 0.0)
    hopeless = [crew.is_hopeless]
    crew.ended(two, DENIED, 0.0)
    hopeless.append(crew.is_hopeless)
    started(crew, 1.0)
    crew.rests(one, worked=True)
    crew.ended(one, DENIED, 2.0)
    crew.ended(two, DENIED, 2.0)
    assert [*hopeless, crew.is_hopeless] == [False, True, False]


def test_a_server_that_is_away_is_no_reason_to_give_up() -> None:
    crew = Crew()
    crew.take([line("one")])
    (one,) = started(crew)
    crew.ended(one, UNAVAILABLE, 0.0)
    assert not crew.is_hopeless
