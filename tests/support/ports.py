"""Ports of 127.0.0.1 for the tests' servers, which no other test, worker or connection takes meanwhile."""

from __future__ import annotations

import random
import socket
from pathlib import Path

# Below those that the kernel gives to outgoing connections, where it leaves any.
_FIRST, _USUAL_END = 10_000, 32_768
_KERNELS = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
_PORTS = range(_FIRST, _KERNELS if _KERNELS > _FIRST + 1000 else _USUAL_END)
_reserved: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """So many different ports on which nobody listens. They stay this process's own until it ends."""
    return [free_port() for _ in range(count)]


def free_port() -> int:
    """A port on which nobody listens. It stays this process's own until it ends, in use or not.

    A port that is only found free is lost when its server restarts: a connection of anybody's may get it.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        if reserve(port):
            return port
    raise AssertionError("every port is in use")


def reserve(port: int) -> bool:
    """Whether the port is now ours: nobody listens on it, and no other test has reserved it.

    What reserves it is an abstract socket with the port in its name. The kernel removes it with its process.
    """
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0singleton-run-tests-port-{port}")
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        name.close()
        return False
    _reserved.append(name)
    return True
