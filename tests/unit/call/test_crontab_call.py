"""A plain call of `crontab` is read without click, and as click reads it."""

from __future__ import annotations

import click
import pytest

from singleton_run.call import crontab_call
from singleton_run.call.click_parser import _program
from singleton_run.call.options import joint
from singleton_run.call.subcommands import Subcommand

CALLS = (
    "crontab",
    "one two --lock etcd",
    "--lock=etcd one --output json -v",
    "one -vv --watch --system --check",
    "one --rewrite-signal TERM:INT --rewrite-signal HUP:0 --reboot-once v1",
    "one --on started=a,b --on=failed=c",
    "one --plan 3 -q",
    "one --timeout 5m two --lock-at-most-for 6m",
)


@pytest.mark.parametrize("call", CALLS)
def test_both_readers_read_the_same(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def run(self: Subcommand, given: dict[str, object], environ: object) -> None:
        seen.update(given)

    monkeypatch.setattr(Subcommand, "run", run)
    program = _program()
    with program.make_context("singleton-run", ["crontab"], obj={}) as context:
        command = program.get_command(context, "crontab")
        assert isinstance(command, click.Command)
        with command.make_context("crontab", call.split(), parent=context) as inner:
            command.invoke(inner)
    by_click = {
        name: joint(name).join(value) if isinstance(value, tuple) and name != "files" else value
        for name, value in seen.items()
        if value not in (None, False, 0, ())
    }
    assert crontab_call.read(call.split()) == by_click


@pytest.mark.parametrize("call", ["", "--help", "one --nonsense", "one --lock", "one -- true", "-"])
def test_any_other_call_is_click_s(call: str) -> None:
    assert crontab_call.read(call.split()) is None
