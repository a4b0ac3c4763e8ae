"""`singleton-run --lock redis://…` hands on what it has, and wakes nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from singleton_run_redis.scripts import keys_of
from tests.support.harness import LONG, Lab, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis.client import PubSub

    from tests.servers.redis import Server

WAITERS = 8


@pytest.fixture
def lab(redis_server: Server, tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        lab.lock = redis_server.url
        yield lab


def test_each_hand_over_wakes_one_waiter_in_their_order(redis_server: Server, lab: Lab) -> None:
    queue, places = keys_of(lab.name)[4:6]
    with redis_server.client() as client, client.pubsub() as channel:
        runs = [lab.start("--ttl", LONG, command=lab.long_job())]
        lab.ready()
        for number in range(WAITERS):
            runs.append(lab.start("--ttl", LONG, command=lab.job()))
            until(lambda: listening(client.hvals(places)) == number + 1, "the waiter to listen")  # noqa: B023 - at once
        waiters = client.zrange(queue, 0, -1)
        channel.psubscribe(f"singleton-run:{{{lab.name}}}:wake*")
        until(lambda: channel.get_message(timeout=1.0), "somebody to hear all of them")
        lab.finish()
        assert [run.wait() for run in runs] == [0] * len(runs)
        assert said(channel) == [f"singleton-run:{{{lab.name}}}:wake:{waiter}" for waiter in waiters]
    lab.evidence.check(len(runs))


def listening(places: list[str]) -> int:
    """How many waiters have said that they listen."""
    return sum(place.endswith(" l") for place in places)


def said(channel: PubSub) -> list[str]:
    """Where something was said, up to now."""
    found = []
    while (message := channel.get_message(timeout=1.0)) is not None:
        found.append(message["channel"])
    return found
