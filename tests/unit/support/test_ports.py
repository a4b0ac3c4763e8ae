"""A port that a test is given is nobody else's, also while nobody listens on it."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.support import ports


def test_no_two_ports_are_the_same() -> None:
    assert len(set(ports.free_ports(20))) == 20


def test_a_port_that_was_given_is_not_given_again() -> None:
    assert not ports.reserve(ports.free_port())


def test_a_port_on_which_somebody_listens_is_not_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not ports.reserve(server.getsockname()[1])


def test_no_connection_is_given_such_a_port_by_the_kernel() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert first <= 11_000 or not first <= ports.free_port() <= last
