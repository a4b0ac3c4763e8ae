"""A real Prometheus that scrapes what a test names.

The program is that of the variable PROMETHEUS_BIN (a folder, or a path to `prometheus`; `promtool` lies
beside it), else on PATH. Debian's package `prometheus` has both.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.parse
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.process import Process
from tests.support.harness import LIMIT, until
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ADVICE = "needs prometheus and promtool: apt-get install prometheus, or name their folder in PROMETHEUS_BIN"


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`. Skips the test without one."""
    given = os.environ.get("PROMETHEUS_BIN", "")
    folder = given if not given or Path(given).is_dir() else os.path.dirname(given)
    found = shutil.which(name, path=folder or None)
    if found is None:
        pytest.skip(ADVICE)
    return found


class Prometheus(Process):
    """One server, which scrapes `targets` (HOST:PORT) every 200 ms."""

    def __init__(self, folder: Path, targets: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.address = f"127.0.0.1:{free_port()}"
        settings = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
            "scrape_configs": [{"job_name": "singleton-run", "static_configs": [{"targets": list(targets)}]}],
        }
        config = folder / "prometheus.yml"
        config.write_text(json.dumps(settings))  # which is YAML too
        command = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
        super().__init__([*command, f"--web.listen-address={self.address}"], folder / "log")

    def start(self) -> Prometheus:
        """Start it, and wait until it serves."""
        self.begin()
        until(self._serves, f"prometheus serves at {self.address}; see {self._log}")
        return self

    def _serves(self) -> bool:
        self.check()
        with suppress(OSError):
            return self._get("/-/ready") != b""
        return False

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=LIMIT) as answer:
            data: bytes = answer.read()
            return data

    def ask(self, query: str) -> dict[str, float]:
        """The values of a query, each by the label `instance`; '' without one."""
        told: Any = json.loads(self._get(f"/api/v1/query?query={urllib.parse.quote(query)}"))
        assert told["status"] == "success", told
        return {one["metric"].get("instance", ""): float(one["value"][1]) for one in told["data"]["result"]}

    def value(self, query: str) -> float | None:
        """The one value of a query; None if it has none."""
        values = list(self.ask(query).values())
        assert len(values) < 2, values
        return values[0] if values else None


@contextmanager
def running(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """A server that scrapes these, and its end."""
    server = Prometheus(folder, targets).start()
    try:
        yield server
    finally:
        server.kill()
