"""What people are told of holders and pauses, and which locks can be steered at all."""

from __future__ import annotations

import re
from typing import Any

import pytest

from singleton_run.api import control
from singleton_run.api.contract import Held
from singleton_run.commands import release, steering
from singleton_run.errors import UNUSABLE, Refused


@pytest.mark.parametrize(
    ("holder", "ours"),
    [
        ("vm:4711:9a4f6b84", True),
        ("host.example-1:1:00000000", True),
        ("etcd lease 694d71ddacfda227", False),
        ("pod-5d9c_8f1d4e9e-93d5-4d53-9a40-4a0f3b4c5d6e", False),
        ("vm:4711:9A4F6B84", False),
        ("vm:4711:9a4f6b8", False),
        (":4711:9a4f6b84", False),
        ("vm::9a4f6b84", False),
        ("", False),
    ],
)
def test_a_holder_of_ours_is_known_by_its_name(holder: str, ours: bool) -> None:
    assert release.is_one_of_ours(holder) is ours


def test_a_stranger_s_backend_without_a_control_can_not_be_steered() -> None:
    stranger: Any = object()
    with pytest.raises(Refused, match="knows neither pause nor release") as refused:
        steering.check_steerable(stranger)
    assert refused.value.status == UNUSABLE


def test_who_steers_is_a_user_at_a_host() -> None:
    assert re.fullmatch(r"[^@\n]+@[^@\n]+", steering.ourselves())


def test_what_others_have_written_rewrites_no_terminal() -> None:
    told = steering.holder(Held("vm:1:\x1b[2J", host="h\n", since=0.0))
    assert told == "vm:1:\\x1b[2J on h\\n since 1970-01-01T00:00:00Z"
    pause = control.paused(None, by="a\x1b@b", at=1.0, until=60.0, reason="x\ny")["pause"]
    said = steering.paused(pause)
    assert said == "since 1970-01-01T00:00:01Z by a\\x1b@b until 1970-01-01T00:01:00Z (x\\ny)"


def test_a_pause_that_stands_for_a_damaged_control_has_no_time() -> None:
    said = steering.paused(control.parsed("{broken")["pause"])
    assert said == "since nobody knows when (its control object can't be read)"
