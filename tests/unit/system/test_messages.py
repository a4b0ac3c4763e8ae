"""Whoever receives a message has a method for it, with its fields; one that nobody knows is not lost."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import singleton_run
from singleton_run.front.adopted_guard import AdoptedGuard
from singleton_run.front.hearing import GuardHeard, KeeperHeard
from singleton_run.guard.process import _Process
from singleton_run.keeper.operations import Orders
from singleton_run.system import messages
from singleton_run.system.messages import GuardOrders, GuardTells, KeeperOrders, KeeperTells, Proof, deliver

CORE = Path(singleton_run.__file__).parent
RECEIVERS = [
    (GuardOrders, _Process),
    (GuardOrders, AdoptedGuard),
    (GuardTells, GuardHeard),
    (KeeperOrders, Orders),
    (KeeperTells, KeeperHeard),
]


def names(direction: type) -> list[str]:
    """The messages of a direction."""
    return [name for name in vars(direction) if not name.startswith("_")]


@pytest.mark.parametrize(("direction", "receiver"), RECEIVERS, ids=lambda kind: kind.__name__)
def test_a_receiver_has_a_method_with_the_fields_of_each_message(direction: type, receiver: type) -> None:
    for name in names(direction):
        made = inspect.signature(getattr(direction, name)).parameters
        received = list(inspect.signature(getattr(receiver, name)).parameters)[1:]
        assert list(made) == received, name
    assert callable(vars(receiver)["unknown"])


@pytest.mark.parametrize("direction", messages.DIRECTIONS, ids=lambda kind: kind.__name__)
def test_a_message_begins_with_its_name_and_has_all_of_its_fields(direction: type) -> None:
    for name in names(direction):
        make = getattr(direction, name)
        fields = {field: object() for field in inspect.signature(make).parameters}
        assert make(**fields) == (name, *fields.values())


def test_every_direction_is_known_and_received() -> None:
    classes = {value for value in vars(messages).values() if isinstance(value, type)}
    assert classes == set(messages.DIRECTIONS)
    assert {direction for direction, _ in RECEIVERS} | {Proof} == classes


def test_no_message_is_sent_but_by_its_name_in_the_one_module() -> None:
    """A tuple or list that begins with a text would be one."""
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="send" | "tell" | "tell_guard"),
                    args=[ast.Constant() | ast.Tuple() | ast.List(), *_],
                ):
                    raise AssertionError(f"{path}:{node.lineno}")


class Deaf:
    """Knows no message."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def unknown(self, name: str) -> None:
        self.told.append(name)


def test_an_unknown_message_is_told_with_its_name() -> None:
    deaf = Deaf()
    deliver(["brand new", 1, 2], GuardTells, deaf)
    deliver(["__init__"], GuardTells, deaf)
    assert deaf.told == ["brand new", "__init__"]
