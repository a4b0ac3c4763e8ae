"""Whether a lock is ours, decided by what the server tells, and who asks."""

from __future__ import annotations

import pytest

from singleton_run.api.contract import Held, Look
from singleton_run.commands import check
from singleton_run.errors import LOST, UNAVAILABLE, UNUSABLE, USAGE, Failure

US = "vm:7:0a1b2c3d"
TURN = {"SINGLETON_NAME": "n", "SINGLETON_HOLDER": US, "SINGLETON_TOKEN": "12", "SINGLETON_LOCK": "file"}
OURS = check.Ours("file", "n", US, 12)
NOW = 1000.0


def look(state: str = Look.HELD, holder: str = US, token: int | None = 12, left: float | None = 20.0) -> Look:
    until = None if left is None else NOW + left
    return Look(state, Held(holder, until=until, token=token), None)


def status(seen: Look, least: float = 5.0, *, leased: bool = True) -> int:
    try:
        check.judge(OURS, seen, least, NOW, leased=leased)
    except Failure as failure:
        return failure.status
    return 0


def test_a_lock_with_enough_of_its_lease_left_is_ours() -> None:
    assert status(look()) == 0
    assert status(look(left=5.0)) == 0
    assert status(look(left=4.9)) == LOST
    assert status(look(left=4.9), least=4.0) == 0
    assert status(look(left=-1.0), least=0.0) == LOST


def test_another_s_lock_is_not() -> None:
    assert status(look(holder="vm:8:00000000")) == LOST
    assert status(look(token=13)) == LOST
    assert status(look(holder="", token=13), leased=False) == LOST
    assert status(Look(Look.FREE, None, None)) == LOST
    for state in (Look.KEPT, Look.EXPIRED):
        assert status(look(state)) == LOST


def test_what_a_server_does_not_tell_is_no_answer() -> None:
    assert status(look(holder="", token=None)) == UNAVAILABLE
    assert status(look(holder="vm:8:00000000", token=None)) == LOST
    assert status(look(token=None)) == 0
    assert status(look(left=None)) == UNAVAILABLE


def test_a_lock_of_the_kernel_has_no_end_and_perhaps_no_name() -> None:
    assert status(look(left=None), leased=False) == 0
    assert status(look(holder="", left=None), leased=False) == 0


def test_a_plain_call_is_read_without_click() -> None:
    assert check.read([]) == {}
    assert check.read(["--for", "9s"]) == check.read(["--for=9s"]) == {"for": "9s"}
    assert check.read(["--lock", "etcd", "--for=1"]) == {"lock": "etcd", "for": "1"}
    for words in (["--for"], ["--help"], ["--lock"], ["etcd"], ["-h=1"], ["--for", "1", "--version"]):
        assert check.read(words) is None


@pytest.mark.parametrize("missing", ["NAME", "HOLDER", "TOKEN"])
def test_outside_of_a_command_nobody_asks(missing: str) -> None:
    environ = {word: value for word, value in TURN.items() if word != f"SINGLETON_{missing}"}
    with pytest.raises(Failure) as failure:
        check.asked_by(environ, "")
    assert failure.value.status == USAGE


def test_the_address_is_the_one_that_the_command_was_told() -> None:
    assert check.asked_by(TURN, "").lock == "file"
    assert check.asked_by({**TURN, "SINGLETON_RUN_LOCK": "etcd"}, "").lock == "file"
    assert check.asked_by(TURN, "etcd").lock == "etcd"


def test_how_much_must_be_left_fits_a_short_lease() -> None:
    assert check.asked_for("", {}) == check.asked_for("", {"SINGLETON_TTL": "30"}) == 5.0
    assert check.asked_for("", {"SINGLETON_TTL": "6"}) == 3.0
    assert check.asked_for("4s", {"SINGLETON_TTL": "6"}) == 4.0
    for text, environ in (("soon", {}), ("", {"SINGLETON_TTL": "short"})):
        with pytest.raises(Failure) as failure:
            check.asked_for(text, environ)
        assert failure.value.status == USAGE


@pytest.mark.parametrize("told", ["postgres://u:***@h/d", "postgres://…", ""])
def test_an_address_without_its_password_has_to_be_given(told: str) -> None:
    environ = {**TURN, "SINGLETON_LOCK": told}
    with pytest.raises(Failure, match="--lock") as failure:
        check.asked_by(environ, "")
    assert failure.value.status == UNUSABLE
    assert check.asked_by(environ, "postgres").lock == "postgres"
    assert check.asked_by({**environ, "SINGLETON_RUN_LOCK": "etcd"}, "").lock == "etcd"
