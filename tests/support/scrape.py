"""Asks the endpoints of --metrics-addr, and reads series."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.harness import LIMIT

Labels = dict[str, str]


class _Unix(http.client.HTTPConnection):
    """A connection to the socket at a path."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=LIMIT)
        self._path = path

    def connect(self) -> None:
        """Connect to it."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT)
        self.sock.connect(self._path)


def get(address: str, path: str, method: str = "GET") -> tuple[int, str]:
    """The status and the body of an answer, once somebody listens at HOST:PORT or unix:PATH."""
    end = time.monotonic() + LIMIT
    while True:
        try:
            return _get(address, path, method)
        except (ConnectionError, FileNotFoundError):
            assert time.monotonic() < end, f"nobody answers at {address}"
            time.sleep(0.005)


def _get(address: str, path: str, method: str) -> tuple[int, str]:
    made = (
        _Unix(address[5:])
        if address.startswith("unix:")
        else http.client.HTTPConnection(address, timeout=LIMIT)
    )
    try:
        made.request(method, path)
        answer = made.getresponse()
        return answer.status, answer.read().decode()
    finally:
        made.close()


def leader(address: str) -> tuple[int, dict[str, Any]]:
    """What /leader says."""
    status, body = get(address, "/leader")
    told: dict[str, Any] = json.loads(body)
    return status, told


class Scrape:
    """The series of one scrape, or of a file."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, series: str, **labels: str) -> float | None:
        """The value of `singleton_run_SERIES` with these labels; None without one.

        If `name`, the lock's, is not among them, the first lock's counts.
        """
        for sample in self.samples:
            own = {
                label: value for label, value in sample.labels.items() if label in labels or label != "name"
            }
            if sample.name == f"singleton_run_{series}" and own == labels:
                return float(sample.value)
        return None

    def count(self, series: str, **labels: str) -> float:
        """The same, 0 without one."""
        return self.value(series, **labels) or 0.0


def scrape(address: str) -> Scrape:
    """The series at /metrics."""
    status, text = get(address, "/metrics")
    assert status == 200
    return Scrape(text)
